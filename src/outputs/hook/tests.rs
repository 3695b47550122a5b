//! Programs that are told of a rotation: what they see, and the message when they fail.

use std::fs;
use std::io::Read;

use super::*;
use crate::Kind;

fn about() -> Rotated<'static> {
    Rotated {
        connection: "orders",
        host: "db.example",
        port: 5432,
        database: "*",
        user: "alice@example.com",
        expires_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        password_file: Path::new("/home/ada/.pgpass"),
    }
}

fn environment() -> Environment {
    [("PATH", "/usr/bin:/bin"), ("HOME", "/home/ada")].into_iter().collect()
}

fn shell(script: &str, arguments: &[&str]) -> Outputs {
    let command = ["/bin/sh", "-c", script].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    Outputs { on_rotate: Some(command), ..Outputs::default() }
}

async fn fails(outputs: &Outputs) -> Failure {
    outputs.run_hook(&about(), &environment()).await.unwrap_err()
}

#[tokio::test]
async fn it_is_told_of_the_rotation_and_of_nothing_that_is_ours_alone() {
    let directory = tempfile::tempdir().unwrap();
    let seen = directory.path().join("seen");
    let script = "if read line; then exit 9; fi; env > \"$0\"; pwd >> \"$0\"; echo \"$@\" >> \"$0\"";
    let mut outputs = shell(script, &[seen.to_str().unwrap(), "a b", "$HOME"]);
    outputs.token_file = Some("/run/token".into());
    let mut environment = environment();
    for name in ["DATABRICKS_CLIENT_SECRET", "PGPASSWORD", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "PGSERVICE"] {
        environment = environment.with(name, "ours");
    }
    let environment = environment.with("DBX_ROTATOR_ENV_FILE", "ours").with("LANG", "C").with("PGHOST", "elsewhere");
    outputs.run_hook(&about(), &environment).await.unwrap();
    let seen = fs::read_to_string(seen).unwrap();
    for line in [
        "DBX_ROTATOR_CONNECTION=orders",
        "DBX_ROTATOR_EXPIRES_AT=2026-01-01T00:00:00Z",
        "DBX_ROTATOR_TOKEN_FILE=/run/token",
        "PGHOST=db.example",
        "PGPORT=5432",
        "PGDATABASE=databricks_postgres",
        "PGUSER=alice@example.com",
        "PGPASSFILE=/home/ada/.pgpass",
        "HOME=/home/ada",
        "LANG=C",
        "/",
        "a b $HOME",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in\n{seen}");
    }
    assert!(!seen.contains("ours"), "{seen}");
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !seen.contains("CARGO_"), "this process's own: {seen}");
}

#[tokio::test]
async fn a_failure_says_which_program_how_it_ended_and_what_it_said_last_but_no_token() {
    let failure =
        fails(&shell("echo out; echo first >&2; echo cannot reload: eyJhbGciOi.x >&2; echo >&2; exit 3", &[])).await;
    assert_eq!(failure.message, "on_rotate of orders: /bin/sh ended with exit code 3: cannot reload: ...");
    assert_eq!((failure.kind, failure.code), (Kind::Transient, Code::Unavailable));
    assert!(failure.hint.unwrap().contains("ReadWritePaths="));
    let failure = fails(&shell("echo only out; kill -9 $$", &[])).await;
    assert_eq!(failure.message, "on_rotate of orders: /bin/sh ended with signal 9: only out");
}

#[tokio::test]
async fn no_program_at_all_is_no_failure_and_one_that_is_not_there_needs_a_person() {
    Outputs::default().run_hook(&about(), &environment()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    // Written by another process: a child that was just forked may still hold a file open that this process writes.
    let mut write = std::process::Command::new("/bin/sh");
    write.args(["-c", "printf '\\0x' > \"$0\"; chmod +x \"$0\""]).arg(&garbage);
    assert!(write.status().unwrap().success());
    let cases: [(&[&str], &str); 6] = [
        (&[], "names no program"),
        (&[""], "names no program"),
        (&["/nowhere/x"], "/nowhere/x is not a program"),
        (&["bin/x"], "neither an absolute path nor a bare name"),
        (&["no-such-program"], "no program no-such-program on PATH"),
        (&[garbage.to_str().unwrap()], "cannot be started"),
    ];
    for (command, words) in cases {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let failure = fails(&Outputs { on_rotate: Some(command), ..Outputs::default() }).await;
        assert!(failure.message.contains(words), "{failure}");
        assert_eq!((failure.kind, failure.code), (Kind::Permanent, Code::Configuration), "{failure}");
        assert!(failure.hint.unwrap().contains("no shell"));
    }
}

#[tokio::test]
async fn a_bare_name_is_found_on_path_and_a_tilde_at_home() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/true", directory.path().join("tell-the-pool")).unwrap();
    let path = directory.path().to_str().unwrap();
    for (name, variable) in [("tell-the-pool", "PATH"), ("~/tell-the-pool", "HOME")] {
        let outputs = Outputs { on_rotate: Some(vec![name.to_owned()]), ..Outputs::default() };
        outputs.run_hook(&about(), &environment().with(variable, path)).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let outputs = shell("exec 3> \"$0\"; (sleep 20; echo late >&3) & echo ready >&3; wait", &[pipe.to_str().unwrap()]);
    let (started, start) = tokio::sync::oneshot::channel();
    // Its time is up once it has started something; the pipe ends when nobody of the group is left.
    let ended = tokio::task::spawn_blocking(move || {
        let mut pipe = fs::File::open(pipe).unwrap();
        let mut said = [0; 6];
        pipe.read_exact(&mut said).unwrap();
        started.send(()).unwrap();
        let mut late = String::new();
        pipe.read_to_string(&mut late).unwrap();
        late
    });
    let over = async { start.await.unwrap() };
    let command = outputs.on_rotate.as_deref().unwrap();
    let failure = run(command, &outputs, &about(), &environment(), over).await.unwrap_err();
    assert_eq!(failure.message, "on_rotate of orders: /bin/sh did not finish within 30 s and was ended");
    assert_eq!((failure.kind, failure.code), (Kind::Transient, Code::Unavailable));
    assert_eq!(ended.await.unwrap(), "", "killed before it could say more");
}
