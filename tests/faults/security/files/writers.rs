//! Four kinds of writers next to a program that replaces the file without a pause: none of their lines is lost, and no rotation waits
//! long.
//!
//! `DBX_ROTATOR_TEST_LINES=10000 cargo test --test faults -- --nocapture beside` is the long run; it prints how long rotations took.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dbx_rotator::pgpass::{Entry, Key, PasswordFile};
use dbx_rotator::service_file::{Section, update};

/// The file before anybody writes.
const FIRST: &str = "# the user's first line\n";

/// A file of this size takes longer to replace than [`PACE`] in an unoptimised build.
const LARGE: usize = 400 * 1024;

/// The time between two lines.
const PACE: Duration = Duration::from_millis(20);

/// How long the slow writer has the file open.
const HOLD: Duration = Duration::from_millis(50);

type AddLine = fn(&Path, &str);

const WRITERS: [(&str, AddLine); 4] = [
    ("renames", |path, line| {
        let text = fs::read_to_string(path).unwrap();
        let beside = path.with_extension("editor");
        fs::write(&beside, text + line).unwrap();
        fs::rename(beside, path).unwrap();
    }),
    ("appends", |path, line| {
        OpenOptions::new().append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }),
    ("holds it open", |path, line| {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        std::thread::sleep(HOLD);
        file.write_all(line.as_bytes()).unwrap();
    }),
    ("truncates and rewrites", |path, line| {
        let text = fs::read_to_string(path).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all((text + line).as_bytes()).unwrap();
    }),
];

fn lines() -> usize {
    std::env::var("DBX_ROTATOR_TEST_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(150)
}

/// Lets one writer add its lines to a file that already contains `before`, while rotations run without a pause; in the end every
/// line must be there.
#[expect(clippy::print_stdout, reason = "what the long run measured is for people")]
fn beside(writer: usize, what: &str, path: &Path, before: &str, rotate: impl Fn(usize)) {
    let (name, add_line) = WRITERS[writer];
    let lines = lines();
    fs::write(path, before).unwrap();
    let done = AtomicBool::new(false);
    let mut took: Vec<Duration> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..lines {
                let next = Instant::now() + PACE;
                add_line(path, &format!("# line {number} of one who {name}\n"));
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let started = Instant::now();
            rotate(took.len());
            took.push(started.elapsed());
        }
    });
    // Another run carries over what there was no time for, as each command does before it ends.
    for _ in 0..3 {
        rotate(took.len());
    }
    let text = fs::read_to_string(path).unwrap();
    let numbers = numbers(&text);
    let distinct: BTreeSet<usize> = numbers.iter().copied().collect();
    let (lost, twice) = ((0..lines).filter(|number| !distinct.contains(number)), numbers.len() - distinct.len());
    let lost: Vec<usize> = lost.collect();
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{what}, one who {name}: {} of {lines} lines lost, {twice} twice; {} rotations of {median:?}, at most {longest:?}",
        lost.len(),
        took.len()
    );
    assert!(text.contains(FIRST), "the first line");
    let others = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let others: Vec<_> = others.filter(|other| other != path).collect();
    assert_eq!(lost, Vec::<usize>::new(), "{what}, one who {name}; left behind: {}", holdings(&others));
    assert!(others.is_empty(), "nothing is left behind: {others:?}");
}

/// The numbers of the writer's lines.
fn numbers(text: &str) -> Vec<usize> {
    let number = |line: &str| line.strip_prefix("# line ")?.split(' ').next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// Which of the writer's lines these files contain, to see where a lost one was last.
fn holdings(files: &[PathBuf]) -> String {
    let one = |path: &PathBuf| {
        let numbers = numbers(&fs::read_to_string(path).unwrap_or_default());
        let (first, last) = (numbers.iter().min(), numbers.iter().max());
        format!("{} has {} lines, {first:?} to {last:?}", path.display(), numbers.len())
    };
    files.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn beside_password_file(writer: usize, before: &str) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".pgpass");
    let file = PasswordFile::new(&path);
    let key = Key::new("db.example.com", 5432, "*", "alice").unwrap();
    beside(writer, "password file", &path, before, |number| {
        let entry = Entry::new(key.clone(), format!("token-{number}").into(), false).unwrap();
        file.publish(&[entry]).unwrap();
    });
    assert!(fs::read_to_string(&path).unwrap().starts_with("db.example.com:5432:*:alice:token-"));
}

fn beside_service_file(writer: usize) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".pg_service.conf");
    beside(writer, "service file", &path, FIRST, |number| {
        let [user, sslmode] = ["alice", "verify-full"].map(str::to_owned);
        let (name, host, database) = ("orders".to_owned(), format!("db-{number}.example"), "*".to_owned());
        let section = Section { name, host, port: 5432, database, user, sslmode, sslrootcert: None, passfile: None };
        let said = update(&path, &[section]).unwrap();
        assert!(said.is_empty(), "{said:?}");
    });
}

#[test]
fn beside_one_who_renames_no_line_of_the_password_file_is_lost() {
    beside_password_file(0, FIRST);
}

#[test]
fn beside_one_who_renames_no_line_of_a_file_is_lost_that_takes_longer_to_replace_than_they_pause() {
    beside_password_file(0, &FIRST.repeat(LARGE / FIRST.len()));
}

#[test]
fn beside_one_who_appends_no_line_of_the_password_file_is_lost() {
    beside_password_file(1, FIRST);
}

#[test]
fn beside_one_who_holds_it_open_no_line_of_the_password_file_is_lost() {
    beside_password_file(2, FIRST);
}

#[test]
fn beside_one_who_truncates_and_rewrites_no_line_of_the_password_file_is_lost() {
    beside_password_file(3, FIRST);
}

#[test]
fn beside_each_of_them_no_line_of_the_service_file_is_lost() {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..WRITERS.len()).map(|writer| scope.spawn(move || beside_service_file(writer))).collect();
        for one in all {
            one.join().unwrap();
        }
    });
}
