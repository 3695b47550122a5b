//! How a fault in the configuration is shown: file, line, the line itself and a caret, and what to do next.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::failure::{Code, Failure};
use crate::foreign;
use crate::foreign::could_be_secret;

/// Why there is no usable configuration. Its text fits one screen and never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    message: String,
    location: Option<SourceLocation>,
    hint: Option<String>,
    usage: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SourceLocation {
    file: PathBuf,
    line: usize,
    /// In characters, counted from 1.
    column: usize,
    text: String,
    /// What comes before the caret, below the line.
    indent: String,
    /// In characters, at least 1.
    width: usize,
}

/// How many characters of a line are shown at most: about two screen widths.
const LONGEST_SHOWN: usize = 160;

/// What helps where settings are missing.
const ASK_SETUP: &str = "`dbx-rotator setup` finds what there is and asks for the rest";

impl ConfigError {
    /// Settings that are missing, in these lines.
    pub(crate) fn missing<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        Self::list(lines).hint(ASK_SETUP)
    }

    /// Whether its hint is to run `setup`, which is of no use to who has just done so.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only setup asks"))]
    pub(crate) fn asks_for_setup(&self) -> bool {
        self.0.hint.as_deref() == Some(ASK_SETUP)
    }

    /// A fault without a place in a file.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message = foreign::line(&message.into()).into_owned();
        ConfigError(Box::new(Fault { message, location: None, hint: None, usage: false }))
    }

    /// A fault without a place in a file, with a message of several lines.
    pub(crate) fn list<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        let mut error = Self::new("");
        error.0.message = lines.into_iter().map(foreign::line).collect::<Vec<_>>().join("\n");
        error
    }

    /// The same fault, but of the command line.
    #[must_use]
    pub(crate) fn of_usage(mut self) -> Self {
        self.0.usage = true;
        self
    }

    /// A command line that makes no sense (exit code 64 instead of 78).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).of_usage()
    }

    /// The same fault at a byte range of a file's text.
    #[must_use]
    pub(crate) fn at(mut self, file: &Path, text: &str, span: Range<usize>) -> Self {
        self.0.location = Some(SourceLocation::new(file, text, span));
        self
    }

    /// The same fault with what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(foreign::line(&hint.into()).into_owned());
        self
    }

    /// What is wrong, without its place and the next step.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The whole fault on one line, for logs.
    pub(crate) fn sentence(&self) -> String {
        let hint = self.0.hint.as_ref().map(|hint| format!(" - {hint}")).unwrap_or_default();
        foreign::line(&format!("{}{hint}", self.with_place())).into_owned()
    }

    /// What is wrong and where, on one line.
    fn with_place(&self) -> String {
        let Fault { message, location, .. } = &*self.0;
        let location = location
            .as_ref()
            .map(|location| format!(" ({}:{}:{})", location.file.display(), location.line, location.column));
        // Indented lines belong to the line above.
        let message = message.replace(":\n    ", ": ").replace("\n    ", ", ").replace('\n', "; ");
        format!("{message}{}", location.unwrap_or_default())
    }

    /// The exit code as in sysexits.h: 64 for usage, else 78.
    pub fn exit_code(&self) -> u8 {
        if self.0.usage { 64 } else { Code::Configuration.exit_code() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Failure::permanent(Code::Configuration, error.with_place());
        match error.0.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl SourceLocation {
    fn new(file: &Path, text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        // Tabs stay, see below.
        let shown = foreign::lines(&without_secret(text[line_start..line_end].trim_end_matches('\r'))).into_owned();
        let length = shown.chars().count();
        let column = foreign::lines(&text[line_start..start]).chars().count().min(length) + 1;
        let width = foreign::lines(&text[start..end]).chars().count().min((length + 1).saturating_sub(column)).max(1);
        let (text_of_it, shift) = around(shown, column);
        SourceLocation {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column,
            indent: text_of_it.chars().take((column - 1).saturating_sub(shift)).map(as_blank).collect(),
            width: width.min(LONGEST_SHOWN),
            text: text_of_it,
        }
    }
}

/// The part of a long line around the fault, and by how many characters that moves the fault to the left.
fn around(line: String, column: usize) -> (String, usize) {
    const CUT: &str = "...";
    let length = line.chars().count();
    if length <= LONGEST_SHOWN {
        return (line, 0);
    }
    let from = column.saturating_sub(LONGEST_SHOWN / 2).min(length - LONGEST_SHOWN);
    let from = if from > CUT.len() { from } else { 0 };
    let shown: String = line.chars().skip(from).take(LONGEST_SHOWN).collect();
    let (before, after) = (if from > 0 { CUT } else { "" }, if from + LONGEST_SHOWN < length { CUT } else { "" });
    (format!("{before}{shown}{after}"), from.saturating_sub(before.len()))
}

/// Tabs stay, so that the caret is below its character whatever the tab width is.
fn as_blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// The line with its value masked if that could be a secret, judged by its key or its form.
fn without_secret(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    // The values of these are paths.
    let names =
        ["client_secret_file", "password_file", "token_file"].iter().fold(lower, |line, key| line.replace(key, ""));
    // A proxy's address may hold a password, and where it is not well-formed nobody knows where that ends.
    let by_name = ["secret", "token", "password"].iter().any(|name| names.contains(name)) || is_proxy(&names);
    let by_look = line.split(['"', '\'', ' ']).any(could_be_secret) || holds_password(line);
    match line.split_once('=') {
        Some((key, _)) if by_name || by_look => format!("{key}= ********"),
        None if by_look => "********".to_owned(),
        _ => line.to_owned(),
    }
}

/// Whether a line gives a proxy with a user, in lower case.
fn is_proxy(line: &str) -> bool {
    let (key, value) = line.split_once('=').unwrap_or(("", line));
    key.contains("proxy") && value.contains('@')
}

/// Whether it has a URL with a password in it, or a line of a password file.
fn holds_password(line: &str) -> bool {
    let in_url = |rest: &str| rest.split_once('@').is_some_and(|(before, _)| before.contains(':'));
    line.split_once("://").is_some_and(|(_, rest)| in_url(rest)) || line.matches(':').count() >= 4
}

fn floor_boundary(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(location) = &self.0.location {
            let number = location.line.to_string();
            let margin = " ".repeat(number.len());
            write!(
                f,
                "\n{margin}--> {}:{number}:{}",
                foreign::line(&location.file.to_string_lossy()),
                location.column
            )?;
            write!(f, "\n{margin} |\n{number} | {}", location.text)?;
            write!(f, "\n{margin} | {}{}", location.indent, "^".repeat(location.width))?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_file_line_the_line_and_a_caret() {
        let text = "interval = \"50m\"\n\thöst = 1\n";
        let start = text.find("höst").unwrap();
        let fault =
            ConfigError::new("unknown key `höst`").at(Path::new("c.toml"), text, start..start + 5).hint("host?");
        assert_eq!(
            fault.to_string(),
            "unknown key `höst`\n --> c.toml:2:2\n  |\n2 | \thöst = 1\n  | \t^^^^\nhint: host?"
        );
    }

    #[test]
    fn what_cannot_be_shown_is_escaped_and_the_caret_stands_under_the_fault_all_the_same() {
        let text = "a = '\u{1b}' \u{202e}; host = 1";
        let start = text.find("host").unwrap();
        let fault =
            ConfigError::new("bad\nerror: worse").at(Path::new("c\n.toml"), text, start..start + 4).hint("a\rb");
        let shown = r"bad\nerror: worse
 --> c\n.toml:1:22
  |
1 | a = '\u001b' \u202e; host = 1
  |                      ^^^^
hint: a\rb";
        assert_eq!(fault.to_string(), shown);
        assert_eq!(fault.sentence().lines().count(), 1);
    }

    #[test]
    fn a_secret_in_a_faulty_line_is_not_shown() {
        for pasted in ["host = \"postgresql://ada:pw12345@h/x\"\n", "host = 'h.example:5432:x:ada:pw12345'\n"] {
            let fault = ConfigError::new("x").at(Path::new("c.toml"), pasted, 0..4).to_string();
            assert!(!fault.contains("pw12345") && fault.contains("host = ****"), "{fault}");
        }
        let text = "client_secret = \"dose0000\n";
        let fault = ConfigError::new("x").at(Path::new("c.toml"), text, 16..25).to_string();
        assert!(fault.contains("1 | client_secret = ********") && !fault.contains("dose"), "{fault}");
    }

    #[test]
    fn a_secret_under_a_mistyped_key_is_not_shown_either() {
        for line in
            ["secret = 'x'", "[[workspace]] = { host = 'h', client_secret = 'x' }", "host = 'dose0123456789abcdef0123'"]
        {
            assert!(without_secret(line).ends_with("= ********"), "{line}");
        }
        for line in [
            "proxy = 'http://ada:p' w@proxy.example'",
            "https_proxy = 'http://ada:pw@proxy.example:3128'",
            "ca_file = 'http://ada:pw@proxy.example:3128'",
        ] {
            assert!(without_secret(line).ends_with("= ********"), "{line}");
        }
        for line in [
            "client_secret_file = 'x'",
            "password_file = 'x'",
            "token_file = 'x'",
            "proxy = 'http://proxy.example:3128'",
            "no_proxy = 'a,b'",
            "host = 'https://w.example:8443'",
        ] {
            assert_eq!(without_secret(line), line);
        }
    }

    #[test]
    fn a_message_of_several_lines_keeps_them_and_is_one_sentence_in_a_log() {
        let fault = ConfigError::list(["a is not set: give it by one of:", "    --a", "    $A\u{1b}", "b is missing"]);
        let shown = "a is not set: give it by one of:\n    --a\n    $A\\u001b\nb is missing";
        assert_eq!(fault.clone().hint("do").to_string(), format!("{shown}\nhint: do"));
        assert_eq!(fault.sentence(), "a is not set: give it by one of: --a, $A\\u001b; b is missing");
    }

    #[test]
    fn of_an_endless_line_what_is_around_the_fault_is_shown() {
        for at in [0, 79, 80, 81, 82, 83, 84, 50_000, 99_000, 99_999] {
            let mut text = "x ".repeat(50_000);
            text.replace_range(at..=at, "!");
            let fault = ConfigError::new("x").at(Path::new("c.toml"), &text, at..at + 1).to_string();
            let lines: Vec<&str> = fault.lines().collect();
            let column = lines[4].chars().position(|c| c == '^').unwrap();
            assert!(fault.len() < 500 && lines[3].chars().nth(column) == Some('!'), "{fault}");
            assert!(lines[1].ends_with(&format!(":{}", at + 1)), "{fault}");
        }
    }

    #[test]
    fn a_fault_at_the_end_of_the_file_has_a_place_too() {
        let fault = ConfigError::new("x").at(Path::new("c.toml"), "a = ", 4..99);
        assert!(fault.to_string().ends_with("1 | a = \n  |     ^"), "{fault}");
    }
}
