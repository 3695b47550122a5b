//! What the program keeps besides the password file: token_file, env_file, on_rotate and libpq's service file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::{Home, Instance, Session, Workspace, dbx_rotator};

/// `dbx-rotator ARGUMENTS` for one instance with these additional settings.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, more: &str, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).for_instance(workspace, more)
}

#[test]
fn the_files_hold_what_the_password_file_holds() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let files = "token_file = '~/run/token'\nenv_file = '~/run/env'";
    for _ in 0..2 {
        rotator(&home, &workspace, files, &["rotate"]).run().exits(0);
        assert_eq!(home.read("run/token"), home.password());
        assert_eq!(home.read("run/env").trim_end(), format!("PGPASSWORD={}", home.password()));
        assert_eq!((home.mode("run/token"), home.mode("run/env"), home.mode("run")), (0o600, 0o600, 0o700));
    }
    assert_eq!(workspace.credentials_minted(), 2);
}

#[test]
fn a_file_that_was_lost_is_written_again_without_asking_anybody() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let files = "token_file = '~/token'\nservice_file = true";
    rotator(&home, &workspace, files, &["rotate"]).run().exits(0);
    let requests = workspace.requests().len();
    std::fs::remove_file(home.path("token")).unwrap();
    std::fs::remove_file(home.path(".pg_service.conf")).unwrap();
    rotator(&home, &workspace, files, &["rotate", "--if-due"]).run().exits(0).stderr_has("the output files of");
    assert_eq!(home.read("token"), home.password());
    assert!(home.read(".pg_service.conf").contains("[orders]"));
    std::fs::set_permissions(home.path("token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    rotator(&home, &workspace, files, &["rotate", "--if-due"]).run().exits(0);
    assert_eq!(home.mode("token"), 0o600);
    rotator(&home, &workspace, files, &["rotate", "--if-due"]).run().exits(0).stderr_lacks("the output files of");
    assert_eq!(workspace.requests().len(), requests);
}

#[test]
fn the_daemon_writes_again_what_was_lost() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.set_credential_life(Duration::from_secs(4));
    let running = rotator(&home, &workspace, "token_file = '~/token'", &["run"]).spawn();
    running.says("the output files of", Duration::from_secs(20));
    std::fs::remove_file(home.path("token")).unwrap();
    let removed = Instant::now();
    while !home.path("token").exists() {
        assert!(removed.elapsed() < Duration::from_secs(20), "it is not written again");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.terminate().exits(0);
    assert_eq!(home.read("token"), home.password());
}

#[test]
fn what_cannot_be_written_is_said_and_the_password_is_published_all_the_same() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write("a-file", "", 0o600);
    let files = "token_file = '~/a-file/token'";
    let outcome = rotator(&home, &workspace, files, &["rotate"]).run();
    outcome.exits(73).stderr_has("a-file/token");
    assert_eq!(home.pgpass().lines().count(), 1);
    rotator(&home, &workspace, files, &["status"]).run().exits(0).stdout_has("needs you").stdout_has("a-file/token");
    // Mended, it is written, and that is the end of it.
    std::fs::remove_file(home.path("a-file")).unwrap();
    rotator(&home, &workspace, files, &["rotate", "--if-due"]).run().exits(0);
    rotator(&home, &workspace, files, &["status"]).run().exits(0).stdout_lacks("needs you");
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn a_file_that_holds_something_else_is_not_overwritten() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write("notes", "my notes\n", 0o600);
    rotator(&home, &workspace, "token_file = '~/notes'", &["rotate"]).run().exits(73).stderr_has("notes");
    assert_eq!(home.read("notes"), "my notes\n");
}

#[test]
fn a_program_is_told_and_never_given_the_token() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write("bin/told", "#!/bin/sh\necho \"$@\" > ~/argv; env > ~/environment\n", 0o755);
    let more = "token_file = '~/token'\non_rotate = ['told', 'one two', '$HOME']";
    rotator(&home, &workspace, more, &["rotate"]).env("PGPASSWORD", "x").run().exits(0);
    assert_eq!(home.read("argv"), "one two $HOME\n");
    let environment = home.read("environment");
    crate::support::assert_no_secret("the program's environment", &environment, &workspace.secrets());
    let has = |line: String| assert!(environment.lines().any(|other| other == line), "{line}\n{environment}");
    has("DBX_ROTATOR_CONNECTION=orders".to_owned());
    has(format!("DBX_ROTATOR_TOKEN_FILE={}", home.path("token").display()));
    has(format!("PGHOST={}", workspace.instance("orders").host.unwrap()));
    has(format!("PGUSER={}", workspace.client_id()));
    assert!(environment.contains("DBX_ROTATOR_EXPIRES_AT=20"));
    assert!(!environment.contains("PGPASSWORD=") && !environment.contains("DATABRICKS_CLIENT_SECRET"));
    // Nothing was rotated, so nobody is told.
    std::fs::remove_file(home.path("argv")).unwrap();
    rotator(&home, &workspace, more, &["rotate", "--if-due"]).run().exits(0);
    assert!(!home.files().iter().any(|file| file.ends_with("argv")));
}

