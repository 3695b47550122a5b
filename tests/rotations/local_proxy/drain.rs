//! While the proxy is stopping and a query goes on: what its own client can still do, what others are told, and what is told of it.

use std::io::Read;

use rustix::process::Signal;

use super::cannot_start::{activated, by_port};
use super::{SOON, Stage, free_port, until};
use crate::support::{Running, Workspace};

/// A session whose query goes on for long.
fn busy(stage: &Stage) -> Running<'_> {
    let busy = stage.psql("orders").args(["-c", "select pg_sleep(1000)"]).spawn();
    until("the query runs", || {
        let query = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        stage.ask("orders", query).stdout.trim() == "1"
    });
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
