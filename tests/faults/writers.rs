//! Somebody else edits the same files at the same moment, in each of the ways of editors, shells and other programs: none
//! of their lines is lost, in the password file and in libpq's service file.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::level::{Findings, whole};
use super::stage::{CONFIG, FOREIGN_PASSWORDS, FOREIGN_SERVICES, HOST, PASSWORDS, SERVICES, Stage};
use crate::support::{Running, Workspace};

/// The time between two lines of a writer.
const PACE: Duration = Duration::from_millis(20);

/// How long one kind of writer has the file open before it writes.
const HELD: Duration = Duration::from_millis(50);

/// How long a redirected command takes before it prints something.
const SLOW: Duration = Duration::from_secs(3);

/// The life of a token in the daemon's tests: it is due after half of that.
const DAEMONS_LIFE: Duration = Duration::from_secs(5);

/// Long enough for a round of the daemon; a change of its configuration ends a round.
const A_ROUND: Duration = Duration::from_millis(100);

/// So many lost lines are named.
const SHOWN: usize = 20;

/// How soon the program has made everything right once nobody disturbs it any more.
const SOON: Duration = Duration::from_secs(20);

/// How a line gets into a file.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A new file with the line in the old one's place: vim, `sed -i`, Ansible.
    Rename,
    /// `echo >>`.
    Append,
    /// The same by a slow program.
    Hold,
    /// The file is truncated and written again: nano, `>`.
    Rewrite,
}

const WAYS: [Way; 4] = [Way::Rename, Way::Append, Way::Hold, Way::Rewrite];

impl Way {
    fn write(self, file: &Path, line: &str) {
        match self {
            Way::Rename => {
                let beside = file.with_extension("writer");
                fs::write(&beside, with_line(file, line)).expect("write beside the file");
                fs::set_permissions(&beside, Permissions::from_mode(0o600)).expect("set the mode");
                fs::rename(&beside, file).expect("rename over the file");
            }
            Way::Append => append(file).write_all(line.as_bytes()).expect("append"),
            Way::Hold => {
                let mut held = append(file);
                thread::sleep(HELD);
                held.write_all(line.as_bytes()).expect("append");
            }
            Way::Rewrite => fs::write(file, with_line(file, line)).expect("write the file anew"),
        }
    }
}

/// The file with the line, as a writer has it who does not know our entry; so the connection is due again at once.
fn with_line(file: &Path, line: &str) -> Vec<u8> {
    let bytes = fs::read(file).expect("read the file");
    let theirs = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(HOST.as_bytes()));
    theirs.chain([line.as_bytes()]).collect::<Vec<_>>().concat()
}

fn append(file: &Path) -> File {
    OpenOptions::new().append(true).open(file).expect("open the file to append")
}

/// The lines of one writer, in a file where they have a meaning: sections of the service file have two lines.
struct Lines {
    file: &'static str,
    line: fn(usize) -> String,
    foreign: &'static [u8],
}

const LINES: [Lines; 2] = [
    Lines {
        file: PASSWORDS,
        line: |index| format!("writer-{index}.example:5432:*:ada:password-{index}\n"),
        foreign: FOREIGN_PASSWORDS,
    },
    Lines {
        file: SERVICES,
        line: |index| format!("[writer-{index}]\nhost=writer-{index}.example\n"),
        foreign: FOREIGN_SERVICES,
    },
];

impl Lines {
    fn write(&self, stage: &Stage, way: Way, lines: usize) {
        let file = stage.home.path(self.file);
        for index in 0..lines {
            way.write(&file, &(self.line)(index));
            thread::sleep(PACE);
        }
    }

