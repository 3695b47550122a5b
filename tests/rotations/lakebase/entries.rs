//! Which entries the word of a workspace may cost: none of another workspace's, and no password that somebody keeps.

use super::{configured, passwords};
use crate::rounds::table;
use crate::support::{Endpoint, Fault, Home, Instance, Outcome, Workspace, dbx_rotator};

const HOST: &str = "db.shared.example";

fn rotate(home: &Home, tables: &str, connections: &[(&str, &str)]) -> Outcome {
    let connections: String = connections
        .iter()
        .map(|(workspace, place)| {
            format!("[[connection]]\nname = 'of-{workspace}'\nworkspace = '{workspace}'\n{place}\n")
        })
        .collect();
    home.write(".config/dbx-rotator/config.toml", format!("{tables}{connections}"), 0o600);
    dbx_rotator!(home).args(["rotate", "--retry-for", "0s"]).run()
}

#[test]
fn of_two_workspaces_that_name_one_entry_the_first_has_it_for_good() {
    let (one, other, home) = (Workspace::start(), Workspace::start(), Home::new());
    for workspace in [&one, &other] {
        workspace.add_instance(Instance::named("orders").host(HOST));
    }
    let tables = format!("{}{}", table(&one, &home, "one"), table(&other, &home, "other"));
    let instance = "instance = 'orders'";
    let host = format!("host = '{HOST}'\nuser = '{}'\ncredential = 'workspace-token'", one.client_id());
    for (first, second) in [(instance, instance), (host.as_str(), instance), (instance, host.as_str())] {
        let home = Home::new();
        let connections = [("one", first), ("other", second)];
        // What the configuration names comes before what an API names, wherever it stands.
        let (winner, loser) = if second == instance { ("one", "other") } else { ("other", "one") };
        for _ in 0..2 {
            let outcome = rotate(&home, &tables, &connections);
            let said = format!("and that is the entry of connection of-{winner}");
            outcome.exits(78).stderr_has(&said).stderr_has(&format!("of-{winner} is valid until"));
        }
        assert_eq!(home.pgpass().lines().count(), 1);
        let status = dbx_rotator!(&home).args(["status", "--json"]).run().exits(1).json();
        let states: Vec<_> = status["connections"].as_array().unwrap().iter().collect();
        let of = |name: &str| states.iter().find(|one| one["name"] == format!("of-{name}")).unwrap()["state"].clone();
        assert_eq!((of(winner), of(loser)), ("live".into(), "missing".into()));
    }
}

#[test]
fn a_later_one_gives_back_what_it_had_while_the_first_was_not_known() {
    let (one, other, home) = (Workspace::start(), Workspace::start(), Home::new());
    for workspace in [&one, &other] {
        workspace.add_instance(Instance::named("orders").host(HOST));
    }
    one.faults_on(Endpoint::DatabaseInstance).always(Fault::Status(503));
    let tables = format!("{}{}", table(&one, &home, "one"), table(&other, &home, "other"));
    let connections = [("one", "instance = 'orders'"), ("other", "instance = 'orders'")];
    rotate(&home, &tables, &connections).stderr_has("of-other is valid until");
    let before = passwords(&home);
    one.heal();
    rotate(&home, &tables, &connections).exits(78).stderr_has("of-one is valid until");
    let after = passwords(&home);
    assert!(after.len() == 1 && after != before, "{} {}", before.len(), after.len());
    rotate(&home, &tables, &connections).exits(78).stderr_has("of-one is valid until");
}

#[test]
fn a_password_that_somebody_keeps_is_not_replaced_where_an_api_alone_names_its_entry() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders").host(HOST));
    let line =
        |host: &str, password: &str| format!("{host}:5432:databricks_postgres:{}:{password}\n", workspace.client_id());
    let orders = "[[connection]]\ninstance = 'orders'\n";
    let rotate = |connection: &str| configured(&home, &workspace, connection, &["rotate", "--retry-for", "0s"]).run();
    // A line for all hosts is for whatever no other line is for.
    home.write(".pgpass", "*:*:*:*:for-all-the-rest\n", 0o600);
    rotate(orders).exits(0);
    let for_every_database = line(HOST, "what-somebody-keeps").replace("databricks_postgres", "*");
    for kept in [for_every_database, line(HOST, "what-somebody-keeps")] {
        home.write(".pgpass", &kept, 0o600);
        for _ in 0..2 {
            let refused = rotate(orders);
            refused.exits(78).stderr_has("has a password that is no token").stderr_has("remove its line");
            assert_eq!(home.pgpass(), kept);
        }
    }
    // Where both are configured, its owner has named the entry.
    let named = format!("[[connection]]\nhost = '{HOST}'\nuser = '{}'\n", workspace.client_id());
    rotate(&named).exits(0);
    assert_ne!(home.pgpass(), line(HOST, "what-somebody-keeps"));
    // Whatever is ours can be replaced: with its record, and without.
    rotate(orders).exits(0);
    home.write(".pgpass", line(HOST, &workspace.issue("somebody", std::time::Duration::from_secs(1))), 0o600);
    rotate(orders).exits(0);
    // So can what stands for a database of the vendor's, as one comes to it from its permanent password.
    let of_vendor = "instance-1.database.cloud.databricks.com";
    workspace.add_instance(Instance::named("orders").host(of_vendor));
    home.write(".pgpass", line(of_vendor, "permanent-password"), 0o600);
    rotate(orders).exits(0);
}

#[test]
fn no_api_sends_clients_to_a_socket_of_this_machine() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for host in ["/tmp", "@abstract"] {
        workspace.add_instance(Instance::named("orders").host(host));
        let orders = "[[connection]]\ninstance = 'orders'\n";
        let refused = configured(&home, &workspace, orders, &["rotate", "--retry-for", "0s"]).run();
        refused.exits(78).stderr_has("cannot stand in a password file");
        assert_eq!(home.pgpass(), "", "{host}");
    }
}
