//! Password files as people have them: what clients read from each (measured with the real libpq, 15.18), and the
//! result of an edit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail loudly and speak")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::skip;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dbx_rotator::pgpass::{
    Current, DEBIAN_SOCKET_DIRECTORY, Entry, FileError, FileFault, How, Key, PasswordFile, Reading, Severity, Target,
    Warning, publish, verify,
};
use secrecy::ExposeSecret;
use serde_json::Value;

// --- what clients read -------------------------------------------------------------------------------------------

fn cases(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!cases.is_empty());
    cases
}

fn bytes(case: &Value, plain: &str, encoded: &str) -> Option<Vec<u8>> {
    match (&case[plain], &case[encoded]) {
        (Value::String(text), _) => Some(text.clone().into_bytes()),
        (_, Value::String(text)) => Some(BASE64_STANDARD.decode(text).unwrap()),
        _ => None,
    }
}

fn target(case: &Value) -> Target<'_> {
    let field = |name: &str| case[name].as_str().map(str::as_bytes);
    Target {
        host: field("host"),
        hostaddr: field("hostaddr"),
        port: field("port"),
        database: field("database"),
        user: field("user").unwrap_or_default(),
        socket_directory: DEBIAN_SOCKET_DIRECTORY,
    }
}

#[test]
fn the_model_reads_every_measured_file_as_libpq_does() {
    for case in cases("pgpass_cases.jsonl") {
        let file = bytes(&case, "file", "file_b64").unwrap();
        let read = Reading::new(&file).lookup(&target(&case)).map(|found| found.password.to_vec());
        assert_eq!(read, bytes(&case, "expect", "expect_b64"), "{}: {}", case["name"], case["note"]);
    }
}

#[test]
fn files_that_libpq_ignores_are_told_apart_and_links_are_followed() {
    for case in cases("pgpass_fs_cases.jsonl") {
        let name = case["name"].as_str().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = materialise(&case, directory.path()) else {
            skip("files_that_libpq_ignores_are_told_apart_and_links_are_followed", &format!("{name} needs root"));
            continue;
        };
        let warning = case["warning"].as_str().unwrap();
        match PasswordFile::new(&path).read() {
            Err(FileError { fault: FileFault::NotAFile(_), .. }) => {
                assert!(warning.contains("not a plain file"), "{name}")
            }
            Err(error) => panic!("{name}: {error}"),
            Ok(contents) => {
                assert_eq!(contents.is_ignored_by_libpq(), warning.contains("group or world access"), "{name}");
                let read = Reading::new(&contents.bytes).lookup(&target(&case)).map(|found| found.password.to_vec());
                let read = read.filter(|_| !contents.is_ignored_by_libpq());
                assert_eq!(read, bytes(&case, "expect", "expect_b64"), "{name}");
            }
        }
    }
}

/// `None` if only root can make such a file.
fn materialise(case: &Value, directory: &Path) -> Option<PathBuf> {
    let path = directory.join("pgpass");
    let kind = case["kind"].as_str().unwrap_or("plain");
    let real = if kind == "plain" { path.clone() } else { directory.join("real") };
    let mode = u32::from_str_radix(case["mode"].as_str().unwrap_or("0600"), 8).unwrap();
    match kind {
        "missing" => return Some(path),
        "devnull" => return Some(PathBuf::from("/dev/null")),
        "dir" => {
            fs::create_dir(&path).unwrap();
            return Some(path);
        }
        "symlink" | "dangling" => symlink("real", &path).unwrap(),
        _ => {}
    }
    if kind == "dangling" {
        return Some(path);
    }
    fs::write(&real, bytes(case, "file", "file_b64").unwrap()).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
    if kind == "hardlink" {
        fs::hard_link(&real, &path).unwrap();
    }
    let id = |name: &str| case[name].as_u64().map(|id| u32::try_from(id).unwrap());
    if (id("uid").is_some() || id("gid").is_some()) && chown(&real, id("uid"), id("gid")).is_err() {
        return None;
    }
    // Only root can read an unreadable file; libpq finds nothing there for others.
    (mode & 0o400 != 0 || fs::File::open(&real).is_ok()).then_some(path)
}

