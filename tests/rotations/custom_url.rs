//! Names of an account at which workspaces answer, and which have no sign-in of their own: the account's is asked for, and a secret
//! goes to nobody but the vendor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::Duration;

use crate::support::workspace::{ACCOUNT_ID, CONSOLE, DEFAULT_CLIENT_ID};
use crate::support::{Endpoint, Fault, Home, Instance, Relay, Session, Workspace, dbx_rotator};

const CUSTOM: &str = "data.corp.example";
const ORDERS: &str = "[[connection]]\ninstance = 'orders'\n";

/// A workspace at a custom URL, and the way to it.
fn at_custom_url() -> (Workspace, Relay) {
    let workspace = Workspace::builder().unified().custom_url(CUSTOM).start();
    let relay = Relay::to(workspace.port());
    (workspace, relay)
}

/// `dbx-rotator rotate` as a service principal, at the custom URL unless another host is set.
fn rotate<'a>(home: &'a Home, workspace: &Workspace, relay: &Relay) -> Session<'a> {
    dbx_rotator!(home)
        .args(["rotate", "--retry-for", "0s"])
        .signed_in_to(workspace)
        .env("DATABRICKS_HOST", format!("https://{CUSTOM}"))
        .env("DATABRICKS_PG_HOST", "db.example")
        .env("HTTPS_PROXY", relay.url())
}

fn token_path() -> String {
    format!("POST /oidc/accounts/{ACCOUNT_ID}/v1/token")
}

