//! The connection service file: kept up to date, compared with the real libpq, and without changing any foreign byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail loudly and speak")]

mod hostile;
mod oracle;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Home, Postgres, Workspace, dbx_rotator, skip};
use dbx_rotator::service_file::{Section, is_current, update};
use fastrand::Rng;
use hostile::{NAMES, foreign_lines, section, tampered};
use oracle::{Answer, ask, libpq_or_skip};

const SEED: u64 = 0x1a4e_ba5e_0000_5432;

/// How many files of each kind.
const FILES: usize = 700;

fn orders() -> Section {
    let [host, user, sslmode] = ["db.example", "alice@example.com", "require"].map(str::to_owned);
    let (name, database) = ("orders".to_owned(), "*".to_owned());
    Section { name, host, port: 5432, database, user, sslmode, sslrootcert: None, passfile: None }
}

/// The contents of a new file for [`orders`].
const ORDERS: &str = "[orders]\n# dbx-rotator keeps host, port, dbname, user, sslmode; what else you write here stays\n\
                      host=db.example\nport=5432\ndbname=databricks_postgres\nuser=alice@example.com\nsslmode=require\n";

/// The resulting file, and the messages.
fn updated(file: &[u8], sections: &[Section]) -> (Vec<u8>, Vec<String>) {
    let scratch = if Path::new("/dev/shm").is_dir() { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() };
    let path = scratch.as_ref().unwrap().path().join("services");
    fs::write(&path, file).unwrap();
    let said = update(&path, sections).unwrap();
    assert!(is_current(&path, sections), "{}", fs::read(&path).unwrap().escape_ascii());
    (fs::read(&path).unwrap(), said)
}

fn text(file: &str, sections: &[Section]) -> (String, Vec<String>) {
    let (bytes, said) = updated(file.as_bytes(), sections);
    (String::from_utf8(bytes).unwrap(), said)
}

// ---- what it looks like ----

#[test]
fn a_section_is_put_below_what_is_there_and_a_second_time_changes_nothing() {
    for (before, between) in [
        ("", ""),
        ("[other]\nhost=x\n", "\n"),
        ("[other]\nhost=x", "\n\n"),
        ("# mine\n\n", ""),
        ("\u{feff}", "\n\n"),
        ("\u{feff}[orders]\nhost=unseen\n", "\n"),
    ] {
        assert_eq!(text(before, &[orders()]), (format!("{before}{between}{ORDERS}"), vec![]), "{before:?}");
    }
    let windows = "[other]\r\nhost=x\r\n";
    assert_eq!(text(windows, &[orders()]).0, format!("{windows}\r\n{}", ORDERS.replace('\n', "\r\n")));
}

#[test]
fn only_our_section_changes_and_what_the_user_wrote_in_it_stays() {
    let mine = "# mine\n[other]\nhost=x\n\n".to_owned();
    let theirs = ORDERS.replace("port=5432\n", "port=5432\n  connect_timeout=5\n# faster\n");
    let file = format!("{mine}{theirs}application_name=me\n\n# about the next\n[next]\nhost=db.example\n");
    assert_eq!(text(&file, &[orders()]), (file.clone(), vec![]));
    let moved = Section { host: "new.example".to_owned(), ..orders() };
    assert_eq!(text(&file, &[moved]), (file.replacen("host=db.example", "host=new.example", 1), vec![]));
}

#[test]
fn a_key_that_is_lost_comes_back_and_one_that_we_no_longer_keep_goes_but_not_the_users_own() {
    let with_ca = Section { sslrootcert: Some("/ca.pem".to_owned()), ..orders() };
    let (file, _) = text(ORDERS, std::slice::from_ref(&with_ca));
    assert!(file.contains("sslmode, sslrootcert; ") && file.contains("\nsslrootcert=/ca.pem\n"), "{file}");
    assert_eq!(text(&file, &[orders()]), (ORDERS.to_owned(), vec![]));
    let own = format!("{ORDERS}sslrootcert=/my.pem\n");
    assert_eq!(text(&own, &[orders()]).0, own, "the mark does not name it");
    let (cut, _) = text(&ORDERS.replace("user=alice@example.com\n", ""), &[orders()]);
    assert!(cut.contains("\nuser=alice@example.com\n"), "{cut}");
    let doubled = format!("{ORDERS}host=second.example\n");
    assert_eq!(text(&doubled, &[orders()]).0, ORDERS, "some clients take the last");
}

#[test]
fn a_section_that_is_not_ours_is_left_and_said_unless_it_says_the_same() {
    let foreign = "[orders]\nhost=somewhere\n";
    let (file, said) = text(foreign, &[orders()]);
    assert_eq!(file, foreign);
    assert!(said.len() == 1 && said[0].contains("[orders]") && said[0].contains("not dbx-rotator's"), "{said:?}");
    let same = ORDERS.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(text(&same, &[orders()]), (same, vec![]));
}

