//! A client secret with what editors and shells put around it or make of it, in every source: read as what was meant, or refused
//! with what it is, and never shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::workspace::{DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET};
use crate::support::{Home, Session, Workspace, dbx_rotator};

/// Where a secret can be given.
const SOURCES: [&str; 5] = ["environment", "option", "file", "credential", "profile"];

/// `dbx-rotator rotate` with these bytes as the secret, by one source; none where that source cannot hold them.
fn rotate<'a>(home: &'a Home, workspace: &Workspace, source: &str, bytes: &[u8]) -> Option<Session<'a>> {
    let session = dbx_rotator!(home)
        .args(["rotate", "--retry-for", "0s"])
        .env("DATABRICKS_AUTH_TYPE", "oauth-m2m")
        .env("DATABRICKS_PG_HOST", "db.example");
    let with_host =
        || session.clone().env("DATABRICKS_HOST", workspace.url()).env("DATABRICKS_CLIENT_ID", workspace.client_id());
    let is_a_word = !bytes.contains(&0) && !bytes.is_empty();
    Some(match source {
        "environment" if is_a_word => with_host().env("DATABRICKS_CLIENT_SECRET", OsStr::from_bytes(bytes)),
        "option" if is_a_word => with_host().arg("--client-secret").arg(OsStr::from_bytes(bytes)),
        "file" => {
            home.write("secret", bytes, 0o600);
            with_host().args(["--client-secret-file", "secret"])
        }
        "credential" => {
            home.write("credentials/client-secret", bytes, 0o600);
            with_host().env("CREDENTIALS_DIRECTORY", home.path("credentials"))
        }
        "profile" if is_a_word && !bytes.trim_ascii().contains(&b'\n') => {
            let (host, id) = (workspace.url(), DEFAULT_CLIENT_ID);
            let head = format!("[DEFAULT]\nhost = {host}\nclient_id = {id}\nclient_secret = ");
            home.write(".databrickscfg", [head.as_bytes(), bytes, b"\n"].concat(), 0o600);
            session
        }
        _ => return None,
    })
}

#[test]
fn what_stands_around_a_secret_is_no_part_of_it_in_any_source() {
    let workspace = Workspace::builder().http().start();
    for around in ["", "\r", "\n", "\r\n", "\u{feff}", " ", "\t", "\u{a0}", "\u{200b}", "\u{2060}"] {
        for (before, after) in [("", around), (around, ""), (around, around)] {
            let bytes = format!("{before}{DEFAULT_CLIENT_SECRET}{after}").into_bytes();
            for source in SOURCES {
                let home = Home::new();
                home.watch(&workspace);
                let Some(session) = rotate(&home, &workspace, source, &bytes) else { continue };
                // A line end before the value of a profile's key begins another line.
                if source == "profile" && before.contains(['\r', '\n']) {
                    continue;
                }
                let outcome = session.run();
                assert_eq!(outcome.code, Some(0), "{source} {before:?} {after:?}\n{outcome}");
            }
        }
    }
}

