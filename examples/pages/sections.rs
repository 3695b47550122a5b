//! The sections of the man pages that `--help` does not have.

use dbx_rotator::EXIT_CODES;

use crate::roff::{list, plain, typed};

/// A name, and what it is.
type Entry = (&'static str, &'static str);

/// The sections after the options, for the page of these words after the program's name.
pub(crate) fn text(words: &[&str]) -> String {
    let command = words.join(" ");
    let mut text = String::new();
    let examples = EXAMPLES.iter().find(|(of, _)| *of == command).map_or(&[][..], |(_, examples)| *examples);
    if !examples.is_empty() {
        text += ".SH EXAMPLES\n";
        let one = |(what, line): &Entry| format!("{}\n{}", plain(what), typed(line));
        text += &examples.iter().map(one).collect::<Vec<_>>().join(".PP\n");
    }
    // What only prints a script reads nothing.
    if command != "completions" {
        let environment: Vec<Entry> = variables(&command).collect();
        text += &format!(".SH ENVIRONMENT\n{}", plain("An empty variable is an unset one."));
        text += &format!("\n{}.SH FILES\n{}", list(environment), list(FILES));
    }
    text += &format!(".SH \"EXIT STATUS\"\n{}", list(exit_codes(&command)));
    text + &see_also(&command)
}

fn exit_codes(command: &str) -> impl Iterator<Item = Entry> {
    let is_its_own = move |commands: &[&str]| command.is_empty() || commands.is_empty() || commands.contains(&command);
    EXIT_CODES.iter().filter(move |one| is_its_own(one.commands)).map(|one| (one.code, one.meaning))
}

fn variables(command: &str) -> impl Iterator<Item = Entry> {
    let terminal = matches!(command, "" | "status");
    let service = matches!(command, "" | "rotate" | "run");
    let login = matches!(command, "" | "login");
    let all = SETTINGS.iter().chain(LOGIN.iter().filter(move |_| login));
    let all = all.chain(TERMINAL.iter().filter(move |_| terminal));
    all.chain(SERVICE.iter().filter(move |_| service)).copied()
}

fn see_also(command: &str) -> String {
    let mut pages = vec![("dbx-rotator.toml", 5), ("psql", 1)];
    if !command.is_empty() {
        pages.insert(0, ("dbx-rotator", 1));
    }
    if command == "check" {
        pages.insert(1, ("dbx-rotator-status", 1));
    }
    let pages: Vec<String> = pages.iter().map(|(name, section)| format!(".BR {} ({section})", plain(name))).collect();
    format!(".SH \"SEE ALSO\"\n{}\n", pages.join(",\n"))
}

