//! While the proxy is stopping and a query goes on: what its own client can still do, what others are told, and what is told of it.

use std::io::Read;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use super::cannot_start::{activated, by_port};
use super::{SOON, Stage, free_port, until};
use crate::support::{Running, Workspace, dbx_rotator};

/// A session whose query goes on for long.
fn busy(stage: &Stage) -> Running<'_> {
    let busy = stage.psql("orders").args(["-c", "select pg_sleep(1000)"]).spawn();
    stage.waits_until_one_sleeps();
    busy
}

#[test]
fn a_query_can_be_cancelled_while_the_proxy_stops_and_who_comes_is_told_so() {
    let test = "a_query_can_be_cancelled_while_the_proxy_stops_and_who_comes_is_told_so";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let busy = busy(&stage);
    running.signal(Signal::TERM);
    running.says("may end what they are doing", SOON);
    stage.ask("orders", "select 1").exits(2).stderr_has("FATAL:  the proxy of dbx-rotator is stopping");
    // Who says nothing holds up neither those who come nor the stop.
    let mut silent: Vec<_> = (0..150).map(|_| stage.connect()).collect();
    stage.ask("orders", "select 1").exits(2).stderr_has("is stopping");
    busy.signal(Signal::INT);
    busy.ends().stderr_has("canceling statement due to user request");
    running.ends().exits(0);
    assert!(!stage.socket().exists());
    silent[149].set_read_timeout(Some(SOON)).unwrap();
    assert!(!matches!(silent[149].read(&mut [0]), Ok(1..)));
}

#[test]
fn a_proxy_that_stops_tells_clients_of_sockets_that_it_was_handed_and_passes_on_a_cancel() {
    let test = "a_proxy_that_stops_tells_clients_of_sockets_that_it_was_handed_and_passes_on_a_cancel";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let port = free_port();
    stage.configure("", &format!("proxy_port = {port}"));
    let running = activated(&stage, port);
    let busy = busy(&stage);
    running.signal(Signal::TERM);
    running.says("may end what they are doing", SOON);
    for outcome in [stage.ask("orders", "select 1"), by_port(&stage, port)] {
        outcome.exits(2).stderr_has("FATAL:  the proxy of dbx-rotator is stopping");
    }
    busy.signal(Signal::INT);
    busy.ends().stderr_has("canceling statement due to user request");
    running.ends().exits(0);
}

#[test]
fn what_is_told_of_a_proxy_follows_while_it_stops() {
    let test = "what_is_told_of_a_proxy_follows_while_it_stops";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let path = stage.home.path("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let running = stage.proxy().env("NOTIFY_SOCKET", &path).spawn();
    running.says("Serving 1 connection at", SOON);
    let idle = stage.psql("orders").with_keyboard().spawn();
    idle.types("select 'open';\n");
    idle.prints("open", SOON);
    let busy = busy(&stage);
    let status = || dbx_rotator!(stage.home).args(["status", "--json"]).signed_in_to(&stage.workspace).run().json();
    until("both sessions are told", || status()["proxy"]["sessions"] == 2);
    running.signal(Signal::TERM);
    until("one session is left", || status()["proxy"]["sessions"] == 1);
    assert_eq!(status()["proxy"]["stopping"], true);
    dbx_rotator!(stage.home)
        .arg("status")
        .signed_in_to(&stage.workspace)
        .run()
        .stdout_has("proxy: 1 session, stopping");
    dbx_rotator!(stage.home)
        .arg("check")
        .signed_in_to(&stage.workspace)
        .run()
        .stdout_has("the local proxy is stopping");
    let mut heard = [0; 4096];
    let mut hears = || {
        let length = manager.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    while !hears().contains("STATUS=stopping, 1 session") {}
    running.signal(Signal::INT);
    running.ends().exits(0);
    drop(busy.ends());
    assert_eq!(status()["proxy"]["stopping"], false);
    idle.types("\\q\n");
    idle.ends();
}

#[test]
fn a_proxy_that_stops_leaves_the_socket_to_another_one_that_has_it_meanwhile() {
    let test = "a_proxy_that_stops_leaves_the_socket_to_another_one_that_has_it_meanwhile";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let first = stage.start();
    let busy = busy(&stage);
    first.signal(Signal::TERM);
    first.says("may end what they are doing", SOON);
    stage.proxy().run().exits(69).stderr_has("or one that is still stopping");
    std::fs::remove_file(stage.socket()).unwrap();
    let second = stage.start();
    first.signal(Signal::INT);
    first.ends().exits(0);
    busy.ends();
    stage.ask("orders", "select 1").exits(0);
    second.terminate().exits(0);
}
