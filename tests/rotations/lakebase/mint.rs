//! What is minted, for which databases, and how often.

use super::{MINT_AUTOSCALING, MINT_PROVISIONED, TOKEN, configured, count, hosts, passwords};
use crate::support::{Endpoint, Fault, Home, Instance, Project, Workspace, dbx_rotator};

const ORDERS: &str = "[[connection]]\ninstance = 'orders'\n";

#[test]
fn an_instance_is_all_that_a_connection_needs_to_name() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_has("orders is valid until");
    let host = workspace.instance("orders").host.unwrap();
    let prefix = format!("{host}:5432:databricks_postgres:{}:eyJ", workspace.client_id());
    assert!(home.pgpass().starts_with(&prefix));
    assert_eq!((workspace.tokens_issued(), workspace.credentials_minted()), (1, 1));

    let status = configured(&home, &workspace, ORDERS, &["status", "--json"]).run();
    let status = status.exits(0).json();
    let row = &status["connections"][0];
    assert_eq!((&row["source"], &row["name"]), (&"database-credential".into(), &"orders".into()));
    assert_eq!((&row["host"], &row["user"]), (&host.as_str().into(), &workspace.client_id().into()));
    assert_eq!(row["state"], "live");
}

#[test]
fn an_endpoint_is_minted_for_by_the_other_api_with_a_life() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_project(Project::named("shop"));
    let shop = "[[connection]]\nendpoint = 'projects/shop/branches/production/endpoints/primary'\n";
    configured(&home, &workspace, shop, &["rotate"]).run().exits(0).stderr_has("shop is valid until");
    let endpoint = workspace.compute_endpoint("projects/shop/branches/production/endpoints/primary");
    assert_eq!(hosts(&home), [endpoint.host.unwrap()]);
    let asked = &workspace.credential_requests()[0];
    assert_eq!(asked["ttl"], "3600s");
    assert_eq!(count(&workspace, MINT_PROVISIONED), 0);
}

#[test]
fn what_is_not_due_asks_nobody_though_host_and_user_were_found() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, ORDERS, &["rotate", "--if-due"]).run().exits(0);
    let connections = workspace.connections();
    configured(&home, &workspace, ORDERS, &["rotate", "--if-due"]).run().exits(0);
    assert_eq!((workspace.connections(), workspace.credentials_minted()), (connections, 1));
}

#[test]
fn one_credential_serves_all_connections_of_an_identity() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let mut tables = String::new();
    for number in 0..6 {
        workspace.add_instance(Instance::named(&format!("orders-{number}")));
        workspace.add_project(Project::named(&format!("shop-{number}")));
        let endpoint = format!("projects/shop-{number}/branches/production/endpoints/primary");
        tables += &format!("[[connection]]\nname = 'i{number}'\ninstance = 'orders-{number}'\n");
        tables += &format!("[[connection]]\nname = 'e{number}'\nendpoint = '{endpoint}'\n");
    }
    tables += "[[connection]]\nname = 'again'\ninstance = 'orders-0'\ndatabase = 'other'\n";
    configured(&home, &workspace, &tables, &["rotate"]).run().exits(0);
    assert_eq!(home.pgpass().lines().count(), 13);
    let asked = workspace.credential_requests();
    assert_eq!(asked[0]["instance_names"].as_array().unwrap().len(), 6, "each is named once");
    assert_eq!(count(&workspace, MINT_PROVISIONED), 1);
    assert_eq!(count(&workspace, MINT_AUTOSCALING), 1);
    assert_eq!(count(&workspace, TOKEN), 1);
}

#[test]
fn one_instance_that_is_refused_does_not_keep_the_others_from_theirs() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("good"));
    workspace.add_instance(Instance::named("other"));
    let tables = "[[connection]]\nname = 'a'\ninstance = 'good'\n[[connection]]\nname = 'b'\ninstance = 'gone'\n\
                  [[connection]]\nname = 'c'\ninstance = 'other'\n";
    let outcome = configured(&home, &workspace, tables, &["rotate", "--json", "--retry-for", "1s"]).run();
    outcome.stderr_lacks("completed successfully");
    let answer = outcome.exits(78).stderr_has("there is no instance gone").json();
    let outcomes: Vec<&str> =
        answer["connections"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["rotated", "failed", "rotated"]);
    assert_eq!(hosts(&home).len(), 2);
    let check = configured(&home, &workspace, tables, &["check"]).run();
    check.exits(1).stdout_has("a: live").stdout_has("last try failed: there is no instance gone");
    check.stdout_has("hint: `dbx-rotator connections`");
    let outcome = configured(&home, &workspace, tables, &["rotate", "--connection", "a"]).run();
    assert!(outcome.exits(0).stderr.ends_with("completed successfully\n"), "{outcome}");
}