// --- what an edit makes of a file --------------------------------------------------------------------------------

const HOST: &str = "db.example.com";

fn key(database: &str) -> Key {
    Key::new(HOST, 5432, database, "alice").unwrap()
}

fn entry(database: &str, password: &str) -> Entry {
    Entry::new(key(database), password.into(), false).unwrap()
}

fn with_last_copy(database: &str, password: &str) -> Entry {
    Entry::new(key(database), password.into(), true).unwrap()
}

/// The file after publishing; it must read back correctly, and publishing again must not change it.
#[track_caller]
fn edited(file: impl AsRef<[u8]>, entries: &[Entry]) -> String {
    let edit = publish(file.as_ref(), entries);
    verify(&edit.bytes, entries).unwrap();
    assert_eq!(publish(&edit.bytes, entries).bytes, edit.bytes, "publishing again changes nothing");
    String::from_utf8_lossy(&edit.bytes).into_owned()
}

fn how(file: &str, entries: &[Entry]) -> Vec<(usize, How, usize)> {
    publish(file.as_bytes(), entries).placements.iter().map(|at| (at.line, at.how, at.copies)).collect()
}

#[test]
fn a_fresh_file_lists_the_entries_in_the_order_given() {
    let other = Entry::new(Key::new("a.example.com", 5432, "*", "bob").unwrap(), "T2".into(), false).unwrap();
    assert_eq!(edited("", &[entry("*", "T1"), other]), "db.example.com:5432:*:alice:T1\na.example.com:5432:*:bob:T2\n");
    assert_eq!(edited("", &[]), "");
}

#[test]
fn an_entry_that_nothing_stands_before_is_replaced_where_it_stands() {
    let file = "# my databases\nother:5432:*:bob:pw\ndb.example.com:5432:*:alice:old\n*:*:*:*:wild\n";
    let expected = file.replace("alice:old", "alice:new");
    assert_eq!(edited(file, &[entry("*", "new")]), expected);
    assert_eq!(how(file, &[entry("*", "new")]), [(3, How::InPlace, 0)]);
}

#[test]
fn an_entry_below_a_wildcard_becomes_the_first_line() {
    let file = "# mine\n*:*:*:*:wild\ndb.example.com:5432:*:alice:old\nlast:1:d:u:p\n";
    assert_eq!(
        edited(file, &[entry("*", "new")]),
        "db.example.com:5432:*:alice:new\n# mine\n*:*:*:*:wild\nlast:1:d:u:p\n"
    );
    assert_eq!(how(file, &[entry("*", "new")]), [(1, How::Moved { from: 3 }, 0)]);
}

#[test]
fn an_entry_below_a_line_that_some_client_chokes_on_becomes_the_first_line() {
    let nasty: [&[u8]; 12] = [
        b"garbage",
        b"too:few:fields",
        b" # indented",
        b"h:port:d:u:p",
        b"h:1:d:u:p:q",
        b"x:1:d:u:a\rb",
        b"x:1:d:u:a\x0bb",
        b"# caf\xe9",
        b"x:1:d:u:p\0q",
        b"\xef\xbb\xbfx:1:d:u:p",
        b"db.example.com:05432:*:alice:p",
        b"DB.EXAMPLE.COM:5432:*:alice:p",
    ];
    for line in nasty {
        let file = [line, b"\ndb.example.com:5432:*:alice:old\nlast:1:d:u:p\n"].concat();
        let after = publish(&file, &[entry("*", "new")]);
        assert!(after.bytes.starts_with(b"db.example.com:5432:*:alice:new\n"), "{}", line.escape_ascii());
        edited(&file, &[entry("*", "new")]);
    }
    let long = format!("# {}\ndb.example.com:5432:*:alice:old\n", "x".repeat(70_000));
    assert!(edited(long, &[entry("*", "new")]).starts_with("db.example.com:5432:*:alice:new\n# x"));
}

