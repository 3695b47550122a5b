//! What a terminal shows: how wide it is, what it can show, and text that is made for it.

use std::io::{IsTerminal, stdout};

use rustix::termios::tcgetwinsize;

use crate::foreign;
use crate::os::dirs::Environment;

/// The size of a terminal that does not tell its own.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// A terminal's, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Where text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Screen {
    /// None where it is no terminal: then nothing is shortened.
    pub(super) size: Option<Size>,
    has_colour: bool,
    has_blocks: bool,
}

impl Screen {
    /// A file or a pipe.
    pub(super) const NONE: Screen = Screen { size: None, has_colour: false, has_blocks: false };

    /// Where standard output goes.
    pub(super) fn of_stdout(environment: &Environment) -> Self {
        if !stdout().is_terminal() {
            return Screen::NONE;
        }
        let told = tcgetwinsize(stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let size = told.map_or(USUAL, |size| Size { columns: size.ws_col.into(), rows: size.ws_row.into() });
        let is_capable = can_move(environment);
        Screen {
            size: Some(size),
            // https://no-color.org
            has_colour: is_capable && environment.get_os("NO_COLOR").is_none(),
            has_blocks: is_capable && is_utf8(environment),
        }
    }

    /// How much of something is left, in `length` characters; a little of it is never shown as nothing.
    pub(super) fn bar(&self, left: f64, length: u8) -> String {
        let (full, empty) = if self.has_blocks { ("█", "░") } else { ("#", "-") };
        let count = (left.clamp(0.0, 1.0) * f64::from(length)).ceil();
        (0..length).map(|at| if f64::from(at) < count { full } else { empty }).collect()
    }

    /// These lines for this screen, without secrets and invisible characters. Foreign parts must be one line each.
    pub(super) fn text(&self, lines: &[Line]) -> String {
        lines.iter().map(|line| self.line(line) + "\n").collect()
    }

    /// The same for one line, without its end.
    pub(super) fn line(&self, line: &Line) -> String {
        let end = line.0.iter().rposition(|(_, text)| !text.trim_end().is_empty()).map_or(0, |last| last + 1);
        let mut shown = String::new();
        for (index, (style, text)) in line.0[..end].iter().enumerate() {
            let text = foreign::lines(if index + 1 == end { text.trim_end() } else { text });
            match style.code().filter(|_| self.has_colour) {
                Some(code) => shown.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                None => shown.push_str(&text),
            }
        }
        shown
    }
}

/// Whether the terminal understands more than lines.
pub(super) fn can_move(environment: &Environment) -> bool {
    environment.get("TERM").is_some_and(|kind| kind != "dumb")
}

/// Whether the locale's characters are those of UTF-8 (locale(7)).
fn is_utf8(environment: &Environment) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.get(name));
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// How a part of a line is shown where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Heading,
    Well,
    Soon,
    Dead,
}

impl Style {
    /// The parameter of the sequence SGR (ECMA-48).
    fn code(self) -> Option<&'static str> {
        match self {
            Style::Plain => None,
            Style::Heading => Some("1"),
            Style::Well => Some("32"),
            Style::Soon => Some("33"),
            Style::Dead => Some("31"),
        }
    }
}

/// One line, in parts of different styles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<(Style, String)>);

impl Line {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Line(vec![(Style::Plain, text.into())])
    }

    /// As much of it as fits.
    pub(super) fn cut(self, columns: usize) -> Self {
        let mut left = columns;
        let mut parts = Vec::new();
        for (style, text) in self.0 {
            let part = shortened(&text, left);
            left -= width(&part);
            parts.push((style, part));
        }
        Line(parts)
    }
}

