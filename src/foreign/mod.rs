//! Text that others wrote (servers, files, programs, the environment), made fit to be shown: one line of printable characters,
//! without the secrets of this process.
//!
//! Every sink passes its text through here. Doing it twice changes nothing, so a text may be cleaned both where it comes in and
//! where it goes out. Unprintable characters are written as JSON and TOML escape them, so that strings of these formats keep
//! their meaning.

mod addresses;
mod quote;
pub(crate) mod secrets;

use std::borrow::Cow;
use std::fmt::Write as _;

pub(crate) use quote::{could_be_secret, quoted};

/// The longest line that a sink gets, in characters: a few screens full.
const LONGEST_LINE: usize = 4_000;

/// The text on one line, shortened where it is too long for a reader.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    shortened(escaped(secrets::removed(beginning(text)), is_printable))
}

/// The same during a panic. Returns none instead of waiting for the secrets, since the thread that panics may hold their
/// lock.
pub(crate) fn line_of_a_panic(text: &str) -> Option<String> {
    Some(shortened(escaped(secrets::try_removed(beginning(text))?, is_printable)).into_owned())
}

/// The same for our own text of several lines: line breaks and tabs stay. Foreign parts must have gone through [`line()`].
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(secrets::removed(text), |c| matches!(c, '\n' | '\t') || is_printable(c))
}

/// Whether it can be shown as it is. Not so if it is invisible or changes how its neighbours are shown.
pub(crate) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Spaces of other widths.
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => true,
        // Letters and marks by category, but invisible.
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => false,
        '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}' => false,
        c => has_a_shape(c),
    }
}

/// Asks the standard library's table: false for control and format characters, separators, unassigned and private ones. An
/// accent counts only after a letter.
fn has_a_shape(c: char) -> bool {
    let mut pair = ['a', c].iter().collect::<String>();
    let length = pair.len();
    pair = pair.escape_debug().collect();
    pair.len() == length
}

/// Appends `c` as JSON and TOML escape unprintable characters.
pub(crate) fn push_escaped(text: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match c {
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        c if u32::from(c) > 0xffff => write!(text, "\\U{:08x}", u32::from(c)),
        c => write!(text, "\\u{:04x}", u32::from(c)),
    };
}

fn escaped(text: Cow<'_, str>, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if stays(c) { shown.push(c) } else { push_escaped(&mut shown, c) }
    }
    Cow::Owned(shown)
}

/// More than is ever shown, so that an endless text costs no more than this.
pub(crate) fn beginning(text: &str) -> &str {
    &text[..boundary_before(text, 8 * LONGEST_LINE)]
}

/// The last character boundary at or before `index`.
pub(super) fn boundary_before(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

fn shortened(text: Cow<'_, str>) -> Cow<'_, str> {
    // A character has at least one byte, so this needs no count.
    if text.len() <= LONGEST_LINE {
        return text;
    }
    match text.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) if !text[end..].starts_with("...") || text.len() > end + 3 => {
            Cow::Owned(format!("{}...", &text[..end]))
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_shown_is_escaped_and_the_rest_stays() {
        for (text, shown) in [
            ("plain: a \"b\" 'c' \\d", "plain: a \"b\" 'c' \\d"),
            ("Grüße, 日本, naïve, 🙂", "Grüße, 日本, naïve, 🙂"),
            ("an accent of its own: e\u{301}", "an accent of its own: e\u{301}"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31mred\u{9b}0m\u{7f}\0", "\\u001b[31mred\\u009b0m\\u007f\\u0000"),
            ("line\u{2028}paragraph\u{2029}next\u{85}", "line\\u2028paragraph\\u2029next\\u0085"),
            ("\u{202e}txt.exe\u{2066}\u{2069}\u{200f}\u{61c}", "\\u202etxt.exe\\u2066\\u2069\\u200f\\u061c"),
            ("\u{200b}\u{200d}\u{feff}\u{ad}\u{2060}\u{fe0f}", "\\u200b\\u200d\\ufeff\\u00ad\\u2060\\ufe0f"),
            ("\u{3164}\u{e0041}\u{fff9}\u{e000}", "\\u3164\\U000e0041\\ufff9\\ue000"),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(line(shown), shown, "once more changes nothing");
        }
    }

    #[test]
    fn lines_of_ours_stay_lines() {
        assert_eq!(lines("a\n\tb\r\n\u{1b}"), "a\n\tb\\r\n\\u001b");
    }

    #[test]
    fn an_endless_line_ends() {
        let shown = line(&"ä".repeat(20_000)).into_owned();
        assert_eq!(shown.chars().count(), LONGEST_LINE + 3);
        assert_eq!(line(&shown), shown);
    }
}
