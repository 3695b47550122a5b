//! PostgreSQL accepts exactly the live tokens of the role that logs in, and ends with its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{HOUR, SOON, client, flipped, json};
use crate::support::{Endpoint, Fault, Home, Instance, Postgres, Workspace, names, skip};

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

/// Not a test on its own: the run that the next test kills.
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
        .args(["--exact", "standin::postgres::a_run_that_will_be_killed", "--ignored", "--nocapture"])
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

    // A session ends when its server does. A connection that asked for TLS and got yes (S) is certainly a session.
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

#[test]
fn servers_of_their_own_names_run_side_by_side() {
    let test = "servers_of_their_own_names_run_side_by_side";
    let workspace = Workspace::start();
    let (orders, payroll) = (Instance::named("orders").host.unwrap(), Instance::named("payroll").host.unwrap());
    let ada = workspace.user();
    let Some(first) = named(test, &workspace, ada, &orders) else { return };
    let Some(second) = named(test, &workspace, ada, &payroll) else { return };
    assert_eq!((first.port(), second.port()), (5432, 5432));
    assert_ne!(first.address(), second.address());

    let home = Home::new();
    home.watch(&workspace);
    let token = workspace.issue(ada, HOUR);
    home.write(".pgpass", format!("{orders}:5432:*:{ada}:{token}\n{payroll}:5432:*:{ada}:{token}\n"), 0o600);
    let where_am_i = "select inet_server_addr() || ' ' || inet_server_port()";
    for (host, server) in [(&orders, &first), (&payroll, &second)] {
        let psql = home.psql(&workspace, host, ada).resolving(host, server.address()).args(["-c", where_am_i]).run();
        assert_eq!(psql.exits(0).stdout, format!("{}/32 5432\n", server.address()));
    }
    // The address of one server with the name of the other.
    let wrong = home.psql(&workspace, &orders, ada).resolving(&orders, second.address()).args(["-c", "select 1"]);
    wrong.run().exits(2).stderr_has("does not match host name");
    assert_eq!((first.logins().len(), second.logins().len()), (1, 1));
    let by_address = second.psql(&home.write("p", format!("*:*:*:*:{token}\n"), 0o600), ada, "select 1");
    assert!(by_address.status.success());
}

#[tokio::test]
async fn a_minted_credential_opens_the_database_by_its_real_name() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let (host, robot) = (workspace.instance("orders").host.unwrap(), workspace.client_id());
    let test = "a_minted_credential_opens_the_database_by_its_real_name";
    let Some(server) = named(test, &workspace, robot, &host) else { return };
    let home = Home::new();
    home.watch(&workspace);
    let http = client(&workspace);
    let (url, token) = (workspace.url() + "/api/2.0/database/credentials", workspace.issue(robot, HOUR));
    let mint = || http.post(&url).bearer_auth(&token).body(r#"{"instance_names": ["orders"]}"#);
    let who_am_i =
        || home.psql(&workspace, &host, robot).resolving(&host, server.address()).args(["-c", "select user"]);

    for (twist, refused) in [
        (None, None),
        (Some(Fault::OpaqueToken), None),
        (Some(Fault::ExpiredToken), Some("expired")),
        (Some(Fault::WrongAudience), Some("another workspace's")),
        (Some(Fault::OtherIdentity("eve@example.com".to_owned())), Some("someone else's")),
    ] {
        twist.iter().for_each(|twist| _ = workspace.faults_on(Endpoint::DatabaseCredentials).next(twist.clone()));
        let credential = json(mint()).await["token"].as_str().unwrap().to_owned();
        home.write(".pgpass", format!("{host}:5432:databricks_postgres:{robot}:{credential}\n"), 0o600);
        let outcome = who_am_i().run();
        match refused {
            None => assert_eq!(outcome.exits(0).stdout, format!("{robot}\n"), "{twist:?}"),
            Some(_) => _ = outcome.exits(2).stderr_has("authentication failed for user"),
        }
        assert_eq!(server.logins().last().unwrap().refused, refused, "{twist:?}");
    }

    workspace.faults_on(Endpoint::DatabaseCredentials).next(Fault::OpaqueToken);
    let credential = json(mint()).await["token"].as_str().unwrap().to_owned();
    home.write(".pgpass", format!("*:*:*:*:{credential}\n"), 0o600);
    server.set_clock_skew(3590);
    who_am_i().run().exits(0);
    server.set_clock_skew(3610);
    who_am_i().run().exits(2);
    assert_eq!(server.logins().last().unwrap().refused, Some("expired"));
}

/// A server at port 5432 with this name.
fn named(test: &str, workspace: &Workspace, role: &str, host: &str) -> Option<Postgres> {
    let server = names::wrapper().and_then(|_| Postgres::builder(workspace, &[role]).at_5432().known_as(host).start());
    server.map_err(|reason| skip(test, &reason)).ok()
}

fn scratch_directories(prefix: &str) -> usize {
    let entries = fs::read_dir(env::temp_dir()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix)).count()
}

/// The token without its signature and with a header that says so, a classic forgery.
fn unsigned(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"typ":"at+jwt","alg":"none"}"#))
}

fn postgres(test: &str, workspace: &Workspace, roles: &[&str]) -> Option<Postgres> {
    Postgres::start(workspace, roles).map_err(|reason| skip(test, &reason)).ok()
}
