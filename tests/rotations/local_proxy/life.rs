//! Over many lives of a token, outages, a server that dies, and the proxy's own end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::{SOON, Stage, until};
use crate::support::postgres::psql_program;
use crate::support::workspace::{Endpoint, Fault};
use crate::support::{Running, Workspace, dbx_rotator};

/// The life of a token.
const LIFE: Duration = Duration::from_secs(10);

fn pgbench(stage: &Stage, arguments: &[&str]) -> crate::support::Outcome {
    let program = psql_program().unwrap().with_file_name("pgbench");
    let pgbench = stage.home.command(program).env("PGPASSFILE", "/nonexistent").env("PGHOST", stage.directory());
    pgbench.patience(Duration::from_secs(120)).args(arguments).arg("orders").run()
}

#[test]
fn no_login_and_no_query_fails_while_tokens_come_and_go_and_every_third_request_fails() {
    let test = "no_login_and_no_query_fails_while_tokens_come_and_go_and_every_third_request_fails";
    let Some(stage) = Stage::new(test, Workspace::builder().token_life(LIFE).start(), "", "") else { return };
    stage.rotate();
    stage.workspace.faults_on(Endpoint::Token).every(3, vec![Fault::Status(503)]);
    let running = stage.start();
    let script = stage.home.write("script", "select 1;\n", 0o600).display().to_string();
    let seconds = (3 * LIFE + Duration::from_secs(2)).as_secs().to_string();
    let issued = stage.workspace.tokens_issued();
    let (anew, kept) = std::thread::scope(|scope| {
        let anew = scope.spawn(|| pgbench(&stage, &["-n", "-f", &script, "-C", "-c", "2", "-R", "20", "-T", &seconds]));
        let kept = scope.spawn(|| pgbench(&stage, &["-n", "-f", &script, "-c", "5", "-R", "50", "-T", &seconds]));
        (anew.join().unwrap(), kept.join().unwrap())
    });
    for outcome in [&anew, &kept] {
        outcome.exits(0).stdout_has("number of failed transactions: 0");
    }
    assert!(stage.workspace.tokens_issued() >= issued + 3, "the tokens did not change");
    let refused = stage.server.logins().iter().filter(|login| !login.accepted()).count();
    eprintln!("{} logins, {refused} of them at a second try", stage.server.logins().len());
    running.terminate().exits(0).stderr_lacks("got no session");
}

#[test]
fn an_outage_stops_no_login_while_the_credential_lives() {
    let test = "an_outage_stops_no_login_while_the_credential_lives";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.rotate();
    stage.workspace.outage_begins();
    let running = stage.start();
    for _ in 0..5 {
        stage.ask("orders", "select 1").exits(0);
    }
    running.terminate().exits(0);
}

/// Makes the credential as good as before by all that it says of itself, but signed by nobody.
fn spoil(stage: &Stage) {
    let file = stage.home.pgpass();
    let (entry, signature) = file.trim_end().rsplit_once('.').unwrap();
    stage.home.keep_secret(signature);
    stage.home.write(".pgpass", format!("{entry}.AAAA{}\n", &signature[4..]), 0o600);
}

#[test]
fn what_postgresql_refuses_to_many_at_once_is_replaced_once_for_all_of_them() {
    let test = "what_postgresql_refuses_to_many_at_once_is_replaced_once_for_all_of_them";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.rotate();
    spoil(&stage);
    let issued = stage.workspace.tokens_issued();
    // The new one comes at a second try, a second later: until then all have been refused.
    stage.workspace.faults_on(Endpoint::Token).next(Fault::Status(503));
    let running = stage.start();
    let all: Vec<_> = (0..8).map(|_| stage.psql("orders").args(["-c", "select 1"]).spawn()).collect();
    for one in all {
        one.ends().exits(0);
    }
    assert_eq!(stage.workspace.tokens_issued(), issued + 1);
    running.terminate().exits(0);
}

#[test]
fn what_postgresql_refuses_is_replaced_once_and_not_again_and_again() {
    let test = "what_postgresql_refuses_is_replaced_once_and_not_again_and_again";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.rotate();
    let spoil = || spoil(&stage);
    spoil();
    let issued = stage.workspace.tokens_issued();
    let running = stage.start();
    stage.ask("orders", "select 1").exits(0);
    assert_eq!(stage.workspace.tokens_issued(), issued + 1);
    spoil();
    for times in 2..5 {
        stage.ask("orders", "select 1").exits(2).stderr_has("HINT");
        running.signal(Signal::HUP);
        running.says_times(times, "Serving 1 connection at", SOON);
    }
    assert_eq!(stage.workspace.tokens_issued(), issued + 1, "one new credential a minute for a refusal, and no storm");
    running.terminate().exits(0);
}

