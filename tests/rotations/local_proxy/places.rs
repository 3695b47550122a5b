//! Where it listens, when that cannot be any more.

use std::fs;

use rustix::process::Signal;

use super::cannot_start::by_port;
use super::{SOON, Stage, free_port, until};
use crate::support::{Outcome, Workspace, dbx_rotator};

fn check(stage: &Stage) -> Outcome {
    dbx_rotator!(stage.home).arg("check").signed_in_to(&stage.workspace).run()
}

#[test]
fn a_new_port_that_another_program_has_leaves_the_old_one_open_and_gets_no_password() {
    let test = "a_new_port_that_another_program_has_leaves_the_old_one_open_and_gets_no_password";
    let port = free_port();
    let Some(stage) = Stage::new(test, Workspace::start(), "", &format!("proxy_port = {port}")) else { return };
    let running = stage.start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port();
    stage.configure("", &format!("proxy_port = {other}"));
    running.signal(Signal::HUP);
    running.says(&format!("cannot listen at 127.0.0.1:{other}"), SOON);
    running.says("the old configuration stays in use", SOON);
    assert_eq!(by_port(&stage, port).exits(0).stdout.trim(), "1");
    let has_entry = |port: u16| stage.home.pgpass().contains(&format!("localhost:{port}:*:"));
    assert!(has_entry(port) && !has_entry(other));
    assert_eq!(running.stderr().matches("Serving").count(), 1, "{}", running.stderr());
    check(&stage).stdout_has(&format!("orders: the proxy does not listen at 127.0.0.1:{other}, its proxy_port"));
    drop(taken);
    running.signal(Signal::HUP);
    running.says_times(2, "Serving 1 connection at", SOON);
    assert_eq!(by_port(&stage, other).exits(0).stdout.trim(), "1");
    assert_ne!(by_port(&stage, port).code, Some(0));
    assert!(has_entry(other) && !has_entry(port));
    check(&stage).stdout_lacks("does not listen");
    running.terminate().exits(0);
}

#[test]
fn a_socket_that_was_removed_is_told_and_a_reload_opens_it_again() {
    let test = "a_socket_that_was_removed_is_told_and_a_reload_opens_it_again";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let (running, removed) = (stage.start(), format!("{} was removed", stage.socket().display()));
    check(&stage).stdout_lacks(&removed);
    fs::remove_dir_all(stage.directory()).unwrap();
    check(&stage).stdout_has(&removed);
    running.signal(Signal::HUP);
    running.says_times(2, "Serving 1 connection at", SOON);
    stage.ask("orders", "select 1").exits(0);
    check(&stage).stdout_lacks(&removed);
    // Where another proxy has taken its place, it does not say that it serves there.
    fs::remove_file(stage.socket()).unwrap();
    let second = stage.start();
    running.signal(Signal::HUP);
    running.says("cannot open the socket", SOON);
    running.says("nobody can connect to this proxy", SOON);
    running.terminate().exits(0);
    stage.ask("orders", "select 1").exits(0);
    second.terminate().exits(0);
    until("it is gone", || !stage.socket().exists());
}
