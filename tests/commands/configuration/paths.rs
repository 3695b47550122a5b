//! The paths among the settings: where relative ones start, and that no file that is written has another role.

use super::{COMPLETE, FILE, config, faulty};
use crate::support::{Home, dbx_rotator};

/// The text in each file that must stay as it is.
const KEPT: &str = "kept-as-it-is";

/// Paths that must not be written, and the word for what each of them is already.
const OTHERS: [(&str, &str); 23] = [
    ("~/.pgpass", "password_file"),
    ("~/./.config/../.pgpass", "password_file"),
    ("~/linked", "password_file"),
    ("~/linked-home/.pgpass", "password_file"),
    ("~/hard", "password_file"),
    ("secret", "client_secret_file"),
    ("ca.pem", "ca_file"),
    ("config.toml", "configuration file"),
    ("~/.databrickscfg", "profile file"),
    ("~/.databricks/token-cache.json", "logins of the Databricks CLI"),
    ("~/.pg_service.conf", "connection service file"),
    ("~/.local/state/dbx-rotator/record.json", "the record"),
    ("~/.local/state/dbx-rotator/lock", "the lock"),
    ("~/the.log", "log_file"),
    ("~/the.log.3", "the old log file 3"),
    ("~/.pgpass/below", "below"),
    ("~/.local/state/dbx-rotator", "below"),
    ("conf.d", "directory of fragments"),
    ("conf.d/token", "directory of fragments"),
    ("~/linked-home/.config/dbx-rotator/conf.d/more/token.toml", "directory of fragments"),
    ("~/.config/gcloud/application_default_credentials.json", "Google's credentials"),
    ("~/.config/systemd/user/dbx-rotator.service", "directory of units"),
    ("~/.config/systemd/user/dbx-rotator.service.d/more.conf", "directory of units"),
];

/// A home with such files, and links to some.
fn home_with_others() -> Home {
    let home = Home::new();
    home.write(".config/dbx-rotator/secret", KEPT, 0o600);
    home.write(".config/dbx-rotator/ca.pem", KEPT, 0o600);
    home.write(".databrickscfg", KEPT, 0o600);
    home.write(".databricks/token-cache.json", KEPT, 0o600);
    home.write(".pgpass", KEPT, 0o600);
    home.write(".pg_service.conf", KEPT, 0o600);
    home.write("dir/file", KEPT, 0o600);
    std::os::unix::fs::symlink(home.path(".pgpass"), home.path("linked")).unwrap();
    std::os::unix::fs::symlink(home.path("."), home.path("linked-home")).unwrap();
    std::fs::hard_link(home.path(".pgpass"), home.path("hard")).unwrap();
    home
}

/// A configuration with these settings at its head and of its connection.
fn with_settings(head: &str, connection: &str) -> String {
    format!(
        "{head}[[workspace]]\nhost = 'w.example'\nclient_id = 'id'\nclient_secret_file = 'secret'\nca_file = 'ca.pem'\n\
         [[connection]]\nname = 'orders'\nhost = 'h'\n{connection}"
    )
}

/// A file that is made from a template.
fn made(template: &str, path: &str) -> String {
    format!("[[connection.file]]\ntemplate = '{template}'\npath = '{path}'\n")
}

/// A configuration for each setting that would write a file at this path, and the setting.
fn that_write(path: &str, role: &str) -> Vec<(String, &'static str)> {
    let log = "log_file = '~/the.log'\n";
    let mut written = vec![
        (with_settings(log, &format!("token_file = '{path}'\n")), "token_file"),
        (with_settings(log, &format!("env_file = '{path}'\n")), "env_file"),
        (with_settings(log, &made("~/template", path)), "path"),
    ];
    let is_of_log = matches!(role, "log_file" | "the old log file 3");
    if !is_of_log {
        written.push((with_settings(&format!("log_file = '{path}'\n"), ""), "log_file"));
    }
    if !is_of_log && role != "password_file" && path != "~/.pgpass/below" {
        written.push((with_settings(&format!("{log}password_file = '{path}'\n"), ""), "password_file"));
    }
    written
}