fn metadata(oidc_endpoint: &str, account_id: &str) -> Fault {
    json(&format!(r#"{{"oidc_endpoint":"{oidc_endpoint}","account_id":"{account_id}","host_type":"unified"}}"#))
}

fn json(body: &str) -> Fault {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Fault::StatusWith { status: 200, body: body.to_owned(), headers }
}

#[test]
fn a_custom_url_signs_in_where_its_account_does_and_is_asked_for_everything_else() {
    let (workspace, relay) = at_custom_url();
    workspace.add_instance(Instance::named("orders"));
    let home = Home::new();
    home.write(".config/dbx-rotator/config.toml", ORDERS, 0o600);
    let host = format!("https://{CUSTOM}/?o={}", workspace.workspace_id());
    let outcome =
        rotate(&home, &workspace, &relay).env("DATABRICKS_HOST", host).without_env("DATABRICKS_PG_HOST").run();
    outcome.exits(0).stderr_has("Successfully obtained token via OAuth M2M");
    assert!(home.pgpass().contains(":eyJ"));
    let requests = workspace.requests();
    assert!(requests.contains(&token_path()) && !requests.contains(&"POST /oidc/v1/token".to_owned()), "{requests:?}");
    assert_eq!(relay.asked_for(), [format!("{CONSOLE}:443"), format!("{CUSTOM}:443")]);
}

#[test]
fn a_host_that_names_a_sign_in_of_its_own_needs_no_other_host() {
    for body in [
        format!(r#"{{"oidc_endpoint":"https://{CUSTOM}/oidc/accounts/{{account_id}}","account_id":"{ACCOUNT_ID}"}}"#),
        format!(r#"{{"oidc_endpoint":"https://{CUSTOM}/oidc/accounts/{ACCOUNT_ID}/"}}"#),
    ] {
        let (workspace, relay) = at_custom_url();
        workspace.faults_on(Endpoint::HostMetadata).always(json(&body));
        // Accounts without a discovery of their own have the token endpoint below the root.
        for discovery in [None, Some(Fault::Status(404)), Some(Fault::Html)] {
            workspace.faults_on(Endpoint::AccountDiscovery).clear();
            if let Some(fault) = discovery {
                workspace.faults_on(Endpoint::AccountDiscovery).always(fault);
            }
            let home = Home::new();
            rotate(&home, &workspace, &relay).run().exits(0);
            assert!(home.pgpass().contains(":eyJ"), "{body}");
        }
        assert_eq!(relay.asked_for(), [format!("{CUSTOM}:443")]);
    }
}

#[test]
fn a_host_that_names_a_sign_in_of_somebody_else_ends_with_78_and_nothing_is_sent_there() {
    let (workspace, relay) = at_custom_url();
    let account = format!("/oidc/accounts/{ACCOUNT_ID}");
    for (named, other) in [
        (format!("https://evil.example{account}"), "https://evil.example "),
        (format!("https://{CONSOLE}.evil.example{account}"), "databricks.com.evil.example "),
        (format!("https://evil.example/https://{CONSOLE}{account}"), "https://evil.example "),
        (format!("https://{CONSOLE}@evil.example{account}"), "https://evil.example "),
        (format!("https://ada@{CONSOLE}{account}"), "another origin"),
        (format!("http://{CONSOLE}{account}"), "http://accounts.cloud.databricks.com "),
        (format!("https://{CONSOLE}:8443{account}"), "https://accounts.cloud.databricks.com:8443 "),
        (format!("https://{CONSOLE}.{account}"), "https://accounts.cloud.databricks.com. "),
        (format!("https://accounts.cloud.dat\u{430}bricks.com{account}"), "is not an address"),
        ("https://dbc-1.cloud.databricks.com/driver-proxy/o/1/0101-x/8000".to_owned(), "https://dbc-1.cloud"),
        ("https://dbc-1.cloud.databricks.com/oidc/../driver-proxy".to_owned(), "https://dbc-1.cloud"),
        ("https://dbc-1.cloud.databricks.com/oidc/%2e%2e/x".to_owned(), "https://dbc-1.cloud"),
        ("https://app-1.aws.databricksapps.com/oidc/v1".to_owned(), "databricksapps.com "),
        (format!("https://127.0.0.1:{}{account}", workspace.port()), "https://127.0.0.1:"),
        ("file:///oidc/v1".to_owned(), "file:"),
        ("/oidc".to_owned(), "is not an address"),
    ] {
        let home = Home::new();
        workspace.faults_on(Endpoint::HostMetadata).clear().always(metadata(&named, ACCOUNT_ID));
        let outcome = rotate(&home, &workspace, &relay).run();
        outcome.exits(78).stderr_has(other).stderr_has(&format!("https://{CUSTOM}")).stderr_has("own address");
        // The account's own discovery may not lead astray either.
        workspace.faults_on(Endpoint::HostMetadata).clear();
        let discovery = json(&format!(r#"{{"token_endpoint":"{named}"}}"#));
        workspace.faults_on(Endpoint::AccountDiscovery).always(discovery);
        rotate(&home, &workspace, &relay).run().exits(78).stderr_has(other).stderr_has(&format!("https://{CUSTOM}"));
        workspace.faults_on(Endpoint::AccountDiscovery).clear();
        assert!(home.pgpass().is_empty(), "{named}");
    }
    assert_eq!(relay.asked_for(), [format!("{CONSOLE}:443"), format!("{CUSTOM}:443")]);
    assert_eq!(workspace.token_requests(), 0);
}

#[test]
fn a_host_that_says_nothing_leads_to_the_workspaces_own_address() {
    let (workspace, relay) = at_custom_url();
    for silence in
        [Fault::Status(404), Fault::Status(403), Fault::Html, json("[]"), json("{}"), Fault::Redirect("/x".to_owned())]
    {
        let home = Home::new();
        workspace.faults_on(Endpoint::HostMetadata).clear().always(silence);
        let outcome = rotate(&home, &workspace, &relay).run();
        outcome.exits(78).stderr_has("use the workspace's own address").stderr_has("open the workspace in a browser");
    }
    for (trouble, code) in [(Fault::Status(503), 69), (Fault::RetryAfterSeconds(5), 75), (Fault::Reset, 69)] {
        let home = Home::new();
        workspace.faults_on(Endpoint::HostMetadata).clear().always(trouble);
        rotate(&home, &workspace, &relay).run().exits(code).stderr_lacks("own address");
    }
    assert_eq!(relay.asked_for(), [format!("{CUSTOM}:443")]);
}

#[test]
fn an_account_that_the_host_does_not_name_can_be_named_in_each_source() {
    let (workspace, relay) = at_custom_url();
    workspace
        .faults_on(Endpoint::HostMetadata)
        .always(json(&format!(r#"{{"oidc_endpoint":"https://{CUSTOM}/oidc/accounts/{{account_id}}"}}"#)));
    let home = Home::new();
    let unnamed = rotate(&home, &workspace, &relay).run();
    unnamed.exits(78).stderr_has("does not say which one").stderr_has("?a=ACCOUNT_ID");
    let with = |home| rotate(home, &workspace, &relay);
    with(&home).env("DATABRICKS_HOST", format!("https://{CUSTOM}/?a={ACCOUNT_ID}")).run().exits(0);
    with(&home).env("DATABRICKS_ACCOUNT_ID", ACCOUNT_ID).run().exits(0);
    let hostile = with(&home).env("DATABRICKS_ACCOUNT_ID", "x/../../../driver-proxy");
    hostile.run().exits(78).stderr_has("no account's id");
    let home = Home::new();
    home.keep_secret(workspace.client_secret());
    let profile = format!(
        "[DEFAULT]\nhost = https://{CUSTOM}\naccount_id = {ACCOUNT_ID}\nclient_id = {DEFAULT_CLIENT_ID}\nclient_secret = {}\n",
        workspace.client_secret()
    );
    home.write(".databrickscfg", profile, 0o600);
    let by_profile = ["DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"]
        .iter()
        .fold(with(&home), |session, name| session.without_env(name));
    by_profile.run().exits(0);
}

#[test]
fn an_account_console_is_no_workspace() {
    let home = Home::new();
    for host in [
        "https://accounts.cloud.databricks.com",
        "accounts.azuredatabricks.net",
        "https://ACCOUNTS.gcp.databricks.com/",
    ] {
        let outcome = dbx_rotator!(home)
            .args(["rotate", "--retry-for", "0s"])
            .env("DATABRICKS_HOST", host)
            .env("DATABRICKS_PG_HOST", "db.example")
            .run();
        outcome.exits(78).stderr_has("is an account console").stderr_has("use the workspace's own address");
    }
}

/// `dbx-rotator rotate` for a person whose CLI hands out this token.
fn rotate_with_clis<'a>(home: &'a Home, workspace: &Workspace, token: &str, host: &str) -> Session<'a> {
    home.watch(workspace);
    home.keep_secret(token);
    home.write("bin/token", token, 0o600);
    // A shell writes it: a file that a child of another test holds open cannot be run.
    let script = "printf '#!/bin/sh\\ncat \"%s/token\"\\n' \"$1\" > \"$1/new\" && chmod 755 \"$1/new\" && mv \"$1/new\" \"$1/databricks\"";
    let made = std::process::Command::new("/bin/sh").args(["-c", script, "sh"]).arg(home.path("bin")).status();
    assert!(made.unwrap().success());
    dbx_rotator!(home)
        .args(["rotate", "--retry-for", "0s"])
        .trusting(workspace)
        .env("DATABRICKS_HOST", host)
        .env("DATABRICKS_PG_HOST", "db.example")
        .env("DATABRICKS_PG_USERNAME", workspace.user())
}

#[test]
fn a_clis_token_that_names_another_host_is_taken_where_the_host_is_the_same_workspace() {
    let workspace = Workspace::start();
    let token = workspace.issue(workspace.user(), Duration::from_secs(3600));
    let other_name = workspace.url_as("localhost");
    let home = Home::new();
    rotate_with_clis(&home, &workspace, &token, &other_name).run().exits(0);
    assert!(home.pgpass().contains(&token));
    // What the host says of itself decides, and no bearer is sent to ask it.
    for (says, code) in [
        (json(&format!(r#"{{"workspace_id":{}}}"#, workspace.workspace_id())), 0),
        (json(r#"{"workspace_id":"7","account_id":"7"}"#), 78),
        (json("{}"), 78),
        (Fault::Status(404), 78),
        (Fault::Html, 78),
        (Fault::Status(503), 69),
    ] {
        let home = Home::new();
        workspace.faults_on(Endpoint::HostMetadata).clear().always(says.clone());
        rotate_with_clis(&home, &workspace, &token, &other_name).run().exits(code);
        assert_eq!(home.pgpass().contains(&token), code == 0, "{says:?}");
    }
    let paths = workspace.requests();
    assert!(paths.iter().all(|path| path == "GET /.well-known/databricks-config"), "{paths:?}");
}