#[test]
fn a_program_that_fails_is_reported_and_blocks_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write("bin/told", "#!/bin/sh\necho the pool is gone >&2; exit 3\n", 0o755);
    let told = "on_rotate = ['told']";
    let outcome = rotator(&home, &workspace, told, &["rotate"]).run();
    outcome.exits(0).stderr_has("orders is rotated, but on_rotate failed").stderr_has("the pool is gone");
    assert_eq!(home.pgpass().lines().count(), 1);
    rotator(&home, &workspace, told, &["status"])
        .run()
        .exits(0)
        .stdout_has("on_rotate failed")
        .stdout_has("the pool is gone");
    let check = |more| rotator(&home, &workspace, more, &["check"]).run();
    check(told).exits(0).stdout_has("warning  on-rotate: orders: on_rotate failed").stdout_has("the pool is gone");
    check(told).stdout_has("`dbx-rotator rotate` runs it again");
    // A program that is not named any more is nobody's business.
    check("").exits(0).stdout_lacks("on-rotate");
    rotator(&home, &workspace, "", &["status"]).run().exits(0).stdout_lacks("on_rotate");
    home.write("bin/told", "#!/bin/sh\n", 0o755);
    rotator(&home, &workspace, told, &["rotate"]).run().exits(0).stderr_lacks("on_rotate");
    check(told).exits(0).stdout_lacks("on-rotate");
    rotator(&home, &workspace, told, &["status"]).run().exits(0).stdout_lacks("on_rotate");
    rotator(&home, &workspace, "on_rotate = ['no-such']", &["rotate"]).run().exits(0).stderr_has("no-such");
}

/// Rotates, and counts the runs of a hook that itself starts `command`.
fn rotating_program(command: &str) -> (Home, crate::support::Outcome, usize) {
    let (workspace, home) = (Workspace::start(), Home::new());
    let program = env!("CARGO_BIN_EXE_dbx-rotator");
    let script = format!(
        "#!/bin/sh\necho run >> ~/runs\n[ $(wc -l < ~/runs) -lt 5 ] || exit 1\n\
         export DATABRICKS_CLIENT_SECRET='{}' DATABRICKS_CLIENT_ID='{}' DATABRICKS_HOST='{}'\n{}\n",
        workspace.client_secret(),
        workspace.client_id(),
        workspace.url(),
        command.replace("ROTATOR", program)
    );
    home.write("bin/told", script, 0o755);
    let outcome = rotator(&home, &workspace, "on_rotate = ['told']", &["rotate"]).run();
    let runs = home.read("runs").lines().count();
    (home, outcome, runs)
}

#[test]
fn a_program_that_rotates_does_not_start_itself_again() {
    for command in [
        "ROTATOR rotate 2> ~/inner",
        "sh -c 'ROTATOR rotate 2> ~/inner; true'",
        "ROTATOR rotate --json 2> ~/inner > ~/answer",
        "env -u DBX_ROTATOR_HOOK ROTATOR rotate 2> ~/inner",
        "env -i HOME=\"$HOME\" SSL_CERT_FILE=\"$SSL_CERT_FILE\" DATABRICKS_HOST=\"$DATABRICKS_HOST\" \
         DATABRICKS_CLIENT_ID=\"$DATABRICKS_CLIENT_ID\" DATABRICKS_CLIENT_SECRET=\"$DATABRICKS_CLIENT_SECRET\" \
         sh -c 'ROTATOR rotate 2> ~/inner; true'",
    ] {
        let (home, outcome, runs) = rotating_program(command);
        outcome.exits(0);
        assert_eq!(runs, 1, "{command}\n{outcome}");
        let inner = home.read("inner");
        assert!(inner.contains("on_rotate is not run for orders"), "{inner}");
        assert!(inner.contains("Successfully"), "it did rotate: {inner}");
    }
}

#[test]
fn a_service_that_such_a_program_starts_finds_nothing_due_and_so_tells_nobody() {
    // A service manager does not pass on the variable.
    let (home, outcome, runs) = rotating_program("env -u DBX_ROTATOR_HOOK ROTATOR rotate --if-due > ~/inner 2>&1");
    outcome.exits(0);
    assert_eq!((runs, home.read("inner").as_str()), (1, ""), "{outcome}");
}