#[test]
fn a_mint_that_is_refused_for_one_is_tried_for_each() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for name in ["good", "other"] {
        workspace.add_instance(Instance::named(name));
    }
    // It can be looked up, but no credential can be minted for it.
    workspace.add_instance(Instance { upgraded: true, ..Instance::named("half") });
    let tables: String = ["good", "half", "other"]
        .map(|name| format!("[[connection]]\nname = '{name}'\ninstance = '{name}'\n"))
        .concat();
    configured(&home, &workspace, &tables, &["rotate", "--retry-for", "1s"])
        .run()
        .exits(78)
        .stderr_has("instance half");
    assert_eq!(hosts(&home).len(), 2);
}

#[test]
fn the_plain_token_is_kept_where_that_is_said() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let table = format!("{ORDERS}credential = 'workspace-token'\n");
    configured(&home, &workspace, &table, &["rotate"]).run().exits(0);
    assert_eq!((workspace.tokens_issued(), workspace.credentials_minted()), (1, 0));
    assert_eq!(hosts(&home), [workspace.instance("orders").host.unwrap()]);
    let status = configured(&home, &workspace, &table, &["status", "--json"]).run().json();
    assert_eq!(status["connections"][0]["source"], "workspace-token");
}

#[test]
fn an_opaque_credential_lives_as_long_as_the_answer_says() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.faults_on(Endpoint::DatabaseCredentials).next(Fault::OpaqueToken);
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    let status = configured(&home, &workspace, ORDERS, &["status", "--json"]).run().exits(0).json();
    let left = status["connections"][0]["expires_in_seconds"].as_i64().unwrap();
    assert!((3_500..=3_600).contains(&left), "{left}");
    configured(&home, &workspace, ORDERS, &["rotate", "--if-due"]).run().exits(0);
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn a_credential_without_an_expiry_is_believed_what_it_says_itself() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.faults_on(Endpoint::DatabaseCredentials).next(Fault::NoExpiry);
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    assert_eq!(hosts(&home).len(), 1);
}

#[test]
fn credentials_that_cannot_be_used_are_not_published() {
    for (fault, said) in [
        (Fault::MissingToken, "without a token"),
        (Fault::ExpiredToken, "already expired"),
        (Fault::NoExpiryAnywhere, "does not say when it expires"),
        (Fault::OtherIdentity("eve@example.com".to_owned()), "eve@example.com cannot log in as"),
        (Fault::TruncatedJson, "cut off"),
    ] {
        let (workspace, home) = (Workspace::start(), Home::new());
        workspace.add_instance(Instance::named("orders"));
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
        let before = home.pgpass();
        workspace.faults_on(Endpoint::DatabaseCredentials).always(fault.clone());
        let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
        assert!(matches!(outcome.code, Some(69 | 77)), "{fault:?}\n{outcome}");
        outcome.stderr_has(said);
        assert_eq!(home.pgpass(), before, "{fault:?}");
    }
}

#[test]
fn a_person_is_known_by_the_token_or_by_the_workspace() {
    let table = "[[connection]]\ninstance = 'orders'\n";
    for opaque in [false, true] {
        let (workspace, home) = (Workspace::start(), Home::new());
        workspace.add_instance(Instance::named("orders"));
        let _cli = home.install_cli(&workspace);
        home.watch(&workspace);
        if opaque {
            workspace.faults_on(Endpoint::Token).always(Fault::OpaqueToken);
        }
        let text = format!("[[workspace]]\nhost = '{}'\n{table}", workspace.url());
        home.write(".config/dbx-rotator/config.toml", text, 0o600);
        let rotate = || dbx_rotator!(home).args(["rotate"]).trusting(&workspace);
        rotate().run().exits(0);
        let entry = home.pgpass();
        assert_eq!(entry.split(':').nth(3), Some(workspace.user()), "opaque: {opaque}");
        assert_eq!(count(&workspace, "GET /api/2.0/preview/scim/v2/Me"), usize::from(opaque));
        // Always a new one, although the CLI returns the same token again.
        rotate().run().exits(0);
        assert_ne!(home.pgpass(), entry);
        assert_eq!(workspace.credentials_minted(), 2);
    }
}

