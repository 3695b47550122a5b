//! What is wrong with the options and values of a command line, in the form of every other message.

use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::mistakes::{Explained, typed_command};

/// Explains a command line whose words exist, but do not fit; none where clap says it as well.
pub(super) fn explain(error: &clap::Error, words: &[String]) -> Option<Explained> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg)?;
    let name = option.split(' ').next().unwrap_or(&option).to_owned();
    let help = format!("`{} --help` says what it takes", typed_command(words));
    let (message, hint) = match error.kind() {
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty()) => {
            (format!("{name} has no value"), format!("write {option}"))
        }
        ErrorKind::InvalidValue => {
            let value = text(ContextKind::InvalidValue)?;
            let hint = text(ContextKind::ValidValue).map_or(help, |all| format!("it takes one of: {all}"));
            (format!("{name} cannot take `{value}`"), hint)
        }
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string)?;
            let (why, hint) = match why.split_once(": ") {
                Some((why, hint)) => (why.to_owned(), hint.to_owned()),
                None => (why, help),
            };
            (format!("{name}: {why}"), hint)
        }
        ErrorKind::UnknownArgument if is_number(&option) => {
            let before = words.iter().take_while(|word| **word != option).last().filter(|word| word.starts_with("--"));
            let hint = before.map_or(help, |before| format!("if it is the value of {before}, write {before}={option}"));
            (format!("there is no option `{option}` here"), hint)
        }
        ErrorKind::UnknownArgument if option.starts_with('-') => {
            let hint = format!("`{} --help` lists the options", typed_command(words));
            (format!("there is no option `{name}` here"), hint)
        }
        ErrorKind::MissingRequiredArgument => {
            let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
            let usage = usage.trim().trim_start_matches("Usage:").trim().to_owned();
            let is = if option.contains(", ") { "are" } else { "is" };
            (format!("{option} {is} missing"), if usage.is_empty() { help } else { format!("write {usage}") })
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg)?;
            let other = other.split(' ').next().unwrap_or_default();
            let message = if other == name {
                format!("{name} may be given only once")
            } else {
                format!("{name} cannot be used with {other}")
            };
            (message, "leave out one of the two".to_owned())
        }
        _ => return None,
    };
    Some(Explained { message, hint })
}

fn is_number(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::Arguments;
    use super::*;

    #[test]
    fn each_way_in_which_words_do_not_fit_has_a_message_and_a_next_step() {
        for (line, message, hint) in [
            ("rotate --client-id", "--client-id has no value", "write --client-id <ID>"),
            (
                "rotate --retry-for soon",
                "--retry-for: `soon` is not a duration",
                "write it like 50 (minutes), 90s or 1h 30m",
            ),
            ("token --port x --host h --user u", "--port: `x` is not a port", "write a number from 1 to 65535"),
            (
                "run --interval -5",
                "there is no option `-5` here",
                "if it is the value of --interval, write --interval=-5",
            ),
            ("status --zzzzzz", "there is no option `--zzzzzz` here", "`dbx-rotator status --help` lists the options"),
            ("exec orders --", "<COMMAND>... is missing", "write dbx-rotator exec <NAME> -- <COMMAND>..."),
            ("status --json --prometheus", "--json cannot be used with --prometheus", "leave out one of the two"),
            ("status --json --json", "--json may be given only once", "leave out one of the two"),
            ("completions tcsh", "<SHELL> cannot take `tcsh`", "it takes one of: bash, zsh, fish"),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let error = Arguments::try_parse_from(std::iter::once("dbx-rotator").chain(line.split_whitespace()));
            let explained = explain(&error.unwrap_err(), &words);
            let expected = Explained { message: message.to_owned(), hint: hint.to_owned() };
            assert_eq!(explained, Some(expected), "{line}");
        }
    }
}