#[test]
fn blank_lines_comments_and_other_peoples_lines_are_no_reason_to_move() {
    let file =
        "\n  \n# host:1:d\n\r\nother:5432:*:alice:p\ndb.example.com:5433:*:alice:p\ndb.example.com:5432:*:alice:old\n";
    assert_eq!(edited(file, &[entry("*", "new")]), file.replace(":old", ":new"));
}

#[test]
fn other_spellings_of_our_key_are_ours_and_are_written_plainly() {
    for own in [
        "db.example.com:5432:*:\\alice:old\n",
        "\\db.example.com:54\\32:*:al\\ice:old:with more\n",
        "db.example.com:5432:*:alice:\n",
        "db.example.com:5432:*:alice:p\\:w \t\n",
    ] {
        assert_eq!(edited(own, &[entry("*", "new")]), "db.example.com:5432:*:alice:new\n", "{own:?}");
    }
    assert_eq!(
        edited("db.example.com:5432:*:alice:old\r\r\n", &[entry("*", "new")]),
        "db.example.com:5432:*:alice:new\r\n"
    );
}

#[test]
fn another_users_line_for_the_same_database_is_not_ours() {
    let file =
        "db.example.com:5432:app:bob:hers\ndb.example.com:5432:app:alice:old\ndb.example.com:5432:app:alic:his\n";
    assert_eq!(edited(file, &[entry("app", "new")]), file.replace(":old", ":new"));
}

#[test]
fn an_old_mac_file_is_one_line_to_libpq_and_none_of_it_is_lost() {
    let file = "db.example.com:5432:*:alice:old\rother:5432:*:bob:pw\r";
    assert_eq!(edited(file, &[entry("*", "new")]), format!("db.example.com:5432:*:alice:new\n{file}\n"));
}

#[test]
fn a_narrower_line_of_the_user_above_a_rival_keeps_winning_and_is_told() {
    let file = "db.example.com:5432:app:alice:special\n*:*:*:*:wild\ndb.example.com:5432:*:alice:old\n";
    let entries = [entry("*", "new")];
    assert_eq!(
        edited(file, &entries),
        "db.example.com:5432:app:alice:special\ndb.example.com:5432:*:alice:new\n*:*:*:*:wild\n"
    );
    let edit = publish(file.as_bytes(), &entries);
    let told: Vec<_> = edit.warnings.iter().filter(|warning| warning.severity() == Severity::Warning).collect();
    assert_eq!(
        told.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["line 1 (db.example.com:5432:app:alice) wins over db.example.com:5432:*:alice for its database"]
    );
    assert!(matches!(Reading::new(&edit.bytes).current(&key("*")), Current::Ours { line: 2, .. }));
}

#[test]
fn a_line_above_that_only_seems_to_name_a_database_of_ours_wins_nothing() {
    // An escaped colon before a star; a password that begins with our user; a star before an unescaped colon.
    for above in ["a\\:*:alice:x", "*:x:alice:y", "a\\:alice:alice:", "\\*:x:alice:y"] {
        for host in ["db.example.com", "::1"] {
            let key = Key::new(host, 5432, "*", "alice").unwrap();
            let entry = Entry::new(key.clone(), "new".into(), false).unwrap();
            let ours = edited("", std::slice::from_ref(&entry));
            let file = format!("{}{above}\n{ours}", ours.strip_suffix("*:alice:new\n").unwrap());
            let current = Reading::new(file.as_bytes()).current(&key);
            assert!(matches!(current, Current::Ours { line: 2, .. }), "{file}: {current:?}");
            assert_eq!(verify(&publish(file.as_bytes(), std::slice::from_ref(&entry)).bytes, &[entry]), Ok(()));
        }
    }
}