#[test]
fn no_file_that_is_written_is_any_other_file_of_ours() {
    let home = home_with_others();
    for (path, role) in OTHERS {
        for (text, setting) in that_write(path, role) {
            home.write(FILE, &text, 0o600);
            for command in [&["config", "check"][..], &["rotate"]] {
                let outcome = dbx_rotator!(home).args(command).run();
                let pointed_at = format!("| {setting} = ");
                outcome.exits(78).stderr_has(role).stderr_has(setting).stderr_has(&pointed_at).stderr_has("^");
            }
        }
    }
    // Two connections, and two settings of one.
    let second = "[[connection]]\nname = 'more'\nhost = 'h2'\n";
    for both in [
        "token_file = '~/x'\nenv_file = '~/x'\n".to_owned(),
        format!("token_file = '~/x'\n{second}token_file = '~/x'\n"),
        format!("env_file = '~/x'\n{second}env_file = '~/linked-home/x'\n"),
        format!("token_file = '~/x'\n{second}env_file = '~/dir/../x'\n"),
        format!("sslrootcert = '~/x'\n{second}env_file = '~/x'\n"),
        format!("token_file = '~/x'\n{}", made("~/t", "~/linked-home/x")),
        format!("token_file = '~/x'\n{}", made("~/dir/../x", "~/y")),
        made("~/x", "~/linked-home/x"),
        format!("{}{}", made("~/t", "~/x"), made("~/t", "~/./x")),
        format!("{}{second}{}", made("~/t", "~/x"), made("~/x", "~/y")),
    ] {
        home.write(FILE, with_settings("", &both), 0o600);
        let outcome = dbx_rotator!(home).args(["config", "check"]).run();
        outcome.exits(78).stderr_has("are the same file").stderr_has("connection \"orders\"");
    }
    // What is at the usual place belongs to whoever reads no other file.
    for (path, role) in [("config.toml", "configuration file"), ("conf.d/token.toml", "directory of fragments")] {
        let path = format!("~/.config/dbx-rotator/{path}");
        let named = home.write("elsewhere/named.toml", with_settings("", &format!("token_file = '{path}'\n")), 0o600);
        let check = dbx_rotator!(home).args(["config", "check", "--config"]).arg(named).run();
        check.exits(78).stderr_has("token_file of connection").stderr_has(role);
    }
    // By variable and by flag.
    home.write(FILE, with_settings("", ""), 0o600);
    let secret = home.path(".config/dbx-rotator/secret");
    let check = || dbx_rotator!(home).args(["config", "check"]);
    check().env("PGPASSFILE", &secret).run().exits(78).stderr_has("$PGPASSFILE").stderr_has("client_secret_file");
    check().args(["--pgpass-file".as_ref(), secret.as_os_str()]).run().exits(78).stderr_has("--pgpass-file");
    check().args(["--log-file".as_ref(), secret.as_os_str()]).run().exits(78).stderr_has("--log-file");
    check().env("PGSERVICEFILE", &secret).run().exits(78).stderr_has("$PGSERVICEFILE");
    check().env("SSL_CERT_FILE", home.path(".pgpass")).run().exits(78).stderr_has("SSL_CERT_FILE");
    for file in
        [".config/dbx-rotator/secret", ".config/dbx-rotator/ca.pem", ".databrickscfg", ".pgpass", ".pg_service.conf"]
    {
        assert_eq!(home.read(file), KEPT, "{file}");
    }
}

#[test]
fn files_that_are_read_may_be_read_twice_and_other_files_are_nobodys_business() {
    let home = home_with_others();
    let text = "log_file = '~/the.log'\n[[workspace]]\nhost = 'w.example'\nclient_id = 'id'\nclient_secret_file = 'secret'\n\
                ca_file = 'ca.pem'\n[[connection]]\nname = 'a'\nhost = 'h'\nsslrootcert = 'ca.pem'\ntoken_file = '~/the.log.6'\n\
                env_file = '~/dir/the.log'\n[[connection]]\nname = 'b'\nhost = 'h2'\nsslrootcert = 'ca.pem'\ntoken_file = '~/dir/file'\n";
    home.write(FILE, text, 0o600);
    dbx_rotator!(home)
        .args(["config", "check"])
        .env("SSL_CERT_FILE", home.path(".config/dbx-rotator/ca.pem"))
        .run()
        .exits(0);
}

