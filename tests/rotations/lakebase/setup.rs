//! `dbx-rotator setup`: from nothing to a psql that logs in, by a few answers or none.

use std::time::Duration;

use super::proof::{orders, psql};
use crate::support::person;
use crate::support::workspace::DEFAULT_USER;
use crate::support::{Home, Instance, Postgres, Session, Workspace, dbx_rotator};

const SOON: Duration = Duration::from_secs(30);
const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// At a terminal, with these lines typed.
fn typed<'a>(home: &'a Home, words: &str, answers: &str) -> Session<'a> {
    let line = format!("{} {words}", env!("CARGO_BIN_EXE_dbx-rotator"));
    home.command("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(answers)
}

/// The workspace in two profiles: one with a client, one without.
fn write_profiles(home: &Home, workspace: &Workspace) {
    home.keep_secret(workspace.client_secret());
    let (host, id, secret) = (workspace.url(), workspace.client_id(), workspace.client_secret());
    let text = format!(
        "[person]\nhost = https://nobody.example\n[prod]\nhost = {host}\nclient_id = {id}\nclient_secret = {secret}\n"
    );
    home.write(".databrickscfg", text, 0o600);
}

fn reachable<'a>(session: Session<'a>, workspace: &Workspace, server: &Postgres, host: &str) -> Session<'a> {
    session.trusting(workspace).resolving(host, server.address())
}

#[test]
fn answers_lead_from_nothing_to_a_login() {
    let Some((workspace, server, host)) = orders("answers_lead_from_nothing_to_a_login", &[]) else { return };
    workspace.add_instance(Instance::named("archive").stopped());
    let home = Home::new();
    write_profiles(&home, &workspace);
    // A slip of the finger is asked about again.
    let session = typed(&home, "setup", "prodd\nprod\n9\norders\n\n");
    let done = reachable(session, &workspace, &server, &host).run();
    done.exits(0);
    for shown in [
        "there is no profile `prodd`",
        "https://nobody.example",
        "Signed in to",
        "archive",
        "there is no `9`",
        "Write ",
        "psql service=orders",
        "Logging in. A database that is asleep may need a minute.",
        "login: orders: logged in to",
    ] {
        done.stdout_has(shown);
    }
    assert!(done.stdout.lines().any(|line| line == "    psql service=orders"), "{done}");
    let config = home.read(CONFIG);
    assert!(config.contains("profile = \"prod\"") && config.contains("instance = \"orders\""), "{config}");
    assert!(!config.contains("archive") && !config.contains(workspace.client_secret()), "{config}");
    psql(&home, &server, &host).run().exits(0);
    // Once more there is nothing to ask.
    let again = reachable(dbx_rotator!(&home).args(["setup", "--yes"]), &workspace, &server, &host).run();
    again.exits(0).stdout_has("exists already and is used as it is").stdout_has("psql service=orders");
    again.stderr_lacks("changes nothing");
    assert_eq!(home.read(CONFIG), config);
    let other = dbx_rotator!(&home).args(["setup", "--yes", "--database", "archive"]);
    let other = reachable(other, &workspace, &server, &host).run();
    other.exits(0).stderr_has("--database changes nothing in it");
    assert_eq!(home.read(CONFIG), config);
}

#[test]
fn without_a_person_the_options_and_the_environment_answer() {
    let Some((workspace, server, host)) = orders("without_a_person_the_options_and_the_environment_answer", &[]) else {
        return;
    };
    let home = Home::new();
    let setup = |words: &[&str]| {
        let session = dbx_rotator!(&home).arg("setup").args(words).signed_in_to(&workspace);
        session.resolving(&host, server.address()).run()
    };
    setup(&[]).exits(64).stderr_has("nobody is there to answer").stderr_has("--yes");
    setup(&["--yes", "--database", "nothing"]).exits(64).stderr_has("there is no `nothing`").stderr_has("orders");
    assert!(!home.path(CONFIG).exists());
    setup(&["--yes", "--database", "orders", "--no-service"]).exits(0).stdout_has("psql service=orders");
    // It is whole: a service that sees none of these variables can work with it, and the secret has a file of its own.
    let config = home.read(CONFIG);
    assert!(!config.contains(workspace.client_secret()), "{config}");
    let (url, id) = (workspace.url(), workspace.client_id());
    let wanted = format!(
        "# What dbx-rotator keeps alive. `dbx-rotator config show` says what is in effect, and why.\n\
         # All settings: man dbx-rotator.toml\n\n\
         [[connection]]\nname = \"orders\"\ninstance = \"orders\"\n# available, {host}\n\n\
         [[workspace]]\nhost = \"{url}\"\nclient_id = \"{id}\"\nclient_secret_file = \"client-secret\"\n"
    );
    assert_eq!(config, wanted);
    assert_eq!(home.mode(".config/dbx-rotator/client-secret"), 0o600);
    dbx_rotator!(&home).args(["rotate"]).trusting(&workspace).run().exits(0);
    psql(&home, &server, &host).run().exits(0);
}