#[test]
fn an_instance_has_a_service_by_itself_and_foreign_sections_stay() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let foreign = "# mine\n[other]\nhost=other.example\nport=1\n";
    home.write(".pg_service.conf", foreign, 0o640);
    rotator(&home, &workspace, "", &["rotate"]).run().exits(0);
    let text = home.read(".pg_service.conf");
    assert!(text.starts_with(foreign), "{text}");
    let host = workspace.instance("orders").host.unwrap();
    for line in ["[orders]", &format!("host={host}"), "port=5432", "dbname=databricks_postgres", "sslmode=require"] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(!text.contains("\npassfile=") && home.mode(".pg_service.conf") == 0o640);
    // The section follows its database.
    workspace.remove_instance("orders");
    workspace.add_instance(Instance::named("orders"));
    rotator(&home, &workspace, "sslmode = 'verify-full'", &["rotate"]).run().exits(0);
    let text = home.read(".pg_service.conf");
    assert!(text.contains(&workspace.instance("orders").host.unwrap()) && !text.contains(&host), "{text}");
    let root = format!("\nsslrootcert={}\n", workspace.ca_file().display());
    assert!(
        text.contains("\nsslmode=verify-full\n") && text.contains(&root),
        "older clients read `system` as a file\n{text}"
    );
}

#[test]
fn a_section_of_that_name_that_is_not_ours_is_left_alone_and_said() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let theirs = "# mine\n\n[orders]\nhost=theirs.example\n";
    let path = home.write(".pg_service.conf", theirs, 0o600);
    let said = format!("line 3 of {}: the section [orders] is not dbx-rotator's and was left as it is", path.display());
    let rotate = |settings: &str| rotator(&home, &workspace, settings, &["rotate"]).run();
    rotate("").exits(0).stderr_has(&said).stderr_has("remove or rename that section");
    assert_eq!(home.read(".pg_service.conf"), theirs);
    rotate("").exits(0).stderr_lacks(&said);
    rotate("service_file = true").exits(0).stderr_lacks(&said);
    assert_eq!(home.read(".pg_service.conf"), theirs);
    let check = |settings: &str| rotator(&home, &workspace, settings, &["check"]).run();
    check("").exits(0).stdout_has(&said);
    check("service_file = true").exits(1).stdout_has(&said);
    let answer = rotator(&home, &workspace, "", &["check", "--json"]).run().exits(0).json();
    assert!(answer["service_file"][0].as_str().unwrap().starts_with(&said), "{answer}");
    check("service_file = false").exits(0).stdout_lacks(&said);
    // A section that reappears is reported again.
    home.write(".pg_service.conf", "", 0o600);
    rotate("").exits(0).stderr_lacks(&said);
    assert!(home.read(".pg_service.conf").contains("host="));
    home.write(".pg_service.conf", theirs, 0o600);
    rotate("").exits(0).stderr_has(&said);
}

#[test]
fn check_finds_a_service_file_that_leads_nobody_anywhere() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let run = |more: &str, words: &[&str]| rotator(&home, &workspace, more, words).run();
    run("", &["rotate"]).exits(0);
    let (path, good) = (home.path(".pg_service.conf"), home.read(".pg_service.conf"));
    let shown = path.display();
    let spoilt: [(&dyn Fn(), &str); 6] = [
        (&|| (), " has no section [orders]"),
        (
            &|| drop(home.write(".pg_service.conf", good.replace("host=", "host=x"), 0o600)),
            ": the section [orders] differs from what dbx-rotator writes there",
        ),
        (&|| std::fs::create_dir(&path).unwrap(), " is a directory, not a regular file"),
        (&|| make_pipe(&path), " is a named pipe, not a regular file"),
        (&|| std::os::unix::fs::symlink(&path, &path).unwrap(), " is a symbolic link that leads nowhere"),
        (&|| std::fs::File::create(&path).unwrap().set_len(17 << 20).unwrap(), " has more than 16 MiB"),
    ];
    for (spoil, why) in spoilt {
        remove(&path);
        spoil();
        let said = format!("{shown}{why}");
        for (more, code, level) in [("", 0, "warning  "), ("service_file = true", 1, "failed   ")] {
            let checked = run(more, &["check"]);
            checked.exits(code).stdout_has(&format!("{level}service-file: service file: ")).stdout_has(&said);
            checked.stdout_has("         hint: ");
        }
        run("service_file = false", &["check"]).exits(0).stdout_lacks("service-file");
    }
    remove(&path);
    run("", &["rotate"]).exits(0);
    run("service_file = true", &["check"]).exits(0).stdout_lacks("service-file");
    assert_eq!(home.read(".pg_service.conf"), good);
}

