//! What `--help` and usage errors say under the names of the Python original: its own options, defaults and exit codes.
//!
//! Each name also takes the options of the command that it stands for. This page is for people who have the old ones in their fingers.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use super::names::Name;

const ONCE: &str = "once";

/// An option: its name, what stands for its value, and its help.
type Told = (&'static str, Option<&'static str>, &'static str);

const WORKSPACE: Told = ("workspace-url", Some("URL"), "Workspace address [env: DATABRICKS_HOST]");
const PG_HOST: Told = ("pg-host", Some("HOST"), "PostgreSQL host [env: DATABRICKS_PG_HOST]");
const PG_USERNAME: Told = ("pg-username", Some("USER"), "PostgreSQL user [env: DATABRICKS_PG_USERNAME]");
const INTERVAL: Told =
    ("interval", Some("MINUTES"), "Minutes between rotations; sooner where a password expires sooner [default: 50]");

const ROTATOR: [Told; 11] = [
    (ONCE, None, "Rotate once and stop; without it, stay and rotate"),
    WORKSPACE,
    ("client-id", Some("ID"), "Client id of a service principal [env: DATABRICKS_CLIENT_ID]"),
    (
        "client-secret",
        Some("SECRET"),
        "Its secret; others can read it here, so prefer the variable [env: DATABRICKS_CLIENT_SECRET]",
    ),
    PG_HOST,
    ("pg-port", Some("PORT"), "PostgreSQL port [default: 5432]"),
    ("pg-database", Some("DB"), "PostgreSQL database [default: databricks_postgres]"),
    PG_USERNAME,
    ("pgpass-file", Some("PATH"), "Password file [env: PGPASSFILE] [default: ~/.pgpass]"),
    ("log-file", Some("PATH"), "Log file, beside standard output [default: ~/.databricks_oauth_rotator.log]"),
    INTERVAL,
];

const INSTALL: [Told; 4] = [WORKSPACE, PG_HOST, PG_USERNAME, INTERVAL];

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage.";

impl Name {
    /// The page of an old name; none for our own.
    pub(super) fn page(self) -> Option<Command> {
        let (about, options, after): (_, &[Told], _) = match self {
            Name::Own => return None,
            Name::Rotator => ("Rotates the OAuth token in the PostgreSQL password file.", &ROTATOR, EXIT_CODES),
            Name::Install => (
                "Installs the service that rotates the token, and starts it.\n\n\
                 All settings of databricks-oauth-rotator are also taken from the environment. The service of the Python tool \
                 is taken over: its settings, its log, its place.",
                &INSTALL,
                EXIT_CODES,
            ),
            Name::Status => (
                "Shows whether the password is live, and how the service does.",
                &[],
                "Exit codes: 0 all is well, 1 not, 2 usage.",
            ),
            Name::Restart => ("Restarts the service.", &[], EXIT_CODES),
            Name::Uninstall => ("Stops and removes the service.", &[], EXIT_CODES),
        };
        let command = Command::new(self.word()).about(about).args(options.iter().copied().map(arg));
        Some(
            command
                .after_help(format!("{after}\n\nThis is dbx-rotator under its old name: see also dbx-rotator --help")),
        )
    }

    /// The page that was asked for, or what clap said with the usage of this name; none for our own name, and for the version.
    pub(super) fn explains(self, error: &clap::Error) -> Option<String> {
        let mut page = self.page()?.max_term_width(100);
        match error.kind() {
            ErrorKind::DisplayVersion => None,
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Some(page.render_help().to_string())
            }
            _ => {
                let said = error.render().to_string();
                let what = said.split("\n\nUsage:").next().unwrap_or_default().trim_end();
                Some(format!("{what}\n\n{}\n\nFor more information, try '--help'.\n", page.render_usage()))
            }
        }
    }
}

fn arg((name, value, help): Told) -> Arg {
    let arg = Arg::new(name).long(name).help(help);
    match value {
        Some(value) => arg.value_name(value),
        None => arg.action(ArgAction::SetTrue),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::Arguments;
    use super::*;

    const OLD: [Name; 5] = [Name::Rotator, Name::Install, Name::Status, Name::Restart, Name::Uninstall];

    #[test]
    fn every_option_of_a_page_is_taken_under_that_name() {
        for name in OLD {
            let page = name.page().unwrap();
            page.clone().debug_assert();
            for arg in page.get_arguments() {
                let long = format!("--{}", arg.get_long().unwrap());
                let words = match long.as_str() {
                    "--once" => vec![long.clone()],
                    "--interval" | "--pg-port" => vec![long.clone(), "45".to_owned()],
                    _ => vec![long.clone(), "x".to_owned()],
                };
                let words = name.words(words.into_iter().map(Into::into));
                assert!(Arguments::try_parse_from(words).is_ok(), "{name:?} {long}");
            }
        }
        assert!(Name::Own.page().is_none());
    }

    #[test]
    fn help_and_usage_are_those_of_the_name_that_was_called() {
        for name in OLD {
            let error = |word: &str| Arguments::try_parse_from(name.words([word.into()].into_iter())).unwrap_err();
            for word in ["--help", "-h"] {
                let page = name.explains(&error(word)).unwrap();
                assert!(page.contains(&format!("Usage: {}", name.word())) && page.contains("2 usage"), "{page}");
                assert!(!page.contains("[COMMAND]") && !page.contains("sysexits"), "{page}");
            }
            let said = name.explains(&error("--nonsense")).unwrap();
            assert!(said.starts_with("error: ") && said.contains("--nonsense"), "{said}");
            assert!(said.contains(&format!("Usage: {}", name.word())) && !said.contains("service "), "{said}");
        }
    }
}