#[test]
fn a_line_for_a_shell_is_a_connection_and_no_command_whatever_the_names_are() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let (database, user) = (r#"my "; touch broken-in; " db"#, r"it's \ `touch broken-in`");
    let setup =
        dbx_rotator!(&home).args(["setup", "--yes", "--no-service", "--pg-host", "127.0.0.1", "--pg-port", "9"]);
    let done = setup.args(["--pg-database", database, "--pg-username", user]).signed_in_to(&workspace).spawn();
    // The login that it tries then takes a minute to fail.
    done.prints("renews the passwords", SOON);
    let done = done.terminate();
    let typed = done.stdout.lines().find_map(|line| line.strip_prefix("    psql "));
    let typed = typed.unwrap_or_else(|| panic!("{done}"));
    let taken = home.command("sh").args(["-c", &format!("cd; printf '%s\n' {typed}")]).run();
    let conninfo = r#"host=127.0.0.1 port=9 dbname='my "; touch broken-in; " db' user='it\'s \\ `touch broken-in`' sslmode=require"#;
    assert_eq!(taken.exits(0).stdout, format!("{conninfo}\n"), "{typed}");
    assert!(!home.path("broken-in").exists());
}

#[test]
fn whoever_stops_before_the_last_answer_has_changed_nothing() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let home = Home::new();
    write_profiles(&home, &workspace);
    let before = home.files();
    for answers in ["", "prod\n", "prod\n1\n", "prod\n1\nno\n"] {
        let left = typed(&home, "setup", answers).trusting(&workspace).run();
        left.exits(64).stdout_has("nothing was changed");
        assert_eq!(home.files(), before, "{answers:?}\n{left}");
    }
    // A login that is refused ends it as soon.
    home.write(
        ".databrickscfg",
        home.read(".databrickscfg").replace(workspace.client_secret(), "dose-of-nobody"),
        0o600,
    );
    let refused = typed(&home, "setup", "prod\n").trusting(&workspace).run();
    refused.exits(77).stdout_has("refused the sign-in").stdout_has("hint: ");
    assert_eq!(home.files(), before, "{refused}");
    // And who has configured nothing is told of it.
    typed(&home, "status", "").run().exits(78).stdout_has("dbx-rotator setup");
}

#[test]
fn what_cannot_be_answered_is_said_with_what_to_do() {
    let workspace = Workspace::start();
    let home = Home::new();
    let alone = dbx_rotator!(&home).args(["setup", "--yes", "--no-service"]).run();
    alone.exits(64).stderr_has("no workspace is known here").stderr_has("--workspace-url https://");
    (0..25).for_each(|number| workspace.add_instance(Instance::named(&format!("db{number}"))));
    write_profiles(&home, &workspace);
    let setup = |words: &[&str]| {
        let session = dbx_rotator!(&home).args(["setup", "--yes", "--no-service", "--profile", "prod"]);
        session.args(words).trusting(&workspace).run()
    };
    let many = setup(&["--database", "nothing"]);
    many.exits(64).stderr_has("there is no `nothing`").stderr_has(", and 5 more");
    workspace.add_instance(Instance::named("what ever"));
    setup(&[]).exits(78).stderr_has("says of what ever").stderr_has("name the others with --database");
    // A byte that is no text is asked about again.
    let program = env!("CARGO_BIN_EXE_dbx-rotator");
    let line = format!("printf 'caf\\351\\nprod\\n' | script --quiet --return --command '{program} setup' /dev/null");
    let typed = home.command("sh").args(["-c", &line]).trusting(&workspace).run();
    typed.exits(64).stdout_has("that is not text in UTF-8: type it again").stdout_has("Signed in to");
}