#[test]
fn what_a_file_ends_with_is_kept_and_a_missing_line_end_is_added() {
    let entries = [entry("*", "new")];
    let added = "db.example.com:5432:*:alice:new";
    assert_eq!(edited("a:1:b:c:d", &entries), format!("{added}\na:1:b:c:d\n"));
    assert_eq!(edited("a:1:b:c:d\r\ne:1:f:g:h", &entries), format!("{added}\r\na:1:b:c:d\r\ne:1:f:g:h\r\n"));
    assert_eq!(edited("a:1:b:c:d\r\ne:1:f:g:h\n", &entries), format!("{added}\na:1:b:c:d\r\ne:1:f:g:h\n"));
    assert_eq!(edited("db.example.com:5432:*:alice:old\r\nx:1:b:c:d\n", &entries), format!("{added}\r\nx:1:b:c:d\n"));
    assert_eq!(edited("# x\r\ndb.example.com:5432:*:alice:old", &entries), format!("# x\r\n{added}\r\n"));
    assert_eq!(
        edited("db.example.com:5432:app:alice:special", &entries),
        format!("db.example.com:5432:app:alice:special\n{added}\n")
    );
}

#[test]
fn every_copy_of_our_entry_gets_the_new_password() {
    let file = "db.example.com:5432:*:alice:old\nx:1:b:c:d\ndb.example.com:5432:*:\\alice:older\n";
    assert_eq!(
        edited(file, &[entry("*", "new")]),
        "db.example.com:5432:*:alice:new\nx:1:b:c:d\ndb.example.com:5432:*:alice:new\n"
    );
    assert_eq!(how(file, &[entry("*", "new")]), [(1, How::InPlace, 1)]);
}

#[test]
fn the_last_copy_stands_below_every_rival_and_follows_when_rivals_are_added() {
    let entries = [with_last_copy("*", "new")];
    let ours = "db.example.com:5432:*:alice:new\n";
    let once = edited("*:*:*:*:wild\n", &entries);
    assert_eq!(once, format!("{ours}*:*:*:*:wild\n{ours}"));
    let twice = edited(format!("{once}db.example.com:*:*:*:rival\n"), &entries);
    assert_eq!(twice, format!("{ours}*:*:*:*:wild\ndb.example.com:*:*:*:rival\n{ours}"));
    let unrelated = format!("{once}other:1:d:u:p\n");
    assert_eq!(edited(&unrelated, &entries), unrelated, "a line that is no rival moves nothing");
    assert_eq!(edited("x:1:d:u:p\n", &entries), format!("{ours}x:1:d:u:p\n"), "no rival, no copy");
    let below = format!("*:*:*:*:wild\n{ours}x:1:d:u:p\n");
    assert_eq!(edited(&below, &entries), format!("{ours}{below}"), "a copy that does its work stays");
}

#[test]
fn without_a_last_copy_a_rival_below_is_a_detail_worth_a_word() {
    let edit = publish(b"db.example.com:5432:*:alice:old\n*:*:*:*:wild\n", &[entry("*", "new")]);
    let [warning @ Warning::RivalBelow { line: 2, .. }] = &edit.warnings[..] else { panic!("{:?}", edit.warnings) };
    assert_eq!(warning.severity(), Severity::Detail);
    let edit = publish(b"*:*:*:*:wild\n", &[with_last_copy("*", "new")]);
    assert_eq!(edit.warnings, []);
}

