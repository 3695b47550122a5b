//! Sign-in with a stand-in for the vendor's CLI, and the chain of both methods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Failure, Fault, Home, Instance, Session, Workspace, dbx_rotator, legacy_cli};

/// `dbx-rotator rotate` for the person who has logged in with the CLI.
fn person<'a>(home: &'a Home, workspace: &Workspace) -> Session<'a> {
    person_runs(home, workspace, &["rotate"])
}

/// `dbx-rotator ARGUMENTS` for the same person.
fn person_runs<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    home.watch(workspace);
    dbx_rotator!(home)
        .args(arguments)
        .trusting(workspace)
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_PG_HOST", "db.example")
        .env("DATABRICKS_PG_USERNAME", workspace.user())
}

#[test]
fn without_a_client_the_cli_signs_in() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    person(&home, &workspace).run().exits(0).stderr_has("Successfully obtained token via Databricks CLI");
    assert!(home.pgpass().starts_with(&format!("db.example:5432:databricks_postgres:{}:eyJ", workspace.user())));
    let calls = cli.invocations();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].argv.windows(2).any(|pair| pair == ["--host".to_owned(), workspace.url()]), "{:?}", calls[0].argv);
}

#[test]
fn the_child_has_no_terminal_no_secret_and_nothing_that_could_divert_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    person(&home, &workspace)
        .env("DATABRICKS_CONFIG_PROFILE", "")
        .env("DATABRICKS_TOKEN", "dapi0000000000000000000000000000")
        .env("DATABRICKS_ACCOUNT_ID", "other")
        .env("DATABRICKS_AUTH_STORAGE", "plaintext")
        .env("ARM_CLIENT_SECRET", "x")
        .env("DATABRICKS_AUTH_TYPE", "databricks-cli")
        .env("NOTIFY_SOCKET", "/nowhere")
        .stdin("whatever is typed here is not for the child\n")
        .run()
        .exits(0);
    let call = &cli.invocations()[0];
    assert!(call.stdin_is_null);
    assert_eq!(call.directory.to_str(), Some("/"), "a databricks.yml in the working directory would divert it");
    let has = |name: &str| call.environment.iter().any(|other| other == name);
    for name in ["DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_ACCOUNT_ID", "ARM_CLIENT_SECRET", "NOTIFY_SOCKET"] {
        assert!(!has(name), "{name} reached the child");
    }
    assert!(has("HOME") && has("PATH") && has("DATABRICKS_AUTH_STORAGE"));
}

#[test]
fn a_profile_is_asked_for_by_its_name() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    cli.set_profile("WORK");
    cli.sign_in(&workspace);
    home.write(".databrickscfg", format!("[WORK]\nhost = {}\nauth_type = databricks-cli\n", workspace.url()), 0o600);
    person(&home, &workspace).without_env("DATABRICKS_HOST").args(["--profile", "WORK"]).run().exits(0);
    assert!(cli.invocations()[0].argv.windows(2).any(|pair| pair == ["--profile", "WORK"]));
}

/// Waits until the published token is past its refresh point, as the program itself reports.
fn until_due(home: &Home, workspace: &Workspace) {
    let due = || person(home, workspace).args(["--if-due", "--dry-run"]).run().stdout.contains("refresh point");
    let began = Instant::now();
    while !due() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not due");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_token_that_is_repeated_past_its_refresh_point_is_refreshed_by_force() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    cli.set_refresh_window(Duration::from_secs(1));
    workspace.set_token_life(Duration::from_secs(20));
    person(&home, &workspace).run().exits(0);
    assert_eq!(cli.invocations().len(), 1, "a fresh token needs no force");
    let first = home.pgpass();
    until_due(&home, &workspace);
    person(&home, &workspace).args(["--if-due"]).run().exits(0);
    assert_ne!(home.pgpass(), first);
    assert!(cli.invocations().iter().any(|call| call.argv.iter().any(|word| word == "--force-refresh")));
}

