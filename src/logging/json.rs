//! JSON that is printable and holds no secret of this process, for output and for the record.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use zeroize::Zeroizing;

use crate::foreign::{self, secrets};
use crate::os::wiped;

/// A value on one line. Unprintable characters are escaped, so that a JSON reader gets them unchanged. Secrets are removed from
/// its strings, but not from its keys.
///
/// # Errors
/// The value cannot be written as JSON.
pub(crate) fn line(value: &impl Serialize) -> serde_json::Result<String> {
    text(value, true).map(|mut text| std::mem::take(&mut *text))
}

/// The same with its secrets, for a user who asked for one.
///
/// # Errors
/// As [`line()`].
pub(crate) fn line_with_secrets(value: &impl Serialize) -> serde_json::Result<Zeroizing<String>> {
    text(value, false)
}

fn text(value: &impl Serialize, is_clean: bool) -> serde_json::Result<Zeroizing<String>> {
    let mut text = Text(Zeroizing::new(Vec::with_capacity(4_096)));
    let printable = Printable { is_clean, is_key: false, string: Zeroizing::new(String::new()) };
    value.serialize(&mut Serializer::with_formatter(&mut text, printable))?;
    let text = String::from_utf8(std::mem::take(&mut *text.0));
    text.map(Zeroizing::new).map_err(|error| serde_json::Error::io(io::Error::other(error)))
}

/// What was written so far.
struct Text(Zeroizing<Vec<u8>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        wiped::append(&mut self.0, bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects each string before writing it.
struct Printable {
    is_clean: bool,
    is_key: bool,
    string: Zeroizing<String>,
}

impl Printable {
    fn write_string(&mut self, writer: &mut (impl io::Write + ?Sized)) -> io::Result<()> {
        let whole = secrets::MASK.len().max(self.string.len());
        let mut shown = Zeroizing::new(String::with_capacity(whole + 2));
        let string =
            if self.is_clean && !self.is_key { secrets::removed(&self.string) } else { (&**self.string).into() };
        for c in string.chars() {
            match c {
                '"' => shown.push_str("\\\""),
                '\\' => shown.push_str("\\\\"),
                c if foreign::is_printable(c) => shown.push(c),
                // JSON has no longer escapes.
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}"))),
            }
        }
        write!(writer, "\"{}\"", *shown)
    }
}

impl Formatter for Printable {
    fn begin_string<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.string.clear();
        Ok(())
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, _: &mut W, fragment: &str) -> io::Result<()> {
        self.string.push_str(fragment);
        Ok(())
    }

    fn write_char_escape<W: io::Write + ?Sized>(&mut self, _: &mut W, escape: CharEscape) -> io::Result<()> {
        self.string.push(match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            CharEscape::Solidus => '/',
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        });
        Ok(())
    }

    fn end_string<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.write_string(writer)
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.is_key = true;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.is_key = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_printable_and_means_the_same() {
        let value = json!({
            "a\n\"\\": ["x\u{1b}\u{9b}\u{202e}\u{2028}\u{7f}\u{e0041}", "Grüße \\ \" / \t", 1.5, true, null],
            "b": {"c": {}, "d": []},
        });
        let text = line(&value).unwrap();
        assert!(text.chars().all(foreign::is_printable), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_secret_is_removed_unless_it_was_asked_for() {
        let secret = "a-marked-\"secret\"-of-the-json-writer";
        secrets::keep(&SecretString::from(secret));
        let value = json!({"token": secret});
        assert_eq!(line(&value).unwrap(), r#"{"token":"********"}"#);
        assert_eq!(serde_json::from_str::<Value>(&line_with_secrets(&value).unwrap()).unwrap(), value);
    }
}
