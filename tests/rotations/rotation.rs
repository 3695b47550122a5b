//! The main job: from a workspace to a password file with a live credential, again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::Duration;

use crate::support::{Endpoint, Fault, Home, Session, Workspace, dbx_rotator};

const HOST: &str = "ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com";

/// `dbx-rotator ARGUMENTS` with the three documented variables and a service principal.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home)
        .args(arguments)
        .signed_in_to(workspace)
        .env("DATABRICKS_PG_HOST", HOST)
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
}

#[test]
fn a_further_try_does_not_ask_again_where_the_token_endpoint_is() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.faults_on(Endpoint::Token).next(Fault::Status(503)).next(Fault::Status(503));
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    assert_eq!((workspace.requests_to(Endpoint::Token), workspace.requests_to(Endpoint::Discovery)), (3, 1));
}

#[test]
fn a_first_rotation_makes_a_password_file_with_one_entry() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let outcome = rotator(&home, &workspace, &["rotate"]).run();
    outcome.exits(0).prints_nothing();
    let prefix = format!("{HOST}:5432:databricks_postgres:{}:eyJ", workspace.client_id());
    assert!(home.pgpass().starts_with(&prefix), "{outcome}");
    assert_eq!(home.pgpass().lines().count(), 1);
    assert_eq!(home.mode(".pgpass"), 0o600);
    let record = home.read(".local/state/dbx-rotator/record.json");
    crate::support::assert_no_secret("the record", &record, &workspace.secrets());
    assert_eq!(home.mode(".local/state/dbx-rotator"), 0o700);
    assert_eq!(home.mode(".local/state/dbx-rotator/record.json"), 0o600);
}

#[test]
fn a_rotation_says_what_users_of_the_original_know() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let log = home.path("rotator.log");
    rotator(&home, &workspace, &["rotate", "--log-file", log.to_str().unwrap()]).run().exits(0);
    let text = home.read("rotator.log");
    let messages: Vec<&str> =
        text.lines().filter_map(|line| line.split_once(" - INFO - ")).map(|(_, said)| said).collect();
    assert_eq!(messages[0], "Starting OAuth token rotation cycle");
    assert_eq!(messages[1], "Successfully obtained token via OAuth M2M");
    assert_eq!(messages[2], "New token details:");
    assert_eq!(messages[3], format!("  - Subject: {}", workspace.client_id()));
    assert!(messages[4].starts_with("  - Expires at: 20"), "{}", messages[4]);
    assert_eq!(messages[5], "  - Valid for: 60 minutes");
    assert_eq!(messages[6], format!("Successfully updated {}", home.path(".pgpass").display()));
    assert!(messages[7].starts_with("default is valid until 20"), "{}", messages[7]);
    assert_eq!(messages[8], "Token rotation completed successfully");
    let stamp = text.split(" - ").next().unwrap();
    assert!(jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", stamp).is_ok(), "{stamp}");
    assert_eq!(home.mode("rotator.log"), 0o600);
    crate::support::assert_no_secret("the log file", &text, &workspace.secrets());
}

#[test]
fn what_is_not_due_is_left_alone_without_asking_anybody() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate", "--if-due"]).run().exits(0);
    let (before, connections) = (home.pgpass(), workspace.connections());
    rotator(&home, &workspace, &["rotate", "--if-due"]).run().exits(0).stderr_lacks("cycle");
    assert_eq!(home.pgpass(), before);
    assert_eq!(workspace.connections(), connections);
}

#[test]
fn rotate_without_if_due_always_brings_a_new_one() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let before = home.password();
    rotator(&home, &workspace, &["--once"]).run().exits(0);
    assert_ne!(home.password(), before);
    assert_eq!(workspace.token_requests(), 2);
}

#[test]
fn a_deleted_or_overwritten_or_shadowed_entry_is_due_at_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let entry = home.pgpass();
    let user = workspace.client_id();
    for spoilt in [
        String::new(),
        format!("{HOST}:5432:databricks_postgres:{user}:by-hand\n"),
        format!("*:*:*:*:everything\n{entry}"),
        entry.replace(user, "somebody-else"),
    ] {
        home.write(".pgpass", &spoilt, 0o600);
        let outcome = rotator(&home, &workspace, &["rotate", "--if-due", "--json"]).run();
        assert_eq!(outcome.exits(0).json()["connections"][0]["outcome"], "rotated", "{spoilt:?}\n{outcome}");
        assert!(home.pgpass().starts_with(&format!("{HOST}:5432:databricks_postgres:{user}:eyJ")), "{outcome}");
    }
}

