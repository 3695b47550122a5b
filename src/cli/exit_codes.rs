//! What the exit codes mean, for `--help` and the manual pages.

/// An exit code in words.
#[derive(Clone, Copy, Debug)]
pub struct ExitCode {
    /// The number, or `another`.
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// The commands that end with it; empty for all of them.
    pub commands: &'static [&'static str],
}

const fn of_all(code: &'static str, meaning: &'static str) -> ExitCode {
    ExitCode { code, meaning, commands: &[] }
}

const fn of_exec(code: &'static str, meaning: &'static str) -> ExitCode {
    ExitCode { code, meaning, commands: &["exec"] }
}

/// All that there are (sysexits.h).
pub const EXIT_CODES: [ExitCode; 12] = [
    of_all("0", "done or nothing due"),
    ExitCode { code: "1", meaning: "not all is well", commands: &["status", "check", "service status"] },
    of_all("64", "usage"),
    of_all("69", "unavailable"),
    of_all("70", "a fault of the program itself"),
    of_all("73", "cannot write"),
    of_all("75", "try again later"),
    of_all("77", "sign-in refused or login needed"),
    of_all("78", "configuration"),
    of_exec("126", "the program cannot be executed"),
    of_exec("127", "there is no such program"),
    of_exec("another", "that of the program"),
];

/// The table below `--help`.
pub(super) fn for_help() -> String {
    let entry = |one: &ExitCode| format!("{} {}", one.code, one.meaning);
    let (all, few): (Vec<&ExitCode>, Vec<&ExitCode>) = EXIT_CODES.iter().partition(|one| one.commands.is_empty());
    let all: Vec<String> = all.into_iter().map(entry).collect();
    let mut text = format!("Exit codes: {}.", all.join(", "));
    for one in few {
        text += &format!(" {} from `{}`: {}.", one.code, one.commands.join("`, `"), one.meaning);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn the_table_has_every_exit_code_and_no_other() {
        let (usage, fault) = (i32::from(super::super::USAGE), crate::logging::panics::EXIT_CODE);
        let numbers: Vec<i32> = EXIT_CODES.iter().filter_map(|one| one.code.parse().ok()).collect();
        for number in 2..=255 {
            let is_used = number == usage
                || number == fault
                || Code::of_exit_code(number).is_some()
                || number == i32::from(super::super::exec::NOT_FOUND)
                || number == i32::from(super::super::exec::CANNOT_EXECUTE);
            assert_eq!(numbers.contains(&number), is_used, "{number}");
        }
        // Each in the words that failures have.
        for one in EXIT_CODES.iter().filter(|one| one.commands.is_empty()) {
            let code = one.code.parse().ok().and_then(Code::of_exit_code);
            let word = code.map(|code| code.word().replace('-', " ")).unwrap_or_default();
            assert!(one.meaning.replace('-', " ").contains(&word), "{}: {word}", one.code);
        }
    }
}
