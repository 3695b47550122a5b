//! What people type that does not exist, and what they want by it.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::arguments::command;
use crate::model::Pasted;
use crate::model::server::left_over_of;
use crate::spelling::nearest;
use crate::typed::shell_word;

/// Commands of other programs, with what does the same here.
const COMMANDS: [(&[&str], &str); 18] = [
    (
        &["signin", "sign-in", "auth", "authenticate"],
        "people sign in with dbx-rotator login, or with the vendor's CLI: databricks auth login --host WORKSPACE; a service principal \
         needs no login",
    ),
    (&["install", "enable", "setup-service"], "dbx-rotator service install"),
    (&["uninstall", "remove", "disable"], "dbx-rotator service uninstall"),
    (&["start"], "dbx-rotator service start"),
    (&["stop"], "dbx-rotator service stop"),
    (&["restart", "reload"], "dbx-rotator service restart"),
    (LOGS, WHERE_LOGS_ARE),
    (&["init", "configure", "new", "quickstart", "wizard", "start-here"], "dbx-rotator setup"),
    (&["list", "ls", "databases", "instances", "endpoints", "connection"], "dbx-rotator connections"),
    (&["version", "v"], "dbx-rotator --version"),
    (&["usage", "man", "h"], "dbx-rotator --help"),
    (&["refresh", "renew", "update", "rotate-now", "once", "sync", "generate"], "dbx-rotator rotate"),
    (&["password", "credential", "credentials", "get-token", "get", "print", "show-token"], "dbx-rotator token"),
    (&["daemon", "watch", "serve", "server", "loop", "keep", "background"], "dbx-rotator run"),
    (&["doctor", "verify", "test", "validate", "diagnose", "ping"], "dbx-rotator check --connect"),
    (&["info", "ps", "health", "state", "st", "expiry"], "dbx-rotator status"),
    (&["show", "settings", "env"], "dbx-rotator config show"),
    (&["connect", "shell", "sql", "run-with", "with"], "dbx-rotator exec NAME -- psql"),
];

const LOGS: &[&str] = &["logs", "log", "journal", "tail"];

#[cfg(target_os = "macos")]
const WHERE_LOGS_ARE: &str = "log show --last 1h --predicate 'process == \"dbx-rotator\"' shows the service's messages; `dbx-rotator service status` its state";
#[cfg(not(target_os = "macos"))]
const WHERE_LOGS_ARE: &str = "journalctl --user -u dbx-rotator shows the messages of the timer's runs and of the daemon; journalctl -u 'dbx-rotator*@USER' those of a service of the machine";

/// Commands below `service` and `config`.
const BELOW: [(&str, &[&str], &str); 8] = [
    ("service", &["enable", "setup", "add", "create", "register"], "dbx-rotator service install"),
    ("service", &["disable", "remove", "delete"], "dbx-rotator service uninstall"),
    ("service", &["reload"], "dbx-rotator service restart"),
    ("service", &["show", "state", "list"], "dbx-rotator service status"),
    ("service", LOGS, WHERE_LOGS_ARE),
    ("config", &["list", "ls", "get", "print", "view", "dump"], "dbx-rotator config show"),
    ("config", &["edit", "set", "file", "where"], "`dbx-rotator config path` prints which file to edit"),
    ("config", &["validate", "test", "verify", "lint"], "dbx-rotator config check"),
];

/// Options of other programs, with those that say the same here.
const OPTIONS: [(&[&str], &str); 13] = [
    (
        &["--host", "--hostname", "--pghost", "--server"],
        "use --pg-host for the database, --workspace-url for the workspace",
    ),
    (&["--port", "--pgport", "-p"], "--pg-port"),
    (&["--user", "--username", "--pguser", "-U", "-u", "--role"], "--pg-username"),
    (&["--dbname", "--database", "--db", "--pgdatabase", "-d"], "--pg-database"),
    (&["--workspace", "--url", "--workspace-host", "--databricks-host"], "--workspace-url"),
    (
        &["--password", "--pgpassword", "-W", "--token"],
        "no password is needed: this program gets it from the workspace",
    ),
    (&["--secret", "--secret-file"], "--client-secret-file"),
    (&["--passfile", "--pgpass", "--password-file"], "--pgpass-file"),
    (&["--log", "--logfile"], "--log-file"),
    (&["--output", "-o", "--format"], "--json"),
    (&["--debug", "--trace"], "--verbose"),
    (&["--force", "-f"], "leave it out: `dbx-rotator rotate` rotates what is not due, too"),
    (&["--name", "-c", "-n"], "rotate names connections by --connection NAME"),
];

/// What is said instead of what clap says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Explains a command line with a word that does not exist.
pub(super) fn explain(error: &clap::Error, words: &[String]) -> Option<Explained> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_command(context(ContextKind::InvalidSubcommand)?, words),
        ErrorKind::UnknownArgument => unknown_argument(context(ContextKind::InvalidArg)?, words),
        _ => None,
    }
}

