//! What is generated for other programs: foreign names never become settings, lines or cells of their own.

use crate::support::{Home, Instance, Session, Workspace, dbx_rotator};

fn connections<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).arg("connections").args(arguments).signed_in_to(workspace)
}

/// A workspace with names that would become settings in the pasted configuration, one of which runs a program.
fn hostile() -> Workspace {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let program = "on_rotate = [\"/bin/sh\", \"-c\", \"touch ~/was-here\"]";
    for name in [format!("a\"\n{program}\n#"), format!("b'''\n{program}\n"), format!("c\n[[connection]]\n{program}\n")]
    {
        workspace.add_instance(Instance::named(&name));
    }
    workspace.add_instance(Instance::named("d").read_only_host(&format!("h.example\n{program}")));
    workspace.add_instance(Instance::named("e\u{1b}[2J\u{1b}]0;owned\u{7}"));
    workspace
}

#[test]
fn a_name_never_becomes_a_setting_of_the_configuration_that_is_pasted() {
    let (workspace, home) = (hostile(), Home::new());
    let outcome = connections(&home, &workspace, &["--toml"]).run();
    outcome.exits(69).stderr_has("left out a\"\\non_rotate").stderr_has("left out d:");
    assert!(!outcome.stdout.contains("on_rotate"), "{outcome}");
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
    home.write(".config/dbx-rotator/config.toml", &outcome.stdout, 0o600);
    dbx_rotator!(home).args(["rotate"]).signed_in_to(&workspace).run().exits(0);
    assert_eq!(home.pgpass().lines().count(), 1, "{outcome}");
    assert!(!home.files().iter().any(|file| file.ends_with("was-here")));
}

#[test]
fn a_table_of_them_has_one_line_for_each() {
    let (workspace, home) = (hostile(), Home::new());
    let outcome = connections(&home, &workspace, &[]).run();
    outcome.exits(0);
    assert_eq!(outcome.stdout.lines().count(), 7, "{outcome}");
    assert!(!outcome.stdout.chars().any(|c| c.is_control() && c != '\n'), "{outcome}");
    let answer = connections(&home, &workspace, &["--json"]).run().exits(0).json();
    assert_eq!(answer["workspaces"][0]["databases"].as_array().unwrap().len(), 6);
}

#[test]
fn a_configured_name_is_one_label_and_one_cell() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let name = r#"a\"} 1 dbx_rotator_credential_live{connection=\"b\u202e\u2028c"#;
    let table = format!("[[connection]]\nname = \"{name}\"\nhost = \"db.example\"\n");
    home.write(".config/dbx-rotator/config.toml", table, 0o600);
    let run = |arguments: &[&str]| dbx_rotator!(home).args(arguments).signed_in_to(&workspace).run();
    let shown = run(&["config", "show"]);
    shown.exits(0);
    assert!(shown.stdout.contains(r"b\u202e\u2028c"), "{shown}");
    let metrics = run(&["status", "--prometheus"]);
    let live = metrics.stdout.lines().filter(|line| line.starts_with("dbx_rotator_credential_live{"));
    let label = r#"{connection="a\"} 1 dbx_rotator_credential_live{connection=\"b\\u202e\\u2028c"} "#;
    let live: Vec<&str> = live.collect();
    assert!(live.len() == 1 && live[0].contains(label), "{metrics}");
}