#[test]
fn a_file_that_clients_ignore_for_its_mode_is_due_and_is_tightened() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    home.write(".pgpass", home.pgpass(), 0o644);
    rotator(&home, &workspace, &["rotate", "--if-due"]).run().exits(0).stderr_has("0644");
    assert_eq!(home.mode(".pgpass"), 0o600);
}

#[test]
fn passing_trouble_is_got_over_and_then_said_to_be_over() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for fault in [
        Fault::Status(503),
        Fault::Status(500),
        Fault::RetryAfterSeconds(1),
        Fault::RetryAfterDate(1),
        Fault::Reset,
        Fault::Html,
        Fault::MissingToken,
        Fault::ExpiredToken,
        Fault::TruncatedBody,
        Fault::TruncatedJson,
        Fault::HugeBody,
        Fault::NoExpiryAnywhere,
        Fault::ErrorIn200("temporarily_unavailable".to_owned()),
    ] {
        workspace.fail_next(fault.clone());
        let before = home.password();
        let outcome = rotator(&home, &workspace, &["rotate"]).run();
        outcome.exits(0).stderr_has("WARNING").stderr_has("next try in").stderr_has("Token rotation completed");
        assert_ne!(home.password(), before, "{fault:?}\n{outcome}");
    }
}

#[test]
fn a_command_that_gives_up_does_not_end_in_silence() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.outage_begins();
    let outcome = rotator(&home, &workspace, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(69).stderr_has(" - ERROR - ").stderr_lacks(" - WARNING - ").stderr_lacks("next try in");
    // Once as a failure that may pass, and once at the end, however often it was tried in between.
    let outcome = rotator(&home, &workspace, &["rotate", "--retry-for", "8s"]).run();
    outcome.exits(69).stderr_has("next try in");
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.contains(" - ERROR - ") && !last.contains("next try in"), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 3, "{outcome}");
    // It was requested explicitly: that the published credential is still live makes it no less of an error.
    workspace.outage_ends();
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let published = home.pgpass();
    workspace.outage_begins();
    rotator(&home, &workspace, &["rotate", "--retry-for", "0s"]).run().exits(69).stderr_has(" - ERROR - ");
    assert_eq!(home.pgpass(), published);
}

#[test]
fn a_timers_run_that_fails_says_so_though_another_entry_of_the_sign_in_lives_on() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let run = |arguments: &[&str]| {
        let (url, id) = (workspace.url(), workspace.client_id());
        let config = format!(
            "[[workspace]]\nhost = '{url}'\nclient_id = '{id}'\nclient_secret_file = 'secret'\n\
             [[connection]]\nname = 'lost'\nhost = 'lost.example'\n[[connection]]\nname = 'due'\nhost = 'due.example'\n"
        );
        home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
        home.write(".config/dbx-rotator/config.toml", config, 0o600);
        dbx_rotator!(&home).args(arguments).trusting(&workspace).run()
    };
    // Both are due. One has 15 minutes left, enough for another run; the other is missing for clients.
    workspace.set_clock_skew(-45 * 60);
    let token = workspace.issue(workspace.client_id(), Duration::from_secs(3600));
    workspace.set_clock_skew(0);
    home.write(".pgpass", format!("due.example:5432:databricks_postgres:{}:{token}\n", workspace.client_id()), 0o600);
    workspace.outage_begins();
    let outcome = run(&["rotate", "--if-due", "--retry-for", "1s"]);
    assert!(outcome.exits(69).stderr.lines().any(|line| line.contains(" - ERROR - ")), "{outcome}");
    run(&["rotate", "--if-due", "--retry-for", "1s", "--connection", "due"]).exits(75).stderr_lacks(" - ERROR - ");
}

#[test]
fn each_kind_of_nonsense_is_told_apart_in_words() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for (fault, words) in [
        (Fault::Html, "a page for people (HTML)"),
        (Fault::TruncatedJson, "JSON that is cut off"),
        (Fault::TruncatedBody, "broke off"),
        (Fault::MissingToken, "without an access_token"),
        (Fault::ExpiredToken, "a token that has already expired"),
        (Fault::NoExpiryAnywhere, "does not say when it expires"),
        (Fault::HugeBody, "more than 1 MiB"),
        (Fault::Status(502), "failed with status 502"),
        (Fault::Reset, "cannot reach"),
        (Fault::ErrorIn200("server_error".to_owned()), "server_error"),
    ] {
        workspace.fail_next(fault);
        rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_has(words);
    }
}

