//! Files and listings for other programs. Each is made by the serializer or escaper of its format, is read back, and is handed
//! out only if a reader finds in it what was meant. What a format cannot express is refused before.

use crate::failure::{Code, Failure};

/// Whether a text can stand in one line of any format: no line break, no other control character, nothing invisible.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(is_hidden)
}

/// A text on one line for a person to read, what is hidden escaped as Rust does it: `\n`, `\u{1b}`.
pub(crate) fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Control characters, line and paragraph separators, and what changes the order of others or is not seen at all.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether a reader of the format finds in a text exactly what was meant.
///
/// # Errors
/// Permanent: it does not, so that the text is not to be used.
pub(crate) fn read_back<T: PartialEq>(what: &str, meant: &T, found: Option<&T>) -> Result<(), Failure> {
    if found == Some(meant) {
        return Ok(());
    }
    let message = format!("{what} would not say what was meant, so it was not written");
    Err(Failure::permanent(Code::Unavailable, message).hint("please report it with the names that stand in it"))
}

/// A path that a format can carry: text without anything hidden and without these characters.
///
/// # Errors
/// Permanent: what it is for, and why it cannot.
pub(crate) fn expressible<'p>(what: &str, path: &'p std::path::Path, but: &[char]) -> Result<&'p str, Failure> {
    let text = path.to_str().filter(|text| is_plain(text) && !text.contains(but));
    text.ok_or_else(|| {
        let message = format!("{} cannot stand in {what}", on_one_line(&path.to_string_lossy()));
        Failure::permanent(Code::Configuration, message).hint(
            "move it to a path of letters, digits, blanks and the like, or let a link with such a path lead to it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_shown_and_what_is_not_stays() {
        assert_eq!(on_one_line("a\"b\\c é 日本"), "a\"b\\c é 日本");
        assert_eq!(on_one_line("a\nb\u{1b}[2J\u{7f}\u{85}"), "a\\nb\\u{1b}[2J\\u{7f}\\u{85}");
        for c in ['\u{2028}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\r', '\0'] {
            assert!(!is_plain(&format!("a{c}b")) && on_one_line(&c.to_string()).starts_with('\\'), "{c:?}");
        }
    }
}
