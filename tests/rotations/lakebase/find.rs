//! Where databases are found, and what their states mean.

use super::{MINT_AUTOSCALING, MINT_PROVISIONED, configured, count, hosts, passwords};
use crate::support::{ComputeEndpoint, Endpoint, Fault, Home, Instance, Project, Upgraded, Workspace};

const ORDERS: &str = "[[connection]]\ninstance = 'orders'\n";

fn of_host(host: &str) -> String {
    format!("[[connection]]\nhost = '{host}'\n")
}

#[test]
fn a_host_of_either_form_is_enough_for_a_credential() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.add_project(Project::named("shop"));
    let orders = workspace.instance("orders").host.unwrap();
    let endpoint = "projects/shop/branches/production/endpoints/primary";
    let shop = workspace.compute_endpoint(endpoint).host.unwrap();
    for (host, request) in [(orders, MINT_PROVISIONED), (shop, MINT_AUTOSCALING)] {
        configured(&home, &workspace, &of_host(&host), &["rotate"]).run().exits(0);
        assert_eq!(count(&workspace, request), 1, "{host}");
    }
    assert_eq!(workspace.credential_requests()[1]["endpoint"], endpoint);
    // It is known now, and the lists are not searched again.
    let listed = count(&workspace, "GET /api/2.0/postgres/projects");
    let shop = hosts(&home).into_iter().find(|host| host.starts_with("ep-")).unwrap();
    configured(&home, &workspace, &of_host(&shop), &["rotate"]).run().exits(0);
    assert_eq!(count(&workspace, "GET /api/2.0/postgres/projects"), listed);
}

#[test]
fn a_host_that_the_api_does_not_know_gets_the_plain_token_and_is_not_looked_for_each_time() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let unknown = of_host("ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com");
    for _ in 0..2 {
        configured(&home, &workspace, &unknown, &["rotate"]).run().exits(0);
    }
    assert_eq!((workspace.tokens_issued(), workspace.credentials_minted()), (2, 0));
    assert_eq!(count(&workspace, "GET /api/2.0/postgres/projects"), 1);
    let strict = format!("{unknown}credential = 'database-credential'\n");
    let outcome = configured(&home, &workspace, &strict, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(78).stderr_has("no database that can be seen in").stderr_has("dbx-rotator connections");
}

#[test]
fn each_connection_of_a_host_that_the_api_does_not_know_gets_what_its_own_table_says() {
    let unknown = of_host("ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com");
    let strict = format!("{unknown}name = 'strict'\ndatabase = 'a'\ncredential = 'database-credential'\n");
    let either = format!("{unknown}name = 'either'\ndatabase = 'b'\n");
    for tables in [format!("{strict}{either}"), format!("{either}{strict}")] {
        let (workspace, home) = (Workspace::start(), Home::new());
        let outcome = configured(&home, &workspace, &tables, &["rotate", "--retry-for", "0s"]).run();
        outcome.exits(78).stderr_has("no database that can be seen in").stderr_has("either is valid until");
        let pgpass = home.pgpass();
        assert!(pgpass.contains(":b:") && !pgpass.contains(":a:"), "{tables}");
    }
}

#[test]
fn an_instance_that_became_a_project_is_followed_and_that_is_said_once() {
    for upgraded in [Upgraded::Gone, Upgraded::StillListed] {
        let (workspace, home) = (Workspace::start(), Home::new());
        workspace.add_instance(Instance::named("orders"));
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
        let old = workspace.instance("orders").host.unwrap();
        workspace.upgrade_instance("orders", upgraded);
        let followed = "has become the autoscaling endpoint projects/orders/branches/production/endpoints/primary";
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_has(followed);
        let new = workspace.compute_endpoint("projects/orders/branches/production/endpoints/primary").host.unwrap();
        assert!(hosts(&home).contains(&new), "{upgraded:?}: {:?} after {old}", hosts(&home));
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_lacks("has become");
        assert_eq!(count(&workspace, MINT_AUTOSCALING), 2, "{upgraded:?}");
        let status = configured(&home, &workspace, ORDERS, &["status", "--json"]).run().exits(0).json();
        assert_eq!(status["connections"][0]["host"], new.as_str());
    }
}

#[test]
fn an_instance_that_came_to_be_a_project_before_it_was_ever_seen_is_found_too() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.upgrade_instance("orders", Upgraded::Gone);
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_has("has become");
    assert_eq!(hosts(&home).len(), 1);
}