#[test]
fn tokens_without_claims_or_without_expires_in_serve_as_well() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for fault in [Fault::OpaqueToken, Fault::NoExpiry] {
        workspace.fail_next(fault.clone());
        rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_lacks("WARNING").stderr_has("60 minutes");
        let requests = workspace.token_requests();
        rotator(&home, &workspace, &["rotate", "--if-due"]).run().exits(0);
        assert_eq!(workspace.token_requests(), requests, "its expiry is known: {fault:?}");
    }
}

#[test]
fn a_refused_secret_needs_a_person_and_leaves_the_live_entry() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let before = home.pgpass();
    home.keep_secret("not-the-right-secret-000000");
    let outcome = rotator(&home, &workspace, &["rotate", "--json"])
        .env("DATABRICKS_CLIENT_SECRET", "not-the-right-secret-000000")
        .run();
    outcome
        .exits(77)
        .stderr_has("invalid_client")
        .stderr_has("ERROR")
        .stderr_has("check the client id, and whether its secret is right");
    let row = &outcome.json()["connections"][0];
    assert_eq!((&row["outcome"], &row["error"]["kind"]), (&"failed".into(), &"permanent".into()), "{outcome}");
    assert_eq!(row["error"]["code"], "sign-in-refused");
    assert_eq!(home.pgpass(), before);
    assert_eq!(workspace.token_requests(), 2, "a refusal is not tried again");
    rotator(&home, &workspace, &["status"]).run().exits(0).stdout_has("live").stdout_has("needs you: ");
}

#[test]
fn a_long_retry_after_ends_the_run_with_try_again_later() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.fail_next(Fault::RetryAfterSeconds(600));
    rotator(&home, &workspace, &["rotate"]).run().exits(75).stderr_has("429").took_at_most(Duration::from_secs(30));
    assert_eq!(workspace.token_requests(), 1);
}

#[test]
fn a_workspace_without_discovery_is_asked_at_the_usual_place() {
    let (workspace, home) = (Workspace::builder().without_discovery().start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    assert!(workspace.requests().iter().any(|request| request.contains("POST /oidc/v1/token")));
}

#[test]
fn a_redirect_is_not_followed_with_the_secret() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.fail_next(Fault::Redirect("https://login.example/private-link?token=x".to_owned()));
    rotator(&home, &workspace, &["rotate"])
        .run()
        .exits(78)
        .stderr_has("login.example/private-link")
        .stderr_lacks("token=x");
}

#[test]
fn a_token_of_another_identity_or_workspace_is_not_published() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.fail_next(Fault::OtherIdentity("eve@example.com".to_owned()));
    rotator(&home, &workspace, &["rotate"]).run().exits(77).stderr_has("eve@example.com cannot log in as");
    assert_eq!(home.pgpass(), "");
    workspace.fail_next(Fault::WrongAudience);
    let url = format!("{}/?o={}", workspace.url(), workspace.workspace_id());
    rotator(&home, &workspace, &["rotate"]).env("DATABRICKS_HOST", url).run().exits(78).stderr_has("for workspace");
    assert_eq!(home.pgpass(), "");
}

/// The original's documented set-up: a service principal's client, with a person's name as the PostgreSQL user.
#[test]
fn a_client_beside_another_user_is_published_and_said_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let both =
        |arguments: &[&str]| rotator(&home, &workspace, arguments).env("DATABRICKS_PG_USERNAME", "ada@example.com");
    let who = format!("the user ada@example.com and the client {} were both set", workspace.client_id());
    let said = "PostgreSQL refuses the login unless the role accepts this client";
    both(&["rotate"]).run().exits(0).stderr_has(said).stderr_has(&who).stderr_has("--any-identity");
    assert!(home.pgpass().starts_with(&format!("{HOST}:5432:databricks_postgres:ada@example.com:eyJ")));
    both(&["status"]).run().exits(0).stdout_has("live");
    both(&["rotate", "--if-due"]).run().exits(0).stderr_lacks(said);
    assert_eq!(workspace.token_requests(), 1, "it is the connection's own, and not due");
    both(&["rotate"]).run().exits(0).stderr_lacks(said);
    both(&["check"]).run().exits(0).stdout_has(said);
    both(&["check", "--any-identity"]).run().exits(0).stdout_lacks(said);
    both(&["config", "show", "--any-identity"]).run().exits(0).stdout_lacks(said).stdout_has("(--any-identity)");
    // Nobody wants another identity's token.
    workspace.fail_next(Fault::OtherIdentity("eve@example.com".to_owned()));
    both(&["rotate"]).run().exits(77).stderr_has("the token of eve@example.com cannot log in as ada@example.com");
    let other = Home::new();
    rotator(&other, &workspace, &["rotate", "--any-identity"])
        .env("DATABRICKS_PG_USERNAME", "ada@example.com")
        .run()
        .exits(0)
        .stderr_lacks(said);
}

