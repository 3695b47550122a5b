//! `run` as a service manager sees it: how soon it is ready, and its state at rest.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::measure::{Home, Idle, Samples, Trial};
use super::table::{Limit, MIB, Row, Verdict, mib};
use super::workspace::Workspace;
use super::{ROUNDS, configure_many, dbx_rotator, program, system_authorities, trust_beside_the_platforms_own};

/// The limits.
const READY_WALL: Duration = Duration::from_millis(5);
const IDLE_RESIDENT: u64 = 6 * MIB;
/// With so many identities, after so many rotations of all together, it may hold this, and no more than after half of them but for
/// a heap that comes and goes.
const IDENTITIES: usize = 100;
const ROTATIONS: usize = 1_000;
const MANY_RESIDENT: u64 = 9 * MIB;
const FLAT: u64 = MIB / 4;
const SHORT_LIFE: Duration = Duration::from_secs(16);
const IDLE_THREADS: usize = 1;
const IDLE_WAKE_UPS: u64 = 1;

/// How long `run` may take after its rotation to come to rest.
const SETTLING: Duration = Duration::from_secs(3);
/// Longer than the minute between two scheduled wake-ups but shorter than two: exactly one falls into it.
const IDLE_WINDOW: Duration = Duration::from_secs(65);
/// Context switches within one such interval are one wake-up: once awake, it may wait for the disk too.
const LOOK: Duration = Duration::from_millis(250);

/// The manager's socket, which receives the status (sd_notify(3)).
struct Ear(UnixDatagram);

impl Ear {
    fn of(home: &Home, trial: Trial) -> (Self, Trial) {
        let path = home.path("notify");
        let ear = UnixDatagram::bind(&path).expect("a socket");
        ear.set_read_timeout(Some(Duration::from_secs(10))).expect("set a time limit");
        // As in the packaged unit.
        (Self(ear), trial.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "120000000"))
    }

    fn until_ready(&self) {
        let mut heard = [0; 4096];
        loop {
            let length = self.0.recv(&mut heard).expect("it does not get ready");
            if String::from_utf8_lossy(&heard[..length]).lines().any(|line| line == "READY=1") {
                return;
            }
        }
    }
}

fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let told = Instant::now();
    kill_process(pid, Signal::TERM).expect("tell it to end");
    let status = child.wait().expect("wait for its end");
    assert!(
        status.success() && told.elapsed() < Duration::from_secs(1),
        "run did not end cleanly within 1 s: {status}"
    );
}

/// From the start of the process to READY=1: with a live entry, and with a rotation, in turn with `rotate`.
pub(super) fn ready() -> Vec<Row> {
    eprintln!("timing run until it is ready ...");
    let (workspace, home) = (Workspace::start(), Home::new());
    let rotate = dbx_rotator(&home, &workspace, &["rotate"]);
    let (ear, run) = Ear::of(&home, dbx_rotator(&home, &workspace, &["run"]));
    let time = || {
        let began = Instant::now();
        let mut child = run.spawn();
        ear.until_ready();
        let took = began.elapsed();
        end(&mut child);
        took
    };
    let (mut live, mut due, mut rotations) = (Vec::new(), Vec::new(), Vec::new());
    rotate.time();
    for _ in 0..ROUNDS {
        let issued = workspace.tokens_issued();
        live.push(time());
        assert_eq!(workspace.tokens_issued(), issued, "nothing was due");
        fs::remove_file(home.path(".pgpass")).expect("remove the password file");
        due.push(time());
        assert_eq!(workspace.tokens_issued(), issued + 1, "it was due");
        rotations.push(rotate.time());
    }
    let (live, due, rotations) = (Samples::new(live), Samples::new(due), Samples::new(rotations));
    let limit = |wall| Some(Limit { wall: Some(wall), peak: None });
    vec![
        Row::timed("`run` until READY=1, with a live entry".to_owned(), &live, None, limit(READY_WALL)),
        Row::timed(
            "`run` until READY=1, with a rotation (limit: `rotate` and 5 ms)".to_owned(),
            &due,
            None,
            limit(rotations.median() + READY_WALL),
        ),
    ]
}