const SETTINGS: [Entry; 31] = [
    ("DATABRICKS_HOST", "The workspace's address, unless --workspace-url is given."),
    ("DATABRICKS_CLIENT_ID", "The client id of a service principal, for the workspace of DATABRICKS_HOST."),
    ("DATABRICKS_CLIENT_SECRET", "Its OAuth secret, for the workspace of DATABRICKS_HOST."),
    ("DATABRICKS_CONFIG_PROFILE", "The profile of ~/.databrickscfg to take what is missing from."),
    ("DATABRICKS_CONFIG_FILE", "Another file than ~/.databrickscfg."),
    ("DATABRICKS_AUTH_TYPE", "How to sign in, such as oauth-m2m, file-oidc or databricks-cli."),
    (
        "DATABRICKS_OIDC_TOKEN_FILEPATH",
        "The file with a token of another issuer, which is exchanged for the workspace's.",
    ),
    ("DATABRICKS_GROUP_ID", "The group with whose rights to sign in."),
    ("DATABRICKS_CLI_PATH", "The Databricks CLI, if it is not on PATH."),
    ("DATABRICKS_WORKSPACE_ID", "The workspace behind the custom URL of an account."),
    ("DATABRICKS_ACCOUNT_ID", "The account of a custom URL."),
    ("DATABRICKS_GROUP_ID", "The group whose rights a login in the browser has."),
    ("DATABRICKS_PG_HOST", "The PostgreSQL host, unless --pg-host is given."),
    ("DATABRICKS_PG_USERNAME", "The PostgreSQL user, unless --pg-username is given."),
    ("PGHOST", "The PostgreSQL host, where nothing else names one."),
    ("PGPORT", "Its port, where nothing else names one."),
    ("PGDATABASE", "The database, where nothing else names one."),
    ("PGUSER", "The PostgreSQL user, where nothing else names one."),
    ("PGPASSFILE", "The password file, unless --pgpass-file is given."),
    ("PGSERVICEFILE", "libpq's connection service file, instead of ~/.pg_service.conf."),
    ("DBX_ROTATOR_CONFIG", "The configuration file, unless --config is given."),
    ("SSL_CERT_FILE", "A file of the certificates that are trusted, as for OpenSSL."),
    ("SSL_CERT_DIR", "A directory of them."),
    (
        "KUBERNETES_SERVICE_HOST",
        "The address of the cluster's API server, for kubernetes_secret; the kubelet sets it in each pod.",
    ),
    ("KUBERNETES_SERVICE_PORT", "Its port; 443 without it."),
    ("HTTPS_PROXY", "The proxy for all requests; it wins over the setting proxy."),
    ("NO_PROXY", "What is reached without the proxy."),
    ("HOME", "Where ~ is."),
    ("PATH", "Where the Databricks CLI and programs to run are found."),
    ("XDG_CONFIG_HOME", "Where the configuration is, instead of ~/.config."),
    ("XDG_STATE_HOME", "Where the record is, instead of ~/.local/state."),
];

const LOGIN: [Entry; 3] = [
    ("BROWSER", "The program that opens an address, before what the desktop has chosen."),
    ("DATABRICKS_OAUTH_CALLBACK_PORT", "The only port that the browser may come back to."),
    ("DBUS_SESSION_BUS_ADDRESS", "Where the keyring is, on Linux."),
];

const TERMINAL: [Entry; 5] = [
    ("NO_COLOR", "If it is set, nothing is coloured."),
    ("TERM", "On a terminal that is called dumb, nothing is coloured or drawn."),
    ("LC_ALL", "Whether the terminal shows UTF-8; before LC_CTYPE and LANG."),
    ("LC_CTYPE", "The same; before LANG."),
    ("LANG", "The same."),
];

const SERVICE: [Entry; 5] = [
    ("CREDENTIALS_DIRECTORY", "Where systemd has put the credential client-secret."),
    ("STATE_DIRECTORY", "Where systemd wants the record."),
    ("CONFIGURATION_DIRECTORY", "Where systemd has config.toml."),
    ("NOTIFY_SOCKET", "Where systemd is told how it goes."),
    ("JOURNAL_STREAM", "Whether messages go to the journal, with its fields."),
];

const FILES: [Entry; 11] = [
    ("~/.pgpass", "The password file. Only the entries of the connections are ever changed."),
    ("~/.config/dbx-rotator/config.toml", "The configuration, see dbx-rotator.toml(5)."),
    ("~/.config/dbx-rotator/conf.d/*.toml", "Fragments of it, for packages, roles and teams."),
    ("~/.databrickscfg", "Profiles of the Databricks CLI."),
    ("~/.databricks/token-cache.json", "Logins of the Databricks CLI: a change is noticed, and nothing else is read."),
    (
        "~/.local/state/dbx-rotator/logins",
        "What is known of logins in the browser, and their tokens where no keyring has them.",
    ),
    ("~/.local/state/dbx-rotator/record.json", "What the last rotations did, without secrets."),
    ("~/.pg_service.conf", "Services for psql service=NAME, of connections that name an instance or endpoint."),
    ("~/.databricks_oauth_rotator.log", "The log of databricks-oauth-rotator."),
    ("/etc/dbx-rotator/USER.toml", "The configuration of a service of the machine."),
    ("/etc/dbx-rotator/USER.client-secret", "The client secret for it; of root, mode 0600."),
];

