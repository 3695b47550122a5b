//! Templates of a user's files: text with placeholders such as `{{ password | json }}`.
//!
//! Pure, and strict: what is not understood is a mistake with its line, since a file with a hole in it would stop whoever reads it.

use zeroize::Zeroizing;

use super::filter::Filter;
use crate::spelling::nearest;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Host,
    Port,
    Database,
    User,
    Password,
    Url,
    JdbcUrl,
    ExpiresAt,
}

impl Name {
    pub(super) const ALL: [(&str, Name); 8] = [
        ("host", Name::Host),
        ("port", Name::Port),
        ("database", Name::Database),
        ("user", Name::User),
        ("password", Name::Password),
        ("url", Name::Url),
        ("jdbc_url", Name::JdbcUrl),
        ("expires_at", Name::ExpiresAt),
    ];

    pub(super) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, name)| *name == self).map_or("", |(word, _)| word)
    }
}

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Name, Vec<Filter>),
}

/// A template that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// From 1.
    pub(super) line: usize,
    pub(super) why: String,
    pub(super) hint: String,
}

/// Why no file can be made of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unmade {
    /// This value holds a control character.
    Control(Name),
    /// It would be larger than allowed.
    TooLarge,
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

impl Template {
    /// Understands all of it, or says what is wrong with the first placeholder that cannot be understood.
    pub(super) fn parse(text: &str) -> Result<Self, Mistake> {
        let (mut pieces, mut at, mut line) = (Vec::new(), 0, 1);
        while let Some(start) = text[at..].find(OPEN).map(|found| at + found) {
            let before = &text[at..start];
            line += before.matches('\n').count();
            let inside = &text[start + OPEN.len()..];
            let inside = inside.lines().next().unwrap_or_default();
            let mistake = |(why, hint)| Mistake { line, why, hint };
            let end = end_of(inside).ok_or_else(|| mistake(unclosed()))?;
            let piece = placeholder(inside[..end].trim()).map_err(mistake)?;
            let after = &inside[end + CLOSE.len()..];
            if let Piece::Value(_, filters) = &piece
                && let Some(filter) = filters.last().filter(|filter| filter.brings_quotes())
                && (before.ends_with(['"', '\'']) || after.starts_with(['"', '\'']))
            {
                return Err(mistake(quoted_twice(*filter)));
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.push(piece);
            at = start + OPEN.len() + end + CLOSE.len();
        }
        pieces.extend((at < text.len()).then(|| Piece::Text(text[at..].to_owned())));
        Ok(Template { pieces })
    }

    /// The file, of at most so many bytes.
    pub(super) fn fill<'v>(
        &self,
        value: impl Fn(Name) -> &'v str,
        largest: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Unmade> {
        let mut parts: Vec<Zeroizing<String>> = Vec::new();
        let mut length = 0_usize;
        for piece in &self.pieces {
            let part = match piece {
                Piece::Text(text) => Zeroizing::new(text.clone()),
                Piece::Value(name, filters) => {
                    let value = value(*name);
                    if value.chars().any(char::is_control) {
                        return Err(Unmade::Control(*name));
                    }
                    filtered(value, filters)
                }
            };
            length = length.saturating_add(part.len());
            if length > largest {
                return Err(Unmade::TooLarge);
            }
            parts.push(part);
        }
        // Growing would leave a copy of a password in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        Ok(bytes)
    }

    /// Whether it has made this file, with the same values but for other credentials, which `is_credential` tells, and other times.
    /// `value` gives [`PASSWORD`] and [`TIME`] in their places.
    pub(super) fn has_made<'v>(
        &self,
        old: &str,
        value: impl Fn(Name) -> &'v str,
        is_credential: impl Fn(&str) -> bool,
    ) -> bool {
        let mut rest = old;
        self.pieces.iter().all(|piece| match piece {
            Piece::Text(text) => skip(&mut rest, text),
            Piece::Value(name, filters) => {
                let mut value = filtered(value(*name), filters);
                loop {
                    let place = [PASSWORD, TIME].iter().filter_map(|mark| Some((value.find(mark)?, *mark))).min();
                    let Some((at, mark)) = place else { return skip(&mut rest, &value) };
                    if !skip(&mut rest, &value[..at]) {
                        return false;
                    }
                    let length = rest.find(|c: char| !may_be_of(mark, c)).unwrap_or(rest.len());
                    let (found, after) = rest.split_at(length);
                    if !if mark == PASSWORD { is_credential(found) } else { (20..=50).contains(&length) } {
                        return false;
                    }
                    rest = after;
                    value = Zeroizing::new(value[at + mark.len()..].to_owned());
                }
            }
        }) && rest.is_empty()
    }
}