    /// What is wrong with the present lines.
    fn faults(&self, stage: &Stage, lines: usize) -> Vec<String> {
        let now = fs::read(stage.home.path(self.file)).expect("read the file");
        let mut times: BTreeMap<&[u8], usize> = BTreeMap::new();
        for line in now.split_inclusive(|byte| *byte == b'\n') {
            *times.entry(line).or_default() += 1;
        }
        let wanted: String = (0..lines).map(self.line).collect();
        let wanted: Vec<&[u8]> = [self.foreign, wanted.as_bytes()].into_iter().flat_map(lines_of).collect();
        let lost = wanted.iter().filter(|line| !times.contains_key(*line)).count();
        let doubled =
            lines_of(wanted.concat().as_slice()).filter(|line| times.get(line).is_some_and(|n| *n > 1)).count();
        let mut faults = Vec::new();
        if lost > 0 {
            let missing = wanted.iter().filter(|line| !times.contains_key(**line));
            let each =
                missing.map(|line| format!("{:?} ({})", String::from_utf8_lossy(line), others_with(stage, line)));
            let which: Vec<String> = each.take(SHOWN).collect();
            faults.push(format!("{}: {lost} of {} lines are lost: {}", self.file, wanted.len(), which.join(", ")));
        }
        if doubled > 0 {
            faults.push(format!("{}: {doubled} lines are there more than once", self.file));
        }
        faults
    }
}

/// Which files that were left behind have it.
fn others_with(stage: &Stage, line: &[u8]) -> String {
    let files = fs::read_dir(stage.home.path("")).expect("read the home").flatten();
    let has_it =
        |file: &fs::DirEntry| fs::read(file.path()).is_ok_and(|text| text.windows(line.len()).any(|part| part == line));
    let names: Vec<_> = files.filter(has_it).map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() { "in no file".to_owned() } else { format!("in {}", names.join(" and ")) }
}

/// Without empty lines, which do not count.
fn lines_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.len() > 1)
}

/// How many lines each writer has: as many as `DBX_ROTATOR_TEST_LINES` says, or as the level does.
fn lines() -> usize {
    let given = env::var("DBX_ROTATOR_TEST_LINES").ok().and_then(|lines| lines.parse().ok());
    given.unwrap_or(if whole() { 10_000 } else { 250 })
}

/// Runs each writer on both files, while `rotate` goes on until they are done.
fn beside(test: &str, life: Duration, rotate: impl Fn(&Stage, &AtomicBool) -> Vec<String> + Sync) {
    let mut findings = Findings::default();
    for way in WAYS {
        let stage = Stage::with(Workspace::builder().token_life(life).start());
        stage.rotate().run().exits(0);
        let done = AtomicBool::new(false);
        let mut faults = thread::scope(|scope| {
            let rotating = scope.spawn(|| rotate(&stage, &done));
            let writing = LINES.each_ref().map(|of| scope.spawn(|| of.write(&stage, way, lines())));
            let written = writing.map(|writer| writer.join());
            done.store(true, Ordering::Relaxed);
            let faults = rotating.join();
            assert!(written.iter().all(Result::is_ok), "{test}: a writer did not find its file");
            faults.expect("the rotations")
        });
        // The next run must find what was written at the very end.
        stage.rotate().run().exits(0);
        faults.extend(LINES.iter().flat_map(|of| of.faults(&stage, lines())));
        findings.add(way, faults);
    }
    findings.are_none(test);
}

#[test]
fn no_line_of_another_writer_is_lost_beside_one_rotation_after_the_other() {
    let test = "no_line_of_another_writer_is_lost_beside_one_rotation_after_the_other";
    beside(test, Duration::from_secs(3600), |stage, done| {
        let (mut faults, mut times) = (Vec::new(), Vec::new());
        for mode in ["verify-full", "require"].iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
            stage.configure(mode);
            let outcome = stage.rotate().run();
            times.push(outcome.elapsed);
            faults.extend(stage.faults_of(&outcome));
            if outcome.code != Some(0) {
                faults.push(format!("a rotation ended with {:?}: {}", outcome.code, outcome.stderr.trim()));
            }
        }
        times.sort();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        eprintln!("{} rotations, {median:?} at the median, {most:?} at most", times.len());
        faults
    });
}

#[test]
fn no_line_of_another_writer_is_lost_beside_the_daemon() {
    let test = "no_line_of_another_writer_is_lost_beside_the_daemon";
    // Due again after a second or two, because the waits would grow if it were due at once.
    beside(test, Duration::from_secs(4), |stage, done| {
        let running = stage.rotator(&["run"]).spawn();
        running.says("orders is valid until", SOON);
        for mode in ["verify-full", "require"].iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
            configure_at_once(stage, mode);
            running.signal(Signal::HUP);
            thread::sleep(A_ROUND);
        }
        let outcome = running.terminate();
        eprintln!("{} rotations of the daemon", outcome.stderr.matches("orders is valid until").count());
        let mut faults = stage.faults_of(&outcome);
        if outcome.code != Some(0) {
            faults.push(format!("the daemon ended with {:?}", outcome.code));
        }
        faults
    });
}

