//! A refresh of a person's login that is killed at any of its system calls: the login can be used afterwards, or, where each refresh
//! token is good once, it is said that the policy of the account has ended it.

use std::fs;

use super::level::{Findings, sample};
use super::trace::{Disturbance, calls_of, can_trace, disturb};
use crate::support::person::{self, LOGINS};
use crate::support::{Home, Instance, Session, Workspace};

/// How many kills are tried in a sample, for each policy.
const KILLS: usize = 100;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dbx-rotator");

#[test]
fn a_refresh_that_is_killed_at_any_system_call_keeps_the_login_or_says_that_the_policy_has_ended_it() {
    let test = "a_refresh_that_is_killed_at_any_system_call_keeps_the_login_or_says_that_the_policy_has_ended_it";
    if !can_trace(test) {
        return;
    }
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let config = format!("[[workspace]]\nhost = '{}'\nauth = 'external-browser'\n", workspace.url());
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    person::install(&home, &workspace, "allow");
    person::typed(&home, &workspace, PROGRAM, "login --file").run().exits(0);
    let (description, tokens) = person::files(&home);
    let before = fs::read(&description).unwrap();
    // One refresh, and one request with what it brings.
    let refresh = |starter: &[&str]| -> Session<'_> {
        let session = match starter.split_first() {
            None => home.command(PROGRAM),
            Some((starter, words)) => home.command(starter).args(words).arg(PROGRAM),
        };
        session.arg("connections").trusting(&workspace)
    };
    let make_ready = || {
        fs::write(&description, &before).unwrap();
        for file in fs::read_dir(home.path(LOGINS)).unwrap().flatten().map(|file| file.path()) {
            if file != description && file != tokens {
                fs::remove_file(file).unwrap();
            }
        }
        let kept = fs::read_to_string(&tokens).unwrap();
        let whole = serde_json::from_str::<serde_json::Value>(&kept).is_ok();
        let refresh_token = workspace.sign_in(workspace.user());
        person::let_it_age(&home, Some(&refresh_token));
        whole
    };
    let mut findings = Findings::default();
    for single_use in [false, true] {
        workspace.set_single_use_refresh_tokens(single_use);
        make_ready();
        let (calls, outcome) = calls_of(refresh);
        outcome.exits(0);
        let (mut used, mut ended) = (0, 0);
        for call in sample(&format!("{test}, single use: {single_use}"), calls, KILLS) {
            make_ready();
            if disturb(refresh, &call, Disturbance::Kill).is_none() {
                findings.miss();
                continue;
            }
            let next = refresh(&[]).run();
            let says_so = next.stderr.contains("cut off before its answer") && next.stderr.contains("only once");
            let mut faults = Vec::new();
            match next.code {
                Some(0) => used += 1,
                Some(77) if single_use && says_so => ended += 1,
                code => faults.push(format!("the next one ended with {code:?}: {}", next.stderr.trim())),
            }
            let left = fs::read_dir(home.path(LOGINS)).unwrap().flatten();
            let left = left.filter(|file| file.file_name().to_string_lossy().starts_with(".new"));
            // What is there belongs to the tokens, and goes with the next refresh.
            if next.code == Some(0) {
                let left: Vec<String> = left.map(|file| format!("{} was left behind", file.path().display())).collect();
                let refreshed = refresh(&[]).run();
                if refreshed.code != Some(0) || left.len() > 1 {
                    faults.extend(left);
                }
            }
            findings.add(&call, faults);
        }
        eprintln!("{test}: single use: {single_use}: usable after {used} kills, ended by the policy after {ended}");
    }
    findings.are_none(test);
}
