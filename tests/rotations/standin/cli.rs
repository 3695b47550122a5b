//! The stand-in for the vendor's CLI behaves like the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use super::opened;
use crate::support::{Failure, Fault, Home, Workspace, legacy_cli};

#[test]
fn the_cli_repeats_its_token_until_little_of_it_is_left() {
    let workspace = Workspace::start();
    let home = Home::new();
    let cli = home.install_cli(&workspace);
    let host = workspace.url();
    let token = || {
        let outcome = home.command(cli.program()).args(["auth", "token", "--host", &host]).may_print_secrets().run();
        outcome.exits(0).json()
    };

    let first = token();
    assert_eq!(first["token_type"], "Bearer");
    assert_eq!(opened(first["access_token"].as_str().unwrap()).1["sub"], workspace.user());
    assert_eq!(token(), first, "more than five minutes are left");
    cli.set_refresh_window(Duration::from_secs(3500));
    assert_eq!(token(), first);
    assert_eq!(workspace.token_requests(), 1);

    cli.set_refresh_window(Duration::from_secs(3601));
    let second = token();
    assert_ne!(second["access_token"], first["access_token"]);
    assert_eq!(workspace.token_requests(), 2);

    workspace.fail_next(Fault::Status(503));
    assert_eq!(token(), second, "a failed refresh falls back on what still lives");
}

#[test]
fn the_cli_refreshes_when_forced_and_says_when_it_cannot() {
    let workspace = Workspace::start();
    let home = Home::new();
    let cli = home.install_cli(&workspace);
    let forced =
        || home.command("databricks").args(["auth", "token", "DEFAULT", "--force-refresh"]).may_print_secrets().run();
    let first = forced().exits(0).json();
    assert_ne!(forced().exits(0).json()["access_token"], first["access_token"]);

    workspace.fail_next(Fault::Status(503));
    forced()
        .exits(1)
        .prints_nothing()
        .stderr_has("Try logging in again with `databricks auth login --profile DEFAULT`");

    cli.set_knows_force_refresh(false);
    forced().exits(1).prints_nothing().stderr_has("Error: unknown flag: --force-refresh\n");
    home.command("databricks").arg("version").run().exits(0).stdout_has("Databricks CLI v0.");
}

#[test]
fn the_cli_says_when_the_login_is_dead_and_works_after_the_next() {
    let workspace = Workspace::start();
    let home = Home::new();
    let cli = home.install_cli(&workspace);
    let token = || home.command("databricks").args(["auth", "token", "-p", "DEFAULT"]).may_print_secrets().run();
    workspace.sign_out(workspace.user());
    token().exits(1).stderr_has(
        "Error: A new access token could not be retrieved because the refresh token is invalid. To reauthenticate, run \
         the following command:\n  $ databricks auth login --profile DEFAULT\n",
    );
    cli.sign_in(&workspace);
    token().exits(0);

    workspace.sign_out(workspace.user());
    workspace.set_single_use_refresh_tokens(true);
    cli.sign_in(&workspace);
    cli.set_refresh_window(Duration::from_secs(3601));
    token().exits(0);
    token().exits(0);
}

#[test]
fn the_cli_prints_as_the_real_one_does() {
    let workspace = Workspace::start();
    let home = Home::new();
    home.install_cli(&workspace);
    let token = || home.command("databricks").args(["auth", "token", "--host", &workspace.url()]).may_print_secrets();

    let utc = token().env("TZ", "UTC").run();
    assert!(
        utc.stdout.starts_with("{\n  \"access_token\": \"eyJ") && utc.stdout.ends_with('}'),
        "no newline at the end"
    );
    let fields: Vec<_> = utc.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["access_token", "expiry", "token_type"]);
    let expiry = utc.json()["expiry"].as_str().unwrap().to_owned();
    assert!(expiry.ends_with('Z') && expiry.contains('.'), "{expiry}");

    let india = token().arg("--force-refresh").env("TZ", "Asia/Kolkata").run();
    let text = token().args(["-o", "text"]).run();
    assert_eq!(text.stdout.trim_end(), india.json()["access_token"]);
    assert!(text.stdout.ends_with('\n'));

    let expiry = india.json()["expiry"].as_str().unwrap().to_owned();
    assert!(expiry.ends_with("+05:30"), "{expiry}");
    let expiry = expiry.parse::<jiff::Timestamp>().unwrap().as_second();
    let (_, claims) = opened(text.stdout.trim_end());
    assert!((expiry - claims["exp"].as_i64().unwrap()).abs() <= 30);
}