/// What stands for a credential where it does not matter which: no filter changes it, as none changes a token.
pub(super) const PASSWORD: &str = "dbx-rotator-stands-for-a-password";

/// What stands for a time where it does not matter which.
pub(super) const TIME: &str = "dbx-rotator-stands-for-a-time";

fn may_be_of(mark: &str, c: char) -> bool {
    let of_both = c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    // A filter may have changed the colons of a time.
    of_both || if mark == PASSWORD { matches!(c, '_' | '~') } else { matches!(c, ':' | '%' | '\\') }
}

fn skip(rest: &mut &str, text: &str) -> bool {
    let after = rest.strip_prefix(text);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

fn filtered(value: &str, filters: &[Filter]) -> Zeroizing<String> {
    let first = Zeroizing::new(value.to_owned());
    filters.iter().fold(first, |value, filter| filter.apply(&value))
}

/// Where a placeholder ends: not within the quotes of a text.
fn end_of(inside: &str) -> Option<usize> {
    let (start, rest) = match inside.trim_start().strip_prefix('"').map(|rest| (inside.len() - rest.len(), rest)) {
        Some((start, rest)) => (start, rest.find('"').map(|end| end + 1)?),
        None => (0, 0),
    };
    let from = start + rest;
    inside[from..].find(CLOSE).map(|end| from + end)
}

/// What stands between the braces.
fn placeholder(inside: &str) -> Result<Piece, (String, String)> {
    if let Some(text) = inside.strip_prefix('"') {
        let text = text.strip_suffix('"').filter(|text| !text.contains('"')).ok_or_else(no_text)?;
        return Ok(Piece::Text(text.to_owned()));
    }
    let mut words = inside.split('|').map(str::trim);
    let word = words.next().unwrap_or_default();
    let name = Name::ALL.iter().find(|(known, _)| *known == word).map(|(_, name)| *name);
    let name = name.ok_or_else(|| unknown("placeholder", word, &Name::ALL.map(|(word, _)| word)))?;
    let filters = words.map(|word| {
        let filter = Filter::ALL.iter().find(|(known, _)| *known == word).map(|(_, filter)| *filter);
        filter.ok_or_else(|| unknown("filter", word, &Filter::ALL.map(|(word, _)| word)))
    });
    Ok(Piece::Value(name, filters.collect::<Result<_, _>>()?))
}

// ---- what is said ----

/// A word of somebody's, which may be anything: it may stand in the wrong file.
fn shown(word: &str) -> String {
    const MOST: usize = 40;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if word.len() > MOST || !word.chars().all(is_word) { String::new() } else { format!(" `{word}`") }
}

fn unknown(kind: &str, word: &str, known: &[&'static str]) -> (String, String) {
    let all = format!("the {kind}s are: {}", known.join(", "));
    if word.is_empty() {
        return (format!("a {kind} is missing"), all);
    }
    let hint = match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}? {}", all.replacen("the", "The", 1)),
        None => all,
    };
    (format!("there is no {kind}{}", shown(word)), hint)
}

fn unclosed() -> (String, String) {
    let hint = "write it on one line, such as {{ password }}; braces that are meant as they stand are {{ \"{{\" }}";
    ("a placeholder begins and does not end".to_owned(), hint.to_owned())
}

fn no_text() -> (String, String) {
    let hint = "write it as {{ \"text\" }}, with no quotes and no filter in it";
    ("a text in quotes cannot be understood".to_owned(), hint.to_owned())
}