#[test]
fn what_cannot_stand_in_a_service_file_is_refused_in_words() {
    let long = "x".repeat(1_100);
    let named = |name: &str| Section { name: name.to_owned(), ..orders() };
    let hosted = |host: &str| Section { host: host.to_owned(), ..orders() };
    for (section, words) in [
        (named("a]b"), "its name holds ']'"),
        (named("a\nb"), "its name holds a line break"),
        (named(""), "its name is empty"),
        (named(&long), "its name is longer"),
        (hosted("a\nuser=root"), "its host holds a line break"),
        (hosted(" a"), "its host begins or ends with a blank"),
        (hosted(""), "its host is empty"),
        (hosted(&long), "its host is longer"),
        (Section { passfile: Some("pgpass".to_owned()), ..orders() }, "its passfile is not an absolute path"),
    ] {
        let good = Section { name: "good".to_owned(), ..orders() };
        let (file, said) = text("", &[section, good]);
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
        assert_eq!(file, ORDERS.replace("[orders]", "[good]"), "{words}");
    }
    let (_, said) = text("", &[orders(), orders()]);
    assert!(said.len() == 1 && said[0].contains("more than one connection"), "{said:?}");
}

// ---- on disk ----

#[test]
fn a_new_file_and_its_directory_are_private_and_an_old_one_keeps_its_mode_and_its_link() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    update(&at("none"), &[]).unwrap();
    assert!(!at("none").exists() && is_current(&at("none"), &[]) && !is_current(&at("none"), &[orders()]));
    update(&at("new/er/services"), &[orders()]).unwrap();
    assert_eq!((mode("new"), mode("new/er"), mode("new/er/services")), (0o700, 0o700, 0o600));
    fs::write(at("shared"), "[x]\n").unwrap();
    fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o664)).unwrap();
    symlink("shared", at("link")).unwrap();
    update(&at("link"), &[orders()]).unwrap();
    assert!(at("link").is_symlink() && fs::read_to_string(at("shared")).unwrap().ends_with(ORDERS));
    assert_eq!(mode("shared"), 0o664);
    let names = fs::read_dir(home.path()).unwrap().count();
    assert_eq!(names, 3, "nothing is left behind");
}

#[test]
fn a_file_that_cannot_be_written_says_which_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let failure = update(home.path(), &[orders()]).unwrap_err();
    assert_eq!(failure.code, dbx_rotator::Code::CannotWrite);
    assert!(
        failure.message.contains(home.path().to_str().unwrap()) && failure.message.contains("a directory"),
        "{failure}"
    );
    assert!(failure.hint.unwrap().contains("name another file"));
}

// ---- with the real libpq ----

/// Asks for each of the names in each of the files.
fn ask_all(files: &[Vec<u8>]) -> Vec<Vec<Answer>> {
    let questions: Vec<_> = files.iter().flat_map(|file| NAMES.map(|name| (file.clone(), name))).collect();
    ask(&questions).chunks(NAMES.len()).map(<[_]>::to_vec).collect()
}

/// What libpq should read from a section of ours.
fn gives(answer: &Answer, wanted: &Section) -> bool {
    let database = if wanted.database == "*" { "databricks_postgres" } else { &wanted.database };
    let port = wanted.port.to_string();
    let latin = |text: &str| text.bytes().map(char::from).collect::<String>();
    let expected = [("host", wanted.host.as_str()), ("port", &port), ("dbname", database), ("user", &wanted.user)];
    let (ca, passfile) = (wanted.sslrootcert.as_deref(), wanted.passfile.as_deref());
    let rest = [("sslmode", Some(wanted.sslmode.as_str())), ("sslrootcert", ca), ("passfile", passfile)];
    let rest = rest.into_iter().filter_map(|(key, value)| Some((key, value?)));
    answer.as_ref().is_ok_and(|settings| {
        expected.into_iter().chain(rest).all(|(key, value)| settings.get(key) == Some(&latin(value)))
    })
}

/// Checks that libpq reads ours as wanted and everything else as before, except sections named in a message. Returns how many
/// were ours.
fn check(before: &[Answer], after: &[Answer], wanted: &[Section], said: &[String], file: &[u8]) -> usize {
    let mut ours = 0;
    for (index, name) in NAMES.iter().enumerate() {
        let told = said.iter().any(|sentence| sentence.contains(&format!("[{name}]")));
        let section = wanted.iter().find(|section| section.name == *name);
        match section {
            Some(section) if !told => {
                // A key that this libpq does not know is the user's own problem.
                let unknown = after[index].as_ref().is_err_and(|error| error.contains("syntax error"));
                assert!(
                    unknown || gives(&after[index], section),
                    "[{name}] {:?}\n{}",
                    after[index],
                    file.escape_ascii()
                );
                ours += usize::from(!unknown);
            }
            // It is below something that stops libpq, and was so before.
            Some(_) if before[index].is_err() => assert!(after[index].is_err(), "[{name}] {}", file.escape_ascii()),
            _ => assert_eq!(before[index], after[index], "[{name}] {}", file.escape_ascii()),
        }
    }
    ours
}