#[test]
fn what_can_be_no_secret_is_refused_with_what_it_is_in_every_source() {
    let workspace = Workspace::builder().http().start();
    let secret = DEFAULT_CLIENT_SECRET;
    let utf16 = |order: fn(u16) -> [u8; 2]| secret.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    let with = |text: &str| text.replace("SECRET", secret).into_bytes();
    let everywhere = &SOURCES[..];
    let no_profile = &SOURCES[..4];
    let files = &["file", "credential"][..];
    for (bytes, sources, why) in [
        // The vendor's CLI takes the quotes off a profile's value.
        (with("\"SECRET\""), no_profile, "leave out the quotes"),
        (with("'SECRET'"), no_profile, "leave out the quotes"),
        (with("\u{201c}SECRET\u{201d}"), everywhere, "leave out the quotes"),
        (with("`SECRET`"), everywhere, "leave out the quotes"),
        (with("SECRET\nSECRET"), no_profile, "more than one line"),
        (with("SEC\u{a0}RET"), everywhere, "printable ASCII"),
        (with("SECRET\u{e9}"), everywhere, "printable ASCII"),
        (with("x\rSECRET"), no_profile, "printable ASCII"),
        (with("DATABRICKS_CLIENT_SECRET=SECRET"), everywhere, "whole setting"),
        (with("export DATABRICKS_CLIENT_SECRET=SECRET"), everywhere, "whole setting"),
        (with("{\"client_secret\": \"SECRET\"}"), everywhere, "whole setting"),
        (b"<client-secret>".to_vec(), everywhere, "placeholder"),
        (b"${CLIENT_SECRET}".to_vec(), everywhere, "variable"),
        (b"changeme".to_vec(), everywhere, "no value"),
        (b"********".to_vec(), everywhere, "masked"),
        (b"dapi0123456789abcdef0123456789abcdef".to_vec(), everywhere, "personal access token"),
        (b" \r\n".to_vec(), &["environment", "option", "file", "credential"], "is empty"),
        ([&b"\xff\xfe"[..], &little].concat(), files, "UTF-16"),
        ([&b"\xfe\xff"[..], &big].concat(), files, "UTF-16"),
        (little, files, "UTF-16"),
        (b"caf\xe9-0123456789".to_vec(), files, "Latin-1"),
        (b"caf\xe9-0123456789".to_vec(), &["profile"], "Latin-1"),
        (b"caf\xe9-0123456789".to_vec(), &["environment"], "not UTF-8"),
    ] {
        for source in sources {
            let home = Home::new();
            home.watch(&workspace);
            let session = rotate(&home, &workspace, source, &bytes).unwrap();
            let outcome = session.run();
            assert!(outcome.code == Some(78) && outcome.stderr.contains(why), "{source} {bytes:?}: {why}\n{outcome}");
        }
    }
    assert_eq!(workspace.token_requests(), 0, "nothing that cannot be a secret was sent");
}

#[test]
fn settings_in_another_encoding_are_called_what_they_are() {
    let texts =
        ["# pr\u{e9}\n[DEFAULT]\nhost = http://localhost:1\n", "# pr\u{e9}\n[[connection]]\nhost = 'x.example'\n"];
    for (file, text) in [".databrickscfg", ".config/dbx-rotator/config.toml"].into_iter().zip(texts) {
        let latin1: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [&b"\xff\xfe"[..], &utf16].concat();
        for (bytes, name) in [(latin1, "Latin-1"), (utf16, "UTF-16"), (marked, "UTF-16")] {
            let home = Home::new();
            home.write(file, bytes, 0o600);
            let outcome = dbx_rotator!(home).args(["config", "check"]).env("DATABRICKS_PG_HOST", "x.example").run();
            outcome.exits(78).stderr_has(name).stderr_has(file).stderr_has("save it as UTF-8");
        }
    }
}

/// Whoever gives a secret where a path, a name or an address belongs learns that, and nobody reads the secret in the message.
#[test]
fn what_was_given_in_the_wrong_place_is_not_shown() {
    let key = format!("{{\"type\":\"service_account\",\"private_key\":\"-----BEGIN{}\"}}", "q7Xo".repeat(300));
    let encoded: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (url, typed) = ("https://ada:hunter2-of-4711@db.example:5432/x", "dose0123456789abcdefwrongplace");
    let workspace = "[[workspace]]\nhost = 'https://w.example'\nclient_id = 'id'\n";
    let connection = |what: &str| format!("{workspace}client_secret_file = 's'\n[[connection]]\n{what}\n");
    let plain = connection("host = 'h'");
    let own = |more: &str| plain.replace("client_secret_file = 's'", more);
    let no_variable: (&str, &str) = ("LANG", "C");
    for (config, (name, value), flags) in [
        (connection(&format!("instance = '{url}'")), no_variable, vec![]),
        (connection(&format!("endpoint = '{url}'")), no_variable, vec![]),
        (connection(&format!("host = '{url}'")), no_variable, vec![]),
        (plain.replace("https://w.example", url), no_variable, vec![]),
        (plain.clone(), ("NO_PROXY", url), vec![]),
        (plain.clone(), ("DATABRICKS_PG_HOST", url), vec![]),
        (String::new(), ("DATABRICKS_HOST", url), vec![]),
        (String::new(), ("DATABRICKS_CONFIG_PROFILE", url), vec![]),
        (plain.clone(), ("DATABRICKS_AUTH_TYPE", url), vec![]),
        (own("google_credentials_file = 'K'").replace('K', &encoded), no_variable, vec![]),
        (own(""), ("GOOGLE_CREDENTIALS", encoded.as_str()), vec![]),
        (own(""), ("GOOGLE_CREDENTIALS", &format!("'{key}'")), vec![]),
        (own("google_service_account = 'a@b.example'"), ("GOOGLE_APPLICATION_CREDENTIALS", key.as_str()), vec![]),
        (plain.clone(), no_variable, vec!["--client-secret-file", typed]),
        (plain.clone(), no_variable, vec!["--workspace-url", url]),
        (plain.clone(), ("DBX_ROTATOR_CONFIG", typed), vec![]),
    ] {
        let home = Home::new();
        home.write(".config/dbx-rotator/config.toml", &config, 0o600);
        for command in
            [&["rotate", "--retry-for", "0s", "--log-file", "log"][..], &["config", "show"], &["status"], &["check"]]
        {
            let run = dbx_rotator!(home).args(command).args(&flags).env(name, value).run();
            let log = std::fs::read_to_string(home.path("log")).unwrap_or_default();
            let record = std::fs::read_to_string(home.path(".local/state/dbx-rotator/record.json")).unwrap_or_default();
            let all = format!("{}{}{log}{record}", run.stdout, run.stderr);
            for part in ["hunter2", "wrongplace", &encoded[200..220], "q7Xoq7Xo"] {
                assert!(!all.contains(part), "{config}{name} {flags:?} {command:?}\n{run}");
            }
        }
    }
}