#[test]
fn an_entry_for_one_database_stands_above_ours_for_every_database() {
    let (every, app) = ("db.example.com:5432:*:alice:E\n", "db.example.com:5432:app:alice:A\n");
    let entries = [entry("*", "E"), entry("app", "A")];
    assert_eq!(edited("", &entries), format!("{app}{every}"));
    assert_eq!(edited(format!("# x\n{every}{app}"), &entries), format!("{app}# x\n{every}"));
    assert_eq!(edited(format!("# x\n{app}# y\n{every}"), &entries), format!("# x\n{app}# y\n{every}"));
    assert_eq!(edited(format!("# x\n{app}# y\n"), &entries), format!("# x\n{app}{every}# y\n"));
    // The wildcard below is not a rival of app's line, but of the open one, which must stay below app's.
    let between = "db.example.com:5432:other:*:w\n";
    assert_eq!(edited(format!("{between}{app}{every}"), &entries), format!("{app}{every}{between}"));
    assert_eq!(edited(format!("{app}{between}{every}"), &entries), format!("{app}{every}{between}"));
}

#[test]
fn our_own_lines_are_nobodys_exception_and_nobodys_rival() {
    let entries = [entry("app", "A"), entry("*", "E")];
    let edit = publish(&publish(b"", &entries).bytes, &entries);
    assert_eq!(edit.warnings, []);
}

#[test]
fn last_copies_of_overlapping_entries_are_read_by_last_match_readers_too() {
    let (every, app) = ("db.example.com:5432:*:alice:E\n", "db.example.com:5432:app:alice:A\n");
    let entries = [with_last_copy("app", "A"), with_last_copy("*", "E")];
    assert_eq!(edited("", &entries), format!("{app}{every}{app}"));
    assert_eq!(edited("*:*:*:*:w\n", &entries), format!("{app}{every}*:*:*:*:w\n{every}{app}"));
}

#[test]
fn a_line_that_shields_the_next_from_a_nul_stays() {
    // libpq joins the next line to the one with the NUL: now that is our line, and bob's below is read.
    let file = "x:1:d:u:p\0q\ndb.example.com:5432:*:alice:old\nb:5432:*:bob:his\n";
    let after = edited(file, &[entry("*", "new")]);
    assert_eq!(after, format!("db.example.com:5432:*:alice:new\n{}", file.replace(":old", ":new")));
    let bob = Target::new(b"b", b"5432", b"d", b"bob");
    assert_eq!(Reading::new(after.as_bytes()).lookup(&bob).unwrap().password.as_slice(), b"his");
}

#[test]
fn what_placement_cannot_cure_is_told_with_the_line_as_it_is_now() {
    let file = [b"\xef\xbb\xbf# caf\xe9\nx:1:d:u:p\0\n# ", "x".repeat(70_000).as_bytes(), b"\n"].concat();
    let edit = publish(&file, &[entry("*", "secret")]);
    let told: Vec<_> = edit.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    for (sentence, expected) in told.iter().zip([
        "line 2 begins with a byte order mark",
        "line 2 is not UTF-8",
        "line 3 holds a NUL byte",
        "line 4 is 70003 bytes long",
    ]) {
        assert!(sentence.starts_with(expected), "{sentence}");
    }
}

#[test]
fn lines_are_numbered_as_they_are_after_the_edit() {
    let file =
        "*:*:*:*:wild\ndb.example.com:5432:*:alice:old\ndb.example.com:5432:*:alice:old\ndb.example.com:*:*:*:rival\n";
    let edit = publish(file.as_bytes(), &[entry("*", "new")]);
    let [warning] = &edit.warnings[..] else { panic!("{:?}", edit.warnings) };
    assert!(warning.to_string().starts_with("line 3 (db.example.com:*:*:*) wins over"), "{warning}");
}