#[test]
fn a_live_password_is_not_replaced_by_a_token_that_dies_sooner() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    cli.set_knows_force_refresh(false);
    cli.set_refresh_window(Duration::from_secs(1));
    workspace.set_token_life(Duration::from_secs(20));
    person(&home, &workspace).run().exits(0);
    until_due(&home, &workspace);
    // Meanwhile somebody else has published a better token; the CLI still returns its own.
    let better = workspace.issue(workspace.user(), Duration::from_secs(3_600));
    let text = format!("db.example:5432:databricks_postgres:{}:{better}\n", workspace.user());
    home.write(".pgpass", &text, 0o600);
    let outcome = person(&home, &workspace).args(["--json"]).run();
    assert_eq!(outcome.exits(0).json()["connections"][0]["outcome"], "not-due", "{outcome}");
    assert_eq!(home.pgpass(), text);
}

#[test]
fn an_old_cli_that_only_repeats_its_token_is_believed_by_its_expiry() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    cli.set_knows_force_refresh(false);
    cli.set_refresh_window(Duration::from_secs(60));
    workspace.set_token_life(Duration::from_secs(300));
    person(&home, &workspace).run().exits(0);
    let before = home.pgpass();
    // The same token again: it is live, nothing is written, and that is not a failure.
    let outcome = person(&home, &workspace).args(["--json", "--interval", "1"]).run();
    outcome.exits(0);
    assert_eq!(home.pgpass(), before);
}

#[test]
fn each_of_the_clis_failures_is_told_apart() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    for (failure, code, words) in [
        (Failure::NotConfigured, 77, "databricks auth login --host"),
        (Failure::OlderVersions, 77, "has no live login"),
        (Failure::InvalidRefreshToken, 77, "has no live login"),
        (Failure::JsonError, 77, "has no live login"),
        (Failure::NoProfile, 78, "--profile NAME"),
        (Failure::NoProfiles, 78, "--profile NAME"),
        (Failure::Ambiguous, 78, "--profile NAME"),
        (Failure::M2mProfile, 78, "M2M"),
    ] {
        cli.set_failure(Some(failure));
        let before = cli.invocations().len();
        person(&home, &workspace).run().exits(code).stderr_has(words).stderr_has("ERROR");
        assert_eq!(cli.invocations().len() - before, 1, "trying again cannot help");
    }
    assert_eq!(home.pgpass(), "");
}

#[test]
fn passing_trouble_of_the_cli_is_tried_again() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    for (failure, words) in [
        (Failure::Exit45, "exit status 45"),
        (Failure::Keyring, "keyring"),
        (Failure::Network, "the Databricks CLI failed"),
        (Failure::Garbage, "printed something that is no token"),
    ] {
        cli.set_failure(Some(failure));
        let running = person(&home, &workspace).spawn();
        running.says(words, Duration::from_secs(20)).says("next try in", Duration::from_secs(20));
        cli.set_failure(None);
        running.ends().exits(0);
    }
}

#[test]
fn a_bare_token_will_do() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace).set_failure(Some(Failure::BareToken));
    person(&home, &workspace).run().exits(0);
    assert!(home.pgpass().contains(":eyJ"));
}

#[test]
fn a_cli_that_hangs_is_ended() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    // The wait is a quarter of what is left of the live credential; the CLI itself gets 15 s.
    workspace.set_token_life(Duration::from_secs(20));
    person(&home, &workspace).run().exits(0);
    cli.set_failure(Some(Failure::Hang));
    let before = cli.invocations().len();
    let running = person(&home, &workspace).spawn();
    running.says("has not answered within", Duration::from_secs(30));
    running.says("has not answered within", Duration::from_secs(30));
    assert_eq!(cli.invocations().len() - before, 1, "who tries again waits for the run that there is");
    cli.set_failure(None);
    running.ends().exits(0);
}

/// Puts a wrapper before the CLI that records when a run begins, gets SIGTERM, and ends; in between it waits for a file `go` in the
/// home.
fn slow_cli(home: &Home, workspace: &Workspace) {
    let cli = crate::support::Cli::install(&home.path("real"), &home.path(""), workspace, workspace.user());
    let wrapper = format!(
        "#!/bin/sh\ntrap 'echo TERM >> ~/notes' TERM\necho begun >> ~/notes\n\
         while [ ! -e ~/go ] && [ -e ~/notes ]; do sleep 0.05; done\n{} \"$@\"\necho ended >> ~/notes\n",
        cli.program().display()
    );
    home.write("bin/databricks", wrapper, 0o755);
}