#[test]
fn a_secret_in_a_file_that_others_can_read_is_warned_of_wherever_it_stands() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.watch(&workspace);
    let host = workspace.url();
    let with = |more: &str| format!("[DEFAULT]\nhost = {host}\n{more}");
    let client = format!("client_id = {DEFAULT_CLIENT_ID}\nclient_secret = {DEFAULT_CLIENT_SECRET}\n");
    let run = |words: &[&str], given: &[&str]| dbx_rotator!(home).args(words).args(given).trusting(&workspace).run();
    let config = ".config/dbx-rotator/config.toml";
    home.write(config, "[[connection]]\nhost = 'db.example'\n", 0o600);
    let file = home.path(".databrickscfg");
    let said = |path: &std::path::Path, what: &str| {
        format!("{} has mode 0644: others can read the {what}; chmod 600 it", path.display())
    };
    home.write(".databrickscfg", with(&client), 0o644);
    let profile = said(&file, "client secret");
    run(&["rotate"], &[]).exits(0).stderr_has(&profile);
    run(&["check"], &[]).exits(0).stdout_has(&format!("warning  secret-file: {profile}"));
    run(&["config", "check"], &[]).exits(0).stdout_has(&format!("warning: {profile}"));
    home.write(".databrickscfg", with(&client), 0o600);
    for words in [&["rotate"][..], &["check"], &["config", "check"]] {
        run(words, &[]).exits(0).stderr_lacks("has mode").stdout_lacks("has mode");
    }
    // A profile that gives no secret holds none of ours; the file that the secret is in does.
    home.write(".databrickscfg", with(""), 0o644);
    home.write("secret", DEFAULT_CLIENT_SECRET, 0o644);
    let elsewhere = ["--workspace-url", &host, "--client-id", DEFAULT_CLIENT_ID, "--client-secret-file", "secret"];
    for words in [&["check"][..], &["config", "check"]] {
        run(words, &elsewhere).stdout_has("others can read the client secret").stdout_lacks(".databrickscfg has mode");
    }
    home.write(config, "[[connection]]\ninstance = 'orders'\n", 0o600);
    for (settings, what) in [
        ("token = dapi0123456789abcdef\n", "personal access token"),
        ("metadata_service_url = http://127.0.0.1:9/key-0000\n", "address of the metadata service"),
        ("google_credentials = {\"type\":\"service_account\"}\n", "key of the service account at Google"),
        ("google_credentials = KEY\n", "key of the service account at Google"),
        (
            "azure_workspace_resource_id = /x\nazure_client_id = i\nazure_client_secret = dose-0000-0000\n",
            "secret of the Azure client",
        ),
    ] {
        let key = home.path("key.json");
        home.write("key.json", "{}", 0o644);
        home.write(".databrickscfg", with(&settings.replace("KEY", &key.display().to_string())), 0o644);
        let path = if settings.contains("KEY") { &key } else { &file };
        run(&["config", "check"], &[]).stdout_has(&format!("warning: {}", said(path, what)));
    }
}