#[test]
fn a_group_role_takes_its_members_tokens() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).env("DATABRICKS_PG_USERNAME", "data readers").run().exits(0);
    assert!(home.pgpass().contains(":data readers:eyJ"));
}

#[test]
fn a_wrong_clock_is_warned_of_and_corrected_for() {
    for skew in [-7_200, 7_200] {
        let (workspace, home) = (Workspace::builder().clock_skew(skew).start(), Home::new());
        rotator(&home, &workspace, &["rotate"])
            .run()
            .exits(0)
            .stderr_has("this machine's clock is")
            .stderr_has("60 minutes");
        let requests = workspace.token_requests();
        let outcome = rotator(&home, &workspace, &["status", "--json"]).run();
        let row = &outcome.exits(0).json()["connections"][0];
        assert_eq!(row["state"], "live", "{outcome}");
        assert!((3_500..=3_600).contains(&row["expires_in_seconds"].as_i64().unwrap()), "{outcome}");
        rotator(&home, &workspace, &["rotate", "--if-due"]).run().exits(0);
        assert_eq!(workspace.token_requests(), requests, "not due by the workspace's clock");
    }
}

#[test]
fn many_connections_of_one_identity_take_one_token_and_one_write() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.watch(&workspace);
    home.write("secret", workspace.client_secret(), 0o600);
    let mut text = format!(
        "[[workspace]]\nname = 'a'\nhost = '{0}'\nclient_id = '{1}'\nclient_secret_file = '~/secret'\n\
         [[workspace]]\nname = 'b'\nhost = '{0}/'\nclient_id = '{1}'\nclient_secret_file = '~/secret'\n",
        workspace.url(),
        workspace.client_id(),
    );
    for (index, of) in ["a", "a", "b"].iter().enumerate() {
        text += &format!("[[connection]]\nname = 'c{index}'\nworkspace = '{of}'\nhost = 'h{index}.example'\n");
    }
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    let run = |arguments: &[&str]| dbx_rotator!(home).args(arguments).trusting(&workspace).run();
    run(&["rotate"]).exits(0);
    assert_eq!(workspace.token_requests(), 1);
    let text = home.pgpass();
    let hosts: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(hosts, ["h0.example", "h1.example", "h2.example"], "in the order of the configuration");
    run(&["rotate", "--connection", "c1"]).exits(0);
    let changed = home.pgpass().lines().zip(text.lines()).filter(|(new, old)| new != old).count();
    assert_eq!(changed, 1);
    run(&["rotate", "--connection", "c9"]).exits(64).stderr_has("no connection named c9").stderr_has("c0, c1, c2");
}

#[test]
fn what_can_be_had_is_published_though_another_workspace_is_down() {
    let (up, down, home) = (Workspace::start(), Workspace::start(), Home::new());
    for (workspace, name) in [(&up, "up"), (&down, "down")] {
        home.watch(workspace);
        home.write(name, workspace.client_secret(), 0o600);
    }
    // One file with the authorities of both stand-ins.
    let authorities =
        std::fs::read_to_string(up.ca_file()).unwrap() + &std::fs::read_to_string(down.ca_file()).unwrap();
    home.write("ca.pem", authorities, 0o644);
    down.fail_every(1, vec![Fault::RetryAfterSeconds(600)]);
    let tables = |workspace: &Workspace, name: &str| {
        format!(
            "[[workspace]]\nname = '{name}'\nhost = '{}'\nclient_id = '{}'\nclient_secret_file = '~/{name}'\nca_file = '~/ca.pem'\n\
             [[connection]]\nname = '{name}'\nworkspace = '{name}'\nhost = '{name}.example'\n",
            workspace.url(),
            workspace.client_id()
        )
    };
    home.write(".config/dbx-rotator/config.toml", tables(&up, "up") + &tables(&down, "down"), 0o600);
    let outcome = dbx_rotator!(home).args(["rotate", "--json"]).run();
    let answer = outcome.exits(75).json();
    assert_eq!(answer["connections"][0]["outcome"], "rotated", "{outcome}");
    assert_eq!(answer["connections"][1]["outcome"], "failed", "{outcome}");
    assert!(home.pgpass().starts_with("up.example:"));
}

