//! `dbx-rotator connections`: what could be kept alive.

use crate::support::{
    Branch, ComputeEndpoint, Endpoint, Fault, Home, Instance, Project, Session, Workspace, dbx_rotator,
};

/// With the workspace in the environment and no configuration file.
fn connections<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).arg("connections").args(arguments).signed_in_to(workspace)
}

fn furnished() -> Workspace {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders").read_only_host("instance-ro-1.database.cloud.databricks.com"));
    workspace.add_instance(Instance::named("archive").stopped());
    let dev = Branch::named("dev").endpoint(ComputeEndpoint::named("primary").state("IDLE"));
    workspace.add_project(Project::named("shop").branch(dev));
    workspace
}

#[test]
fn a_table_has_all_that_can_be_seen() {
    let (workspace, home) = (furnished(), Home::new());
    let outcome = connections(&home, &workspace, &[]).run();
    outcome.exits(0);
    let lines: Vec<Vec<&str>> = outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["NAME", "KIND", "STATE", "HOST"]);
    let columns: Vec<(&str, &str, &str)> = lines[1..].iter().map(|line| (line[0], line[1], line[2])).collect();
    let wanted = [
        ("archive", "instance", "stopped"),
        ("orders", "instance", "available"),
        ("shop", "endpoint", "available"),
        ("shop-dev", "endpoint", "idle"),
    ];
    assert_eq!(columns, wanted, "{outcome}");
    assert_eq!(lines[2][3], workspace.instance("orders").host.unwrap());
}

#[test]
fn where_one_api_is_not_there_the_others_failure_is_told() {
    let (workspace, home) = (furnished(), Home::new());
    workspace.faults_on(Endpoint::PostgresProjects).always(Fault::Status(404));
    workspace.faults_on(Endpoint::DatabaseInstances).always(Fault::Status(503));
    connections(&home, &workspace, &[]).run().exits(69).stderr_lacks("has no Lakebase API");
}

#[test]
fn a_list_that_does_not_end_is_given_up() {
    let answer = |name: &str, items: String, more: bool| Fault::StatusWith {
        status: 200,
        body: format!("{{\"{name}\":[{items}],\"next_page_token\":\"{}\"}}", if more { "more" } else { "" }),
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
    };
    let many = |number: usize| vec![r#"{"name":"projects/shop/branches/b"}"#; number].join(",");
    for (endpoint, fault, requests) in [
        (Endpoint::PostgresProjects, answer("projects", String::new(), true), 200),
        (Endpoint::PostgresProjects, answer("projects", many(20_001), false), 1),
        (Endpoint::PostgresProjects, answer("projects", many(7_000), true), 3),
        (Endpoint::PostgresBranches, answer("branches", many(7_000), false), 3),
        (Endpoint::PostgresEndpoints, answer("endpoints", many(7_000), false), 3),
    ] {
        let (workspace, home) = (furnished(), Home::new());
        workspace.add_project(Project::named("more"));
        workspace.add_project(Project::named("most"));
        workspace.faults_on(endpoint).always(fault);
        connections(&home, &workspace, &[]).run().exits(69).stderr_has("with a list that does not end");
        assert_eq!(workspace.requests_to(endpoint), requests, "{endpoint:?}");
    }
}

#[test]
fn json_says_who_sees_it() {
    let (workspace, home) = (furnished(), Home::new());
    let answer = connections(&home, &workspace, &["--json"]).run().exits(0).json();
    let seen = &answer["workspaces"][0];
    assert_eq!((&answer["version"], &seen["user"]), (&1.into(), &workspace.client_id().into()));
    assert_eq!(seen["databases"].as_array().unwrap().len(), 4);
    assert_eq!(seen["databases"][2]["endpoint"], "projects/shop/branches/production/endpoints/primary");
    assert!(seen["error"].is_null());
}

#[test]
fn what_is_pasted_into_config_toml_rotates() {
    let (workspace, home) = (furnished(), Home::new());
    let toml = connections(&home, &workspace, &["--toml"]).run().exits(0).stdout.clone();
    home.write(".config/dbx-rotator/config.toml", &toml, 0o600);
    dbx_rotator!(home).args(["rotate"]).signed_in_to(&workspace).run().exits(0);
    assert_eq!(home.pgpass().lines().count(), 4, "{toml}");
}

/// A service sees nothing of the shell in which its configuration was made.
#[test]
fn what_is_pasted_into_config_toml_is_all_that_a_service_needs() {
    let (workspace, home) = (furnished(), Home::new());
    let file = ".config/dbx-rotator/config.toml";
    // The shell makes the file before the program starts.
    home.write(file, "", 0o600);
    let passfile = home.path("passwords").display().to_string();
    let toml = connections(&home, &workspace, &["--toml"]).env("PGPASSFILE", &passfile).run().exits(0).stdout.clone();
    home.write(file, &toml, 0o600);
    let as_service = |command: &str| dbx_rotator!(home).arg(command).trusting(&workspace).run();
    as_service("rotate").exits(78).stderr_has("client-secret");
    let line = toml
        .lines()
        .find_map(|line| line.strip_prefix("# put the client secret into its file before a service starts: "));
    let line = line.unwrap_or_else(|| panic!("{toml}"));
    home.command("sh").args(["-c", line]).signed_in_to(&workspace).run().exits(0);
    as_service("rotate").exits(0);
    assert_eq!(home.read("passwords").lines().count(), 4, "{toml}");
    assert!(!toml.contains(workspace.client_secret()) && toml.contains("SSL_CERT_FILE"), "{toml}");
    // A second list does not repeat what is there.
    let again = connections(&home, &workspace, &["--toml"]).env("PGPASSFILE", &passfile).run().exits(0).stdout.clone();
    assert!(!again.contains("[[workspace]]\n"), "{again}");
}

#[test]
fn long_lists_are_read_to_their_end() {
    let (workspace, home) = (Workspace::builder().page_size(3).start(), Home::new());
    for number in 0..10 {
        workspace.add_instance(Instance::named(&format!("orders-{number}")));
        workspace.add_project(Project::named(&format!("shop-{number}")));
    }
    let answer = connections(&home, &workspace, &["--json"]).run().exits(0).json();
    assert_eq!(answer["workspaces"][0]["databases"].as_array().unwrap().len(), 20);
}

#[test]
fn a_workspace_with_one_family_only_lists_that_one() {
    let (workspace, home) = (furnished(), Home::new());
    workspace.faults_on(Endpoint::PostgresProjects).always(Fault::plain(
        404,
        "ENDPOINT_NOT_FOUND",
        "No API found for x",
    ));
    let outcome = connections(&home, &workspace, &[]).run();
    outcome.exits(0).stdout_has("orders").stdout_lacks("shop");
}

#[test]
fn nothing_to_see_is_said_with_what_to_do() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let outcome = connections(&home, &workspace, &[]).run();
    outcome.exits(0).prints_nothing().stderr_has("sees no database").stderr_has("CAN USE");
}

#[test]
fn a_refusal_ends_as_that_of_a_rotation_does() {
    let (workspace, home) = (furnished(), Home::new());
    workspace.set_client(workspace.client_id(), "another-0000000000");
    connections(&home, &workspace, &[]).run().exits(77).prints_nothing().stderr_has("invalid_client");
    connections(&home, &workspace, &["--json", "--toml"]).run().exits(64);
}
