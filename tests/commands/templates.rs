//! Files that are made from templates of the user's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::os::unix::fs::MetadataExt;

use crate::support::{Home, Session, Workspace, dbx_rotator};

const TEMPLATE: &str = ".config/dbx-rotator/app.template";

/// `dbx-rotator ARGUMENTS` for one instance with these additional settings.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, more: &str, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).for_instance(workspace, more)
}

/// A `[[connection.file]]` from the template beside the configuration.
fn to(path: &str, more: &str) -> String {
    format!("[[connection.file]]\ntemplate = 'app.template'\npath = '{path}'\n{more}\n")
}

#[test]
fn a_file_has_what_its_template_says_at_each_rotation() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let template = "{{ host }} {{ port }} {{ database }} {{ user | pgbouncer }} {{ password | json }}\n{{ url }}\n{{ jdbc_url }}\n\
                    {{ expires_at }}\n";
    home.write(TEMPLATE, template, 0o644);
    home.write("own.template", "{{ password }}", 0o600);
    let files = to("~/run/app", "mode = '0640'") + "[[connection.file]]\ntemplate = '~/own.template'\npath = '~/own'\n";
    for _ in 0..2 {
        rotator(&home, &workspace, &files, &["rotate"]).run().exits(0);
        let (host, user) = (workspace.instance("orders").host.unwrap(), workspace.client_id());
        let password = home.password();
        let text = home.read("run/app");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("{host} 5432 databricks_postgres \"{user}\" \"{password}\""));
        let rest = format!("{host}:5432/databricks_postgres?");
        assert_eq!(lines[1], format!("postgresql://{user}:{password}@{rest}sslmode=require"));
        assert_eq!(lines[2], format!("jdbc:postgresql://{rest}user={user}&password={password}&sslmode=require"));
        assert!(lines[3].starts_with("20") && lines[3].ends_with('Z') && lines.len() == 4, "{text}");
        assert_eq!((home.mode("run/app"), home.mode("run"), home.mode("own")), (0o640, 0o700, 0o600));
        assert_eq!(home.read("own"), password);
    }
    let shown = rotator(&home, &workspace, &files, &["config", "show"]).run();
    shown.exits(0).stdout_has("file 1 of connection \"orders\"").stdout_has("0640").stdout_has("own.template");
    rotator(&home, &workspace, &files, &["check"])
        .run()
        .exits(0)
        .stdout_has("template: orders: the template can be used");
    crate::support::assert_no_secret(
        "the record",
        &home.read(".local/state/dbx-rotator/record.json"),
        &workspace.secrets(),
    );
}

#[test]
fn what_was_lost_or_changed_is_made_again_without_asking_anybody() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(TEMPLATE, "old {{ password }}\n", 0o600);
    let if_due = || rotator(&home, &workspace, &to("~/app", ""), &["rotate", "--if-due"]).run();
    rotator(&home, &workspace, &to("~/app", ""), &["rotate"]).run().exits(0);
    std::fs::remove_file(home.path("app")).unwrap();
    if_due().exits(0).stderr_has("the output files of");
    assert_eq!(home.read("app"), format!("old {}\n", home.password()));
    if_due().exits(0).stderr_lacks("the output files of");
    home.write(TEMPLATE, "new {{ password }}\n", 0o600);
    if_due().exits(0).stderr_has("the output files of");
    assert_eq!(home.read("app"), format!("new {}\n", home.password()));
    // With the record lost, it knows its own work by the template.
    std::fs::remove_file(home.path(".local/state/dbx-rotator/record.json")).unwrap();
    rotator(&home, &workspace, &to("~/app", ""), &["rotate"]).run().exits(0);
    assert_eq!(home.read("app"), format!("new {}\n", home.password()));
    assert_eq!(workspace.credentials_minted(), 2);
}

#[test]
fn what_somebody_else_wrote_stays() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(TEMPLATE, "\"ada\" {{ password | pgbouncer }}\n", 0o600);
    let rotate = || rotator(&home, &workspace, &to("~/users", ""), &["rotate"]).run();
    for theirs in ["\"carol\" \"hers\"\n", "\"ada\" \"her own\"\n"] {
        home.write("users", theirs, 0o600);
        rotate().exits(73).stderr_has("users").stderr_has("something else").stderr_lacks("hers");
        assert_eq!(home.read("users"), theirs);
    }
    home.write("users", "", 0o644);
    rotate().exits(0);
    assert_eq!(home.mode("users"), 0o600);
    let edited = home.read("users") + "\"carol\" \"hers\"\n";
    home.write("users", &edited, 0o600);
    rotate().exits(73).stderr_has("belongs into the template");
    assert_eq!(home.read("users"), edited);
    assert_eq!(home.pgpass().lines().count(), 1);
}

