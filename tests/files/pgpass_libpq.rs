//! libpq is the original: the model and the edits are compared with the real library, on thousands of hostile files.
//!
//! `tests/cases/libpq_oracle.py` asks libpq.so.5. Without it (or python3) the tests that need it report that and skip;
//! tests without the library always run. The seed is fixed and printed: the same files every time, everywhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail loudly and speak")]

mod hostile;
mod oracle;

use dbx_rotator::pgpass::{DEBIAN_SOCKET_DIRECTORY, Entry, How, Key, Reading, Target, Warning, publish, verify};
use hostile::{Dice, Scene, hostile_file};
use oracle::{Question, ask_libpq, libpq_or_skip};
use secrecy::ExposeSecret;

const SEED: u64 = 0x1a4e_ba5e_0000_5432;

#[test]
fn the_model_reads_every_file_as_the_real_libpq_does() {
    let test = "the_model_reads_every_file_as_the_real_libpq_does";
    let Some(socket_directory) = libpq_or_skip(test) else { return };
    let mut dice = Dice(SEED);
    let questions: Vec<Question> = (0..24_000)
        .map(|_| {
            let scene = Scene::any(&mut dice);
            let given = |dice: &mut Dice, field: usize| match dice.below(16) {
                0 => None,
                1 => Some(String::new()),
                _ => Some(scene.value(dice, field).to_owned()),
            };
            let file = hostile_file(&mut dice, scene);
            let mut host = given(&mut dice, 0);
            if dice.one_in(40) {
                host = Some(String::from_utf8(socket_directory.clone()).unwrap());
            }
            let (port, database) = (given(&mut dice, 1), given(&mut dice, 2));
            Question { file, host, port, database, user: scene.value(&mut dice, 3).to_owned() }
        })
        .collect();
    let mut found = 0;
    for (number, (question, truth)) in questions.iter().zip(ask_libpq(&questions)).enumerate() {
        let bytes = |text: &'_ Option<String>| text.clone().map(String::into_bytes);
        let (host, port, database) = (bytes(&question.host), bytes(&question.port), bytes(&question.database));
        let target = Target {
            host: host.as_deref(),
            hostaddr: None,
            port: port.as_deref(),
            database: database.as_deref(),
            user: question.user.as_bytes(),
            socket_directory: &socket_directory,
        };
        let model = Reading::new(&question.file).lookup(&target).map(|found| found.password.to_vec());
        found += usize::from(truth.is_some());
        assert_eq!(
            model,
            truth,
            "file {number}, {:?}:{:?}:{:?}:{}\n{}",
            question.host,
            question.port,
            question.database,
            question.user,
            question.file.escape_ascii()
        );
    }
    eprintln!("{test}: {} files, a match in {found}", questions.len());
    assert!(found > questions.len() / 5, "the files must match often enough to prove something");
}

#[test]
fn the_models_buffer_grows_and_loses_last_lines_as_libpqs_does() {
    let test = "the_models_buffer_grows_and_loses_last_lines_as_libpqs_does";
    if libpq_or_skip(test).is_none() {
        return;
    }
    let mut files = Vec::new();
    let ours = |length: usize| {
        let mut line = b"h:5432:app:alice:".to_vec();
        line.resize(length, b'z');
        line
    };
    for earlier in [0, 254, 255, 256, 600] {
        let mut before = vec![b'e'; earlier];
        before.push(b'\n');
        for edge in [255, 511, 1023, 2047] {
            for length in edge - 2..edge + 3 {
                files.push([&before[..], &ours(length)].concat());
            }
        }
        // A NUL near the place where the buffer must grow, and an end near the place where it would otherwise be full.
        for nul in 125..131 {
            for length in (255 + 124..255 + 131).chain(255 + 380..255 + 387) {
                let mut line = ours(nul);
                line.push(0);
                line.resize(length, b'y');
                files.push([&before[..], &line].concat());
            }
        }
    }
    let questions: Vec<Question> = files
        .into_iter()
        .map(|file| {
            let [host, port, database] = ["h", "5432", "app"].map(|field| Some(field.to_owned()));
            Question { file, host, port, database, user: "alice".to_owned() }
        })
        .collect();
    let target = Target::new(b"h", b"5432", b"app", b"alice");
    let mut lost = 0;
    for (question, truth) in questions.iter().zip(ask_libpq(&questions)) {
        let model = Reading::new(&question.file).lookup(&target).map(|found| found.password.to_vec());
        lost += usize::from(truth.is_none());
        assert_eq!(model, truth, "{}", question.file.escape_ascii());
    }
    eprintln!("{test}: {} files, the last line lost in {lost}", questions.len());
    assert!(lost > 10);
}