fn quoted_twice(filter: Filter) -> (String, String) {
    let word = filter.word();
    (
        format!("`{word}` brings quotes of its own"),
        format!("leave out the quotes around the placeholder, or `| {word}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: Name) -> &'static str {
        match name {
            Name::Host => "db.example",
            Name::Port => "5432",
            Name::Database => "databricks_postgres",
            Name::User => "o\"brien",
            Name::Password => "pw",
            Name::Url => "postgresql://pw@db.example",
            Name::JdbcUrl => "jdbc:postgresql://db.example?password=pw",
            Name::ExpiresAt => "2026-11-27T12:00:00Z",
        }
    }

    fn made(text: &str) -> String {
        let bytes = Template::parse(text).unwrap().fill(value, 1024).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn text_stays_and_placeholders_are_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("no placeholder {} }} {x}\r\n", "no placeholder {} }} {x}\r\n"),
            ("{{host}}:{{ port }}/{{  database\t}}", "db.example:5432/databricks_postgres"),
            ("{{ user | pgbouncer }} {{ password|pgbouncer }}\n", "\"o\"\"brien\" \"pw\"\n"),
            ("{{ user | json | shell }}", r#""\"o\\\"brien\"""#),
            ("{{ \"{{\" }} x }} {{ \"a }} b\" }}", "{{ x }} a }} b"),
            ("ü{{url}}ü{{ jdbc_url }}", "üpostgresql://pw@db.exampleüjdbc:postgresql://db.example?password=pw"),
            ("{{ expires_at }}", "2026-11-27T12:00:00Z"),
        ] {
            assert_eq!(made(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_with_its_line_and_what_there_is() {
        for (text, line, why, hint) in [
            (
                "a\nb {{ passwort }}",
                2,
                "there is no placeholder `passwort`",
                "did you mean password? The placeholders are: host",
            ),
            (
                "{{ x }}",
                1,
                "there is no placeholder `x`",
                "the placeholders are: host, port, database, user, password, url",
            ),
            ("\n\n{{ host | jsn }}", 3, "there is no filter `jsn`", "did you mean json? The filters are: json, shell"),
            ("{{ host | }}", 1, "a filter is missing", "json"),
            ("{{ }}", 1, "a placeholder is missing", "host"),
            ("{{ host\n}}", 1, "does not end", "on one line"),
            ("{{ host }", 1, "does not end", "{{ \"{{\" }}"),
            ("{{ \"x }}", 1, "does not end", "one line"),
            ("{{ \"x\" | json }}", 1, "a text in quotes", "no filter"),
            ("x = \"{{ password | json }}\"", 1, "`json` brings quotes", "leave out the quotes"),
            ("'{{ password | shell }}'", 1, "`shell` brings quotes", "leave out the quotes"),
            (
                "{{ eyJhbGciOi.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlIHRoYXQgaXMgbG9uZw }}",
                1,
                "there is no placeholder",
                "host",
            ),
        ] {
            let mistake = Template::parse(text).unwrap_err();
            assert_eq!(mistake.line, line, "{text}: {mistake:?}");
            assert!(mistake.why.contains(why) && mistake.hint.contains(hint), "{text}: {mistake:?}");
            assert!(!mistake.why.contains("eyJ"), "{mistake:?}");
        }
    }

    #[test]
    fn no_file_has_a_control_character_from_a_value_or_is_larger_than_allowed() {
        let template = Template::parse("{{ user }}").unwrap();
        for control in ["a\nb", "a\rb", "\0", "\u{1b}[0m", "\u{85}"] {
            assert_eq!(template.fill(|_| control, 1024), Err(Unmade::Control(Name::User)));
        }
        let many = Template::parse(&"{{ url }}".repeat(40_000)).unwrap();
        assert_eq!(many.fill(value, 1024), Err(Unmade::TooLarge));
    }

    #[test]
    fn its_own_work_is_recognised_with_other_credentials_and_no_other_file_is() {
        let marked = |name| match name {
            Name::Password => PASSWORD,
            Name::ExpiresAt => TIME,
            Name::Url => "postgresql://ada:dbx-rotator-stands-for-a-password@h",
            other => value(other),
        };
        let text = "# {{ expires_at | url }}\n\"app\" \"own\"\n{{ user|pgbouncer }} {{ password | pgbouncer }}\n{{ url | json }}\n";
        let template = Template::parse(text).unwrap();
        let has_made = |old: &str| template.has_made(old, marked, |word| word == "tok.en-_~1");
        let old = "# 2026-11-27T12%3A00%3A00Z\n\"app\" \"own\"\n\"o\"\"brien\" \"tok.en-_~1\"\n\"postgresql://ada:tok.en-_~1@h\"\n";
        assert!(has_made(old));
        for other in [
            "",
            &old.replace("tok.en-_~1\"\n", "other\"\n"),
            &old.replacen("tok.en-_~1", "", 1),
            &old.replace("own", "mine"),
            &format!("{old}\"more\" \"users\"\n"),
            &old.replace("12%3A00%3A00Z", ""),
            &old.replace("o\"\"brien", "ada"),
        ] {
            assert!(!has_made(other), "{other}");
        }
    }

    #[test]
    fn nothing_that_anybody_writes_stops_the_program() {
        let parts = ["{{", "}}", "\"", "|", " ", "host", "json", "\n", "ü", "'", "{", "}"];
        for _ in 0..20_000 {
            let text: String = (0..fastrand::usize(..12)).map(|_| parts[fastrand::usize(..parts.len())]).collect();
            if let Ok(template) = Template::parse(&text) {
                let made = template.fill(value, 1 << 20).unwrap();
                let made = std::str::from_utf8(&made).unwrap();
                assert!(template.has_made(made, value, |_| false), "{text}");
            }
        }
    }
}
