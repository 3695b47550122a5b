//! A text with its escapes, encodings and inserted blanks undone. Each byte remembers where it came from.

use std::ops::Range;

use zeroize::Zeroizing;

use crate::foreign::is_printable;

/// How many nested escapes are undone.
const LAYERS: usize = 4;

/// The shortest secret takes so many digits in base64.
const LEAST_ENCODED: usize = 8;

/// Bytes, each with the range of original bytes that it stands for.
pub(super) struct View {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    spans: Vec<(u32, u32)>,
}

impl View {
    fn with_capacity(capacity: usize) -> Self {
        View { bytes: Zeroizing::new(Vec::with_capacity(capacity)), spans: Vec::with_capacity(capacity) }
    }

    /// The unchanged text.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut view = View::with_capacity(text.len());
        for (byte, at) in text.iter().zip(0_u32..) {
            view.push(*byte, (at, at + 1));
        }
        view
    }

    fn push(&mut self, byte: u8, span: (u32, u32)) {
        self.bytes.push(byte);
        self.spans.push(span);
    }

    fn span(&self, range: Range<usize>) -> (u32, u32) {
        let all = &self.spans[range];
        (all.first().map_or(0, |span| span.0), all.last().map_or(0, |span| span.1))
    }

    /// Maps a range to the original.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        let (start, end) = self.span(range);
        start as usize..end as usize
    }

    /// Whether a letter or digit touches it on either side.
    pub(super) fn is_within_a_word(&self, range: &Range<usize>) -> bool {
        let joins = |left: usize, right: usize, other: usize| {
            let touch = self.spans.get(left).zip(self.spans.get(right)).is_some_and(|(left, right)| left.1 == right.0);
            touch && self.bytes.get(other).is_some_and(u8::is_ascii_alphanumeric)
        };
        let before = range.start.checked_sub(1).is_some_and(|before| joins(before, range.start, before));
        before || joins(range.end.saturating_sub(1), range.end, range.end)
    }

    /// Without escapes (percent, JSON, HTML), blanks, and invisible characters.
    pub(super) fn unescaped(&self) -> Self {
        let mut view = self.without_one_layer();
        for _ in 1..LAYERS {
            if view.bytes.iter().all(|byte| stands_for_itself(*byte)) {
                break;
            }
            let next = view.without_one_layer();
            if next.bytes.len() == view.bytes.len() {
                break;
            }
            view = next;
        }
        view
    }

    fn without_one_layer(&self) -> Self {
        let mut view = View::with_capacity(self.bytes.len());
        let mut at = 0;
        while at < self.bytes.len() {
            let plain = at..at + self.bytes[at..].iter().take_while(|byte| stands_for_itself(**byte)).count();
            view.bytes.extend_from_slice(&self.bytes[plain.clone()]);
            view.spans.extend_from_slice(&self.spans[plain.clone()]);
            at = plain.end;
            let rest = &self.bytes[at..];
            if rest.is_empty() {
                break;
            }
            let (character, length) = escape(rest).unwrap_or_else(|| character(rest));
            let span = self.span(at..at + length);
            match character {
                Unit::Byte(byte) if byte.is_ascii_whitespace() || byte.is_ascii_control() => {}
                Unit::Byte(byte) => view.push(byte, span),
                Unit::Char(c) if c.is_whitespace() || !is_printable(c) => {}
                Unit::Char(c) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| view.push(byte, span)),
            }
            at += length;
        }
        view
    }

    /// ASCII in lower case. `loose` keeps only the letters and digits of it, since a secret may be split by separators.
    pub(super) fn folded(&self, loose: bool) -> Self {
        let mut view = View::with_capacity(self.bytes.len());
        for (byte, span) in self.bytes.iter().zip(&self.spans) {
            // Form encoding writes a blank as `+`, and blanks are dropped.
            let stays = if loose { byte.is_ascii_alphanumeric() || !byte.is_ascii() } else { *byte != b'+' };
            if stays {
                view.push(byte.to_ascii_lowercase(), *span);
            }
        }
        view
    }

    /// Whether there are so many digits in a row as hardly ever come by chance, where something was decoded that is no text.
    pub(super) fn may_be_encoded(&self) -> bool {
        let mut run = 0;
        self.bytes.iter().any(|byte| {
            run = if base64_digit(*byte).is_some() { run + 1 } else { 0 };
            run >= LEAST_ENCODED
        })
    }

    /// Decodes the runs of base64 digits, of either alphabet; groups of four begin after `skip` digits.
    pub(super) fn of_base64(&self, skip: usize) -> Self {
        self.decoded(skip, 4, base64_digit, |digits| {
            let value = digits.iter().fold(0_u32, |value, digit| value << 6 | u32::from(*digit));
            // The last group of a run may have two or three digits.
            let value = value << (6 * (4 - digits.len()));
            let [_, bytes @ ..] = value.to_be_bytes();
            (bytes, digits.len().saturating_sub(1))
        })
    }

    /// Decodes the runs of hexadecimal digits; pairs begin after `skip` digits.
    pub(super) fn of_hex(&self, skip: usize) -> Self {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        self.decoded(skip, 2, digit, |digits| match digits {
            [high, low] => ([high << 4 | low, 0, 0], 1),
            _ => ([0; 3], 0),
        })
    }

    /// `bytes_of` a group says how many of its bytes count.
    fn decoded(
        &self,
        skip: usize,
        group: usize,
        digit: impl Fn(u8) -> Option<u8>,
        bytes_of: impl Fn(&[u8]) -> ([u8; 3], usize),
    ) -> Self {
        let mut view = View::with_capacity(self.bytes.len());
        let mut digits = Vec::with_capacity(group);
        let mut start = 0;
        let mut skipped = 0;
        let mut flush = |digits: &mut Vec<u8>, start: usize| {
            let span = self.span(start..start + digits.len());
            let (bytes, count) = bytes_of(digits);
            bytes.iter().take(count).for_each(|byte| view.push(*byte, span));
            digits.clear();
        };
        for (at, byte) in self.bytes.iter().enumerate() {
            match digit(*byte) {
                Some(_) if skipped < skip => skipped += 1,
                Some(value) => {
                    if digits.is_empty() {
                        start = at;
                    }
                    digits.push(value);
                    if digits.len() == group {
                        flush(&mut digits, start);
                    }
                }
                None => {
                    flush(&mut digits, start);
                    skipped = 0;
                }
            }
        }
        flush(&mut digits, start);
        view
    }
}