/// The command that was typed, such as `dbx-rotator service install`.
pub(super) fn typed_command(words: &[String]) -> String {
    let program = command();
    let (mut at, mut typed) = (&program, program.get_name().to_owned());
    for word in words.iter().take_while(|word| *word != "--") {
        if let Some(below) = at.find_subcommand(word) {
            (at, typed) = (below, format!("{typed} {}", below.get_name()));
        }
    }
    typed
}

fn unknown_command(word: &str, words: &[String]) -> Option<Explained> {
    let rest = words.iter().position(|other| other == word).map_or(&[][..], |at| &words[at..]);
    if let Some(explained) = pasted(rest, word) {
        return Some(explained);
    }
    let parent = parent(words, word);
    let message = match parent {
        Some(parent) => format!("`{parent}` has no command `{word}`"),
        None => format!("there is no command `{word}`"),
    };
    let lower = word.to_lowercase();
    let is_it = |words: &[&str]| words.contains(&lower.as_str());
    let wanted = match parent {
        Some(parent) => BELOW.iter().find(|(of, words, _)| *of == parent && is_it(words)).map(|(.., wanted)| *wanted),
        None => COMMANDS.iter().find(|(words, _)| is_it(words)).map(|(_, wanted)| *wanted),
    };
    let hint = match (wanted, near_command(parent, word)) {
        (Some(command), _) if command.starts_with("dbx-rotator") => format!("did you mean `{command}`?"),
        (Some(sentence), _) => sentence.to_owned(),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("the commands are: {}", commands(parent).join(", ")),
    };
    Some(Explained { message, hint })
}

/// The command before this word that has commands of its own.
fn parent<'w>(words: &'w [String], word: &str) -> Option<&'w str> {
    let before = words.iter().take_while(|other| *other != word);
    before.map(String::as_str).find(|before| !commands(Some(before)).is_empty())
}

/// The commands of the program, or of one of its commands.
fn commands(parent: Option<&str>) -> Vec<String> {
    let program = command();
    let of = match parent {
        Some(parent) => program.find_subcommand(parent),
        None => Some(&program),
    };
    of.into_iter().flat_map(clap::Command::get_subcommands).map(|known| known.get_name().to_owned()).collect()
}

fn near_command(parent: Option<&str>, word: &str) -> Option<String> {
    let known = commands(parent);
    nearest(word, known.iter().map(String::as_str)).map(str::to_owned)
}

fn unknown_argument(argument: &str, words: &[String]) -> Option<Explained> {
    if !argument.starts_with('-') {
        let rest = words.iter().position(|other| other == argument).map_or(&[][..], |at| &words[at..]);
        return without_dashes(argument, words)
            .or_else(|| pasted(rest, argument))
            .or_else(|| extra_word(argument, words));
    }
    let name = argument.split('=').next().unwrap_or_default();
    let message = format!("there is no option `{name}` here");
    let dashes = name.replace('_', "-").to_lowercase();
    let known = options(words);
    let near = known.iter().find(|known| **known == dashes).or_else(|| {
        let near = nearest(&dashes, known.iter().map(String::as_str))?;
        known.iter().find(|known| *known == near)
    });
    if near.is_none()
        && let Some(program) =
            words.iter().skip_while(|word| *word != "exec").skip(1).find(|word| !word.starts_with('-'))
    {
        return without_dashes(program, words);
    }
    let wanted = OPTIONS.iter().find(|(names, _)| names.contains(&name) || names.contains(&dashes.as_str()));
    let hint = match (wanted, near) {
        (_, Some(near)) if near.as_str() != name => format!("did you mean {near}?"),
        (Some((_, option)), _) if !option.contains(' ') => format!("did you mean {option}?"),
        (Some((_, sentence)), _) => (*sentence).to_owned(),
        _ => return None,
    };
    Some(Explained { message, hint })
}