#[test]
fn a_template_that_cannot_be_used_costs_no_password_and_is_heard_of_until_it_can() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let file = to("~/app", "");
    let run = |arguments: &[&str]| rotator(&home, &workspace, &file, arguments).run();
    home.write(TEMPLATE, "\n{{ passwort }}\n", 0o600);
    let said = "app.template: line 2: there is no placeholder `passwort`";
    run(&["config", "check"]).exits(78).stderr_has(said).stderr_has("did you mean password?");
    run(&["rotate"]).exits(78).stderr_has(said).stderr_has("did you mean password?");
    assert_eq!(home.pgpass().lines().count(), 1, "the password is published all the same");
    run(&["check"]).exits(1).stdout_has("failed   template: orders: cannot use the template").stdout_has(said);
    run(&["status"]).exits(0).stdout_has("needs you").stdout_has(said);
    run(&["rotate", "--if-due"]).exits(78);
    home.write(TEMPLATE, "{{ password }}\n", 0o600);
    run(&["rotate", "--if-due"]).exits(0);
    run(&["status"]).exits(0).stdout_lacks("needs you");
    assert_eq!(home.read("app").trim_end(), home.password());
    // Put back as it was, there is nothing to write, and that is the end of it, too.
    home.write(TEMPLATE, "{{", 0o600);
    run(&["rotate", "--if-due"]).exits(78).stderr_has("line 1");
    home.write(TEMPLATE, "{{ password }}\n", 0o600);
    run(&["rotate", "--if-due"]).exits(0);
    run(&["status"]).exits(0).stdout_lacks("needs you");
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn faults_of_the_table_are_pointed_at() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let part = |text: &str| format!("[[connection.file]]\n{text}\n");
    for (more, says) in [
        (part("path = 'x'"), "lacks template"),
        (part("template = 'x'"), "lacks path"),
        (part("template = 'x'\npath = 'x'"), "are the same file"),
        (part("template = 'config.toml'\npath = 'config.toml'"), "are the same file"),
        (part("pth = 'x'"), "did you mean path?"),
        ("[connection.file]\npath = 'x'".to_owned(), "`file` must be a list of tables"),
        (to("x", "mode = 640"), "`mode` must be text in quotes"),
        (to("x", "mode = '640'\ngroup = 'no such'"), "is not the name or the number of a group"),
        (to("x", "mode = '0644'"), "everybody on this machine"),
        (to("x", "mode = '0700'"), "its owner could not read it"),
        (to("x", "mode = '0040'"), "its owner could not read it"),
        (to("x", "mode = 'rw'"), "is not a mode"),
        (to("x", "mode = '+640'"), "is not a mode"),
        (to("x", "") + &(0..16).map(|number| to(&format!("x{number}"), "")).collect::<String>(), "at most 16"),
    ] {
        let outcome = rotator(&home, &workspace, &more, &["config", "check"]).run();
        outcome.exits(78).stderr_has(says).stderr_has("^").stderr_has("config.toml:");
    }
    home.write(TEMPLATE, "{{ password }}\n", 0o600);
    let unknown = to("~/x", "group = 'no-such-group-here'");
    let outcome = rotator(&home, &workspace, &unknown, &["config", "check"]).run();
    outcome.exits(78).stderr_has("there is no group no-such-group-here");
}

#[test]
fn a_group_is_given_or_nothing_is_written() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(TEMPLATE, "{{ password }}\n", 0o600);
    let file = to("~/app", "mode = '0640'\ngroup = '4711'");
    let outcome = rotator(&home, &workspace, &file, &["rotate"]).run();
    if rustix::process::geteuid().is_root() {
        outcome.exits(0);
        assert_eq!((std::fs::metadata(home.path("app")).unwrap().gid(), home.mode("app")), (4711, 0o640));
    } else {
        outcome.exits(73).stderr_has("cannot be given to the group 4711").stderr_has("chmod g+s");
        assert!(!home.path("app").exists());
    }
    assert_eq!(home.pgpass().lines().count(), 1);
}

#[test]
fn the_program_that_is_told_finds_the_file_written() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(TEMPLATE, "{{ password }}\n", 0o600);
    home.write("bin/told", "#!/bin/sh\ncp ~/app ~/seen\n", 0o755);
    let more = format!("on_rotate = ['told']\n{}", to("~/app", ""));
    for _ in 0..2 {
        rotator(&home, &workspace, &more, &["rotate"]).run().exits(0);
        assert_eq!(home.read("seen").trim_end(), home.password());
    }
}

#[test]
fn the_examples_that_are_shipped_can_be_used() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for example in ["pgbouncer-userlist", "application.properties"] {
        let path = format!("{}/dist/examples/{example}.template", env!("CARGO_MANIFEST_DIR"));
        home.write(TEMPLATE, std::fs::read(path).unwrap(), 0o600);
        rotator(&home, &workspace, &to(&format!("~/{example}"), ""), &["rotate"]).run().exits(0);
        assert!(home.read(example).contains(&home.password()), "{example}");
    }
}
