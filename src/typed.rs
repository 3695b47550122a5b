//! Words as people type them, into a shell or a connection string: whatever is in them, they stay one word.

use std::path::Path;

/// A path as it is typed into a shell.
pub(crate) fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// A setting as it stands in a connection string of libpq (PostgreSQL, "Keyword/Value Connection Strings").
#[cfg(feature = "cli")]
pub(crate) fn conninfo_setting(key: &str, value: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '\\');
    if !value.is_empty() && value.chars().all(is_plain) {
        return format!("{key}={value}");
    }
    format!("{key}='{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A word as it is typed into a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain =
        |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | ':' | ',' | '%' | '=');
    // zsh looks for a program where a word begins with `=`.
    if !word.is_empty() && !word.starts_with('=') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_word_for_what_is_meant() {
        for (word, typed) in [
            ("dbx-rotator@ada.timer", "dbx-rotator@ada.timer"),
            (r"dbx-rotator@ada\x40corp.service", r"'dbx-rotator@ada\x40corp.service'"),
            ("Ada Lovelace", "'Ada Lovelace'"),
            ("host$", "'host$'"),
            ("service=orders", "service=orders"),
            ("=ls", "'=ls'"),
            ("o'brien", r"'o'\''brien'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(word), typed);
        }
    }

    #[test]
    #[cfg(feature = "cli")]
    fn libpq_takes_a_value_for_what_is_meant() {
        for (value, setting) in [
            ("orders", "dbname=orders"),
            ("a b", "dbname='a b'"),
            ("a' host=evil.example '", r"dbname='a\' host=evil.example \''"),
            (r"a\", r"dbname='a\\'"),
            ("", "dbname=''"),
            ("$(id)", "dbname=$(id)"),
        ] {
            assert_eq!(conninfo_setting("dbname", value), setting);
        }
    }
}
