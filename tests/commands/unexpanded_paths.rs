//! Paths that no shell has seen: what it would have replaced is replaced, or named in an error, whichever setting it stands in and
//! wherever that comes from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use crate::support::{Home, Session, dbx_rotator};

const FILE: &str = ".config/dbx-rotator/config.toml";
const ID: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";

/// Every path of a configuration file, each to be given a value.
const KEYS: [(&str, &str); 11] = [
    ("password_file = 'PATH'", ""),
    ("password_file = ['~/.pgpass', 'PATH']", ""),
    ("log_file = 'PATH'", ""),
    ("", "client_secret_file = 'PATH'"),
    ("", "ca_file = 'PATH'"),
    ("", "cli_path = 'PATH'"),
    ("", "sslrootcert = 'PATH'"),
    ("", "token_file = 'PATH'"),
    ("", "env_file = 'PATH'"),
    ("", "[[connection.file]]\npath = '/out'\ntemplate = 'PATH'"),
    ("", "[[connection.file]]\ntemplate = '/in'\npath = 'PATH'"),
];

fn show<'a>(home: &'a Home, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(["config", "show"]).args(arguments)
}

/// A configuration with this path in the place of that key.
fn configure(home: &Home, (head, key): (&str, &str), path: &str) {
    let of_workspace = ["client_secret_file", "ca_file", "cli_path"].iter().any(|name| key.starts_with(name));
    let (workspace, connection) = if of_workspace { (key, "") } else { ("", key) };
    let text = format!(
        "{head}\n[[workspace]]\nhost = 'https://dbc-1.example.com'\n{workspace}\n[[connection]]\nhost = 'db.example.com'\n{connection}\n"
    );
    let text = if key.starts_with("client_secret_file") {
        text.replace("host = 'https", &format!("client_id = '{ID}'\nhost = 'https"))
    } else {
        text
    };
    home.write(FILE, text.replace("PATH", path), 0o600);
}

#[test]
fn each_path_of_the_file_is_expanded_or_named() {
    for key in KEYS {
        let home = Home::new();
        let at = |inside: &str| home.path(inside).display().to_string();
        for (path, expanded) in
            [("~/x", at("x")), ("$HOME/x", at("x")), ("${HOME}/x", at("x")), ("~root/x", "/root/x".to_owned())]
        {
            configure(&home, key, path);
            let outcome = show(&home, &[]).run();
            let words: Vec<&str> = outcome.exits(0).stdout.split([' ', '\n', ',']).collect();
            assert!(words.contains(&expanded.as_str()), "{key:?} {path}\n{outcome}");
        }
        for (path, said) in [
            ("~no-such-user-here/x", "there is no user no-such-user-here"),
            ("${NOWHERE}/x", "holds the variable ${NOWHERE}"),
            ("/home/$USER/x", "holds the variable $USER"),
        ] {
            configure(&home, key, path);
            show(&home, &[]).run().exits(78).stderr_has(said).stderr_has("config.toml:").stderr_has("^");
        }
    }
}

#[test]
fn a_program_that_is_told_is_looked_for_in_the_home_directory() {
    let home = Home::new();
    configure(&home, ("", "on_rotate = ['~no-such-user-here/x']"), "");
    show(&home, &[]).run().exits(78).stderr_has("there is no user no-such-user-here");
}

#[test]
fn each_path_among_the_options_is_expanded_or_named() {
    for (flag, shown) in
        [("--pgpass-file", true), ("--log-file", true), ("--client-secret-file", true), ("--config", false)]
    {
        let home = Home::new();
        home.write("x", "", 0o600);
        let secret = home.path("secret").display().to_string();
        let mut words =
            vec!["--workspace-url", "https://dbc-1.example.com", "--client-id", ID, "--pg-host", "db.example.com"];
        if flag != "--client-secret-file" {
            words.extend(["--client-secret-file", &secret]);
        }
        for path in ["~/x", "$HOME/x", "${HOME}/x"] {
            // As by `--flag=~/x`, which most shells hand over as it is.
            let given = format!("{flag}={path}");
            let given = [&words[..], &[given.as_str()]].concat();
            let outcome = show(&home, &given).run();
            outcome.exits(0);
            assert!(!shown || outcome.stdout.contains(home.path("x").to_str().unwrap()), "{flag} {path}\n{outcome}");
        }
        let given = format!("{flag}=~no-such-user-here/x");
        let given = [&words[..], &[given.as_str()]].concat();
        show(&home, &given).run().exits(64).stderr_has(flag).stderr_has("there is no user no-such-user-here");
    }
}

#[test]
fn each_path_among_the_variables_is_expanded_or_named() {
    let with = |home: &Home, name: &str, value: &str| {
        let words = ["--workspace-url", "https://dbc-1.example.com", "--pg-host", "db.example.com"];
        show(home, &words).env(name, value).run()
    };
    for (name, is_ours) in [
        ("DBX_ROTATOR_CONFIG", true),
        ("DATABRICKS_CONFIG_FILE", true),
        ("DATABRICKS_CLI_PATH", true),
        // libpq and TLS libraries take these as they stand, so that what we did with them would not be what clients do.
        ("PGPASSFILE", false),
        ("PGSERVICEFILE", false),
        ("SSL_CERT_FILE", false),
        ("SSL_CERT_DIR", false),
    ] {
        let home = Home::new();
        home.write("x", "", 0o600);
        for path in ["~/x", "$HOME/x"] {
            let outcome = with(&home, name, path);
            if is_ours {
                outcome.exits(0);
            } else {
                let hint = format!("set it to {}", home.path("x").display());
                outcome.exits(78).stderr_has(&format!("${name}: `{path}`")).stderr_has(&hint);
            }
        }
        let outcome = with(&home, name, "${NOWHERE}/x");
        outcome.exits(78).stderr_has(&format!("${name}: `${{NOWHERE}}/x` holds the variable"));
        with(&home, name, home.path("x").to_str().unwrap()).exits(0);
    }
}

#[test]
fn where_the_configuration_is_looked_for_is_said_in_full() {
    let home = Home::new();
    let path = home.write("other.toml", "", 0o600).display().to_string();
    for session in [
        dbx_rotator!(home).args(["config", "path", "--config=~/other.toml"]),
        dbx_rotator!(home).args(["config", "path"]).env("DBX_ROTATOR_CONFIG", "~/other.toml"),
    ] {
        session.run().exits(0).stdout_has(&path);
    }
}
