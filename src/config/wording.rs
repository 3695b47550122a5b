//! The faults that the parser of TOML finds, in plain words: it speaks of types of Rust.

use std::ops::Range;

use super::keys;
use crate::words;

/// A fault of the parser at this place of the text, and what to do, where that can be said.
pub(super) fn plain(message: &str, text: &str, span: Option<Range<usize>>) -> (String, Option<String>) {
    let rest = span.as_ref().and_then(|span| text.get(span.start..)?.lines().next()).map(str::trim_start);
    if message.starts_with("string values must be quoted")
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    {
        return ("a value is missing here".to_owned(), None);
    }
    let line = span.as_ref().and_then(|span| line_at(text, span.start));
    let key = span.and_then(|span| key_at(text, span.start));
    if message == "duplicate key" && line.is_some_and(|line| line.trim_start().starts_with("[[")) {
        let name = key.as_deref().unwrap_or_default();
        let hint =
            "write the double brackets of each first, and what belongs to it, such as [[connection.file]], below";
        return (format!("`{name}` is a table already, further above"), Some(hint.to_owned()));
    }
    if let Some((name, hint)) = keys::unknown_setting(message) {
        return (format!("unknown setting `{name}`"), Some(hint));
    }
    if let Some((name, rest)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        return (format!("unknown setting `{name}`"), Some(format!("known here: {}", known.join(", "))));
    }
    if let Some(name) = message.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        return (format!("`{name}` is set twice"), Some("leave out one of the two".to_owned()));
    }
    let is_of_type =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|start| message.strip_prefix(start));
    if let Some((found, expected)) = is_of_type.and_then(|rest| rest.rsplit_once(", expected ")) {
        let what = key.as_ref().map_or_else(|| "this".to_owned(), |key| format!("`{key}`"));
        let (wanted, hint) = wanted(expected, key.as_deref().unwrap_or_default());
        return (format!("{what} must be {wanted}, and here it is {}", found_one(found)), hint);
    }
    (words::of_toml(message), None)
}

/// What a setting must be, by the name that serde has for its type; and how to write it.
fn wanted(expected: &str, key: &str) -> (String, Option<String>) {
    let is_table = matches!(key, "workspace" | "connection" | "file");
    let table = if key == "file" { "connection.file" } else { key };
    match expected {
        "a string" => ("text in quotes".to_owned(), Some(format!("write {key} = \"...\""))),
        "a boolean" => ("true or false".to_owned(), None),
        "u16" => ("a number from 1 to 65535".to_owned(), None),
        "usize" => ("a whole number".to_owned(), None),
        "a sequence" if is_table => {
            ("a list of tables".to_owned(), Some(format!("write [[{table}]] above the settings of each {key}")))
        }
        "a sequence" => ("a list of texts".to_owned(), Some(format!("write {key} = [\"...\", \"...\"]"))),
        one if one.starts_with("struct ") => {
            ("a list of tables".to_owned(), Some("write [[...]] above the settings of each".to_owned()))
        }
        other => (other.to_owned(), None),
    }
}

/// What stands there instead, by serde's description; never its text, which may be a secret.
fn found_one(found: &str) -> String {
    let number = || found.split('`').nth(1).map(|number| format!("the number {number}"));
    match found.split(' ').next() {
        Some("string") => "text".to_owned(),
        Some("map" | "struct") => "a table".to_owned(),
        Some("sequence") => "a list".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("integer" | "floating") => number().unwrap_or_else(|| "a number".to_owned()),
        _ => "something else".to_owned(),
    }
}

fn start_of_line(text: &str, at: usize) -> Option<usize> {
    Some(text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1))
}

fn line_at(text: &str, at: usize) -> Option<&str> {
    text[start_of_line(text, at)?..].lines().next()
}

/// The name of the setting, or of the table, that stands at this place or before it in its line.
fn key_at(text: &str, at: usize) -> Option<String> {
    let line = line_at(text, at)?;
    let before = &text[start_of_line(text, at)?..at];
    let name = match before.rsplit_once('=') {
        Some((names, _)) => names.rsplit(['{', ',', '[', '.']).next()?,
        // Of a table within another, the inner one.
        None if line.trim_start().starts_with('[') => {
            line.trim_start_matches(['[', ' ', '\t']).split(']').next()?.rsplit('.').next()?
        }
        None => line.trim_start().split(['=', '.', ' ']).next()?,
    };
    let name = name.trim().trim_matches(['"', '\'']);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| name.to_owned())
}
