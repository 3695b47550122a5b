//! What takes a minute, side by side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{SOON, Stage};
use crate::support::Home;
use crate::support::cluster::Trouble;

const WRITES: &str = "This replica writes from now on: it holds the Lease dbx-rotator";
const STANDS_BY: &str = "This replica stands by";

#[test]
fn no_secret_is_ever_dead() {
    let name = "no_secret_is_ever_dead";
    let stages = (Stage::new(name), Stage::new(name), Stage::new(name), Stage::new(name));
    let (Some(lives), Some(replicas), Some(repair), Some(lost)) = stages else { return };
    thread::scope(|scope| {
        let all = [
            scope.spawn(|| three_lives_while_every_third_call_fails(&lives)),
            scope.spawn(|| two_replicas(&replicas)),
            scope.spawn(|| whoever_deletes_it(&repair)),
            scope.spawn(|| a_lease_is_lost(&lost)),
        ];
        for one in all {
            if let Err(panic) = one.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn three_lives_while_every_third_call_fails(stage: &Stage) {
    let (life, home) = (Duration::from_secs(30), Home::new());
    stage.workspace.set_token_life(life);
    stage.two(&home);
    stage.cluster.create_secret("orders");
    let daemon = stage.in_pod(&home, &["run"]).spawn();
    for secret in ["orders", "archive"] {
        stage.holds(secret, &home, SOON);
    }
    let troubles = [
        Trouble::Status(500),
        Trouble::RetryAfter(1),
        Trouble::HangUp,
        Trouble::Silence,
        Trouble::LostAnswer,
        Trouble::Conflict,
    ];
    stage.cluster.fail_every(3, troubles.to_vec());
    let stop = AtomicBool::new(false);
    let logins = thread::scope(|scope| {
        let sampler = scope.spawn(|| stage.sample(&["orders", "archive"], &stop));
        for _ in 0..6 {
            thread::sleep(life / 2);
            home.keep_secret(stage.cluster.new_token());
            stage.cluster.old_tokens_expire();
            if sampler.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        sampler.join()
    });
    let outcome = daemon.terminate();
    let logins = logins.unwrap_or_else(|_| panic!("a login failed\n{outcome}\n{:#?}", stage.cluster.requests()));
    outcome.exits(0);
    eprintln!("three lives: {logins} logins with two Secrets, none failed; {} calls", stage.cluster.requests().len());
    assert_eq!(stage.cluster.invalid(), [""; 0]);
}

fn two_replicas(stage: &Stage) {
    // Longer than it takes until the Lease of who is gone ends, by a half.
    stage.workspace.set_token_life(Duration::from_secs(60));
    let (one, two, three) = (Home::new(), Home::new(), Home::new());
    for home in [&one, &two, &three] {
        stage.two(home);
    }
    let first = stage.in_pod(&one, &["run"]).spawn();
    first.says(WRITES, SOON);
    for secret in ["orders", "archive"] {
        stage.holds(secret, &one, SOON);
    }
    let second = stage.in_pod(&two, &["run"]).spawn();
    second.says(STANDS_BY, SOON);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| stage.sample(&["orders", "archive"], &stop));
        assert_eq!(two.pgpass(), "", "who stands by takes no credential");
        stage.in_pod(&two, &["status"]).run().exits(1).stdout_has("and this replica stands by");
        stage.in_pod(&two, &["status", "--alive"]).run().exits(0);
        first.signal(Signal::KILL);
        // The Lease lasts 15 s from when it was last renewed, and the tokens 30 s at least.
        second.says(WRITES, Duration::from_secs(28));
        for secret in ["orders", "archive"] {
            stage.holds(secret, &two, SOON);
        }
        let third = stage.in_pod(&three, &["run"]).spawn();
        third.says(STANDS_BY, SOON);
        second.terminate().exits(0).stderr_has("Gave back the Lease");
        // At the next look, every two seconds, and not only when the Lease would have ended.
        third.says(WRITES, Duration::from_secs(13));
        for secret in ["orders", "archive"] {
            stage.holds(secret, &three, SOON);
        }
        stop.store(true, Ordering::Relaxed);
        let logins = sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("two replicas: {logins} logins while one was killed and one stopped, none failed");
        third.terminate().exits(0);
    });
    assert_eq!(stage.cluster.invalid(), [""; 0]);
}

fn whoever_deletes_it(stage: &Stage) {
    let home = Home::new();
    stage.one(&home, "", "");
    let daemon = stage.signed_in(&home, &["run"]).spawn();
    stage.holds("orders", &home, SOON);
    let tokens = stage.workspace.tokens_issued();
    stage.cluster.delete_secret("orders");
    // It is looked at each minute.
    stage.holds("orders", &home, Duration::from_secs(75));
    assert_eq!(stage.workspace.tokens_issued(), tokens, "that takes no new credential");
    daemon.says("had been changed or deleted: it is as it should be again", SOON);
    daemon.terminate().exits(0);
}

fn a_lease_is_lost(stage: &Stage) {
    let home = Home::new();
    stage.one(&home, "kubernetes_lease = 'writer'", "");
    let daemon = stage.signed_in(&home, &["run"]).spawn();
    stage.holds("orders", &home, SOON);
    stage.cluster.set_holder("writer", "intruder");
    daemon.says("Lost the Lease writer to intruder: this replica stands by", SOON);
    stage.cluster.delete_secret("orders");
    // Nobody renews it, so that it is free after its end.
    daemon.says_times(2, "This replica writes from now on: it holds the Lease writer", SOON);
    assert!(stage.cluster.lease("writer").unwrap()["spec"]["leaseTransitions"].as_u64().unwrap() >= 2);
    daemon.terminate().exits(0);
    assert_eq!(stage.cluster.holder("writer"), "");
}
