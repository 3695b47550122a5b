//! A client secret that comes through a pipe: read once by a command, refused by whoever runs on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use crate::support::{Fault, Home, Session, Workspace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dbx-rotator");

/// Runs a line of bash in which `$rotator` is the program with all settings but the secret's file, and `$secret` the secret.
fn bash<'a>(home: &'a Home, workspace: &Workspace, line: &str) -> Session<'a> {
    home.watch(workspace);
    home.write("secret", workspace.client_secret(), 0o600);
    let session = home.command("/bin/bash").args(["-c", &format!("secret=$(cat secret); rotator={PROGRAM}; {line}")]);
    session
        .shown_as(line)
        .trusting(workspace)
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_CLIENT_ID", workspace.client_id())
        .env("DATABRICKS_PG_HOST", "db.example.com")
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
}

#[test]
fn a_command_reads_it_once_however_often_it_signs_in() {
    let workspace = Workspace::start();
    for (line, prints) in [
        ("$rotator rotate --client-secret-file <(printf %s $secret)", false),
        ("printf %s $secret | $rotator rotate --client-secret-file /dev/stdin", false),
        ("printf %s $secret | $rotator rotate --client-secret-file /dev/fd/0", false),
        ("$rotator rotate --client-secret-file /dev/stdin < secret", false),
        ("$rotator rotate --client-secret-file /dev/fd/7 7< <(echo $secret)", false),
        ("$rotator rotate --client-secret-file /dev/stdin <<< $secret", false),
        ("mkfifo p; (echo $secret > p) & $rotator rotate --client-secret-file p", false),
        ("$rotator rotate --if-due --client-secret-file <(printf %s $secret)", false),
        ("$rotator token --client-secret-file <(printf %s $secret)", true),
    ] {
        let home = Home::new();
        workspace.fail_next(Fault::Status(503));
        let session = bash(&home, &workspace, line);
        let session = if prints { session.may_print_secrets() } else { session };
        let outcome = session.run();
        outcome.exits(0);
        // What a person reads a token for is not told of a try that did not matter.
        assert!(prints || outcome.stderr.contains("next try in"), "{line}\n{outcome}");
        assert!(home.pgpass().contains(":eyJ"), "{line}\n{outcome}");
    }
    let home = Home::new();
    bash(&home, &workspace, "$rotator check --client-secret-file <(printf %s $secret)").run().exits(1);
}

#[test]
fn what_is_no_secret_is_called_what_it_is() {
    let workspace = Workspace::start();
    for (line, said) in [
        ("$rotator rotate --client-secret-file /dev/null", "the file is empty"),
        ("$rotator rotate --client-secret-file /dev/zero", "longer than 16 KiB"),
        ("$rotator rotate --client-secret-file <(printf '\"%s\"' $secret)", "leave out the quotes"),
        ("$rotator rotate --client-secret-file /dev/fd/9", "/dev/fd/9"),
    ] {
        let home = Home::new();
        bash(&home, &workspace, line).run().exits(78).stderr_has(said);
    }
}

#[test]
fn who_runs_on_needs_it_again_and_says_so() {
    let workspace = Workspace::start();
    for (line, said) in [
        (
            "$rotator run --client-secret-file <(printf %s $secret)",
            "what a shell handed over for this run, which can be read only once",
        ),
        (
            "printf %s $secret | $rotator run --client-secret-file /dev/stdin",
            "/dev/stdin is standard input, which can be read only once",
        ),
        ("$rotator run --client-secret-file /dev/stdin < secret", "/dev/stdin means another file for each process"),
        ("mkfifo p; $rotator run --client-secret-file p", "p is a named pipe, which can be read only once"),
    ] {
        let home = Home::new();
        let outcome = bash(&home, &workspace, line).run();
        outcome.exits(78).stderr_has("a service signs in again and again").stderr_has(said).stderr_has("mode 0600");
        assert_eq!(workspace.token_requests(), 0);
    }
}

#[test]
fn who_runs_on_needs_whatever_it_signs_in_with_again() {
    let workspace = Workspace::start();
    let (azure, google) = ("adb-1.2.azuredatabricks.net", "1.2.gcp.databricks.com");
    for (host, settings) in [
        (azure, "auth = 'pat'\ntoken_file = 'p'"),
        (azure, "auth = 'file-oidc'\nclient_id = 'x'\noidc_token_filepath = 'p'"),
        (
            azure,
            "auth = 'azure-client-secret'\nazure_client_id = 'x'\nazure_tenant_id = 'y'\nazure_client_secret_file = 'p'",
        ),
        (google, "auth = 'google-credentials'\ngoogle_credentials_file = 'p'"),
    ] {
        let home = Home::new();
        let config =
            format!("[[workspace]]\nhost = 'https://{host}'\n{settings}\n[[connection]]\ninstance = 'orders'\n");
        home.write(".config/dbx-rotator/config.toml", config, 0o600);
        let line = "mkfifo ~/.config/dbx-rotator/p; $rotator run";
        let session = bash(&home, &workspace, line).without_env("DATABRICKS_HOST").without_env("DATABRICKS_CLIENT_ID");
        session.run().exits(78).stderr_has("a named pipe, which can be read only once");
    }
}