#[test]
fn no_option_is_ignored_without_a_word() {
    let Some((workspace, server, host)) = orders("no_option_is_ignored_without_a_word", &[]) else { return };
    let home = Home::new();
    write_profiles(&home, &workspace);
    let setup = |words: &[&str]| {
        let session = dbx_rotator!(&home).args(["setup", "--yes", "--no-service"]).args(words);
        reachable(session, &workspace, &server, &host).run()
    };
    let file = home.path(CONFIG).display().to_string();
    // Setup writes one file, and no other.
    let absent = setup(&["--profile", "prod", "--config", "absent.toml"]);
    absent.exits(64).stderr_has("/absent.toml, and setup writes no other file than").stderr_has(&file);
    let both = setup(&["--profile", "prod", "--pg-host", "db.example", "--database", "orders"]);
    both.exits(64).stderr_has("--pg-host and --database both say");
    assert!(!home.path(CONFIG).exists() && !home.path("absent.toml").exists());
    // One that is there is used.
    let text = "password_file = 'of-named'\n[[workspace]]\nprofile = 'prod'\n[[connection]]\ninstance = 'orders'\n";
    home.write("named.toml", text, 0o600);
    setup(&["--config", "named.toml"])
        .stdout_has("/named.toml exists already and is used as it is")
        .stderr_lacks("warning: -");
    assert!(home.path("of-named").exists() && !home.path(CONFIG).exists() && !home.path(".pgpass").exists());
    let by_variable =
        dbx_rotator!(&home).args(["setup", "--yes", "--no-service"]).env("DBX_ROTATOR_CONFIG", "named.toml");
    reachable(by_variable, &workspace, &server, &host).run().stdout_has("/named.toml exists already");
    // What is new has all that is given, and is where it always is, even if it is named.
    setup(&["--profile", "prod", "--config", &file, "--pgpass-file", "given", "--interval", "40"]).stdout_has("Wrote ");
    let config = home.read(CONFIG);
    assert!(config.contains("/given\"") && config.contains("interval = \"40m\""), "{config}");
    assert!(home.path("given").exists() && !home.path(".pgpass").exists());
    // Once it is there, it stays as it is.
    let words =
        ["--client-id", "x", "--pgpass-file", "other", "--log-file", "log", "--interval", "50", "--database", "a"];
    let idle = "--client-id, --pgpass-file, --log-file, --interval, --database change nothing in it";
    setup(&words).stderr_has(idle);
    assert_eq!(home.read(CONFIG), config);
    assert!(!home.path("other").exists() && !home.path("log").exists());
}

/// A workspace to which nobody has signed in yet.
#[test]
fn who_has_no_sign_in_yet_logs_in_in_the_browser_on_the_way() {
    let test = "who_has_no_sign_in_yet_logs_in_in_the_browser_on_the_way";
    let Some((workspace, server, host)) = orders(test, &[DEFAULT_USER]) else { return };
    let home = Home::new();
    home.watch(&workspace);
    person::install(&home, &workspace, "allow");
    let words = format!("setup --no-service --workspace-url {}", workspace.url());
    let asked = |words: &str| {
        let program = env!("CARGO_BIN_EXE_dbx-rotator");
        reachable(person::typed(&home, &workspace, program, words), &workspace, &server, &host).spawn()
    };
    let otherwise = asked(&words);
    otherwise.prints("Which? [1]:", SOON);
    otherwise.types("3\n");
    otherwise.ends().exits(78).stdout_has("--client-id ID --client-secret-file FILE").stdout_has("nothing was changed");
    assert!(!home.path(CONFIG).exists());

    let nowhere = asked(&words);
    nowhere.prints("Which? [1]:", SOON);
    nowhere.types("1\n");
    nowhere.prints("Keep it in a file", SOON);
    nowhere.types("n\n");
    nowhere.ends().exits(64).stdout_has("nobody was logged in").stdout_has("hint: run it again once");

    let setup = asked(&words);
    setup.prints("Nobody signs in to", SOON).prints("Which? [1]:", SOON);
    setup.types("1\n");
    // No keyring here.
    setup.prints("Keep it in a file", SOON);
    setup.types("svc\n");
    setup.prints("answer yes or no", SOON);
    setup.types("y\n");
    setup.prints("Logged in to", SOON);
    // Before it is asked for: the login must not take what is typed after it.
    setup.types("orders\n");
    setup.prints("Signed in to", SOON).prints("Which of them?", SOON);
    setup.prints("Write ", SOON);
    setup.types("yes\n");
    setup.ends().exits(0).stdout_has("psql service=orders");
    assert!(!home.read(CONFIG).contains("auth"), "{}", home.read(CONFIG));
    dbx_rotator!(&home).args(["rotate"]).trusting(&workspace).run().exits(0);

    // Nobody is there: the command that logs in is said.
    let alone = Home::new();
    let command = dbx_rotator!(&alone).args(["setup", "--yes", "--no-service", "--workspace-url", &workspace.url()]);
    let said = command.trusting(&workspace).run();
    said.exits(78).stderr_has(&format!("dbx-rotator login --workspace-url {}", workspace.url()));
}