#[test]
fn many_that_get_no_credential_sign_in_once_and_not_each() {
    let test = "many_that_get_no_credential_sign_in_once_and_not_each";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let wrong = "dose00000000000000000000000000000000";
    stage.home.keep_secret(wrong);
    let running = stage.proxy().env("DATABRICKS_CLIENT_SECRET", wrong).spawn();
    running.says("Serving 1 connection at", SOON);
    let (asked, began) = (stage.workspace.token_requests(), Instant::now());
    stage.ask("orders", "select 1").exits(2).stderr_has("HINT");
    let once = stage.workspace.token_requests() - asked;
    let all: Vec<_> = (0..8).map(|_| stage.psql("orders").args(["-c", "select 1"]).spawn()).collect();
    for one in all {
        one.ends().exits(2).stderr_has("HINT");
    }
    let tries = 1 + began.elapsed().as_secs() as usize / 5;
    assert!(stage.workspace.token_requests() - asked <= tries * once, "one try in five seconds");
    running.terminate().exits(0);
}

#[test]
fn what_postgresql_refuses_is_replaced_however_long_it_would_live() {
    let test = "what_postgresql_refuses_is_replaced_however_long_it_would_live";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.workspace.set_token_life(Duration::from_secs(7_200));
    stage.rotate();
    spoil(&stage);
    stage.workspace.set_token_life(Duration::from_secs(3_600));
    let running = stage.start();
    stage.ask("orders", "select 1").exits(0);
    running.terminate().exits(0);
}

#[test]
fn what_is_refused_to_another_role_costs_no_credential() {
    let test = "what_is_refused_to_another_role_costs_no_credential";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "proxy_roles = ['reader']") else { return };
    stage.rotate();
    let issued = stage.workspace.tokens_issued();
    let running = stage.start();
    // This token is not for it.
    stage.psql("orders").args(["-U", "reader", "-c", "select 1"]).run().exits(2).stderr_has("FATAL");
    assert_eq!(stage.workspace.tokens_issued(), issued);
    // What is refused to the connection's own user is replaced at once all the same.
    spoil(&stage);
    stage.ask("orders", "select 1").exits(0);
    assert_eq!(stage.workspace.tokens_issued(), issued + 1);
    running.terminate().exits(0);
}

/// A copy that goes on and on, into a file.
fn copy_without_end(stage: &Stage) -> Running<'_> {
    let rows = stage.home.path("rows");
    let copying = stage.psql("orders").arg("-o").arg(&rows);
    let copying = copying.args(["-c", "copy (select generate_series(1, 1000000000)) to stdout"]).spawn();
    until("the copy goes on", || std::fs::metadata(&rows).is_ok_and(|rows| rows.len() > 100_000));
    copying
}

#[test]
fn a_server_that_dies_ends_its_sessions_and_the_next_one_waits_for_it_to_wake() {
    let test = "a_server_that_dies_ends_its_sessions_and_the_next_one_waits_for_it_to_wake";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    // It is set up to be fast, and would forget its roles.
    stage.server.set_up("checkpoint");
    let running = stage.start();
    let copying = copy_without_end(&stage);
    let backend = stage.ask("orders", "select pid from pg_stat_activity where query like 'copy%'").stdout;
    let backend = backend.trim().parse().ok().and_then(Pid::from_raw).expect("the process of the copy");
    // It takes the whole server with it, which starts again by itself.
    kill_process(backend, Signal::KILL).unwrap();
    let outcome = copying.ends();
    assert_ne!(outcome.code, Some(0), "{}", outcome.stderr);
    stage.ask("orders", "select 1").exits(0);
    running.terminate().exits(0);
}

#[test]
fn a_proxy_that_is_killed_ends_its_sessions_and_the_next_one_takes_its_place() {
    let test = "a_proxy_that_is_killed_ends_its_sessions_and_the_next_one_takes_its_place";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let copying = copy_without_end(&stage);
    running.signal(Signal::KILL);
    assert_ne!(copying.ends().code, Some(0));
    let running_again = stage.start();
    stage.ask("orders", "select 1").exits(0);
    // The server noticed that nobody takes its rows any more.
    until("the copy has ended at the server", || {
        let query = "select count(*) from pg_stat_activity where query like 'copy%'";
        stage.ask("orders", query).stdout.trim() == "0"
    });
    running_again.terminate().exits(0);
}

