//! What keeps a Secret from being written, and what it does not keep from being done.

use std::time::Duration;

use super::{SOON, Stage};
use crate::support::cluster::Trouble;
use crate::support::{Home, Outcome, dbx_rotator};

/// A rotation whose Secret fails like this: the password file is kept all the same, and the next one tells the truth.
#[track_caller]
fn fails(stage: &Stage, home: &Home, code: i32, said: &[&str]) -> Outcome {
    let before = home.password();
    let outcome = stage.signed_in(home, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(code);
    assert_ne!(home.password(), before, "the password file does not wait for a Secret");
    for part in said {
        outcome.stderr_has(part);
    }
    let status = stage.signed_in(home, &["status"]).run();
    status.exits(1).stdout_has("its Secret orders is not as it should be");
    outcome
}

#[test]
fn each_refusal_says_what_to_do_and_costs_no_password() {
    let Some(stage) = Stage::new("each_refusal_says_what_to_do_and_costs_no_password") else { return };
    let (home, cluster) = (Home::new(), &stage.cluster);
    stage.one(&home, "", "");
    let rotates = || {
        stage.signed_in(&home, &["rotate"]).run().exits(0);
    };

    // Without a Secret only who may create any Secret can make it.
    let named = [("get", "secrets", Some("orders")), ("patch", "secrets", Some("orders"))];
    cluster.allow_only(&named);
    fails(&stage, &home, 73, &["system:serviceaccount:shop:rotator may not (403)", "create it first"]);
    cluster.create_secret("orders");
    rotates();
    cluster.allow_only(&[]);
    fails(&stage, &home, 73, &["may not (403)", "resourceNames: [orders], verbs: [get, patch]"]);
    cluster.allow_only(&named[..1]);
    fails(&stage, &home, 73, &["cannot write the Secret shop/orders", "verbs: [get, patch]"]);
    cluster.allow_all();

    // What another program applies is not taken from it.
    rotates();
    cluster.set("orders", "password", "theirs", "argocd-controller", true);
    fails(&stage, &home, 73, &["argocd-controller owns .data.password", "a Secret of its own"]);
    assert_eq!(cluster.value("orders", "password").as_deref(), Some("theirs"));
    // What a person has changed in ours is put right.
    cluster.delete_secret("orders");
    rotates();
    cluster.set("orders", "password", "mistake", "kubectl-edit", false);
    cluster.set("orders", "mine", "stays", "kubectl-edit", false);
    rotates();
    stage.holds("orders", &home, SOON);
    assert_eq!(cluster.value("orders", "mine").as_deref(), Some("stays"));

    // The API repeats what it refuses.
    cluster.delete_secret("orders");
    cluster.create_secret_of("orders", "kubernetes.io/basic-auth");
    fails(&stage, &home, 73, &["(422)", "type", "another type than Opaque"]).stderr_lacks("eyJ");
    cluster.delete_secret("orders");
    cluster.webhook_changes(Some("password"));
    fails(&stage, &home, 73, &["holds something else now", "webhook"]);
    cluster.webhook_changes(None);

    // What passes is tried again.
    for trouble in
        [Trouble::Status(500), Trouble::RetryAfter(0), Trouble::HangUp, Trouble::LostAnswer, Trouble::Conflict]
    {
        cluster.fail_next([trouble]);
        rotates();
        stage.holds("orders", &home, SOON);
    }
    cluster.fail_next([Trouble::RetryAfter(120)]);
    fails(&stage, &home, 75, &["asks for fewer requests (429)"]);
    cluster.fail_next([Trouble::Status(503)]);
    fails(&stage, &home, 69, &["failed with status 503"]);
    cluster.fail_next([Trouble::Silence]);
    fails(&stage, &home, 69, &["did not answer within 5 s"]);
    cluster.fail_next([Trouble::Status(401), Trouble::Status(401)]);
    fails(&stage, &home, 73, &["does not accept the token of the service account (401)"]);
    cluster.fail_next([Trouble::Status(401)]);
    rotates();
    assert_eq!(cluster.invalid(), [""; 0]);
}

#[test]
fn who_is_in_no_pod_is_told_so_and_bad_names_are_refused_before() {
    let Some(stage) = Stage::new("who_is_in_no_pod_is_told_so_and_bad_names_are_refused_before") else { return };
    let home = Home::new();
    stage.one(&home, "", "");
    let outside = dbx_rotator!(home).args(["rotate", "--retry-for", "0s"]).signed_in_to(&stage.workspace).run();
    outside.exits(78).stderr_has("KUBERNETES_SERVICE_HOST is not set");
    assert!(home.pgpass().contains(":eyJ"), "the password file is kept");
    // Another server at that address, whose authority is not the cluster's.
    let stranger = stage
        .signed_in(&home, &["rotate", "--retry-for", "0s"])
        .env("KUBERNETES_SERVICE_PORT", stage.workspace.port().to_string());
    stranger.run().exits(69).stderr_has("certificate");
    stage.one(&home, "kubernetes_lease = 'Not A Name'", "");
    stage.signed_in(&home, &["run"]).run().exits(78).stderr_has("is not the name of an object");
    let empty = home.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let text = home.read(".config/dbx-rotator/config.toml");
    let account = stage.cluster.account().display().to_string();
    let text = text.replace(&account, &empty.display().to_string()).replace("kubernetes_lease = 'Not A Name'", "");
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    let nobody = stage.signed_in(&home, &["rotate", "--retry-for", "0s"]).run();
    nobody.exits(78).stderr_has("cannot read").stderr_has("automountServiceAccountToken");
    for name in ["Orders", "a/b/c", "../x"] {
        stage.one(&home, "", "");
        let text = home
            .read(".config/dbx-rotator/config.toml")
            .replace("kubernetes_secret = 'orders'", &format!("kubernetes_secret = '{name}'"));
        home.write(".config/dbx-rotator/config.toml", text, 0o600);
        stage.signed_in(&home, &["rotate"]).run().exits(78).stderr_has("kubernetes_secret").stderr_has("^");
    }
}

#[test]
fn without_the_api_the_password_file_is_kept_and_the_secret_follows_when_it_is_back() {
    let name = "without_the_api_the_password_file_is_kept_and_the_secret_follows_when_it_is_back";
    let Some(stage) = Stage::new(name) else { return };
    let home = Home::new();
    stage.one(&home, "", "");
    stage.cluster.fail_every(1, vec![Trouble::Status(503)]);
    let daemon = stage.signed_in(&home, &["run"]).spawn();
    daemon.says("Successfully updated", SOON);
    assert!(stage.cluster.secret("orders").is_none());
    stage.signed_in(&home, &["status", "--alive"]).run().exits(0).stdout_has("alive");
    stage.cluster.heal();
    stage.holds("orders", &home, SOON);
    daemon.terminate().exits(0).stderr_has("Gave back the Lease dbx-rotator");
    assert_eq!(stage.cluster.holder("dbx-rotator"), "");
    stage.signed_in(&home, &["status", "--alive"]).run().exits(1).stdout_has("nothing runs here");
}

#[test]
fn a_connection_that_becomes_due_while_a_secret_is_awaited_is_renewed_and_nobody_waits_for_ever() {
    let name = "a_connection_that_becomes_due_while_a_secret_is_awaited_is_renewed_and_nobody_waits_for_ever";
    let Some(stage) = Stage::new(name) else { return };
    let home = Home::new();
    stage.workspace.set_token_life(Duration::from_secs(12));
    stage.two(&home);
    stage.cluster.fail_every(1, vec![Trouble::Status(503)]);
    let rotation = stage.in_pod(&home, &["rotate", "--retry-for", "40s"]).spawn();
    // The third is for one that has become due again.
    assert!(stage.workspace.wait_for_tokens_issued(3, SOON), "{}", rotation.stderr());
    stage.cluster.heal();
    rotation.ends().exits(0);
    for secret in ["orders", "archive"] {
        stage.holds(secret, &home, Duration::ZERO);
    }
}