/// A few entries with different keys, and with passwords that are in no file.
fn some_entries(dice: &mut Dice, scene: Scene, round: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let last_copy = dice.one_in(2);
    for number in 0..1 + dice.below(4) {
        let [host, port, database, user] = [0, 1, 2, 3].map(|field| scene.value(dice, field));
        let database = if dice.one_in(2) { "*" } else { database };
        let key = Key::new(host, port.parse().unwrap(), database, user).unwrap();
        if entries.iter().all(|entry| *entry.key() != key) {
            entries.push(Entry::new(key, format!("TOKEN-{round}-{number}-A").into(), last_copy).unwrap());
        }
    }
    entries
}

/// The four fields, split at unescaped colons; `None` for a wildcard. Independent of the code under test.
fn plain_fields(line: &[u8]) -> Option<[Option<Vec<u8>>; 4]> {
    let mut fields = vec![(Vec::new(), false)];
    let mut bytes = line.iter();
    while let Some(&byte) = bytes.next() {
        let (field, escaped) = fields.last_mut().unwrap();
        match byte {
            b':' => fields.push((Vec::new(), false)),
            b'\\' => {
                *escaped = true;
                field.extend(bytes.next());
            }
            _ => field.push(byte),
        }
    }
    (fields.len() >= 5).then(|| {
        [0, 1, 2, 3].map(|at| {
            let (field, escaped) = &fields[at];
            (*escaped || field != b"*").then(|| field.clone())
        })
    })
}

fn belongs_to(line: &[u8], key: &Key) -> bool {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let line = &line[..end];
    let torn = line.first() == Some(&b'#') || line.contains(&0) || line.contains(&b'\r');
    let fields = |database: Option<&str>| {
        [Some(key.host()), Some(&*key.port().to_string()), database, Some(key.user())]
            .map(|field| field.map(|field| field.as_bytes().to_vec()))
    };
    let wanted = fields((!key.every_database()).then(|| key.database()));
    !torn && plain_fields(line) == Some(wanted)
}

/// The lines of a file that belong to none of the entries, without their line ends at the very end.
fn foreign_lines<'f>(file: &'f [u8], entries: &[Entry]) -> Vec<&'f [u8]> {
    file.split_inclusive(|&byte| byte == b'\n')
        .filter(|line| !entries.iter().any(|entry| belongs_to(line, entry.key())))
        .collect()
}

fn assert_foreign_lines_untouched(before: &[u8], after: &[u8], entries: &[Entry]) {
    let (before, after) = (foreign_lines(before, entries), foreign_lines(after, entries));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        let ended = before.ends_with(b"\n")
            || [before, &b"\n"[..]].concat() == after
            || [before, &b"\r\n"[..]].concat() == after;
        assert!(ended && after.starts_with(before), "{} became {}", before.escape_ascii(), after.escape_ascii());
    }
}

fn rotated(entries: &[Entry]) -> Vec<Entry> {
    let rotate = |entry: &Entry| {
        let password = entry.password().expose_secret().replace("-A", "-B");
        Entry::new(entry.key().clone(), password.into(), entry.last_copy()).unwrap()
    };
    entries.iter().map(rotate).collect()
}

fn replace_all(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from.as_bytes()) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A file for an edit to cope with: hostile, and with some of our own lines already in it.
fn file_with_own_lines(dice: &mut Dice, scene: Scene, entries: &[Entry]) -> Vec<u8> {
    let mut file = Vec::new();
    for _ in 0..1 + dice.below(3) {
        let part = hostile_file(dice, scene);
        let glue_last = part.is_empty() || part.ends_with(b"\n") || dice.one_in(8);
        file.extend(part);
        if !glue_last {
            file.push(b'\n');
        }
        if dice.one_in(2) {
            let key = entries[dice.below(entries.len())].key();
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let (host, user) = (escape(key.host()), escape(key.user()));
            let database = if key.every_database() { "*".to_owned() } else { escape(key.database()) };
            let ending = dice.pick(&["\n", "\n", "\r\n", ""]);
            file.extend(format!("{host}:{}:{database}:{user}:stale{ending}", key.port()).bytes());
        }
    }
    file
}

fn shown(entries: &[Entry], before: &[u8], after: &[u8]) -> String {
    let keys: Vec<String> = entries.iter().map(|entry| entry.key().to_string()).collect();
    format!("entries {keys:?}\nbefore: {}\nafter:  {}", before.escape_ascii(), after.escape_ascii())
}

/// As in the warnings: control bytes and bytes outside ASCII escaped.
fn printable(line: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => byte.escape_ascii().to_string(),
    };
    line.iter().map(shown).collect()
}

const EDITS: usize = 6_000;

