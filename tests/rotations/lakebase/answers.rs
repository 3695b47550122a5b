//! Every unsuccessful answer has its own message, the next step and an exit code, and leaves the live entry untouched.

use super::configured;
use crate::support::{Endpoint, Fault, Home, Instance, Workspace, dbx_rotator};

const ORDERS: &str = "[[connection]]\ninstance = 'orders'\n";

struct Row {
    fault: Fault,
    code: i32,
    says: &'static str,
    next: &'static str,
}

fn row(fault: Fault, code: i32, says: &'static str, next: &'static str) -> Row {
    Row { fault, code, says, next }
}

/// Each with a live entry, both when minting and when first looking up the instance.
fn rows(id: &str) -> Vec<Row> {
    vec![
        row(
            Fault::expired_bearer(),
            77,
            "rejects the access token as expired or issued elsewhere: JWT has expired (403)",
            "clock",
        ),
        row(
            Fault::invalid_access_token(),
            77,
            "as expired or issued elsewhere: Invalid access token. [ReqId:",
            "signs in again",
        ),
        row(Fault::Status(401), 77, "as expired or issued elsewhere", "log in again"),
        row(Fault::ip_blocked(id), 69, "takes no requests from this network: Source IP address: 203.0.113.9", "VPN"),
        row(Fault::private_link(id), 69, "only be reached through a private link", "network access"),
        row(Fault::which_workspace(), 78, "answered with its login page", "/?o=WORKSPACE_ID"),
        row(
            Fault::no_oauth_config(),
            78,
            "does not know this workspace or account: Unable to load OAuth",
            "?o=WORKSPACE_ID",
        ),
        row(
            Fault::Redirect("https://elsewhere.example/x?secret=1".to_owned()),
            78,
            "to https://elsewhere.example/x",
            "own address",
        ),
        row(Fault::permission_denied("User lacks CAN_USE."), 77, "User lacks CAN_USE. (PERMISSION_DENIED)", "CAN USE"),
        row(Fault::older(403, "not for you"), 77, "not for you", "Workspace access"),
        row(Fault::scim(403, "sensitive", "not to be told"), 77, "not to be told (sensitive)", "administrator"),
        row(
            Fault::plain(400, "MALFORMED_REQUEST", "no body"),
            78,
            "no body (MALFORMED_REQUEST)",
            "dbx-rotator connections",
        ),
        row(Fault::preformatted(404, "no such thing"), 78, "no such thing (404)", "dbx-rotator connections"),
        row(
            Fault::plain(404, "ENDPOINT_NOT_FOUND", "No API found for x"),
            78,
            "has no Lakebase API for",
            "workspace-token",
        ),
        row(
            Fault::older(403, "Token is expiring within 30 seconds. (token expired)"),
            77,
            "as expired or issued elsewhere: Token is expiring within 30 seconds.",
            "signs in again",
        ),
        row(
            Fault::plain(400, "INVALID_STATE", "Invalid Token"),
            77,
            "as expired or issued elsewhere",
            "signs in again",
        ),
        row(Fault::plain(400, "REQUEST_LIMIT_EXCEEDED", "slow down"), 75, "later: slow down", "tried again"),
        row(Fault::plain(403, "RESOURCE_EXHAUSTED", "quota"), 75, "later: quota (RESOURCE_EXHAUSTED)", "tried again"),
        row(Fault::plain(409, "ABORTED", "try again"), 75, "later: try again (ABORTED)", "tried again"),
        row(Fault::plain(400, "BAD_REQUEST", "Instance is in UPDATING state"), 75, "UPDATING state", "tried again"),
        row(Fault::plain(418, "TEAPOT", "short and stout"), 78, "short and stout (TEAPOT)", "HTTP status 418"),
        row(Fault::Status(500), 69, "failed with status 500", "5"),
        row(Fault::Status(503), 69, "failed with status 503", "5"),
        row(Fault::RetryAfterSeconds(600), 75, "asks for fewer requests (429)", "429"),
        row(Fault::Reset, 69, "cannot reach", "VPN"),
        row(Fault::TruncatedBody, 69, "broke off", "broke"),
    ]
}

#[test]
fn every_answer_has_its_sentence_its_next_step_and_its_exit_code() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let home = Home::new();
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    let before = home.pgpass();
    for Row { fault, code, says, next } in rows(workspace.workspace_id()) {
        workspace.faults_on(Endpoint::DatabaseCredentials).always(fault);
        let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
        outcome.exits(code).stderr_has(says).stderr_has(next).stderr_lacks("secret=1");
        assert!(outcome.stderr.lines().count() < 12, "one screen\n{outcome}");
        assert_eq!(home.pgpass(), before, "{outcome}");
        workspace.heal();
        let shown = configured(&home, &workspace, ORDERS, &["status"]).run();
        shown.exits(0).stdout_has("orders: ");
        assert!(["last try failed: ", "needs you: "].iter().any(|told| shown.stdout.contains(told)), "{shown}");
    }
}

#[test]
fn the_same_is_said_when_an_instance_is_looked_up_for_the_first_time() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    for Row { fault, code, says, .. } in rows(workspace.workspace_id()) {
        let home = Home::new();
        // At each endpoint that might answer.
        for endpoint in [Endpoint::DatabaseInstance, Endpoint::PostgresProjects] {
            workspace.faults_on(endpoint).always(fault.clone());
        }
        let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
        outcome.exits(code).stderr_has(says);
        assert_eq!(home.pgpass(), "", "{outcome}");
        workspace.heal();
    }
}

#[test]
fn an_instance_that_is_not_there_is_said_with_how_to_find_those_that_are() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(78).stderr_has("there is no instance orders that can be seen").stderr_has("dbx-rotator connections");
    assert_eq!(home.pgpass(), "");
}

#[test]
fn who_may_not_is_named() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.forbid(workspace.client_id());
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(77).stderr_has(&format!("{} may not look at instance orders", workspace.client_id()));
}

#[test]
fn an_address_of_several_workspaces_must_say_which() {
    let (workspace, home) = (Workspace::builder().unified().start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(78).stderr_has("answered with its login page").stderr_has("/?o=WORKSPACE_ID");
    let with_id = format!(
        "[[workspace]]\nhost = '{}/?o={}'\nclient_id = '{}'\nclient_secret_file = '~/client-secret'\n{ORDERS}",
        workspace.url(),
        workspace.workspace_id(),
        workspace.client_id()
    );
    home.write(".config/dbx-rotator/config.toml", with_id, 0o600);
    dbx_rotator!(home).args(["rotate"]).trusting(&workspace).run().exits(0);
}

#[test]
fn a_secret_in_an_answer_is_not_repeated() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let leaked = workspace.issue("eve", std::time::Duration::from_secs(60));
    workspace.faults_on(Endpoint::DatabaseCredentials).always(Fault::permission_denied(&format!("no {leaked} here")));
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(77).stderr_has("no ... here").has_no_secret(&[&leaked]);
}