#[test]
fn a_cli_that_goes_on_with_a_token_that_is_dead_is_made_to_refresh_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let cli = home.install_cli(&workspace);
    home.watch(&workspace);
    workspace.faults_on(Endpoint::DatabaseCredentials).next(Fault::expired_bearer());
    let text = format!("[[workspace]]\nhost = '{}'\n[[connection]]\ninstance = 'orders'\n", workspace.url());
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    dbx_rotator!(home).args(["rotate", "--retry-for", "0s"]).trusting(&workspace).run().exits(0);
    let forced = cli.invocations().iter().filter(|call| call.argv.contains(&"--force-refresh".to_owned())).count();
    assert_eq!(forced, 1);
}

#[test]
fn a_group_role_is_kept_as_the_user() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, &format!("{ORDERS}user = 'data readers'\n"), &["rotate"]).run().exits(0);
    assert_eq!(home.pgpass().split(':').nth(3), Some("data readers"));
    assert_eq!(passwords(&home).len(), 1);
}

#[test]
fn what_is_refused_to_several_together_is_said_once_and_waited_for_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let mut tables = String::new();
    for name in ["a", "b", "c"] {
        workspace.add_instance(Instance::named(name));
        tables += &format!("[[connection]]\nname = '{name}'\ninstance = '{name}'\n");
    }
    workspace.faults_on(Endpoint::DatabaseCredentials).always(Fault::Status(503));
    let outcome = configured(&home, &workspace, &tables, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(69);
    assert_eq!(outcome.stderr.matches("failed with status 503").count(), 1, "{outcome}");
    assert_eq!(count(&workspace, MINT_PROVISIONED), 1);
}

/// Requests for credentials during one `rotate` of everything, and its exit code.
fn minted_in(home: &Home, workspace: &Workspace, tables: &str) -> (usize, Option<i32>) {
    let before = count(workspace, MINT_PROVISIONED) + count(workspace, MINT_AUTOSCALING);
    let outcome = configured(home, workspace, tables, &["rotate", "--retry-for", "0s"]).run();
    (count(workspace, MINT_PROVISIONED) + count(workspace, MINT_AUTOSCALING) - before, outcome.code)
}

#[test]
fn one_that_stays_refused_costs_the_others_one_request_and_itself_another() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        workspace.add_instance(Instance::named(name));
    }
    // Two connections to the one that is refused are one request.
    let table = |name: &str, database: &str| {
        format!("[[connection]]\nname = '{name}-{database}'\ninstance = '{name}'\ndatabase = '{database}'\n")
    };
    let tables = names.map(|name| table(name, "x")).concat() + &table("c", "y");
    workspace.change_instance("c", |c| Instance { upgraded: true, ..c });
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 5, Some(78)), "nobody knows yet who is refused");
    for round in 2..6 {
        assert_eq!(minted_in(&home, &workspace, &tables), (1 + 1, Some(78)), "rotation {round}");
        assert_eq!(hosts(&home).len(), 4);
    }
    // A second one that is refused is found in the same way, and remembered beside the first.
    workspace.change_instance("e", |e| Instance { upgraded: true, ..e });
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 4 + 1, Some(78)));
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 2, Some(78)));
    for name in ["c", "e"] {
        workspace.change_instance(name, |it| Instance { upgraded: false, ..it });
    }
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 2, Some(0)), "whose time has come is seen by itself");
    assert_eq!(minted_in(&home, &workspace, &tables), (1, Some(0)));
    assert_eq!(hosts(&home).len(), 6);
}

#[test]
fn an_instance_that_is_being_updated_keeps_no_other_from_its_credential() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let tables = ["a", "b"].map(|name| format!("[[connection]]\nname = '{name}'\ninstance = '{name}'\n")).concat();
    for name in ["a", "b"] {
        workspace.add_instance(Instance::named(name));
    }
    let updating = Fault::StatusWith {
        status: 400,
        body: r#"{"error_code":"BAD_REQUEST","message":"Instance a is in UPDATING state"}"#.to_owned(),
        headers: Vec::new(),
    };
    workspace.faults_on(Endpoint::DatabaseCredentials).next(updating.clone()).next(updating);
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 2, Some(75)));
    assert_eq!(hosts(&home), [workspace.instance("b").host.unwrap()]);
    assert_eq!(minted_in(&home, &workspace, &tables), (1 + 1, Some(0)));
    assert_eq!(hosts(&home).len(), 2);
}
