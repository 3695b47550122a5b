//! PostgreSQL lets in exactly the live tokens of the role that logs in, and goes when its test goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::support::{Home, Postgres, Workspace, skip};
use super::{HOUR, SOON, flipped};

#[test]
fn postgres_lets_in_exactly_the_live_tokens_of_the_role() {
    let workspace = Workspace::start();
    let (ada, robot) = ("ada@example.com", workspace.client_id());
    let Some(postgres) = postgres("postgres_lets_in_exactly_the_live_tokens_of_the_role", &workspace, &[ada, robot])
    else {
        return;
    };
    let home = Home::new();
    let login = |user: &str, token: &str| {
        let pgpass = home.write(".pgpass", format!("127.0.0.1:{}:*:{user}:{token}\n", postgres.port()), 0o600);
        let psql = postgres.psql(
            &pgpass,
            user,
            "select current_user || ' by ' || version from pg_stat_ssl where pid = pg_backend_pid()",
        );
        (psql.status.success(), String::from_utf8(psql.stdout).unwrap() + &String::from_utf8(psql.stderr).unwrap())
    };

    let (let_in, said) = login(ada, &workspace.issue(ada, HOUR));
    assert!(let_in && said == format!("{ada} by TLSv1.3\n"), "{said}");
    assert!(login(robot, &workspace.issue(robot, HOUR)).0);

    for (what, token, reason) in [
        ("expired", workspace.issue(ada, Duration::ZERO), "expired"),
        ("forged", flipped(&workspace.issue(ada, HOUR)), "forged"),
        ("someone else's", workspace.issue(robot, HOUR), "someone else's"),
        ("another workspace's", Workspace::start().issue(ada, HOUR), "forged"),
        ("without a signature", unsigned(&workspace.issue(ada, HOUR)), "not ES256"),
        ("no token", "a native password".to_owned(), "not a JWT"),
    ] {
        let (let_in, said) = login(ada, &token);
        assert!(!let_in, "{what}");
        assert!(said.contains("authentication failed for user"), "{said}");
        assert_eq!(postgres.logins().last().unwrap().refused, Some(reason), "{what}");
    }
    let accepted: Vec<_> =
        postgres.logins().into_iter().filter(|login| login.accepted()).map(|login| login.user).collect();
    assert_eq!(accepted, [ada, robot]);

    let token = workspace.issue(ada, Duration::from_secs(60));
    postgres.set_clock_skew(120);
    assert!(!login(ada, &token).0, "expired by the server's clock");
    postgres.set_clock_skew(-120);
    assert!(login(ada, &token).0);
}

#[test]
fn postgres_takes_tokens_as_long_as_they_come() {
    for length in [850, 4096, 16384] {
        let workspace = Workspace::builder().token_length(length).start();
        let Some(postgres) = postgres("postgres_takes_tokens_as_long_as_they_come", &workspace, &[workspace.user()])
        else {
            return;
        };
        let home = Home::new();
        let token = workspace.issue(workspace.user(), HOUR);
        let pgpass = home.write(".pgpass", format!("*:*:*:*:{token}\n"), 0o600);
        let psql = postgres.psql(&pgpass, workspace.user(), "select 1");
        assert!(psql.status.success(), "{length}: {}", String::from_utf8_lossy(&psql.stderr));
    }
}

/// Not a test of its own: the run that the next test kills.
#[test]
#[ignore = "a_killed_run_leaves_no_server runs it"]
fn a_run_that_will_be_killed() {
    let workspace = Workspace::start();
    let postgres = Postgres::start(&workspace, &[]).unwrap();
    println!("\nlistening on {}", postgres.port());
    thread::park();
}

#[test]
fn a_killed_run_leaves_no_server() {
    let workspace = Workspace::start();
    let Some(postgres) = postgres("a_killed_run_leaves_no_server", &workspace, &[]) else { return };
    drop(postgres);

    let mut run = Command::new(env::current_exe().unwrap())
        .args(["--exact", "postgres::a_run_that_will_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let port = BufReader::new(run.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("listening on ").map(|port| port.parse::<u16>().unwrap()))
        .unwrap();
    let mine = format!("dbx-rotator-test-{}-", run.id());
    assert_eq!(scratch_directories(&mine), 2, "the workspace's and the server's");

    // A session ends when its server does. One that has been asked for TLS and said yes (S) is surely a session.
    let mut session = TcpStream::connect(("127.0.0.1", port)).unwrap();
    session.set_read_timeout(Some(SOON)).unwrap();
    session.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    session.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    run.kill().unwrap();
    run.wait().unwrap();
    let ended = session.read(&mut answer);
    assert!(matches!(ended, Ok(0)), "the server outlives the run that started it: {ended:?}");

    drop(Postgres::start(&workspace, &[]).unwrap());
    assert_eq!(scratch_directories(&mine), 0, "the next run tidies up");
}

fn scratch_directories(prefix: &str) -> usize {
    let entries = fs::read_dir(env::temp_dir()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix)).count()
}

/// The token with the signature taken off and the header saying so, a classic forgery.
fn unsigned(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"typ":"at+jwt","alg":"none"}"#))
}

fn postgres(test: &str, workspace: &Workspace, roles: &[&str]) -> Option<Postgres> {
    Postgres::start(workspace, roles).map_err(|reason| skip(test, &reason)).ok()
}