#[test]
fn reading_back_names_what_clients_read_instead() {
    let named = |file: &str| match verify(file.as_bytes(), &[entry("*", "new")]) {
        Ok(()) => "right".to_owned(),
        Err(mismatches) => mismatches.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    let key = "db.example.com:5432:*:alice";
    assert_eq!(named(&format!("{key}:new\n")), "right");
    assert_eq!(named(&format!("# x\n{key}:old\n{key}:new\n")), format!("line 2 holds another password for {key}"));
    assert_eq!(named(&format!("*:*:*:*:hush\n{key}:new\n")), format!("line 1 (*:*:*:*) wins over {key}"));
    assert_eq!(named("# x\n"), format!("no line serves {key}"));
}

#[test]
fn a_key_that_is_given_twice_is_published_once_and_told() {
    let edit = publish(b"", &[entry("*", "first"), entry("*", "second")]);
    assert_eq!(edit.bytes.as_slice(), b"db.example.com:5432:*:alice:first\n");
    assert_eq!(edit.warnings, [Warning::Repeated { key: key("*") }]);
}

#[test]
fn no_password_shows_in_debug_output() {
    let file = "db.example.com:5432:*:alice:hush\n*:*:*:*:hush\n";
    let entries = [entry("*", "hush-hush")];
    let reading = Reading::new(file.as_bytes());
    let found = reading.lookup(&Target::new(b"db.example.com", b"5432", b"app", b"alice"));
    let edit = publish(file.as_bytes(), &entries);
    let (current, mismatch) = (reading.current(&key("*")), verify(file.as_bytes(), &entries));
    let text = format!("{reading:?} {found:?} {edit:?} {current:?} {entries:?} {mismatch:?} {:?}", edit.warnings);
    assert!(!text.contains("hush") && !text.contains("104, 117, 115, 104"), "{text}");
}

// --- what is read now --------------------------------------------------------------------------------------------

fn current(file: &str, database: &str) -> String {
    match Reading::new(file.as_bytes()).current(&key(database)) {
        Current::Missing => "missing".to_owned(),
        Current::Shadowed { line, fields } => format!("{line} {fields}"),
        Current::Ours { line, password } => {
            format!("ours {line} {}", password.map_or("?".to_owned(), |password| password.expose_secret().to_owned()))
        }
    }
}

#[test]
fn what_clients_read_today_is_ours_missing_or_another_line() {
    let ours = "db.example.com:5432:*:alice:T\n";
    assert_eq!(current("", "*"), "missing");
    assert_eq!(current(ours, "*"), "ours 1 T");
    assert_eq!(current(&format!("# x\n\n{ours}"), "*"), "ours 3 T");
    assert_eq!(current("db.example.com:5432:*:alice:a\\:b\\\\c\r\n", "*"), "ours 1 a:b\\c");
    assert_eq!(current(&format!("*:*:*:*:secret\n{ours}"), "*"), "1 *:*:*:*");
    assert_eq!(current(ours, "app"), "1 db.example.com:5432:*:alice", "a line for every database is not app's own");
    assert_eq!(current("db.example.com:5432:app:alice:T\n", "*"), "missing", "one database is not every database");
    // Only the database `other` is lost to the rival: looking at "every" alone would miss that.
    assert_eq!(current(&format!("*:5432:other:alice:secret\n{ours}"), "*"), "1 *:5432:other:alice");
    // The user's exception is above the rival for the same database: nothing is lost to the rival.
    assert_eq!(current(&format!("db.example.com:5432:other:alice:x\n*:5432:other:alice:y\n{ours}"), "*"), "ours 3 T");
    assert_eq!(current(&format!("x:1:d:u:p\0\n{ours}"), "*"), "missing", "the NUL above hides it");
    let odd = [b"db.example.com:5432:*:alice:\xff\n".as_slice(), ours.as_bytes()].concat();
    assert!(matches!(Reading::new(&odd).current(&key("*")), Current::Ours { line: 1, password: None }));
}

#[test]
fn an_unescaped_ipv6_line_wins_today_and_ours_is_put_above_it() {
    let key = Key::new("::1", 5432, "*", "alice").unwrap();
    let file = b"::1:5432:*:alice:theirs\n";
    assert!(matches!(Reading::new(file).current(&key), Current::Shadowed { line: 1, fields } if fields == "::1:5432"));
    let entry = Entry::new(key, "T".into(), false).unwrap();
    assert_eq!(edited(file, &[entry]), "\\:\\:1:5432:*:alice:T\n::1:5432:*:alice:theirs\n");
}