#[test]
fn a_bad_connection_does_not_let_its_sibling_die() {
    let (workspace, home) = (Workspace::builder().token_life(Duration::from_secs(4)).start(), Home::new());
    let table =
        |name: &str, user: &str| format!("[[connection]]\nname = '{name}'\nhost = 'db.example'\nuser = '{user}'\n");
    let text =
        "[[connection]]\nname = 'bad'\ninstance = 'nowhere'\n".to_owned() + &table("good", workspace.client_id());
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    let session =
        rotator(&home, &workspace, &["run"]).without_env("DATABRICKS_PG_HOST").without_env("DATABRICKS_PG_USERNAME");
    let running = session.spawn();
    running.says_times(3, "Token rotation completed successfully", Duration::from_secs(30));
    let outcome = running.terminate();
    outcome.exits(0);
    assert_eq!(outcome.stderr.matches("there is no instance nowhere").count(), 1, "said once\n{outcome}");
    assert_eq!(home.pgpass().lines().count(), 1);
}

#[test]
fn run_notices_what_another_instance_has_mended() {
    let (workspace, home) = (Workspace::builder().token_life(Duration::from_secs(8)).start(), Home::new());
    workspace.set_client(workspace.client_id(), "not-yet-known-0000000000");
    let running = rotator(&home, &workspace, &["run"]).spawn();
    running.says("invalid_client", Duration::from_secs(20));
    workspace.set_client(workspace.client_id(), workspace.client_secret());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    // Its next try would be minutes away, and the new credential is due within seconds; at its next look all is well.
    running.terminate().exits(0);
    assert!(home.password().starts_with("eyJ"));
}

#[test]
fn a_hundred_at_once_on_a_missing_entry_make_one_request() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let all: Vec<_> = (0..100).map(|_| rotator(&home, &workspace, &["rotate", "--if-due"]).spawn()).collect();
    for one in all {
        one.ends().exits(0);
    }
    assert_eq!(workspace.token_requests(), 1);
    assert_eq!(home.pgpass().lines().count(), 1);
}

#[test]
fn of_two_that_rotate_at_once_one_works_and_the_other_finds_it_done() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.fail_next(Fault::SlowBytes { bytes: 64, pause: Duration::from_millis(500) });
    let first = rotator(&home, &workspace, &["rotate", "--json"]).spawn();
    assert!(workspace.wait_for_token_requests(1, Duration::from_secs(20)));
    // The first instance holds the lock now, as long as its answer trickles in.
    let second = rotator(&home, &workspace, &["rotate", "--json", "-v"]).spawn();
    for one in [first.ends(), second.ends()] {
        assert_eq!(one.exits(0).json()["connections"][0]["outcome"], "rotated", "{one}");
    }
    assert_eq!(workspace.token_requests(), 1);
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_the_record_and_not_the_password() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write("not-a-directory", "", 0o600);
    rotator(&home, &workspace, &["rotate"])
        .env("STATE_DIRECTORY", home.path("not-a-directory/state"))
        .run()
        .exits(0)
        .stderr_has("cannot keep a record");
    assert!(home.password().starts_with("eyJ"));
}

#[test]
fn a_password_file_that_cannot_be_written_is_73_and_nothing_is_left_behind() {
    let (workspace, home) = (Workspace::start(), Home::new());
    std::fs::create_dir(home.path(".pgpass")).unwrap();
    rotator(&home, &workspace, &["rotate"]).run().exits(73).stderr_has("is a directory").stderr_has("PGPASSFILE");
    assert_eq!(workspace.token_requests(), 0, "nobody is asked for what could not be kept");
    let left: Vec<_> = home.files().into_iter().filter(|file| !file.ends_with("dbx-rotator/lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_dry_run_asks_nobody_and_changes_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate", "--dry-run"])
        .run()
        .exits(0)
        .stdout_has("would rotate: the password file does not exist");
    assert_eq!(home.pgpass(), "");
    assert_eq!(workspace.connections(), 0);
}

#[test]
fn a_rotation_that_fails_leads_nobody_elsewhere() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let rotate = || dbx_rotator!(home).for_instance(&workspace, "").args(["rotate", "--retry-for", "0s"]);
    rotate().run().exits(0);
    let before = home.read(".pg_service.conf");
    assert!(before.contains("[orders]"), "{before}");
    rotate().args(["--pgpass-file", "/proc/nowhere"]).run().exits(73);
    assert_eq!(home.read(".pg_service.conf"), before);
    workspace.fail_next(Fault::Status(503));
    rotate().args(["--pg-host", "other.example"]).run().exits(69);
    assert_eq!(home.read(".pg_service.conf"), before);
}
