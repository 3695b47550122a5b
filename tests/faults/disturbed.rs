//! A rotation that is killed or gets an error at any of its system calls: each file is the old or the new one, and one
//! more rotation leaves everything as if nothing had happened.

use super::level::{Findings, sample};
use super::stage::{Files, Stage};
use super::trace::{Call, Disturbance, calls_of, can_trace, disturb};

/// The errors of a full or broken disk, a limit, a missing permission and an interruption.
const ERRORS: [&str; 7] = ["ENOSPC", "EIO", "EACCES", "EINTR", "EMFILE", "ENOMEM", "EDQUOT"];

/// How many of each kind are tried in a sample.
const KILLS: usize = 200;
const FAILURES: usize = 300;

#[test]
fn a_kill_at_any_system_call_costs_nothing_and_leaves_nothing() {
    let test = "a_kill_at_any_system_call_costs_nothing_and_leaves_nothing";
    disturbed(test, KILLS, |call| vec![(call, Disturbance::Kill)]);
}

#[test]
fn an_error_of_any_system_call_costs_nothing_and_leaves_nothing() {
    let test = "an_error_of_any_system_call_costs_nothing_and_leaves_nothing";
    disturbed(test, FAILURES, |call| {
        let errors = ERRORS.iter().filter(|_| call.may_fail());
        errors.map(|error| (call.clone(), Disturbance::Error(error))).collect()
    });
}

fn disturbed(test: &str, most: usize, each: impl Fn(Call) -> Vec<(Call, Disturbance)>) {
    if !can_trace(test) {
        return;
    }
    let mut findings = Findings::default();
    let stage = Stage::new();
    // The first rotation makes everything; a later one finds everything in place, except that the section changes.
    disturb_each(&stage, &format!("{test}, first"), most / 4, &each, &mut findings);
    stage.rotate().run().exits(0);
    stage.configure("verify-full");
    disturb_each(&stage, &format!("{test}, later"), most - most / 4, &each, &mut findings);
    findings.are_none(test);
}

fn disturb_each(
    stage: &Stage,
    title: &str,
    most: usize,
    each: impl Fn(Call) -> Vec<(Call, Disturbance)>,
    findings: &mut Findings,
) {
    let old = Files::of(&stage.home);
    let arguments = ["rotate", "--retry-for", "0s"];
    let (calls, outcome) = calls_of(|strace| stage.by(strace, &arguments));
    outcome.exits(0);
    let new = Files::of(&stage.home);
    let cases = calls.into_iter().flat_map(each).collect();
    for (call, disturbance) in sample(title, cases, most) {
        old.restore(&stage.home);
        let before = stage.password();
        let Some(outcome) = disturb(|strace| stage.by(strace, &arguments), &call, disturbance) else {
            findings.miss();
            continue;
        };
        let mut faults = stage.faults_of(&outcome);
        if outcome.signal.is_some() && !matches!(disturbance, Disturbance::Kill) {
            faults.push(format!("signal {:?}: {}", outcome.signal, outcome.stderr.trim()));
        }
        if outcome.code == Some(0) && stage.password() == before {
            faults.push("exit code 0 though nothing was published".to_owned());
        }
        faults.extend(stage.faults_in_files(&old, &new));
        faults.extend(stage.faults_after_the_next(&new));
        findings.add((call, disturbance), faults);
    }
}