#[test]
fn of_a_projects_endpoints_the_one_that_writes_is_followed() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.upgrade_instance("orders", Upgraded::Gone);
    workspace.change_project("orders", |mut project| {
        project.branches[0].endpoints.insert(0, ComputeEndpoint::named("reader").read_only());
        project
    });
    configured(&home, &workspace, ORDERS, &["rotate"])
        .run()
        .exits(0)
        .stderr_has("endpoints/primary, which is followed");
}

#[test]
fn the_read_only_host_is_a_second_entry_of_the_same_credential() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let read_only = "instance-ro-1.database.cloud.databricks.com";
    workspace.add_instance(Instance::named("orders").read_only_host(read_only));
    let table = format!("{ORDERS}read_only = true\n");
    configured(&home, &workspace, &table, &["rotate"]).run().exits(0).stderr_has("orders-ro is valid until");
    assert!(hosts(&home).contains(&read_only.to_owned()) && hosts(&home).len() == 2);
    let passwords = passwords(&home);
    assert_eq!(passwords[0], passwords[1]);
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn without_readable_secondaries_the_other_entry_is_kept_alive_all_the_same() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let table = format!("{ORDERS}read_only = true\n");
    let outcome = configured(&home, &workspace, &table, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(78).stderr_has("instance orders has no read-only host").stderr_has("readable secondaries");
    assert_eq!(hosts(&home), [workspace.instance("orders").host.unwrap()]);
}

#[test]
fn states_are_said_once_in_words_and_are_no_sign_in_failure() {
    for (state, said) in [
        ("STOPPED", "instance orders is stopped, and takes no connections until somebody starts it"),
        ("STARTING", "instance orders is starting"),
        ("FAILING_OVER", "instance orders is failing over"),
        ("UPDATING", "instance orders is being updated"),
    ] {
        let (workspace, home) = (Workspace::start(), Home::new());
        workspace.add_instance(Instance::named("orders").state(state));
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_has(said);
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_lacks(said);
        configured(&home, &workspace, ORDERS, &["status"]).run().exits(0).stdout_has(said);
        workspace.change_instance("orders", |instance| instance.state("AVAILABLE"));
        configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0).stderr_has("is available again");
    }
}

#[test]
fn an_endpoint_that_is_idle_is_minted_for_as_any_other() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_project(Project::named("shop").primary(|endpoint| endpoint.state("IDLE")));
    let shop = "[[connection]]\nendpoint = 'projects/shop/branches/production/endpoints/primary'\n";
    configured(&home, &workspace, shop, &["rotate"]).run().exits(0).stderr_has("is idle: the next connection wakes it");
}

#[test]
fn an_instance_without_a_host_yet_is_waited_for() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders").state("STARTING").without_host());
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(69).stderr_has("instance orders is starting: it has no host yet");
    assert_eq!(home.pgpass(), "");
    // That it had none is remembered, and hides nothing that comes later.
    workspace.faults_on(Endpoint::DatabaseInstance).always(Fault::Status(503));
    let outcome = configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(69).stderr_has("failed with status 503").stderr_lacks("no host yet");
}

#[test]
fn an_outage_of_the_api_takes_no_connection_away_and_its_host_is_remembered() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    workspace.faults_on(Endpoint::DatabaseInstance).always(Fault::Status(503));
    let before = home.pgpass();
    configured(&home, &workspace, ORDERS, &["status"]).run().exits(0);
    // It may still mint.
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    assert_ne!(home.pgpass(), before);
    let before = home.pgpass();
    workspace.faults_on(Endpoint::DatabaseCredentials).always(Fault::Status(503));
    configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"])
        .run()
        .exits(69)
        .stderr_has("failed with status 503");
    assert_eq!(home.pgpass(), before);
    configured(&home, &workspace, ORDERS, &["status"]).run().exits(0);
}

#[test]
fn a_host_that_moved_is_followed() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    workspace.remove_instance("orders");
    workspace.add_instance(Instance::named("orders"));
    configured(&home, &workspace, ORDERS, &["rotate"])
        .run()
        .exits(0)
        .stderr_has("instance orders has another host now");
    assert!(hosts(&home).contains(&workspace.instance("orders").host.unwrap()));
}

#[test]
fn what_was_not_found_yet_is_said_by_status() {
    let (workspace, home) = (Workspace::start(), Home::new());
    configured(&home, &workspace, ORDERS, &["status"])
        .run()
        .exits(1)
        .stdout_has("its host or user is looked up at the first rotation");
    let status = configured(&home, &workspace, ORDERS, &["status", "--json"]).run().exits(1).json();
    assert_eq!(
        (&status["connections"][0]["host"], &status["connections"][0]["state"]),
        (&().into(), &"missing".into())
    );
    configured(&home, &workspace, ORDERS, &["rotate", "--dry-run"]).run().exits(0).stdout_has("a database credential");
}
