//! Several password files: all hold the same credential, and what happens to one of them keeps it from none of the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;
use std::time::Duration;

use crate::support::{Home, Outcome, Session, Workspace, dbx_rotator};

const HOST: &str = "ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com";
const CONFIG: &str = ".config/dbx-rotator/config.toml";
/// Where snap and flatpak clients have their home.
const FILES: [&str; 3] = [".pgpass", "snap/dbeaver-ce/current/.pgpass", ".var/app/org.pgadmin/.pgpass"];

/// A home with all the directories, and a configuration with these lines before its tables.
fn home(head: &str) -> Home {
    let home = Home::new();
    for file in FILES {
        fs::create_dir_all(home.path(file).parent().unwrap()).unwrap();
    }
    home.write(CONFIG, format!("{head}\n[[connection]]\nname = \"orders\"\nhost = \"{HOST}\"\n"), 0o600);
    home
}

fn with_all() -> Home {
    home(&format!("password_file = [\"~/{}\", \"~/{}\", \"~/{}\"]", FILES[0], FILES[1], FILES[2]))
}

fn rotator<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).signed_in_to(workspace)
}

fn if_due(home: &Home, workspace: &Workspace) -> Outcome {
    rotator(home, workspace, &["rotate", "--if-due", "--retry-for", "0s"]).run()
}

/// What each of the files holds; nothing of one that is not there.
fn contents(home: &Home) -> Vec<String> {
    FILES.iter().map(|file| fs::read_to_string(home.path(file)).unwrap_or_default()).collect()
}

#[track_caller]
fn all_hold(home: &Home, entry: &str) {
    assert_eq!(contents(home), [entry; 3]);
}

/// The status as JSON and its exit code.
fn status(home: &Home, workspace: &Workspace, exit: i32) -> serde_json::Value {
    rotator(home, workspace, &["status", "--json"]).run().exits(exit).json()
}