/// In one step, since the daemon may be reading it.
fn configure_at_once(stage: &Stage, mode: &str) {
    let beside = stage.home.write("config-to-be", stage.config(mode), 0o600);
    fs::rename(beside, stage.home.path(CONFIG)).expect("rename the configuration");
}

/// `(sleep 3; echo lines) > ~/.pgpass`: the file is empty meanwhile, and somebody has it open.
fn redirect(stage: &Stage, text: &str) {
    let mut file = File::create(stage.home.path(PASSWORDS)).expect("empty the file");
    thread::sleep(SLOW);
    file.write_all(text.as_bytes()).expect("write what the command says");
}

/// Whether everything that the command wrote is there, and our entry.
fn is_right(stage: &Stage, text: &str) -> bool {
    let now = fs::read(stage.home.path(PASSWORDS)).expect("read the file");
    let (ours, others) = stage.split(&now);
    others == text.as_bytes() && ours.len() == 1
}

/// The output of the `round`-th command.
fn said(round: usize) -> String {
    (0..40).map(|line| format!("round-{round}-{line}.example:5432:*:ada:password-{line}\n")).collect()
}

fn rounds(all: usize, few: usize) -> usize {
    if whole() { all } else { few }
}

/// What is lost of a command's output.
fn lost(stage: &Stage, text: &str) -> Vec<String> {
    let now = fs::read_to_string(stage.home.path(PASSWORDS)).expect("read the file");
    let lost = text.lines().filter(|line| !now.lines().any(|other| other == *line)).count();
    vec![format!("{lost} of {} lines are lost, {} are there", text.lines().count(), now.lines().count())]
}

#[test]
fn what_a_slow_command_writes_into_the_file_is_not_lost_beside_the_daemon() {
    let test = "what_a_slow_command_writes_into_the_file_is_not_lost_beside_the_daemon";
    let mut findings = Findings::default();
    let rounds = rounds(47, 2);
    for round in 0..rounds {
        // A new daemon each time: one with an entry that is overwritten repeatedly waits longer and longer to repair it.
        let stage = Stage::with(Workspace::builder().token_life(DAEMONS_LIFE).start());
        let running = stage.rotator(&["run"]).spawn();
        running.says("orders is valid until", SOON);
        // At a different point of the token's life each time.
        thread::sleep(DAEMONS_LIFE.mul_f64(round as f64 / rounds as f64));
        let text = said(round);
        redirect(&stage, &text);
        let faults = if until(SOON, || is_right(&stage, &text)) { Vec::new() } else { lost(&stage, &text) };
        findings.add(format!("round {round}"), faults);
        end(running);
    }
    findings.are_none(test);
}

fn end(running: Running<'_>) {
    running.terminate().exits(0);
}

/// Whether it happened within the limit; polls, since waiting for a change would open the file.
fn until(limit: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !reached() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PACE);
    }
    true
}

#[test]
fn what_a_slow_command_writes_into_the_file_is_not_lost_beside_a_timers_runs() {
    let test = "what_a_slow_command_writes_into_the_file_is_not_lost_beside_a_timers_runs";
    let mut findings = Findings::default();
    let stage = Stage::new();
    let if_due = || stage.rotator(&["rotate", "--if-due", "--retry-for", "0s"]).run();
    if_due().exits(0);
    for round in 0..rounds(2, 1) {
        let text = said(round);
        let mut faults = thread::scope(|scope| {
            let command = scope.spawn(|| redirect(&stage, &text));
            let mut faults = Vec::new();
            while !command.is_finished() {
                faults.extend(stage.faults_of(&if_due()));
                thread::sleep(PACE);
            }
            faults
        });
        if_due().exits(0);
        if !is_right(&stage, &text) {
            faults.extend(lost(&stage, &text));
        }
        findings.add(format!("round {round}"), faults);
    }
    findings.are_none(test);
}
