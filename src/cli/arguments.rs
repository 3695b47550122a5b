//! The command line: one definition for parsing and `--help`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use super::exit_codes;
use crate::config::{Overrides, parse_duration, port};
use crate::rotation::PATIENCE;

/// Keeps a Databricks Lakebase password alive in ~/.pgpass.
///
/// Without a command it stays and rotates, as `run` does.
#[derive(Debug, Parser)]
#[command(name = "dbx-rotator", version, max_term_width = 100)]
#[command(after_help = exit_codes::for_help())]
pub(super) struct Arguments {
    /// Rotate now and stop: the same as `rotate`
    #[arg(long)]
    pub(super) once: bool,
    /// Print more messages
    #[arg(short, long, global = true, conflicts_with = "quiet", action = ArgAction::SetTrue)]
    pub(super) verbose: bool,
    /// Print only errors and what a command was asked to print
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub(super) quiet: bool,
    // Last, because its heading also applies to everything after it.
    #[command(flatten)]
    pub(super) overrides: Overrides,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set up by answering a few questions: workspace, databases, what renews the passwords
    Setup(SetupOptions),
    /// Log in as a person, with the browser; the login then renews the passwords
    ///
    /// The workspace's page opens in the browser, and the browser comes back to a port of this machine, from 8020 to 8040. Where it runs
    /// on another machine, the address at which it ends there is pasted here. What the workspace gives is kept in the keyring, or with
    /// --file in a file that only you can read.
    Login(LoginOptions),
    /// Forget a login
    Logout {
        /// The workspace's name in the configuration; not needed when there is only one
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
    },
    /// Rotate now
    Rotate(RotateOptions),
    /// Stay and rotate before anything expires
    Run,
    /// Serve local sockets for programs that keep passwords
    ///
    /// They connect to the directory $XDG_RUNTIME_DIR/dbx-rotator, or to the proxy_port of a connection, with any password or none, and
    /// name a connection as the database: `psql -h $XDG_RUNTIME_DIR/dbx-rotator orders`. The proxy logs in to PostgreSQL with the
    /// password that is live at that moment. Only your own programs and root's may connect, unless config.toml allows others.
    Proxy,
    /// Show what is live, until when, and what happens next
    Status(StatusOptions),
    /// Print a live credential
    Token(TokenOptions),
    /// Run a program with a live password, such as `exec orders -- psql`
    ///
    /// The program finds the database in PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE, and its password in the password file. A
    /// password that is due is renewed first. The program takes the place of this one: signals and the exit code are its own. Exit
    /// code 127 when there is no such program, 126 when it cannot be executed. Secrets that sign in to the workspace, such as
    /// DATABRICKS_CLIENT_SECRET, are not handed on.
    Exec(ExecOptions),
    /// List the databases that can be kept alive: those that the signed-in identity can see
    Connections {
        /// Print JSON
        #[arg(long, conflicts_with = "toml")]
        json: bool,
        /// Print what can be pasted into config.toml, with what only this shell or command line says of the workspace
        #[arg(long)]
        toml: bool,
    },
    /// Look for problems; exit code 1 when something has failed
    Check {
        /// Also log in to PostgreSQL with what is published
        #[arg(long)]
        connect: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[cfg_attr(target_os = "macos", doc = "Let launchd do it: set up, start, stop and look at the service")]
    #[cfg_attr(not(target_os = "macos"), doc = "Let systemd do it: set up, start, stop and look at the service")]
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Show or check the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completions of commands and options for a shell
    Completions {
        /// Which shell, as in `source <(dbx-rotator completions bash)`
        shell: Shell,
    },
}

/// A shell that completes what one types.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct SetupOptions {
    /// Keep these databases alive, by the names that `connections` shows [default: it asks; with --yes all]
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(super) database: Vec<String>,
    /// Let a daemon renew the passwords, instead of a timer
    #[arg(long, conflicts_with = "no_service")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) daemon: bool,
    /// Set up nothing that renews the passwords
    #[arg(long)]
    pub(super) no_service: bool,
    /// Keep the service running while you are logged out
    #[arg(long, conflicts_with = "no_service")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) linger: bool,
    /// A sandbox without user namespaces, for machines that forbid them
    #[arg(long, conflicts_with = "no_service")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) relaxed: bool,
    /// Ask nothing: each question gets its default, or the answer of an option
    #[arg(short, long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct LoginOptions {
    /// The workspace's name in the configuration; not needed when there is only one
    #[arg(long, value_name = "NAME")]
    pub(super) workspace: Option<String>,
    /// Keep the login in a file that only you can read, instead of the keyring: for services that run while nobody is logged in
    #[arg(long)]
    pub(super) file: bool,
    /// Open no browser here: only print the address
    #[arg(long)]
    pub(super) no_browser: bool,
    /// Give up after this long, such as 10m; a bare number is minutes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5m")]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct RotateOptions {
    /// Only what is due; ends in milliseconds, without network, when nothing is
    #[arg(long)]
    pub(super) if_due: bool,
    /// Only these connections
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(super) connection: Vec<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Keep retrying temporary failures for this long, such as 5m; a bare number is minutes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1m")]
    pub(super) retry_for: Duration,
    /// Print JSON
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) json: bool,
    /// Publish the token on standard input, which you got elsewhere, instead of a new one
    #[arg(long, conflicts_with_all = ["if_due", "dry_run", "json"])]
    pub(super) token_stdin: bool,
}