/// The long options of the program and of the command that was typed.
fn options(words: &[String]) -> Vec<String> {
    let mut program = command();
    program.build();
    let mut at = &program;
    for word in words {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    at.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
}

/// The program that `exec` is to run, with nothing before it.
fn without_dashes(word: &str, words: &[String]) -> Option<Explained> {
    words.iter().find(|word| commands(None).contains(word)).filter(|typed| *typed == "exec")?;
    let hint = format!("write -- before the program: dbx-rotator exec [NAME] -- {}", shell_word(word));
    Some(Explained { message: "`exec` does not know where the program begins".to_owned(), hint })
}

/// A word too many, in a command that takes none or no more.
fn extra_word(word: &str, words: &[String]) -> Option<Explained> {
    let known = commands(None);
    let typed = words.iter().find(|word| known.contains(word))?;
    let hint = match typed.as_str() {
        "rotate" => format!("name connections by --connection: dbx-rotator rotate --connection {}", shell_word(word)),
        "token" => "token prints one; ask for each connection by itself".to_owned(),
        "check" => format!("`{typed}` is about all connections; leave out {word}"),
        _ => return None,
    };
    Some(Explained { message: format!("`{typed}` cannot take `{word}`"), hint })
}

/// What was pasted where a command or a name belongs. It is not quoted where it may hold a password.
fn pasted(words: &[String], word: &str) -> Option<Explained> {
    if let Some(pasted) = Pasted::of(word).or_else(|| Pasted::of_words(words)) {
        let message = format!("that is {}, not a command of dbx-rotator", pasted.what);
        let options = pasted.options();
        let hint = if pasted.what == "a psql command" || options.is_empty() {
            "keep a password for it with `dbx-rotator rotate` and run it as it is, or run it by `dbx-rotator exec NAME -- psql`"
                .to_owned()
        } else {
            format!("give its parts; the password is not needed: dbx-rotator rotate {options}")
        };
        return Some(Explained { message, hint });
    }
    if let Some(host) = word.strip_prefix("https://") {
        let message = "that is the address of a website, not a command of dbx-rotator".to_owned();
        return Some(Explained {
            message,
            hint: format!("name a workspace by an option: --workspace-url https://{host}"),
        });
    }
    let left_over = left_over_of(word)?;
    Some(Explained { message: format!("that is no command: {}", left_over.why), hint: left_over.hint })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::Arguments;
    use super::*;

    fn explained(line: &[&str]) -> Option<Explained> {
        let words: Vec<String> = line.iter().copied().map(str::to_owned).collect();
        let error = Arguments::try_parse_from(std::iter::once("dbx-rotator").chain(line.iter().copied())).unwrap_err();
        explain(&error, &words)
    }

    #[test]
    fn what_people_type_is_answered_by_what_they_want() {
        for (line, hint) in [
            (&["signin"][..], "dbx-rotator login"),
            (&["logn"], "did you mean `login`?"),
            (&["install"], "dbx-rotator service install"),
            (&["Install"], "dbx-rotator service install"),
            (&["logs"], if cfg!(target_os = "macos") { "log show" } else { "journalctl --user" }),
            (&["init"], "dbx-rotator setup"),
            (&["list"], "dbx-rotator connections"),
            (&["version"], "dbx-rotator --version"),
            (&["-v", "refresh"], "dbx-rotator rotate"),
            (&["rotat"], "did you mean `rotate`?"),
            (&["statsu"], "did you mean `status`?"),
            (&["connections", "--tom"], "did you mean --toml?"),
            (&["frobnicate"], "rotate, run, proxy, status, token, exec, "),
            (&["service", "enable"], "dbx-rotator service install"),
            (&["service", "instal"], "did you mean `install`?"),
            (&["service", "x"], "the commands are: install, uninstall"),
            (&["config", "edit"], "dbx-rotator config path"),
            (&["rotate", "--host", "h"], "--pg-host"),
            (&["rotate", "--client_id", "x"], "did you mean --client-id?"),
            (&["rotate", "--connections", "x"], "did you mean --connection?"),
            (&["--database=x"], "--pg-database"),
            (&["status", "--debug"], "--verbose"),
            (&["rotate", "--password", "x"], "no password is needed"),
            (&["rotate", "orders"], "rotate --connection orders"),
            (&["exec", "orders", "psql"], "exec [NAME] -- psql"),
            (&["exec", "psql", "-U", "ada"], "exec [NAME] -- psql"),
            (&["exec", "orders", "--ulr"], "did you mean --url?"),
            (&["check", "orders"], "leave out orders"),
            (&["psql", "-h", "db.example"], "dbx-rotator exec NAME -- psql"),
            (&["psql -h db.example -U ada"], "dbx-rotator exec NAME -- psql"),
            (
                &["postgres://ada:pw12345@db.example/app"],
                "rotate --pg-host db.example --pg-database app --pg-username ada",
            ),
            (&["host=db.example user=ada password=pw12345"], "rotate --pg-host db.example --pg-username ada"),
            (&["host=db.example", "user=ada", "password=pw12345"], "rotate --pg-host db.example --pg-username ada"),
            (&["rotate", "postgres://ada:pw12345@db.example"], "rotate --pg-host db.example --pg-username ada"),
            (&["https://dbc-1.cloud.databricks.com"], "--workspace-url https://dbc-1"),
            (&["<command>"], "write the value itself"),
            (&["\"rotate\""], "leave out the quotes: rotate"),
        ] {
            let explained = explained(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(explained.hint.contains(hint), "{line:?}: {explained:?}");
            assert!(!format!("{explained:?}").contains("pw12345"), "{explained:?}");
        }
    }

    #[test]
    fn no_command_of_ours_is_in_the_tables() {
        for (words, _) in COMMANDS {
            assert!(words.iter().all(|word| !commands(None).contains(&(*word).to_owned())), "{words:?}");
        }
        for (parent, words, _) in BELOW {
            assert!(words.iter().all(|word| !commands(Some(parent)).contains(&(*word).to_owned())), "{words:?}");
        }
        for (words, wanted) in OPTIONS {
            assert!(words.iter().all(|word| !options(&[]).contains(&(*word).to_owned())), "{words:?}");
            for option in wanted.split([' ', ',', '`']).filter(|word| word.starts_with("--")) {
                let known = [&[][..], &["rotate".to_owned()], &["status".to_owned()]];
                assert!(known.iter().any(|words| options(words).contains(&option.to_owned())), "{option}");
            }
        }
    }
}