enum Unit {
    Byte(u8),
    Char(char),
}

/// Whether a byte is neither a blank nor a part of an escape or of a longer character.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'&')
}

/// The first character, or the first byte where the bytes are not text.
fn character(bytes: &[u8]) -> (Unit, usize) {
    let length = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    let decoded = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match decoded.and_then(|text| text.chars().next()) {
        Some(c) if !c.is_ascii() => (Unit::Char(c), length),
        _ => (Unit::Byte(bytes.first().copied().unwrap_or_default()), 1),
    }
}

/// The escape at the beginning of the bytes, and its length.
fn escape(bytes: &[u8]) -> Option<(Unit, usize)> {
    match bytes {
        [b'%', high, low, ..] => Some((Unit::Byte(byte_of(*high, *low)?), 3)),
        [b'\\', b'x', high, low, ..] => Some((Unit::Byte(byte_of(*high, *low)?), 4)),
        [b'\\', b'u', b'{', rest @ ..] => braced(rest, b'}').map(|(unit, length)| (unit, length + 3)),
        [b'\\', b'u', rest @ ..] => Some((unit(number(rest.get(..4)?, 16)?)?, 6)),
        [b'\\', b'U', rest @ ..] => Some((unit(number(rest.get(..8)?, 16)?)?, 10)),
        [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] => {
            Some((Unit::Byte(u8::try_from(number(&[*high, *middle, *low], 8)?).ok()?), 4))
        }
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'0', ..] => Some((Unit::Byte(b' '), 2)),
        [b'\\', byte @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((Unit::Byte(*byte), 2)),
        [b'&', b'#', b'x' | b'X', rest @ ..] => braced(rest, b';').map(|(unit, length)| (unit, length + 3)),
        [b'&', b'#', rest @ ..] => {
            let length = rest.iter().take(8).position(|byte| *byte == b';')?;
            Some((unit(number(&rest[..length], 10)?)?, length + 3))
        }
        [b'&', rest @ ..] => [("amp;", b'&'), ("lt;", b'<'), ("gt;", b'>'), ("quot;", b'"'), ("apos;", b'\'')]
            .into_iter()
            .find(|(name, _)| rest.starts_with(name.as_bytes()))
            .map(|(name, byte)| (Unit::Byte(byte), name.len() + 1)),
        _ => None,
    }
}

fn braced(bytes: &[u8], end: u8) -> Option<(Unit, usize)> {
    let length = bytes.iter().take(9).position(|byte| *byte == end)?;
    Some((unit(number(&bytes[..length], 16)?)?, length + 1))
}

fn byte_of(high: u8, low: u8) -> Option<u8> {
    u8::try_from(number(&[high, low], 16)?).ok()
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix);
    (!digits.is_empty()).then_some(())?;
    digits.iter().try_fold(0_u32, |value, byte| value.checked_mul(radix)?.checked_add(digit(byte)?))
}

fn unit(number: u32) -> Option<Unit> {
    Some(match u8::try_from(number) {
        Ok(byte) if byte.is_ascii() => Unit::Byte(byte),
        _ => Unit::Char(char::from_u32(number)?),
    })
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str) -> String {
        String::from_utf8_lossy(&View::of(text.as_bytes()).unescaped().bytes).into_owned()
    }

    #[test]
    fn escapes_of_every_kind_are_undone_also_within_each_other() {
        for (text, plain) in [
            ("a%2Bb%2fc", "a+b/c"),
            ("a%252Bb", "a+b"),
            ("a\\u0041\\x42\\u{43}\\U00000044\\/\\\"", "aABCD/\""),
            ("&lt;&#65;&#x42;&quot;", "<AB\""),
            ("a b\r\nc\\nd\u{200b}e", "abcde"),
            ("100% &c; \\q \\u12", "100%&c;\\q\\u12"),
            ("%C3%A4ä", "ää"),
        ] {
            assert_eq!(unescaped(text), plain, "{text}");
        }
    }

    #[test]
    fn every_byte_knows_where_it_came_from() {
        let view = View::of(b"x %41bc").unescaped();
        assert_eq!(&**view.bytes, b"xAbc");
        assert_eq!(view.original(1..2), 2..5);
        assert_eq!(view.original(0..4), 0..7);
        let view = View::of(b"QUJDRA==.").of_base64(0);
        assert_eq!(&**view.bytes, b"ABCD");
        assert_eq!(view.original(3..4), 4..6);
        assert_eq!(&**View::of(b"x4142").of_hex(0).bytes, b"AB");
        assert_eq!(&**View::of(b"04142").of_hex(1).bytes, b"AB");
    }
}