/// Waits until the wrapper has recorded this.
fn until_noted(home: &Home, notes: &str) {
    let read = || std::fs::read_to_string(home.path("notes")).unwrap_or_default();
    let began = std::time::Instant::now();
    while read() != notes {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", read());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_slow_cli_is_let_finish_and_serves_the_next_try() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace);
    workspace.set_token_life(Duration::from_secs(8));
    person(&home, &workspace).run().exits(0);
    let first = home.pgpass();
    workspace.set_token_life(Duration::from_secs(600));
    slow_cli(&home, &workspace);
    let running = person(&home, &workspace).spawn();
    running.says("the Databricks CLI has not answered within 2 s; it may still finish", Duration::from_secs(20));
    running.says("next try in", Duration::from_secs(20));
    home.write("go", "", 0o600);
    running.ends().exits(0);
    assert_ne!(home.pgpass(), first);
    let notes = home.read("notes");
    assert!(notes.starts_with("begun\nended\n") && !notes.contains("TERM"), "{notes}");
}

#[test]
fn a_daemon_that_is_stopped_lets_the_cli_finish() {
    let (workspace, home) = (Workspace::start(), Home::new());
    slow_cli(&home, &workspace);
    let running = person_runs(&home, &workspace, &["run"]).spawn();
    until_noted(&home, "begun\n");
    running.signal(Signal::TERM);
    running.says("Waiting for what has been started", Duration::from_secs(20));
    home.write("go", "", 0o600);
    running.ends().exits(0).stderr_has("Stopped");
    assert_eq!(home.read("notes"), "begun\nended\n");
}

#[test]
fn a_token_that_is_wanted_at_once_lets_the_cli_finish() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace).set_refresh_window(Duration::from_secs(1));
    workspace.set_token_life(Duration::from_secs(40));
    person(&home, &workspace).run().exits(0);
    let published = home.pgpass();
    until_due(&home, &workspace);
    slow_cli(&home, &workspace);
    let running = person_runs(&home, &workspace, &["token", "-v", "--min-valid", "1s"]).may_print_secrets().spawn();
    running.says("could not be renewed in a moment", Duration::from_secs(20));
    home.write("go", "", 0o600);
    let outcome = running.ends();
    assert!(published.contains(outcome.exits(0).stdout.trim()), "{outcome}");
    assert!(home.read("notes").starts_with("begun\nended\n"), "{outcome}");
}

#[test]
fn what_a_wrapper_leaves_in_the_background_is_not_waited_for() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = crate::support::Cli::install(&home.path("real"), &home.path(""), &workspace, workspace.user());
    let wrapper = format!("#!/bin/sh\nsleep 45 &\n{} \"$@\"\n", cli.program().display());
    home.write("bin/databricks", wrapper, 0o755);
    person(&home, &workspace).run().exits(0).took_at_most(Duration::from_secs(20));
}

#[test]
fn a_dead_login_is_told_while_the_token_still_lives() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    cli.set_refresh_window(Duration::from_secs(1));
    workspace.set_token_life(Duration::from_secs(20));
    person(&home, &workspace).run().exits(0);
    until_due(&home, &workspace);
    workspace.sign_out(workspace.user());
    person(&home, &workspace).args(["--if-due"]).run().exits(0).stderr_has("databricks auth login");
}

#[test]
fn pips_old_cli_is_recognised_and_passed_over() {
    let (workspace, home) = (Workspace::start(), Home::new());
    legacy_cli(&home.path("bin"));
    person(&home, &workspace).run().exits(78).stderr_has("legacy CLI").stderr_has("pip uninstall databricks-cli");
    // If the real one is further down the PATH, it is used.
    crate::support::Cli::install(&home.path("other"), &home.path(""), &workspace, workspace.user());
    let path = format!("{}:{}:/usr/bin:/bin", home.path("bin").display(), home.path("other").display());
    person(&home, &workspace).env("PATH", path).run().exits(0);
}

#[test]
fn no_cli_at_all_says_what_to_install() {
    let (workspace, home) = (Workspace::start(), Home::new());
    person(&home, &workspace)
        .run()
        .exits(78)
        .stderr_has("not installed, or not on PATH")
        .stderr_has("install the Databricks CLI");
}

// ---- the workspace's clock ----

