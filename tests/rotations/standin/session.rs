//! Sessions show what happened, keep secrets, and end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::SOON;
use crate::support::{Home, Workspace, assert_no_secret, names, skip};

#[test]
fn a_command_sees_nothing_but_its_home() {
    let home = Home::new();
    let outcome = home.command("env").env("EXTRA", "1").without_env("XDG_DATA_HOME").run();
    let names: Vec<_> = outcome.exits(0).stdout.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(
        names,
        [
            "EXTRA",
            "HOME",
            "LANG",
            "PATH",
            "TMPDIR",
            "TZ",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME"
        ]
    );
    home.command("pwd").run().stdout_has(home.path("").file_name().unwrap().to_str().unwrap());
    home.command("cat").run().prints_nothing();
    home.command("cat").stdin("typed").run().stdout_has("typed");
    home.write(".pgpass", "a:b:c:d:e\n", 0o600);
    assert_eq!((home.pgpass().as_str(), home.mode(".pgpass")), ("a:b:c:d:e\n", 0o600));
    assert_eq!(home.files(), [std::path::Path::new(".pgpass")]);
}

#[test]
fn a_home_has_names_of_its_own() {
    if let Err(reason) = names::wrapper() {
        return skip("a_home_has_names_of_its_own", &reason);
    }
    let home = Home::new();
    let script = "import socket, sys\nfor name in sys.argv[1:]: print(socket.gethostbyname(name))";
    let (instance, endpoint) = ("instance-1.database.cloud.databricks.com", "ep-1.database.cloud.databricks.com");
    let look_up = || home.command("python3").args(["-c", script, instance, endpoint]);
    let said = look_up().resolving(instance, "127.12.3.4").resolving(endpoint, "127.12.3.5").run();
    assert_eq!(said.exits(0).stdout, "127.12.3.4\n127.12.3.5\n");
    let said = look_up().resolving(instance, "127.12.3.6").run();
    assert_eq!(said.exits(0).stdout, "127.12.3.6\n127.12.3.5\n", "one moved, the other stayed");
}

#[test]
fn a_failed_wish_shows_the_whole_session() {
    let home = Home::new();
    home.command("echo").arg("earlier").run().exits(0);
    let outcome = home.command("sh").args(["-c", "echo out; echo err >&2; exit 3"]).run();
    let shown = refusal(|| _ = outcome.exits(3).stdout_has("out").exits(0));
    for part in ["should exit with 0", "$ echo earlier", "$ sh -c", "out\nerr\n[exit code 3"] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
}

#[test]
fn a_secret_in_an_output_is_noticed() {
    let workspace = Workspace::start();
    let home = Home::new();
    home.watch(&workspace);
    home.keep_secret("hunter2");
    let token = workspace.issue("ada@example.com", SOON);
    home.command("echo").arg("nothing secret, eyJ").run().exits(0);
    for leak in [workspace.client_secret(), &token, &token[300..316], "hunter2"] {
        for script in ["echo $1", "echo $1 >&2"] {
            let said = refusal(|| drop(home.command("sh").args(["-c", script, "sh", leak]).run()));
            assert!(said.contains("leaked into standard") && !said.contains(leak), "{said}");
        }
    }
    home.command("echo").arg(&token).may_print_secrets().run().exits(0);
    assert_no_secret("a log", "all is well", &[token]);
}

#[test]
fn a_command_that_hangs_is_ended() {
    let home = Home::new();
    let began = Instant::now();
    let said = refusal(|| drop(home.command("sleep").arg("600").patience(Duration::from_millis(50)).run()));
    assert!(said.contains("did not end within 50ms") && began.elapsed() < SOON, "{said}");
}

#[test]
fn a_command_in_the_background_is_heard_and_ended() {
    let home = Home::new();
    let script =
        "trap 'echo bye >&2; exit 0' TERM; for n in 1 2; do echo ready >&2; done; while :; do sleep 0.01; done";
    let running = home.command("sh").args(["-c", script]).spawn();
    running.says("ready", SOON).says_times(2, "ready", SOON);
    assert!(!running.has_ended());
    running.terminate().exits(0).stderr_has("bye");

    let said = refusal(|| _ = home.command("true").spawn().says("hello", SOON));
    assert!(said.contains("did not say \"hello\""), "{said}");
}

#[test]
fn a_skip_is_counted() {
    let home = Home::new();
    let list = home.path("skips");
    if std::env::var_os("DBX_ROTATOR_TEST_SKIPS").is_none() {
        // The variable belongs to the whole test program, so a copy of that runs with its own value.
        let this = std::env::current_exe().unwrap();
        home.command(this)
            .args(["--exact", "standin::session::a_skip_is_counted", "--nocapture"])
            .env("DBX_ROTATOR_TEST_SKIPS", &list)
            .run()
            .exits(0)
            .stderr_has("SKIP a_skip: it has to");
        assert_eq!(home.read("skips"), "SKIP a_skip: it has to\n");
    } else if std::env::var_os("XDG_STATE_HOME").is_some_and(|at| at.to_string_lossy().contains("dbx-rotator-test-")) {
        skip("a_skip", "it has to");
    }
}

/// The message of a panic.
fn refusal(of: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(of)).expect_err("it should have been refused");
    *panic.downcast::<String>().expect("a panic with a text")
}