#[test]
fn after_an_edit_the_real_libpq_reads_our_password_for_every_connection() {
    let test = "after_an_edit_the_real_libpq_reads_our_password_for_every_connection";
    if libpq_or_skip(test).is_none() {
        return;
    }
    let mut dice = Dice(SEED ^ 1);
    let mut questions = Vec::new();
    let mut expected = Vec::new();
    for round in 0..EDITS {
        let scene = Scene::any(&mut dice);
        let entries = some_entries(&mut dice, scene, round);
        let before = file_with_own_lines(&mut dice, scene, &entries);
        let after = publish(&before, &entries).bytes;
        for entry in &entries {
            let key = entry.key();
            let databases =
                if key.every_database() { &["app", "db:1", "o\\k", "nobody"][..] } else { &[key.database()][..] };
            for database in databases {
                // Another entry of ours for exactly that database wins; a line of the user for exactly that database
                // may.
                let named = Key::new(key.host(), key.port(), *database, key.user()).unwrap();
                let winner = entries.iter().find(|other| *other.key() == named).unwrap_or(entry);
                let exception = winner.key().every_database()
                    && after.split(|&byte| byte == b'\n').any(|line| {
                        plain_fields(line).is_some() && {
                            let spelled = plain_fields(line).unwrap();
                            spelled[2].is_some()
                                && [0, 1, 3].iter().all(|&at| spelled[at].is_some())
                                && belongs_to(line, &named)
                        }
                    });
                expected.push((
                    exception,
                    winner.password().expose_secret().to_owned(),
                    entries.clone(),
                    before.clone(),
                ));
                questions.push(Question {
                    file: after.to_vec(),
                    host: Some(key.host().to_owned()),
                    port: Some(key.port().to_string()),
                    database: Some((*database).to_owned()),
                    user: key.user().to_owned(),
                });
            }
        }
    }
    let mut exceptions = 0;
    for ((question, truth), (exception, password, entries, before)) in
        questions.iter().zip(ask_libpq(&questions)).zip(&expected)
    {
        if truth.as_deref() != Some(password.as_bytes()) {
            exceptions += 1;
            assert!(
                *exception,
                "{:?}:{:?} got {:?}\n{}",
                question.host,
                question.database,
                truth.map(|truth| truth.escape_ascii().to_string()),
                shown(entries, before, &question.file)
            );
        }
    }
    eprintln!("{test}: {EDITS} files, {} look-ups, {exceptions} of them to lines of the user", questions.len());
    assert!(exceptions < questions.len() / 50);
}

#[test]
fn an_edit_touches_no_foreign_line_and_a_second_one_only_the_password() {
    eprintln!("an_edit_touches_no_foreign_line_and_a_second_one_only_the_password: seed {SEED:#x}");
    let mut dice = Dice(SEED ^ 2);
    let mut moved = 0;
    for round in 0..EDITS {
        let scene = Scene::any(&mut dice);
        let entries = some_entries(&mut dice, scene, round);
        let before = file_with_own_lines(&mut dice, scene, &entries);
        let first = publish(&before, &entries);
        let story = || shown(&entries, &before, &first.bytes);
        moved += first.placements.iter().filter(|placement| placement.how != How::InPlace).count();
        assert_foreign_lines_untouched(&before, &first.bytes, &entries);
        assert!(first.bytes.ends_with(b"\n"), "{}", story());
        assert_eq!(verify(&first.bytes, &entries), Ok(()), "{}", story());
        for placement in &first.placements {
            let line = first.bytes.split_inclusive(|&byte| byte == b'\n').nth(placement.line - 1).unwrap();
            assert!(belongs_to(line, &placement.key), "line {} is not {}\n{}", placement.line, placement.key, story());
        }
        for warning in &first.warnings {
            if let Warning::Exceptions { line, fields, .. } | Warning::RivalBelow { line, fields, .. } = warning {
                let named = first.bytes.split(|&byte| byte == b'\n').nth(line - 1).unwrap();
                assert!(printable(named).starts_with(fields), "{warning}\n{}", story());
            }
        }
        let again = publish(&first.bytes, &entries);
        assert_eq!(again.bytes, first.bytes, "the same passwords change nothing\n{}", story());
        assert!(again.placements.iter().all(|placement| placement.how == How::InPlace), "{}", story());
        let mut expected = first.bytes.to_vec();
        for (old, new) in entries.iter().zip(rotated(&entries)) {
            expected = replace_all(&expected, old.password().expose_secret(), new.password().expose_secret());
        }
        let rotated = publish(&first.bytes, &rotated(&entries)).bytes;
        assert_eq!(rotated.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{}", story());
    }
    assert!(moved > EDITS / 4, "lines must have to move often enough to prove something");
}

// --- two readers that are very different from libpq --------------------------------------------------------------

/// The strictest behaviours that were measured, combined: trims, accepts CR as a line end, refuses bytes outside ASCII,
/// fails at a line that is not an entry, ignores case, compares ports as numbers, reads `\*` as a wildcard.
fn strict_first_match(file: &[u8], key: &Key, database: &str) -> Option<String> {
    for line in file.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii() && !line.contains('\0'))?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let raw = split_unescaped(line);
        let [host, port, db, user, password] = &raw[..] else { return None };
        let matches = |field: &str, value: &str| {
            field == "*" || field == "\\*" || field.replace('\\', "").eq_ignore_ascii_case(&value.replace('\\', ""))
        };
        let port_matches = port == "*" || port.parse::<u32>().ok()? == u32::from(key.port());
        if matches(host, key.host()) && port_matches && matches(db, database) && matches(user, key.user()) {
            return Some(password.clone());
        }
    }
    None
}