#[test]
fn a_wrong_clock_is_known_from_whatever_the_workspace_says() {
    let minted = "[[connection]]\nname = 'default'\ninstance = 'orders'\n";
    for (skew, table, direction) in [
        // From the API's answers.
        (7_200, minted, "behind"),
        (-7_200, minted, "ahead of"),
        // From a token that is issued in the future; by asking, if a token seems to have expired.
        (7_200, "", "behind"),
        (-7_200, "", "ahead of"),
    ] {
        let (workspace, home) = (Workspace::builder().clock_skew(skew).start(), Home::new());
        let cli = home.install_cli(&workspace);
        workspace.add_instance(Instance::named("orders"));
        home.write(".config/dbx-rotator/config.toml", table, 0o600);
        let run = |arguments: &[&str]| {
            let session = person_runs(&home, &workspace, arguments);
            if table.is_empty() { session } else { session.without_env("DATABRICKS_PG_HOST") }.run()
        };
        run(&["rotate"]).exits(0).stderr_has(&format!("s {direction} {}'s", workspace.url()));
        let outcome = run(&["status", "--json"]);
        let row = &outcome.exits(0).json()["connections"][0];
        assert_eq!(row["state"], "live", "{outcome}");
        assert!((3_500..=3_600).contains(&row["expires_in_seconds"].as_i64().unwrap()), "{outcome}");
        let outcome = run(&["check", "--json"]);
        let offset = outcome.exits(0).json()["connections"][0]["clock_offset_seconds"].as_i64().unwrap();
        assert!((skew - 60..=skew + 60).contains(&offset), "{outcome}");
        run(&["check"]).exits(0).stdout_has("clock: this machine's clock is").stdout_has(direction);
        let before = cli.invocations().len();
        run(&["rotate", "--if-due"]).exits(0);
        assert_eq!(cli.invocations().len(), before, "not due by the workspace's clock");
    }
}

// ---- the chain ----

fn chain<'a>(home: &'a Home, workspace: &Workspace) -> Session<'a> {
    person(home, workspace).signed_in_to(workspace)
}

#[test]
fn after_a_failure_as_a_service_principal_the_cli_serves_the_persons_connection() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace);
    workspace.fail_next(Fault::Status(503));
    chain(&home, &workspace)
        .run()
        .exits(0)
        .stderr_has("trying the Databricks CLI instead")
        .stderr_has("via Databricks CLI");
    assert!(home.pgpass().contains(&format!(":{}:eyJ", workspace.user())));
}

#[test]
fn a_fallback_of_no_use_leaves_the_first_failure_what_it_is() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace);
    workspace.fail_next(Fault::Status(503));
    let outcome = chain(&home, &workspace).env("DATABRICKS_PG_USERNAME", "data readers").run();
    outcome.exits(0).stderr_has("failed with status 503; and the token of").stderr_has("next try in");
    assert!(home.pgpass().contains(":data readers:eyJ"));
}

#[test]
fn a_fallback_never_publishes_another_identitys_token() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    workspace.set_client(workspace.client_id(), "changed-meanwhile-0000000");
    for user in ["bob@example.com", "data readers", "0b1c2d3e-0000-4000-8000-00000000beef"] {
        let outcome = chain(&home, &workspace).env("DATABRICKS_PG_USERNAME", user).run();
        outcome.exits(77).stderr_has("cannot log in as");
        assert_eq!(home.pgpass(), "", "{outcome}");
    }
    let before = cli.invocations().len();
    chain(&home, &workspace)
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
        .run()
        .exits(77)
        .stderr_has("invalid_client");
    assert_eq!(cli.invocations().len(), before, "a person's token cannot serve a service principal: nobody is asked");
}

#[test]
fn unless_the_configuration_says_so() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.install_cli(&workspace);
    workspace.set_client(workspace.client_id(), "changed-meanwhile-0000000");
    home.write(".config/dbx-rotator/config.toml", "[[connection]]\nany_identity = true\n", 0o600);
    chain(&home, &workspace).env("DATABRICKS_PG_USERNAME", "data readers").run().exits(0);
    assert!(home.pgpass().contains(":data readers:eyJ"));
}

#[test]
fn auth_pins_one_method() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    workspace.set_client(workspace.client_id(), "changed-meanwhile-0000000");
    chain(&home, &workspace).env("DATABRICKS_AUTH_TYPE", "oauth-m2m").run().exits(77);
    assert!(cli.invocations().is_empty());
    chain(&home, &workspace).env("DATABRICKS_AUTH_TYPE", "databricks-cli").run().exits(0);
}