#[test]
fn a_proxy_that_is_told_to_stop_lets_a_query_finish_and_ends_idle_sessions_at_once() {
    let test = "a_proxy_that_is_told_to_stop_lets_a_query_finish_and_ends_idle_sessions_at_once";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let idle = stage.psql("orders").with_keyboard().spawn();
    idle.types("select 'open';\n");
    idle.prints("open", SOON);
    let busy = stage.psql("orders").args(["-c", "select pg_sleep(12)", "-c", "select 'done'"]).spawn();
    stage.waits_until_one_sleeps();
    let began = Instant::now();
    running.signal(Signal::TERM);
    running.says("may end what they are doing", SOON);
    // Nobody new is let in.
    stage.ask("orders", "select 1").exits(2).stderr_has("is stopping");
    idle.types("select 1;\n");
    idle.says("is stopping", SOON);
    let outcome = busy.ends();
    assert!(!outcome.stderr.contains("canceling"), "{}", outcome.stderr);
    // The first query has its answer, the second finds the session ended, and never half an answer.
    assert!(outcome.stdout.lines().next().is_some(), "{outcome}");
    running.ends().exits(0);
    assert!(began.elapsed() < Duration::from_secs(70), "it waited for the end of all sessions");
}

#[test]
fn who_waits_for_a_server_holds_up_no_stop() {
    let test = "who_waits_for_a_server_holds_up_no_stop";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let asleep = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = asleep.local_addr().unwrap().port();
    stage.configure_for("127.0.0.1", port);
    stage.rotate();
    let running = stage.start();
    let waiting = stage.psql("orders").args(["-c", "select 1"]).spawn();
    let _never_answered = asleep.accept().unwrap();
    running.signal(Signal::TERM);
    waiting.ends().exits(2).stderr_has("the proxy of dbx-rotator is stopping");
    running.ends().exits(0);
}

#[test]
fn a_second_signal_waits_for_no_session_and_who_says_nothing_holds_up_no_stop() {
    let test = "a_second_signal_waits_for_no_session_and_who_says_nothing_holds_up_no_stop";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let mut silent = stage.connect();
    let busy = stage.psql("orders").args(["-c", "select pg_sleep(1000)"]).spawn();
    stage.waits_until_one_sleeps();
    running.signal(Signal::TERM);
    running.says("may end what they are doing", SOON);
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "it is let go at once");
    running.signal(Signal::INT);
    running.says("are cut off", SOON);
    running.ends().exits(0);
    assert_ne!(busy.ends().code, Some(0));
}

#[test]
fn a_reload_opens_the_socket_to_others_and_closes_it_again() {
    let test = "a_reload_opens_the_socket_to_others_and_closes_it_again";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let modes = || (stage.home.mode(".run/dbx-rotator"), stage.home.mode(".run/dbx-rotator/.s.PGSQL.5432"));
    assert_eq!(modes(), (0o700, 0o600));
    for (head, wanted) in [("proxy_allow = ['daemon']", (0o711, 0o666)), ("", (0o700, 0o600))] {
        stage.configure(head, "");
        running.signal(Signal::HUP);
        until("the modes follow", || modes() == wanted);
    }
    running.terminate().exits(0);
}

#[test]
fn that_no_more_files_can_be_opened_is_said_once_until_it_has_passed() {
    let test = "that_no_more_files_can_be_opened_is_said_once_until_it_has_passed";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.rotate();
    let running = stage.start();
    let process = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
    let allow =
        |files| prlimit(process, Resource::Nofile, Rlimit { current: Some(files), maximum: Some(1024) }).unwrap();
    allow(3);
    let waiting = stage.psql("orders").args(["-c", "select 1"]).spawn();
    let words = "no more clients can be served now";
    running.says(words, SOON);
    for times in 1..=3 {
        // Between two of these it has tried again.
        running.signal(Signal::HUP);
        running.says_times(times, "the old configuration stays in use", SOON);
    }
    assert_eq!(running.stderr().matches(words).count(), 1, "{}", running.stderr());
    allow(1024);
    waiting.ends().exits(0);
    allow(3);
    drop(stage.connect());
    running.says_times(2, words, SOON);
    allow(1024);
    running.terminate().exits(0);
}