#[test]
fn one_sign_in_fills_all_password_files() {
    let (workspace, home) = (Workspace::start(), with_all());
    let outcome = rotator(&home, &workspace, &["rotate"]).run();
    outcome.exits(0).prints_nothing();
    let entry = home.pgpass();
    assert!(entry.starts_with(&format!("{HOST}:5432:databricks_postgres:{}:eyJ", workspace.client_id())), "{outcome}");
    all_hold(&home, &entry);
    assert_eq!(workspace.token_requests(), 1);
    for file in FILES {
        outcome.stderr_has(&format!("Successfully updated {}", home.path(file).display()));
        assert_eq!(home.mode(file), 0o600, "{file}");
    }
    let connection = status(&home, &workspace, 0)["connections"][0].take();
    assert_eq!(connection["password_file"], home.path(FILES[0]).to_str().unwrap());
    let shown: Vec<&str> =
        connection["password_files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(shown, FILES.map(|file| home.path(file).display().to_string()));
}

#[test]
fn what_one_file_has_lost_it_gets_again_without_a_sign_in() {
    let (workspace, home) = (Workspace::start(), with_all());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let entry = home.pgpass();
    let user = workspace.client_id();
    let longer = workspace.issue(user, Duration::from_secs(9 * 3600));
    let spoilt = [
        ("gone", None),
        ("empty", Some((String::new(), 0o600))),
        ("by hand", Some((format!("{HOST}:5432:databricks_postgres:{user}:by-hand\n"), 0o600))),
        ("shadowed", Some((format!("*:*:*:*:everything\n{entry}"), 0o600))),
        ("too open", Some((entry.clone(), 0o644))),
        // It claims to live longer than what was published, and nobody knows who wrote it.
        ("another token", Some((format!("{HOST}:5432:databricks_postgres:{user}:{longer}\n"), 0o600))),
    ];
    for file in FILES {
        for (what, now) in &spoilt {
            match now {
                None => fs::remove_file(home.path(file)).unwrap(),
                Some((text, mode)) => drop(home.write(file, text, *mode)),
            }
            let path = home.path(file).display().to_string();
            let clients_can = *what == "another token";
            rotator(&home, &workspace, &["status"]).run().exits(i32::from(!clients_can)).stdout_has(&path);
            rotator(&home, &workspace, &["check"])
                .run()
                .exits(1)
                .stdout_has(&format!("orders: {path} lacks its credential"));
            rotator(&home, &workspace, &["rotate", "--if-due", "--dry-run"]).run().exits(0).stdout_has(&path);
            let outcome = if_due(&home, &workspace);
            outcome.exits(0).stderr_has(&path).stderr_has("What was missing in the password file was written again");
            for other in FILES.iter().filter(|other| **other != file) {
                outcome.stderr_lacks(&format!("updated {}\n", home.path(other).display()));
            }
            let expected = if *what == "shadowed" { format!("{entry}*:*:*:*:everything\n") } else { entry.clone() };
            assert_eq!(home.read(file), expected, "{what} in {file}\n{outcome}");
            assert_eq!(home.mode(file), 0o600);
            home.write(file, &entry, 0o600);
            if_due(&home, &workspace).exits(0).stderr_lacks("updated");
            status(&home, &workspace, 0);
        }
    }
    assert_eq!(workspace.token_requests(), 1);
    assert_eq!(workspace.connections(), 1, "nobody was asked");
}

#[test]
fn one_that_cannot_be_written_is_a_failure_and_keeps_nothing_from_the_others() {
    let workspace = Workspace::start();
    for (place, bad) in FILES.iter().enumerate() {
        for how in ["no directory", "a directory"] {
            let home = with_all();
            match how {
                "no directory" => {
                    let list =
                        FILES.map(
                            |file| if file == *bad { format!("\"~/absent/{place}\"") } else { format!("\"~/{file}\"") },
                        );
                    let text = format!(
                        "password_file = [{}]\n[[connection]]\nname = \"orders\"\nhost = \"{HOST}\"\n",
                        list.join(", ")
                    );
                    home.write(CONFIG, text, 0o600);
                }
                _ => fs::create_dir(home.path(bad)).unwrap(),
            }
            let path = if how == "a directory" { home.path(bad) } else { home.path(format!("absent/{place}")) };
            let path = path.display().to_string();
            let before = workspace.token_requests();
            let outcome = rotator(&home, &workspace, &["rotate", "--json"]).run();
            outcome.exits(73).stderr_has(&path);
            assert_eq!(outcome.json()["connections"][0]["error"]["code"], "cannot-write", "{outcome}");
            assert_eq!(outcome.stderr.matches(" - ERROR - ").count(), 1, "said once\n{outcome}");
            let good: Vec<String> = contents(&home).into_iter().filter(|text| !text.is_empty()).collect();
            assert!(good.len() == 2 && good[0] == good[1] && good[0].contains(":eyJ"), "{bad}: {how}\n{outcome}");
            rotator(&home, &workspace, &["status"]).run().exits(1).stdout_has(&path);
            // It is tried again, and nobody is asked for a credential.
            if_due(&home, &workspace).exits(73);
            assert_eq!(workspace.token_requests(), before + 1);
            match how {
                "no directory" => fs::create_dir(home.path("absent")).unwrap(),
                _ => fs::remove_dir(home.path(bad)).unwrap(),
            }
            if_due(&home, &workspace).exits(0).stderr_has(&format!("Successfully updated {path}"));
            assert_eq!(fs::read_to_string(&path).unwrap(), good[0]);
            rotator(&home, &workspace, &["status"]).run().exits(0).stdout_lacks("last try failed");
            assert_eq!(workspace.token_requests(), before + 1);
        }
    }
}

#[test]
fn where_none_can_be_written_the_rotation_has_failed() {
    let (workspace, home) = (Workspace::start(), with_all());
    FILES.iter().for_each(|file| fs::create_dir(home.path(file)).unwrap());
    rotator(&home, &workspace, &["rotate"]).run().exits(73).stderr_has(home.path(FILES[0]).to_str().unwrap());
    assert_eq!(workspace.token_requests(), 0);
}

#[test]
fn a_newer_credential_that_a_killed_process_left_in_one_file_is_not_replaced_by_the_older_one() {
    let (workspace, home) = (Workspace::start(), with_all());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let old = home.pgpass();
    // Killed after the first file: the others have the old one, and so has the record, which knows what was coming.
    let record = ".local/state/dbx-rotator/record.json";
    let mut before: serde_json::Value = serde_json::from_str(&home.read(record)).unwrap();
    workspace.set_token_life(Duration::from_secs(2 * 3600));
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let (new, after) = (home.pgpass(), serde_json::from_str::<serde_json::Value>(&home.read(record)).unwrap());
    let coming = after["connections"].as_object().unwrap().values().next().unwrap()["published"]["fingerprint"].clone();
    before["connections"].as_object_mut().unwrap().values_mut().next().unwrap()["coming"] = coming;
    home.write(record, before.to_string(), 0o600);
    for file in &FILES[1..] {
        home.write(file, &old, 0o600);
    }
    workspace.outage_begins();
    if_due(&home, &workspace).exits(0);
    all_hold(&home, &new);
}

#[test]
fn a_daemon_fills_the_file_that_was_in_its_way_once_it_is_not() {
    let (workspace, home) = (Workspace::start(), with_all());
    fs::create_dir(home.path(FILES[1])).unwrap();
    let daemon = rotator(&home, &workspace, &["run"]).spawn();
    let (path, limit) = (home.path(FILES[1]).display().to_string(), Duration::from_secs(30));
    daemon.says(&format!("{path} is a directory"), limit);
    daemon.says(&format!("Successfully updated {}", home.path(FILES[2]).display()), limit);
    fs::remove_dir(&path).unwrap();
    daemon.says(&format!("Successfully updated {path}"), limit);
    daemon.terminate().exits(0);
    all_hold(&home, &home.pgpass());
    assert_eq!(workspace.token_requests(), 1);
}

#[test]
fn flags_and_the_variable_name_password_files_as_the_list_does() {
    let workspace = Workspace::start();
    let [first, second, third] = FILES;
    let list = format!("password_file = [\"~/{first}\", \"~/{second}\"]");
    // The list of the file, flags, PGPASSFILE, and which are filled.
    for (list, flags, variable, filled) in [
        (list.as_str(), &[][..], None, &[first, second][..]),
        (&list, &[third], None, &[third]),
        (&list, &[third, first], None, &[first, third]),
        (&list, &[third], Some(second), &[third]),
        ("", &[first, second], None, &[first, second]),
        ("", &[], Some(third), &[third]),
        (&list, &[], Some(third), &[third]),
        // What libpq reads in this shell is one of them.
        (&list, &[], Some(second), &[first, second]),
    ] {
        let home = home(list);
        let mut session = rotator(&home, &workspace, &["rotate"]);
        for flag in flags {
            session = session.arg("--pgpass-file").arg(home.path(flag));
        }
        if let Some(variable) = variable {
            session = session.env("PGPASSFILE", home.path(variable));
        }
        let outcome = session.run();
        outcome.exits(0);
        let found: Vec<&str> = FILES.into_iter().filter(|file| home.path(file).exists()).collect();
        assert_eq!(found, filled, "{list} {flags:?} {variable:?}\n{outcome}");
        let is_told = list == list.trim() && variable == Some(third) && !list.is_empty();
        assert_eq!(outcome.stderr.contains("are ignored"), is_told, "{outcome}");
    }
}

#[test]
fn a_list_of_password_files_that_cannot_be_meant_is_refused() {
    let many = format!("password_file = [{}]", (0..17).map(|n| format!("'/p{n}'")).collect::<Vec<_>>().join(", "));
    for (head, said) in [
        ("password_file = []", "empty list"),
        ("password_file = ['~/.pgpass', '~/./.pgpass']", "are the same file"),
        ("password_file = ['~/.pgpass', '~/.pgpass/below']", "lies below"),
        ("log_file = '~/x'\npassword_file = ['~/.pgpass', '~/x']", "are the same file"),
        ("password_file = ['~/.pgpass', 7]", "1 | password_file = ['~/.pgpass', 7]"),
        ("password_file = 7", "a path, or a list of paths"),
        (&many, "at most 16"),
    ] {
        let (workspace, home) = (Workspace::start(), home(head));
        let outcome = rotator(&home, &workspace, &["config", "check"]).run();
        outcome.exits(78).stderr_has(said).stderr_has("config.toml:");
    }
}

#[test]
fn programs_are_told_of_the_first_password_file() {
    let (workspace, home) = (Workspace::start(), with_all());
    let told = home.path("told");
    let text = format!(
        "password_file = [\"~/{}\", \"~/{}\"]\n[[connection]]\nname = \"orders\"\nhost = \"{HOST}\"\nservice_file = true\n\
         on_rotate = [\"/bin/sh\", \"-c\", \"echo $PGPASSFILE > {}\"]\n",
        FILES[1],
        FILES[0],
        told.display()
    );
    home.write(CONFIG, text, 0o600);
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let first = home.path(FILES[1]).display().to_string();
    assert_eq!(home.read("told").trim(), first);
    assert!(home.read(".pg_service.conf").contains(&format!("passfile={first}\n")));
}