/// `run` after its rotation: its memory, and how often it wakes up.
pub(super) fn idle() -> Vec<Row> {
    let name = format!("`run`, idle for {} s after a rotation, watched by a manager", IDLE_WINDOW.as_secs());
    if !Path::new("/proc/self/task").exists() {
        return vec![Row::remark(format!("{name}: not measured, for want of /proc"))];
    }
    eprintln!("watching run for {} s ...", (SETTLING + IDLE_WINDOW).as_secs());
    let (workspace, home) = (Workspace::start(), Home::new());
    // As most people run it: with a host name to look up and the platform's own store, both of which leave memory in
    // use.
    trust_beside_the_platforms_own(&home, &workspace);
    let run = dbx_rotator(&home, &workspace, &["run"]).without_env("SSL_CERT_FILE");
    let (ear, run) = Ear::of(&home, run.env("DATABRICKS_HOST", workspace.url_as("localhost")));
    let mut child = run.spawn();
    ear.until_ready();
    assert!(workspace.wait_for_tokens_issued(1, Duration::from_secs(10)), "run did not rotate");
    std::thread::sleep(SETTLING);
    assert!(home.path(".pgpass").exists(), "run published nothing");
    let before = Idle::of(child.id());
    let mut after = before.clone();
    let mut wake_ups = 0;
    let began = Instant::now();
    while began.elapsed() < IDLE_WINDOW {
        std::thread::sleep(LOOK);
        let now = Idle::of(child.id());
        wake_ups += u64::from(now.switches > after.switches);
        after = now;
    }

    end(&mut child);
    assert_eq!(workspace.tokens_issued(), 1, "run rotated while nothing was due");

    let resident = before.resident.max(after.resident);
    let threads = before.threads.max(after.threads);
    let switches = after.switches - before.switches;
    let met = resident <= IDLE_RESIDENT && threads <= IDLE_THREADS && wake_ups <= IDLE_WAKE_UPS;
    vec![Row {
        what: format!("{name}: threads {threads}, wake-ups {wake_ups}, context switches {switches}"),
        wall: None,
        spread: None,
        memory: Some(format!("{} resident (peak {})", mib(resident), mib(after.peak))),
        limit: Some(format!(
            "{} resident, {IDLE_THREADS} thread, {IDLE_WAKE_UPS} wake-up a minute",
            mib(IDLE_RESIDENT)
        )),
        met: Verdict::of(met),
    }]
}

/// `run` with many identities, halfway through its rotations and after them.
pub(super) fn growth() -> Vec<Row> {
    let name = format!("`run`, {IDENTITIES} identities, after {ROTATIONS} rotations");
    if !Path::new("/proc/self/task").exists() {
        return vec![Row::remark(format!("{name}: not measured, for want of /proc"))];
    }
    eprintln!("waiting for {ROTATIONS} rotations ...");
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.set_token_life(SHORT_LIFE);
    configure_many(&home, &workspace, IDENTITIES, IDENTITIES);
    // All that the system trusts, as most people have it.
    let authorities = system_authorities(&home, &workspace).map_or_else(|| workspace.ca_file(), |(file, _)| file);
    let mut child = home.trial(program(), &["run"]).env("SSL_CERT_FILE", authorities).spawn();
    let resident_after = |rotations: usize| {
        assert!(workspace.wait_for_tokens_issued(rotations, Duration::from_secs(300)), "it does not rotate");
        // Between two of them: the least of a while.
        let looks = (0..100).map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            Idle::of(child.id()).resident
        });
        looks.min().unwrap_or_default()
    };
    let (half, all) = (resident_after(ROTATIONS / 2), resident_after(ROTATIONS));
    end(&mut child);
    vec![Row {
        what: format!("{name}: {} after half of them", mib(half)),
        wall: None,
        spread: None,
        memory: Some(format!("{} resident", mib(all))),
        limit: Some(format!("{} resident, flat", mib(MANY_RESIDENT))),
        met: Verdict::of(all <= MANY_RESIDENT && all <= half + FLAT),
    }]
}