/// node-postgres with pgpass 1.0.5: the last match wins; lines that are not entries are skipped.
fn last_match(file: &[u8], key: &Key, database: &str) -> Option<String> {
    let text = String::from_utf8_lossy(file);
    let mut matching = text.split('\n').filter_map(|line| {
        let fields = split_unescaped(line.strip_suffix('\r').unwrap_or(line));
        let [host, port, db, user, password @ ..] = &fields[..] else { return None };
        let unescape = |field: &str| field.replace("\\:", ":").replace("\\\\", "\\");
        let matches = |field: &str, value: &str| field == "*" || unescape(field) == value;
        let port_matches = port == "*" || port.parse::<u32>().ok()? == u32::from(key.port());
        let password = password.join(":");
        (matches(host, key.host())
            && port_matches
            && matches(db, database)
            && matches(user, key.user())
            && !password.is_empty())
        .then_some(password)
    });
    matching.next_back()
}

fn split_unescaped(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().unwrap();
        match character {
            ':' => fields.push(String::new()),
            '\\' => {
                field.push('\\');
                field.extend(characters.next());
            }
            _ => field.push(character),
        }
    }
    fields
}

#[test]
fn strict_readers_meet_our_line_before_anything_that_confuses_them() {
    eprintln!("strict_readers_meet_our_line_before_anything_that_confuses_them: seed {SEED:#x}");
    let mut dice = Dice(SEED ^ 3);
    let mut proven = 0;
    for round in 0..EDITS {
        let scene = Scene::any(&mut dice);
        let entries = &some_entries(&mut dice, scene, round)[..1];
        let before = file_with_own_lines(&mut dice, scene, entries);
        let after = publish(&before, entries).bytes;
        let key = entries[0].key();
        let database = if key.every_database() { "nobody" } else { key.database() };
        assert_eq!(
            strict_first_match(&after, key, database).as_deref(),
            Some(entries[0].password().expose_secret()),
            "{}",
            shown(entries, &before, &after)
        );
        proven += usize::from(strict_first_match(&before, key, database).is_none());
    }
    assert!(proven > EDITS / 2, "the files must confuse it often enough to prove something");
}

#[test]
fn last_match_readers_read_our_last_copy() {
    eprintln!("last_match_readers_read_our_last_copy: seed {SEED:#x}");
    let mut dice = Dice(SEED ^ 4);
    let mut needed = 0;
    for round in 0..EDITS {
        let scene = Scene::any(&mut dice);
        let entries: Vec<Entry> = some_entries(&mut dice, scene, round)
            .iter()
            .map(|entry| Entry::new(entry.key().clone(), entry.password().clone(), true).unwrap())
            .collect();
        let before = file_with_own_lines(&mut dice, scene, &entries);
        let edit = publish(&before, &entries);
        assert!(!edit.warnings.iter().any(|warning| matches!(warning, Warning::RivalBelow { .. })));
        for (entry, placement) in entries.iter().zip(&edit.placements) {
            needed += usize::from(placement.copies > 0);
            let database = if entry.key().every_database() { "nobody" } else { entry.key().database() };
            assert_eq!(
                last_match(&edit.bytes, entry.key(), database).as_deref(),
                Some(entry.password().expose_secret()),
                "{}\n{}",
                entry.key(),
                shown(&entries, &before, &edit.bytes)
            );
        }
    }
    assert!(needed > EDITS / 2, "a last copy must be needed often enough to prove something");
}

#[test]
fn the_measured_socket_directory_is_debians_or_upstreams() {
    let Some(directory) = libpq_or_skip("the_measured_socket_directory_is_debians_or_upstreams") else { return };
    assert!([DEBIAN_SOCKET_DIRECTORY, b"/tmp", b"/run/postgresql"].contains(&&directory[..]));
}
