//! `dbx-rotator completions`, and the names of connections that its scripts ask for while somebody types.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command};
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_complete::{Generator, generate};

use super::arguments::{Shell, command};
use super::{Fault, print};
use crate::config::{Config, Overrides};
use crate::foreign;

/// What the scripts say before the words that were typed. No command, since nobody shall type it.
const NAMES: &str = "__connection-names";

/// The commands of the Python original.
const OLD_COMMANDS: &str = "databricks-oauth-rotator databricks-oauth-install databricks-oauth-status \
                            databricks-oauth-restart databricks-oauth-uninstall";

pub(super) fn run(shell: Shell) -> Result<u8, Fault> {
    print::out(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    match shell {
        // In one of two places, clap_complete 4.6 takes the hyphen in the program's name for the step to a subcommand.
        Shell::Bash => {
            generated(Bash).replace("dbx__subcmd__rotator", "dbx__rotator") + include_str!("completions/tail.bash")
        }
        Shell::Zsh => zsh(&generated(Zsh)),
        Shell::Fish => generated(Fish) + include_str!("completions/tail.fish"),
    }
}

fn generated(generator: impl Generator) -> String {
    let mut text = Vec::new();
    generate(generator, &mut command(), env!("CARGO_PKG_NAME"), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// In zsh each argument has its own function, so that ours is put where the arguments are connections.
fn zsh(generated: &str) -> String {
    let mut text = String::with_capacity(generated.len() + 2_048);
    for line in generated.lines() {
        let is_connection = line.starts_with("'::connection -- ") || line.starts_with("'*--connection=[");
        match line {
            "#compdef dbx-rotator" => text += &format!("{line} {OLD_COMMANDS}"),
            "_dbx-rotator() {" => text += &format!("{line}\n{}", include_str!("completions/head.zsh").trim_end()),
            "    compdef _dbx-rotator dbx-rotator" => text += &format!("{line} {OLD_COMMANDS}"),
            "if [ \"$funcstack[1]\" = \"_dbx-rotator\" ]; then" => {
                text += include_str!("completions/names.zsh");
                text += line;
            }
            line if is_connection => text += &line.replace(":_default'", ":_dbx_rotator_names'"),
            line => text += line,
        }
        text.push('\n');
    }
    text
}

/// If a script asks for names: those that can be typed where the cursor is, one a line. None if this is another command.
pub(super) fn names_asked_for(words: &[OsString]) -> Option<String> {
    let (first, typed) = words.split_first()?;
    if first != NAMES {
        return None;
    }
    let typed: Vec<String> = typed.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(overrides) = wanted(&typed) else { return Some(String::new()) };
    // Whoever types is not to be disturbed by what is wrong with the configuration.
    let config = Config::load(&overrides).ok();
    let names = config.iter().flat_map(Config::connections).map(crate::model::Connection::name);
    // What cannot be shown cannot be chosen either, and what looks like an option would be taken for one.
    let names = names.filter(|name| !name.starts_with('-') && foreign::line(name) == *name);
    Some(names.map(|name| format!("{name}\n")).collect())
}

/// Whether the last of these words can be a connection's name, and what the words before say of the configuration. Without any
/// words the shell itself has found out.
fn wanted(typed: &[String]) -> Option<Overrides> {
    let mut overrides = Overrides::default();
    let Some((current, before)) = typed.split_last() else { return Some(overrides) };
    let mut whole = command();
    whole.build();
    let (mut at, mut awaiting, mut positionals) = (&whole, None::<&Arg>, 0);
    for word in before {
        if let Some(arg) = awaiting.filter(|_| !word.starts_with('-')) {
            // bash takes `--config=x` for three words.
            if word != "=" {
                keep(&mut overrides, arg, word);
                awaiting = takes_many(arg).then_some(arg);
            }
        } else if word == "--" {
            return None;
        } else if let Some(option) = word.strip_prefix("--") {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let arg = option_named(at, name);
            if let (Some(arg), Some(value)) = (arg, value) {
                keep(&mut overrides, arg, value);
            }
            awaiting = arg.filter(|_| value.is_none());
        } else if word.starts_with('-') {
            awaiting = None;
        } else if let Some(subcommand) = at.find_subcommand(word) {
            at = subcommand;
        } else {
            positionals += 1;
        }
    }
    let arg = awaiting.or_else(|| at.get_positionals().nth(positionals))?;
    (arg.get_id() == "connection" && !current.starts_with('-')).then_some(overrides)
}

fn option_named<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let takes_value = |arg: &&Arg| arg.get_action().takes_values();
    command.get_arguments().filter(takes_value).find(|arg| arg.get_long() == Some(name))
}

fn takes_many(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|count| count.max_values() > 1)
}

fn keep(overrides: &mut Overrides, arg: &Arg, value: &str) {
    if arg.get_id() == "config" {
        overrides.config = Some(PathBuf::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_where_a_connection_is_named_and_nowhere_else() {
        for (line, is_wanted) in [
            ("status ", true),
            ("-v status --json ", true),
            ("status orders ", false),
            ("status -", false),
            ("status --for ", false),
            ("status --for ada ", true),
            ("token --min-valid 5m or", true),
            ("exec ", true),
            ("exec orders ", false),
            ("exec orders -- ", false),
            ("exec -- psql ", false),
            ("rotate ", false),
            ("rotate --connection ", true),
            ("rotate --connection a b", true),
            ("rotate --connection a --if-due ", false),
            ("rotate --config x ", false),
            ("run ", false),
            ("", false),
            ("no-such-command ", false),
            ("service status ", false),
            ("--config = x status ", true),
        ] {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words.retain({
                let last = words.len();
                let mut at = 0;
                move |word| {
                    at += 1;
                    at == last || !word.is_empty()
                }
            });
            assert_eq!(wanted(&words).is_some(), is_wanted, "{line:?}");
        }
        let config = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            wanted(&words).unwrap().config
        };
        assert_eq!(config(&["--config", "x", "status", ""]), Some("x".into()));
        assert_eq!(config(&["--config", "=", "y", "status", ""]), Some("y".into()));
        assert_eq!(config(&["status", "--config=z", "o"]), Some("z".into()));
        assert_eq!(wanted(&[]).map(|overrides| overrides.config), Some(None));
    }

    #[test]
    fn what_the_generator_writes_is_known_where_it_is_changed() {
        let text = script(Shell::Zsh);
        assert_eq!(text.matches(":_dbx_rotator_names'").count(), 4, "status, token, exec, rotate --connection");
        assert_eq!(text.matches(OLD_COMMANDS).count(), 2);
        assert!(text.contains("case $service in") && text.contains("compadd -a names"));
    }
}
