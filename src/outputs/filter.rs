//! How a value is written so that a format's reader finds it again. Values hold no control characters: those have been refused.

use zeroize::Zeroizing;

use crate::model::uri;

/// One format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// A text of JSON with its quotes, which YAML and TOML read alike.
    Json,
    /// A word of a shell, in quotes where it needs them, which systemd's EnvironmentFile= reads alike.
    Shell,
    /// Percent-encoded, for any part of a URL.
    Url,
    /// A word of PgBouncer's userlist.txt with its quotes, in which a quote is doubled.
    Pgbouncer,
    /// A value or a key of a file of Java's properties.
    Properties,
}

impl Filter {
    pub(super) const ALL: [(&str, Filter); 5] = [
        ("json", Filter::Json),
        ("shell", Filter::Shell),
        ("url", Filter::Url),
        ("pgbouncer", Filter::Pgbouncer),
        ("properties", Filter::Properties),
    ];

    pub(super) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, filter)| *filter == self).map_or("", |(word, _)| word)
    }

    /// Whether what it makes is a whole value, with the quotes around it.
    pub(super) fn brings_quotes(self) -> bool {
        matches!(self, Filter::Json | Filter::Shell | Filter::Pgbouncer)
    }

    pub(super) fn apply(self, value: &str) -> Zeroizing<String> {
        match self {
            Filter::Json => quoted(value, '\\', &['"', '\\']),
            Filter::Shell => shell_value(value),
            Filter::Pgbouncer => quoted(value, '"', &['"']),
            Filter::Url => uri::encoded(value),
            Filter::Properties => properties(value),
        }
    }
}

/// A value that systemd and a shell read alike. Quoted only if necessary, since some readers keep quotes as part of it.
pub(super) fn shell_value(value: &str) -> Zeroizing<String> {
    // Bytes that need no quotes for systemd, a shell or a container's `--env-file`: those of a JWT, and a few more.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+/=".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_plain) {
        return Zeroizing::new(value.to_owned());
    }
    // What a backslash escapes within double quotes: systemd's SHELL_NEED_ESCAPE (src/basic/env-file.c), the same as POSIX's list
    // for a shell (2.2.3).
    quoted(value, '\\', &['"', '\\', '`', '$'])
}

/// The value in double quotes, with `escape` before each of these characters.
fn quoted(value: &str, escape: char, escaped: &[char]) -> Zeroizing<String> {
    // Growing would leave a copy of a password in memory.
    let mut text = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    text.push('"');
    for c in value.chars() {
        text.extend(escaped.contains(&c).then_some(escape));
        text.push(c);
    }
    text.push('"');
    text
}

/// As `Properties.store` of Java writes it: readers of that format take it for Latin-1 or UTF-8, and all know these escapes.
fn properties(value: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Zeroizing::new(String::with_capacity(6 * value.len()));
    for (at, c) in value.chars().enumerate() {
        match c {
            ' ' if at > 0 => text.push(' '),
            ' ' | '\\' | '=' | ':' | '#' | '!' => text.extend(['\\', c]),
            c if c.is_ascii() => text.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    text.push_str("\\u");
                    let digit = |shift: u32| char::from(DIGITS[usize::from((*unit >> shift) & 15)]);
                    text.extend([12, 8, 4, 0].map(digit));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What is hard on quotes.
    const HOSTILE: [&str; 12] = [
        "",
        "plain",
        "o'brien",
        "a\"b",
        "a\\",
        "\"",
        "'",
        "$(id) `id` $HOME",
        "a b",
        " a",
        "é日本😀",
        "#=:!{{x}}%41&+",
    ];

    #[test]
    fn each_format_is_written_as_its_readers_expect() {
        for (filter, expected) in [
            (Filter::Json, r#""a\"b\\c'é""#),
            (Filter::Shell, r#""a\"b\\c'é""#),
            (Filter::Url, "a%22b%5Cc%27%C3%A9"),
            (Filter::Pgbouncer, r#""a""b\c'é""#),
            (Filter::Properties, r#"a"b\\c'\u00e9"#),
        ] {
            assert_eq!(*filter.apply("a\"b\\c'é"), expected, "{filter:?}");
        }
        assert_eq!(*Filter::Properties.apply(" a =:#!😀"), r"\ a \=\:\#\!\ud83d\ude00");
    }

    #[test]
    fn what_readers_find_is_what_was_meant() {
        for value in HOSTILE {
            assert_eq!(serde_json::from_str::<String>(&Filter::Json.apply(value)).unwrap(), value);
            let toml = format!("v = {}", *Filter::Json.apply(value)).parse::<toml_edit::DocumentMut>().unwrap();
            assert_eq!(toml["v"].as_str(), Some(value));
            let script = format!("printf %s {}", *Filter::Shell.apply(value));
            let shell = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&shell.stdout), value);
            let url = url::Url::parse(&format!("x:?v={}", *Filter::Url.apply(value))).unwrap();
            assert_eq!(url.query_pairs().next().unwrap().1, value);
        }
    }

    #[test]
    fn a_token_is_the_same_in_every_format() {
        let token = "eyJhbGciOi.eyJzdWIi.c2ln-_~";
        for (_, filter) in Filter::ALL {
            assert_eq!(filter.apply(token).trim_matches(['"', '\'']), token);
        }
    }
}