impl Default for RotateOptions {
    fn default() -> Self {
        RotateOptions {
            if_due: false,
            connection: Vec::new(),
            dry_run: false,
            retry_for: PATIENCE,
            json: false,
            token_stdin: false,
        }
    }
}

/// What is asked about by `status --alive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Alive {
    Run,
    Proxy,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// Only this connection
    pub(super) connection: Option<String>,
    /// What a service of the machine keeps alive for this user; needs root
    #[arg(long = "for", value_name = "USER")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) user: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "prometheus")]
    pub(super) json: bool,
    /// Print metrics, such as for node_exporter's textfile collector; exit code 0 whatever they say
    #[arg(long)]
    pub(super) prometheus: bool,
    /// Only whether `dbx-rotator run` goes on here (or `proxy`), for the probes of a container: exit code 1 where it hangs or is not there
    #[arg(
        long, value_name = "run|proxy", num_args = 0..=1, require_equals = true, default_missing_value = "run",
        conflicts_with_all = ["connection", "json", "prometheus", "watch", "user"]
    )]
    pub(super) alive: Option<Alive>,
    /// Draw it anew whenever it changes, and each second, until Ctrl-C or q; on a terminal
    #[arg(long, conflicts_with_all = ["json", "prometheus"])]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct TokenOptions {
    /// The connection's name; not needed when there is only one
    pub(super) connection: Option<String>,
    /// The connection to this host, for clients that hand over what they connect to; with --user
    #[arg(long, value_name = "HOST", requires = "user", conflicts_with = "connection")]
    pub(super) host: Option<String>,
    /// The connection of this user; with --host
    #[arg(long, value_name = "USER", requires = "host")]
    pub(super) user: Option<String>,
    /// The connection to this port [default: any]
    #[arg(long, value_name = "PORT", requires = "host", value_parser = port)]
    pub(super) port: Option<u16>,
    /// Rotate first unless it is valid for at least this long, such as 10m; a bare number is minutes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    pub(super) min_valid: Duration,
    /// Print JSON, with the expiry and where to log in
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecOptions {
    /// The connection's name; not needed when there is only one
    #[arg(value_name = "NAME")]
    pub(super) connection: Option<String>,
    /// Set PGPASSWORD, for programs that read no password file; it expires within the hour, and your other programs can read it
    #[arg(long)]
    pub(super) password_env: bool,
    /// Set DATABASE_URL with the password in it; it expires within the hour, and your other programs can read it
    #[arg(long)]
    pub(super) url: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Write the settings that are given, enable the service, and wait for the first rotation
    Install(InstallOptions),
    /// Stop it, and remove what install wrote
    Uninstall {
        #[command(flatten)]
        which: WhichManager,
        /// Also remove its configuration, the client secret's file, and the proxy's own password with its entries of the password file
        #[arg(long, conflicts_with = "proxy")]
        purge: bool,
        /// Only the local proxy: what renews the passwords stays
        #[arg(long)]
        proxy: bool,
    },
    /// Start it
    Start {
        #[command(flatten)]
        which: WhichManager,
        /// Only the local proxy
        #[arg(long)]
        proxy: bool,
    },
    /// Stop it until the next boot or login
    Stop {
        #[command(flatten)]
        which: WhichManager,
        /// Only the local proxy
        #[arg(long)]
        proxy: bool,
    },
    /// Stop and start it again
    Restart {
        #[command(flatten)]
        which: WhichManager,
        /// Only the local proxy
        #[arg(long)]
        proxy: bool,
    },
    /// Show how the service manager sees it; exit code 0 when it runs and its last run went well, else 1
    Status {
        #[command(flatten)]
        which: WhichManager,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct InstallOptions {
    #[command(flatten)]
    pub(super) which: WhichManager,
    /// A daemon that stays, instead of a timer that runs every ten minutes
    #[arg(long)]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) daemon: bool,
    /// The local proxy as well, for programs that keep passwords; again after a change of proxy_port or proxy_allow
    #[arg(long)]
    pub(super) proxy: bool,
    /// Keep the service running while you are logged out
    #[arg(long, conflicts_with = "system")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) linger: bool,
    /// A sandbox without user namespaces, for machines that forbid them
    #[arg(long, conflicts_with = "system")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) relaxed: bool,
    /// Keep the client secret in the keychain instead of a file
    #[arg(long, conflicts_with = "system")]
    #[cfg_attr(not(target_os = "macos"), arg(hide = true))]
    pub(super) keychain: bool,
    /// Change an existing configuration without asking
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Called by the Python original's name: with its defaults
    #[arg(skip)]
    pub(super) as_original: bool,
}

/// Whose service manager.
#[derive(Debug, Args)]
pub(super) struct WhichManager {
    /// The machine's service manager instead of your own; needs root
    #[arg(long)]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) system: bool,
    /// The user whose password file it keeps [default: the user who called sudo]
    #[arg(long = "for", value_name = "USER", requires = "system")]
    #[cfg_attr(target_os = "macos", arg(hide = true))]
    pub(super) user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show the settings that are set, the main defaults, and where each came from
    Show,
    /// Print where the configuration file is read from
    Path,
    /// Find faults in the configuration
    Check,
}

impl Arguments {
    /// The command line of a unit, an agent or a terminal that asks for nothing but the timer's run or the daemon. What understands
    /// all others is not even loaded for these, which are there all day on every machine.
    pub(super) fn of_service(words: &[OsString]) -> Option<Self> {
        let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
        let if_due = |retry_for| Command::Rotate(RotateOptions { if_due: true, retry_for, ..RotateOptions::default() });
        let command = match words?.as_slice() {
            ["run"] => Command::Run,
            ["proxy"] => Command::Proxy,
            ["rotate", "--if-due"] => if_due(PATIENCE),
            ["rotate", "--if-due", "--retry-for", duration] => if_due(parse_duration(duration).ok()?),
            _ => return None,
        };
        let overrides = Overrides::default();
        Some(Arguments { once: false, verbose: false, quiet: false, overrides, command: Some(command) })
    }

    /// What no command means.
    pub(super) fn implied_command(&self) -> Command {
        if self.once { Command::Rotate(RotateOptions::default()) } else { Command::Run }
    }

    /// How much goes to stderr: commands that only print something log nothing below warnings.
    pub(super) fn level(&self, command: &Command) -> LevelFilter {
        match (self.verbose, self.quiet, command) {
            (true, ..) => LevelFilter::DEBUG,
            // What went wrong is its error, and is not to be said twice.
            (.., Command::Token(_) | Command::Exec(_)) => LevelFilter::OFF,
            (_, true, _) => LevelFilter::ERROR,
            (_, _, Command::Rotate(_) | Command::Run | Command::Proxy) => LevelFilter::INFO,
            _ => LevelFilter::WARN,
        }
    }
}

/// The command line as clap knows it, for man pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

impl ServiceCommand {
    /// Its name on the command line.
    pub(super) fn word(&self) -> &'static str {
        match self {
            ServiceCommand::Install(_) => "install",
            ServiceCommand::Uninstall { .. } => "uninstall",
            ServiceCommand::Start { .. } => "start",
            ServiceCommand::Stop { .. } => "stop",
            ServiceCommand::Restart { .. } => "restart",
            ServiceCommand::Status { .. } => "status",
        }
    }

    /// Which service is meant.
    pub(super) fn which(&self) -> &WhichManager {
        match self {
            ServiceCommand::Install(options) => &options.which,
            ServiceCommand::Uninstall { which, .. }
            | ServiceCommand::Start { which, .. }
            | ServiceCommand::Stop { which, .. }
            | ServiceCommand::Restart { which, .. }
            | ServiceCommand::Status { which, .. } => which,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    /// What a packaged unit runs, without the program.
    fn packaged_words() -> Vec<Vec<OsString>> {
        let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
        let units = ["system", "user"].iter().flat_map(|kind| std::fs::read_dir(dist.join(kind)).unwrap());
        let texts = units.map(|unit| std::fs::read_to_string(unit.unwrap().path()).unwrap());
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        let starts = lines.filter_map(|line| Some(line.strip_prefix("ExecStart=/usr/bin/dbx-rotator ")?.to_owned()));
        starts.map(|start| start.split_whitespace().map(OsString::from).collect()).collect()
    }

    #[test]
    fn a_services_command_line_means_the_same_without_the_parser() {
        let packaged = packaged_words();
        assert!(packaged.len() >= 4 && packaged.iter().all(|words| Arguments::of_service(words).is_some()));
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let written = [
            "run",
            "rotate --if-due",
            "rotate --if-due --retry-for 90s",
            "rotate --if-due --retry-for",
            "rotate",
            "rotate --if-due --retry-for x",
            "rotate --if-due --retry-for=5m",
            "run --verbose",
            "-v run",
            "",
            "run run",
        ];
        for words in packaged.into_iter().chain(written.map(words)) {
            let Some(ours) = Arguments::of_service(&words) else { continue };
            let line = std::iter::once(OsString::from("dbx-rotator")).chain(words);
            assert_eq!(format!("{ours:?}"), format!("{:?}", Arguments::try_parse_from(line).unwrap()));
        }
        assert!(Arguments::of_service(&words("rotate --if-due --retry-for x")).is_none());
    }

    #[test]
    fn the_originals_options_work_at_the_top_level() {
        let arguments = Arguments::try_parse_from(["x", "--once", "--interval", "45", "--pg-host", "h"]).unwrap();
        assert!(matches!(arguments.implied_command(), Command::Rotate(_)));
        assert_eq!(arguments.overrides.interval, Some(Duration::from_secs(45 * 60)));
        for interval in ["45m", "2700s", "45"] {
            let arguments = Arguments::try_parse_from(["x", "run", "--interval", interval]).unwrap();
            assert_eq!(arguments.overrides.interval, Some(Duration::from_secs(45 * 60)));
        }
        for interval in ["0", "1441", "30s", "soon"] {
            assert!(Arguments::try_parse_from(["x", "run", "--interval", interval]).is_err(), "{interval}");
        }
    }
}