#[test]
fn relative_paths_in_the_file_start_at_the_file() {
    let home = Home::new();
    home.write(FILE, COMPLETE, 0o600);
    let outcome = config(&home, &["show"]).run();
    outcome.exits(0).stdout_has(home.path(".config/dbx-rotator/secret").to_str().unwrap());
    outcome.stdout_has(home.path("other.pgpass").to_str().unwrap());
}

#[test]
fn a_file_that_is_named_must_exist() {
    let home = Home::new();
    config(&home, &["check", "--config", "/nowhere/config.toml"])
        .run()
        .exits(78)
        .stderr_has("cannot read /nowhere/config.toml");
    config(&home, &["path"]).run().exits(0).stdout_has(FILE);
    config(&home, &["path"]).env("DBX_ROTATOR_CONFIG", "/x.toml").run().exits(0).stdout_has("/x.toml");
}

#[test]
fn a_secret_in_the_place_of_a_path_is_refused_and_not_shown() {
    let home = Home::new();
    home.keep_secret("dose00112233445566778899aabbccddeeff");
    let text = COMPLETE.replace("\"secret\"", "\"dose00112233445566778899aabbccddeeff\"");
    faulty(&home, &text).stderr_has("looks like a secret").stderr_has("client_secret_file = ********");
}

#[test]
fn authorities_that_have_no_end_are_not_read() {
    let home = Home::new();
    home.write(FILE, COMPLETE, 0o600);
    assert!(std::process::Command::new("mkfifo").arg(home.path("pipe")).status().unwrap().success());
    std::fs::File::create(home.path("large")).unwrap().set_len(1 << 36).unwrap();
    for file in [home.path("pipe"), home.path("large"), home.path("."), "/dev/zero".into()] {
        let check = config(&home, &["check"]).env("SSL_CERT_FILE", &file);
        check.run().exits(78).stderr_has("$SSL_CERT_FILE: ").stderr_has("no file, or too large");
    }
}

#[test]
fn a_file_that_clients_cannot_be_told_of_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    let odd = home.path(std::ffi::OsStr::from_bytes(b"h\xff\xfe"));
    let config = odd.join(".config/dbx-rotator");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), format!("{COMPLETE}sslrootcert = '~/ca.pem'\n")).unwrap();
    let check =
        dbx_rotator!(home).args(["config", "check"]).env("HOME", &odd).env("XDG_CONFIG_HOME", odd.join(".config"));
    check.run().exits(78).stderr_has("not UTF-8 text");
}

#[test]
fn a_directory_in_the_place_of_a_file_is_called_what_it_is() {
    for head in ["password_file = '~/.config'\n", "log_file = '~/.config'\n"] {
        let home = home_with_others();
        let (role, _) = head.split_once(' ').unwrap();
        let told = faulty(&home, &with_settings(head, ""));
        told.stderr_has(role).stderr_has("is a directory").stderr_has("/.config");
    }
}

#[test]
fn files_that_are_not_there_are_told() {
    let home = Home::new();
    home.write(FILE, with_settings("proxy_tls = 'proxy.pem'\n", "sslrootcert = 'roots.pem'\n"), 0o600);
    let roles = [
        ("the secret to sign in with", "secret"),
        ("ca_file", "ca.pem"),
        ("sslrootcert", "roots.pem"),
        ("proxy_tls", "proxy.pem"),
    ];
    let told = config(&home, &["check"]).run();
    told.exits(0);
    for (role, name) in roles {
        let path = home.path(".config/dbx-rotator").join(name);
        told.stdout_has(&format!("warning: {role}: there is no file {}", path.display()));
        home.write(path.strip_prefix(home.path("")).unwrap(), "there now", 0o600);
    }
    config(&home, &["check"]).run().exits(0).stdout_lacks("there is no file");
}