#[test]
fn in_hostile_files_every_foreign_byte_and_section_stays_and_libpq_finds_ours() {
    let test = "in_hostile_files_every_foreign_byte_and_section_stays_and_libpq_finds_ours";
    if !libpq_or_skip(test) {
        return;
    }
    let mut dice = Rng::with_seed(SEED);
    let wanted: Vec<Vec<Section>> =
        (0..FILES).map(|_| NAMES[..dice.usize(1..4)].iter().map(|name| section(&mut dice, name)).collect()).collect();
    let files: Vec<Vec<u8>> = (0..FILES).map(|_| hostile::file(&mut dice)).collect();
    let after: Vec<_> = files.iter().zip(&wanted).map(|(file, wanted)| updated(file, wanted)).collect();
    for (file, (new, _)) in files.iter().zip(&after) {
        assert!(new.starts_with(file), "{}", new.escape_ascii());
    }
    let news: Vec<_> = after.iter().map(|(new, _)| new.clone()).collect();
    let (before, now) = (ask_all(&files), ask_all(&news));
    let ours: usize = (0..FILES).map(|at| check(&before[at], &now[at], &wanted[at], &after[at].1, &news[at])).sum();

    // The same again after somebody has edited the files, and the connections have moved.
    let tampered: Vec<Vec<u8>> = news.iter().map(|file| tampered(&mut dice, file)).collect();
    let moved: Vec<Vec<Section>> =
        wanted.iter().map(|wanted| wanted.iter().map(|old| section(&mut dice, &old.name)).collect()).collect();
    let later: Vec<_> = tampered.iter().zip(&moved).map(|(file, wanted)| updated(file, wanted)).collect();
    let latest: Vec<_> = later.iter().map(|(new, _)| new.clone()).collect();
    let (before, now) = (ask_all(&tampered), ask_all(&latest));
    let mut again = 0;
    for at in 0..FILES {
        assert!(foreign_lines(&tampered[at]) == foreign_lines(&latest[at]), "{}", latest[at].escape_ascii());
        again += check(&before[at], &now[at], &moved[at], &later[at].1, &latest[at]);
    }
    eprintln!("{test}: {FILES} files, seed {SEED:#x}; {ours} sections of ours found, and {again} after tampering");
    assert!(ours > FILES / 2 && again > FILES / 4, "they must be found often enough to prove something");
}

#[test]
fn a_line_of_any_length_before_ours_is_no_trouble_or_is_told() {
    let test = "a_line_of_any_length_before_ours_is_no_trouble_or_is_told";
    if !libpq_or_skip(test) {
        return;
    }
    let (mut files, mut sentences) = (Vec::new(), Vec::new());
    for length in 1015..1030 {
        for end in ["", "\n", "\r\n"] {
            let file = format!("[a]\napplication_name={}{end}", "x".repeat(length - "application_name=".len()));
            let (new, said) = updated(file.as_bytes(), &[orders()]);
            sentences.push(!said.is_empty());
            files.extend([file.into_bytes(), new]);
        }
    }
    for (pair, told) in ask_all(&files).chunks(2).zip(sentences) {
        assert_eq!(pair[0][1], pair[1][1], "the section [a] is as it was");
        assert_eq!(pair[1][0].is_err(), told, "{:?}", pair[1][0]);
    }
}

// ---- with a real server ----

fn psql(server: &Postgres, home: &Home, conninfo: &str) -> Output {
    let mut psql = server.psql_command(&home.path(".pgpass"), "nobody");
    for name in ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSSLMODE", "PGSSLROOTCERT", "PGPASSFILE"] {
        psql.env_remove(name);
    }
    let services: PathBuf = home.path(".pg_service.conf");
    psql.env("PGSERVICEFILE", services)
        .args([conninfo, "-c", "select current_user, current_database()"])
        .output()
        .unwrap()
}

#[test]
fn a_person_types_the_service_and_is_logged_in() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id().to_owned();
    let server = match Postgres::start(&workspace, &[&user]) {
        Ok(server) => server,
        Err(reason) => return skip("a_person_types_the_service_and_is_logged_in", &reason),
    };
    home.watch(&workspace);
    dbx_rotator!(home)
        .trusting(&workspace)
        .signed_in_to(&workspace)
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_PG_HOST", "127.0.0.1")
        .env("DATABRICKS_PG_USERNAME", &user)
        .args(["--pg-port", &server.port().to_string(), "rotate"])
        .run()
        .exits(0);
    let ca = server.ca_file().to_str().unwrap().to_owned();
    let (host, sslmode) = ("127.0.0.1".to_owned(), "verify-full".to_owned());
    let (sslrootcert, passfile) = (Some(ca), Some(home.path(".pgpass").to_str().unwrap().to_owned()));
    let section = Section { host, port: server.port(), user: user.clone(), sslmode, sslrootcert, passfile, ..orders() };
    assert_eq!(update(&home.path(".pg_service.conf"), &[section]).unwrap(), Vec::<String>::new());
    let output = psql(&server, &home, "service=orders");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("{user}|databricks_postgres"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