const EXAMPLES: [(&str, &[Entry]); 20] = [
    (
        "",
        &[
            ("Set everything up by a few questions:", "dbx-rotator setup"),
            ("Connect as the database is called:", "psql service=orders"),
            (
                "Renew the password now, without a configuration file:",
                "DATABRICKS_HOST=dbc-1234.cloud.databricks.com dbx-rotator rotate --pg-host instance-1234.database.cloud.databricks.com",
            ),
        ],
    ),
    (
        "setup",
        &[
            ("Ask what is not known:", "dbx-rotator setup"),
            (
                "Ask nothing, and let a daemon renew the password:",
                "dbx-rotator setup --yes --profile prod --database orders --daemon",
            ),
        ],
    ),
    (
        "login",
        &[
            ("Log in with the browser:", "dbx-rotator login"),
            (
                "Log in over ssh, for a service that runs while you are logged out:",
                "dbx-rotator login --file --no-browser",
            ),
        ],
    ),
    ("logout", &[("Forget the login of one of several workspaces:", "dbx-rotator logout --workspace prod")]),
    (
        "rotate",
        &[
            ("What a timer runs:", "dbx-rotator rotate --if-due"),
            ("Show what would be done for two connections:", "dbx-rotator rotate --dry-run --connection orders stock"),
        ],
    ),
    ("run", &[("Stay in a terminal or a container, with all messages:", "dbx-rotator run --verbose")]),
    (
        "status",
        &[
            ("See at one glance what is live, until when, and what to do:", "dbx-rotator status"),
            ("See it change:", "dbx-rotator status --watch"),
            (
                "The connections that are not live, for a program:",
                "dbx-rotator status --json | jq -r '.connections[] | select(.state != \"live\").name'",
            ),
        ],
    ),
    (
        "token",
        &[
            ("A credential that lives for ten more minutes at least:", "dbx-rotator token orders --min-valid 10m"),
            ("pgAdmin's password command:", "dbx-rotator token --host %HOSTNAME% --port %PORT% --user %USERNAME%"),
        ],
    ),
    (
        "exec",
        &[
            ("A shell of the database:", "dbx-rotator exec orders -- psql"),
            ("A program that takes a URL:", "dbx-rotator exec orders --url -- ./migrate"),
        ],
    ),
    (
        "connections",
        &[(
            "Add what is to be kept alive to a configuration:",
            "dbx-rotator connections --toml >>~/.config/dbx-rotator/config.toml",
        )],
    ),
    (
        "check",
        &[
            ("Log in with what is published:", "dbx-rotator check --connect"),
            (
                "What has failed, for a program:",
                "dbx-rotator check --json | jq '.findings[] | select(.level == \"failed\")'",
            ),
        ],
    ),
    (
        "service",
        &[(
            "Let a timer renew the passwords, and look at it:",
            "dbx-rotator service install && dbx-rotator service status",
        )],
    ),
    (
        "service install",
        &[
            ("Renew them while you are logged out, too:", "dbx-rotator service install --linger"),
            ("On a server, for one user:", "sudo dbx-rotator service install --system --for ada"),
        ],
    ),
    ("service uninstall", &[("Remove its configuration, too:", "dbx-rotator service uninstall --purge")]),
    ("service restart", &[("Take another log file:", "dbx-rotator service restart")]),
    ("service status", &[("For a program:", "dbx-rotator service status --json")]),
    ("config", &[("What is in effect, and where it comes from:", "dbx-rotator config show")]),
    ("config show", &[("What one more option changes:", "dbx-rotator config show --profile prod")]),
    (
        "config check",
        &[("Before a new configuration takes the place of the old one:", "dbx-rotator config check --config new.toml")],
    ),
    (
        "completions",
        &[("Complete commands, options and connections in this shell:", "source <(dbx-rotator completions bash)")],
    ),
];