/// Whatever it is, if it is there.
fn remove(path: &std::path::Path) {
    let _ = std::fs::remove_dir(path).or_else(|_| std::fs::remove_file(path));
    assert!(path.symlink_metadata().is_err(), "{}", path.display());
}

fn make_pipe(path: &std::path::Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn check_finds_a_file_beside_that_keeps_its_readers_from_the_live_password() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(".config/dbx-rotator/t", "{{ password }}\n", 0o600);
    let more = "token_file = '~/token'\nenv_file = '~/env'\n\
                [[connection.file]]\ntemplate = 't'\npath = '~/made'\nmode = '0640'\n";
    let run = |words: &[&str]| rotator(&home, &workspace, more, words).run();
    run(&["rotate"]).exits(0);
    let set_mode = |name: &str, mode| {
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, what) in [("token", "token file"), ("env", "environment file"), ("made", "file")] {
        let said = format!("file: orders: the {what} {}", home.path(name).display());
        let is_found = |why: &str| {
            let checked = run(&["check"]);
            checked.exits(1).stdout_has(&format!("failed   {said} {why}")).stdout_lacks(&home.password());
        };
        run(&["check"]).exits(0).stdout_has(&format!("ok       {said} holds the live password"));
        std::fs::remove_file(home.path(name)).unwrap();
        is_found("does not exist");
        home.write(name, "", 0o600);
        is_found("does not hold the live password");
        std::fs::remove_file(home.path(name)).unwrap();
        std::fs::create_dir(home.path(name)).unwrap();
        is_found("is a directory");
        std::fs::remove_dir(home.path(name)).unwrap();
        run(&["rotate", "--if-due"]).exits(0);
    }
    assert_eq!(workspace.credentials_minted(), 1, "no new credential was needed");
    // Whom it is for cannot read it; and what is too open is mended by a rotation, not by a look.
    set_mode("made", 0o600);
    run(&["check"]).exits(1).stdout_has("has another mode or group than the settings say");
    set_mode("made", 0o640);
    set_mode("token", 0o644);
    run(&["check"]).exits(0);
    assert_eq!(home.mode("token"), 0o644);
}

#[test]
fn a_service_is_not_made_where_that_is_not_wanted_or_for_a_plain_host() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, "service_file = false", &["rotate"]).run().exits(0);
    let plain = "[[connection]]\nname = 'plain'\nhost = 'db.example'\n";
    home.write(".config/dbx-rotator/config.toml", plain, 0o600);
    dbx_rotator!(home).args(["rotate"]).signed_in_to(&workspace).run().exits(0);
    assert!(!home.files().iter().any(|file| file.ends_with(".pg_service.conf")));
    home.write(".config/dbx-rotator/config.toml", format!("{plain}service_file = true\n"), 0o600);
    let elsewhere = home.path("services");
    let session = dbx_rotator!(home).args(["rotate", "--if-due", "--pgpass-file"]).arg(home.path("passes"));
    session.signed_in_to(&workspace).env("PGSERVICEFILE", &elsewhere).run().exits(0);
    let text = home.read("services");
    assert!(
        text.contains("[plain]") && text.contains(&format!("passfile={}\n", home.path("passes").display())),
        "{text}"
    );
}

#[test]
fn faults_of_these_settings_are_pointed_at() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for (more, says) in [
        ("on_rotate = []", "on_rotate names no program"),
        ("token_file = 'a'\nenv_file = 'a'", "are the same file"),
        ("endpoint = 'projects/a/branches/b/endpoints/c'", "not by both"),
        ("credential = 'password'", "`password` is not a kind of credential"),
        ("sslmode = 'prefer'", "`prefer` is not a way to speak TLS"),
    ] {
        let outcome = rotator(&home, &workspace, more, &["config", "check"]).run();
        outcome.exits(78).stderr_has(says).stderr_has("^");
    }
    for (table, says) in [
        ("endpoint = 'shop'", "is not the name of an endpoint"),
        ("instance = 'a b'", "is not the name of an instance"),
        ("host = 'db.example'\nread_only = true", "the read-only host can be found only"),
        ("host = 'db.example'\ncredential = 'database-credential'", "none is known"),
    ] {
        home.write(".config/dbx-rotator/config.toml", format!("[[connection]]\n{table}\n"), 0o600);
        let outcome = dbx_rotator!(home).args(["config", "check"]).signed_in_to(&workspace).run();
        outcome.exits(78).stderr_has(says);
    }
}