/// A line of prose in lines that fit, broken at blanks where there are any, each as far to the right as the first.
pub(super) fn folded(text: &str, columns: usize) -> Vec<Line> {
    let words = text.trim_start();
    let indent = (text.len() - words.len()).min(columns / 2);
    // Nothing is narrower than its widest character.
    let columns = (columns - indent).max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words.split(' ') {
        let mut rest = word;
        while !line.is_empty() && width(&line) + 1 + width(rest) > columns || width(rest) > columns {
            // A word that is longer than a line is broken.
            let part = if line.is_empty() { beginning(rest, columns) } else { "" };
            rest = &rest[part.len()..];
            lines.push(std::mem::take(&mut line) + part);
        }
        line = if line.is_empty() { rest.to_owned() } else { format!("{line} {rest}") };
    }
    lines.push(line);
    lines.into_iter().map(|line| Line::plain(" ".repeat(indent) + &line)).collect()
}

/// A text that fits into so many columns, with a mark where something is left out.
pub(super) fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    const MARK: &str = "...";
    if columns <= MARK.len() {
        return beginning(text, columns).to_owned();
    }
    format!("{}{MARK}", beginning(text, columns - MARK.len()))
}

/// A text with blanks up to this width.
pub(super) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

fn beginning(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += width_of(*c);
        taken > columns
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// How many columns a text of printable characters takes in a terminal.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(width_of).sum() }
}

/// Wide are the East Asian scripts and pictures (Unicode's UAX 11), none have the marks that stand above or below another
/// character. A script with other marks only makes a column too wide.
fn width_of(c: char) -> usize {
    match u32::from(c) {
        0..0x300 => 1,
        0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x64b..=0x65f | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff => 0,
        0x20d0..=0x20ff | 0xfe20..=0xfe2f | 0x200b..=0x200f => 0,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xa960..=0xa97c | 0xac00..=0xd7a3 => 2,
        0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f => 2,
        0x1f680..=0x1f6ff | 0x1f900..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_empty_only_where_nothing_is_left() {
        for (left, shown) in
            [(-1.0, "----"), (0.0, "----"), (0.01, "#---"), (0.5, "##--"), (0.76, "####"), (2.0, "####")]
        {
            assert_eq!(Screen::NONE.bar(left, 4), shown, "{left}");
        }
        let blocks = Screen { has_blocks: true, ..Screen::NONE };
        assert_eq!(blocks.bar(0.5, 4), "██░░");
    }

    #[test]
    fn colours_are_only_where_they_are_wanted_and_what_is_foreign_never_makes_one() {
        let line = Line(vec![(Style::Plain, "a ".to_owned()), (Style::Dead, "b\x1b[0m ".to_owned())]);
        assert_eq!(Screen::NONE.line(&line), "a b\\u001b[0m");
        let colours = Screen { has_colour: true, ..Screen::NONE };
        assert_eq!(colours.line(&line), "a \x1b[31mb\\u001b[0m\x1b[0m");
        assert_eq!(colours.text(&[Line::plain(" "), Line::plain("x")]), "\nx\n");
    }

    #[test]
    fn what_is_too_wide_is_shortened_or_folded_by_columns_and_not_by_characters() {
        assert_eq!(width("日本e\u{301}"), 5);
        assert_eq!(padded("日本", 6), "日本  ");
        for (text, columns, shown) in [
            ("orders", 6, "orders"),
            ("orders", 5, "or..."),
            ("orders", 2, "or"),
            ("日本日本", 7, "日本..."),
            ("日本", 3, "日"),
        ] {
            assert_eq!(shortened(text, columns), shown);
        }
        let lines =
            |text: &str, columns| folded(text, columns).into_iter().map(|line| line.0[0].1.clone()).collect::<Vec<_>>();
        assert_eq!(lines("a bc def", 4), ["a bc", "def"]);
        assert_eq!(lines("x abcdefgh", 4), ["x", "abcd", "efgh"]);
        assert_eq!(lines("日本", 1), ["日", "本"]);
        assert_eq!(lines("", 4), [""]);
        assert_eq!(lines("  a bc", 4), ["  a", "  bc"]);
        assert_eq!(
            Line(vec![(Style::Dead, "abc".to_owned()), (Style::Plain, "defg".to_owned())]).cut(7).0[1].1,
            "defg"
        );
        assert_eq!(Line(vec![(Style::Dead, "abc".to_owned()), (Style::Plain, "defg".to_owned())]).cut(6).0[1].1, "def");
    }
}