#[test]
fn the_cli_fails_in_the_words_of_the_real_one() {
    let workspace = Workspace::start();
    let home = Home::new();
    let cli = home.install_cli(&workspace);
    let token = || home.command("databricks").args(["auth", "token", "--host", &workspace.url()]);
    for (failure, words) in [
        (Failure::NotConfigured, "databricks OAuth is not configured for this host"),
        (Failure::OlderVersions, "stored credentials from older CLI versions are no longer used"),
        (Failure::OlderVersions, "DATABRICKS_AUTH_STORAGE=plaintext"),
        (
            Failure::InvalidRefreshToken,
            "A new access token could not be retrieved because the refresh token is invalid",
        ),
        (Failure::NoProfile, "no profile specified. Use --profile <name>"),
        (Failure::NoProfiles, "no profiles configured"),
        (Failure::Ambiguous, ".databrickscfg. Use --profile"),
        (Failure::M2mProfile, "uses M2M authentication"),
        (Failure::Exit45, "cache update: exit status 45"),
        (Failure::Keyring, "OS keyring unreachable"),
        (Failure::Network, "Try logging in again with"),
    ] {
        cli.set_failure(Some(failure));
        token().run().exits(1).prints_nothing().stderr_has("Error: ").stderr_has(words);
    }
    cli.set_failure(Some(Failure::JsonError));
    assert_eq!(token().run().exits(1).json()["error_code"], "UNAUTHENTICATED");
    cli.set_failure(Some(Failure::Garbage));
    token().run().exits(0).stdout_lacks("{");
    cli.set_failure(Some(Failure::BareToken));
    let bare = token().may_print_secrets().run();
    assert!(bare.exits(0).stdout.starts_with("eyJ"));
    cli.set_failure(Some(Failure::Hang));
    let hanging = token().spawn();
    hanging.signal(rustix::process::Signal::KILL);
    assert_eq!(hanging.ends().signal, Some(9));
    cli.set_failure(None);
    token().may_print_secrets().run().exits(0);

    home.command("databricks").args(["auth", "token"]).run().exits(1).stderr_has("no profiles configured");
    home.command("databricks")
        .args(["auth", "token", "x", "--host", "y"])
        .run()
        .exits(1)
        .stderr_has("cannot be combined");
    let elsewhere = home.command("databricks").args(["auth", "token", "--host", "https://elsewhere.example.com"]);
    elsewhere.run().exits(1).stderr_has("not configured for this host");
}

#[test]
fn the_cli_notes_how_it_was_called() {
    let workspace = Workspace::start();
    let home = Home::new();
    let cli = home.install_cli(&workspace);
    home.command("databricks").arg("version").env("DATABRICKS_TOKEN", "x").run().exits(0);
    home.command("databricks").arg("version").stdin("typed\n").run().exits(0);
    let [closed, typed] = cli.invocations().try_into().unwrap();
    assert_eq!(closed.argv, ["version"]);
    assert_eq!(closed.directory, fs::canonicalize(home.path("")).unwrap());
    assert!(closed.stdin_is_null && !typed.stdin_is_null);
    let saw = |name: &str| closed.environment.iter().any(|known| known == name);
    assert!(saw("DATABRICKS_TOKEN") && saw("HOME") && !saw("CARGO"), "{:?}", closed.environment);

    assert_eq!(home.mode(".databricks"), 0o700);
    assert_eq!(home.mode(".databricks/token-cache.json"), 0o600);
    let cache: Value = serde_json::from_str(&home.read(".databricks/token-cache.json")).unwrap();
    assert_eq!(cache["version"], 1);
}

#[test]
fn the_legacy_cli_is_told_by_its_text() {
    let home = Home::new();
    let mark = "databricks_cli";
    let legacy = legacy_cli(&home.path("bin"));
    assert!(fs::read_to_string(&legacy).unwrap().contains(mark));
    assert_eq!(fs::metadata(&legacy).unwrap().permissions().mode() & 0o777, 0o755);
    let cli = home.install_cli(&Workspace::start());
    assert!(!fs::read_to_string(cli.program()).unwrap().contains(mark));
}