#[test]
fn the_figures_follow_while_clients_come_and_go() {
    let test = "the_figures_follow_while_clients_come_and_go";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    // Each is there for a moment only: a request to cancel nothing. They end with the proxy.
    let socket = stage.socket();
    std::thread::spawn(move || {
        while let Ok(mut client) = UnixStream::connect(&socket) {
            let _ = client.write_all(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x63");
            let _ = client.read(&mut [0]);
        }
    });
    let session = stage.psql("orders").with_keyboard().spawn();
    session.types("select 'open';\n");
    session.prints("open", SOON);
    let figures = || std::fs::read_to_string(stage.home.path(".local/state/dbx-rotator/proxy.json")).unwrap();
    let tell = |sessions: &str| figures().contains(&format!("\"sessions\":{sessions},"));
    until("the session is told", || tell("1"));
    session.types("\\q\n");
    until("its end is told", || tell("0"));
    running.terminate().exits(0);
}

#[test]
fn a_reload_changes_what_comes_and_keeps_what_is() {
    let test = "a_reload_changes_what_comes_and_keeps_what_is";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let session = stage.psql("orders").with_keyboard().spawn();
    session.types("select 'open';\n");
    session.prints("open", SOON);
    let port = super::free_port();
    stage.configure("", &format!("proxy_port = {port}"));
    running.signal(Signal::HUP);
    running.says(&format!("127.0.0.1:{port}"), SOON);
    session.types("select 'still open';\n");
    session.prints("still open", SOON);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let entry = format!("localhost:{port}:*:");
    until("the new port has the proxy's password", || stage.home.pgpass().lines().any(|line| line.starts_with(&entry)));
    stage.home.write(".config/dbx-rotator/config.toml", "nonsense", 0o600);
    running.signal(Signal::HUP);
    running.says("the old configuration stays in use", SOON);
    stage.ask("orders", "select 1").exits(0);
    session.types("\\q\n");
    session.ends().exits(0);
    running.terminate().exits(0);
}

#[test]
fn a_proxy_that_ends_leaves_another_ones_socket_alone() {
    let test = "a_proxy_that_ends_leaves_another_ones_socket_alone";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let first = stage.start();
    std::fs::remove_file(stage.socket()).unwrap();
    let second = stage.start();
    first.terminate().exits(0);
    stage.ask("orders", "select 1").exits(0);
    second.terminate().exits(0);
    assert!(!stage.socket().exists());
}

#[test]
fn a_proxy_that_hangs_is_told_from_one_that_serves() {
    let test = "a_proxy_that_hangs_is_told_from_one_that_serves";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    // So that it comes round each ten seconds.
    let running = stage.proxy().env("WATCHDOG_USEC", "20000000").spawn();
    running.says("Serving 1 connection at", SOON);
    let alive = || dbx_rotator!(stage.home).args(["status", "--alive=proxy"]).run();
    alive().exits(0).stdout_has("alive: last seen");
    let is_long_ago = || {
        let mark = File::options().write(true).open(stage.home.path(".local/state/dbx-rotator/proxy-running"));
        mark.unwrap().set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    };
    is_long_ago();
    until("it has come round", || alive().stdout.contains("alive: last seen"));
    running.signal(Signal::STOP);
    is_long_ago();
    alive().exits(1).stdout_has("hangs: last seen");
    running.signal(Signal::CONT);
    running.terminate().exits(0);
}

#[test]
fn mistakes_are_told_before_anybody_is_served() {
    let test = "mistakes_are_told_before_anybody_is_served";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    stage.proxy().run().exits(69).stderr_has("another program listens there, perhaps another proxy");
    stage.ask("orders", "select 1").exits(0);
    running.terminate().exits(0);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    stage.configure("", &format!("proxy_port = {port}"));
    let refused = stage.proxy().run();
    refused.exits(69).stderr_has(&format!("cannot listen at 127.0.0.1:{port}")).stderr_has("proxy_port");
    stage.configure("proxy_listen = 'everywhere'", "");
    stage.proxy().run().exits(78).stderr_has("`everywhere` is not an address");
    dbx_rotator!(stage.home).args(["proxy", "--help"]).run().exits(0).stdout_has("psql -h");
}
