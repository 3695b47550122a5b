//! 10,000 servers and one workspace: the highest number of token requests in one second.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use dbx_rotator::simulation::{Backoff, RetryScope, Spread, Step, TIME_FOR_TRIES, after_boot, refresh_at};
use dbx_rotator::{Code, Failure};
use fastrand::Rng;
use jiff::SignedDuration;

use super::{moment, seconds, timestamp};

const MACHINES: u32 = 10_000;
const LIFE: f64 = 3_600.0;
const HOUR: f64 = 3_600.0;
/// The workspace is down during the 25th hour after the power cut.
const OUTAGE: std::ops::Range<f64> = 24.0 * HOUR..25.0 * HOUR;
const END: f64 = 27.0 * HOUR;
/// The timers' `RandomizedDelaySec=`.
const DELAY: f64 = 90.0;
/// How long a timer's run goes on (`--retry-for` in the units).
const RUN: Duration = Duration::from_secs(8 * 60);
const SCOPE: RetryScope = RetryScope::Identity(0);
/// The targets: at least this factor lower after the power cut, and at most this multiple of the steady rate after the
/// outage.
const LOWER: f64 = 60.0;
const TIMES_STEADY: f64 = 10.0;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Daemon,
    Timer,
}

struct Machine {
    kind: Kind,
    is_spread: bool,
    spread: Spread,
    delay: f64,
    random: Rng,
    issued: Option<f64>,
    backoff: Backoff,
    failing_since: Option<f64>,
    /// When the timer's current run gives up.
    run_ends: f64,
}

impl Machine {
    fn new(kind: Kind, is_spread: bool, number: u32) -> Self {
        let mut random = Rng::with_seed(u64::from(number));
        let spread = if is_spread { Spread::of(&number.to_be_bytes(), 1_000) } else { Spread::NONE };
        let delay = if is_spread { DELAY * random.f64() } else { 0.0 };
        let mut machine = Machine {
            kind,
            is_spread,
            spread,
            delay,
            random,
            issued: None,
            backoff: Backoff::default(),
            failing_since: None,
            run_ends: 0.0,
        };
        machine.backoff = machine.new_backoff();
        machine
    }

    fn new_backoff(&self) -> Backoff {
        if self.is_spread { Backoff::for_servers() } else { Backoff::default() }
    }

    fn jitter(&mut self) -> f64 {
        if self.is_spread { self.random.f64() } else { 1.0 }
    }

    fn due(&self) -> f64 {
        let spread = if self.kind == Kind::Daemon { self.spread } else { Spread::NONE };
        self.issued.map_or(0.0, |issued| seconds(refresh_at(timestamp(issued), timestamp(issued + LIFE), None, spread)))
    }

    fn left(&self, now: f64) -> Option<SignedDuration> {
        let left = self.issued.map(|issued| SignedDuration::from_secs_f64(issued + LIFE - now));
        left.filter(|left| left.is_positive())
    }

    /// Makes a request; returns when it makes the next one.
    fn request(&mut self, now: f64) -> f64 {
        if OUTAGE.contains(&now) { self.failed(now) } else { self.succeeded(now) }
    }

    fn succeeded(&mut self, now: f64) -> f64 {
        (self.issued, self.failing_since) = (Some(now), None);
        self.backoff.succeeded(SCOPE, None, moment(now));
        match self.kind {
            Kind::Daemon => self.due(),
            Kind::Timer => self.next_run(now, self.due()),
        }
    }

    fn failed(&mut self, now: f64) -> f64 {
        self.failing_since.get_or_insert(now);
        let failure = Failure::transient(Code::Unavailable, "");
        let left = self.left(now);
        let jitter = self.jitter();
        let next = seconds(self.backoff.failed(SCOPE, Step::SignIn, &failure, left, moment(now), jitter).0);
        match self.kind {
            Kind::Daemon => next,
            Kind::Timer if next < self.run_ends => next,
            Kind::Timer => self.next_run(now, now),
        }
    }

    /// The first request of the first run that finds something due.
    fn next_run(&mut self, now: f64, due: f64) -> f64 {
        let slot = |at: f64| ((at - self.delay) / 600.0).ceil() * 600.0 + self.delay;
        let run = slot(due.max(now + 1.0));
        self.run_ends = run + RUN.as_secs_f64();
        self.backoff = self.new_backoff();
        let Some(since) = self.failing_since else { return run };
        let jitter = self.jitter();
        let (failing_for, left) = (Duration::from_secs_f64(run - since), self.left(run));
        self.backoff.resume(SCOPE, failing_for, left, RUN - TIME_FOR_TRIES, moment(run), jitter);
        self.backoff.next_try(&[SCOPE], false, moment(run)).map_or(run, seconds)
    }
}

/// The most requests in one second.
struct Peaks {
    boot: u32,
    second_wave: u32,
    steady: u32,
    /// The mean.
    steady_rate: f64,
    outage: u32,
    /// The time until 99 of 100 machines had a credential again.
    recovered: f64,
}

fn peaks(kind: Kind, is_spread: bool) -> Peaks {
    let mut machines: Vec<Machine> = (0..MACHINES).map(|number| Machine::new(kind, is_spread, number)).collect();
    // The queue counts in milliseconds.
    let in_milliseconds = |at: f64| Duration::from_secs_f64(at).as_millis();
    let mut queue = BinaryHeap::new();
    for (index, machine) in machines.iter_mut().enumerate() {
        let first = after_boot(Duration::ZERO, machine.spread).as_secs_f64();
        machine.run_ends = RUN.as_secs_f64();
        queue.push(Reverse((in_milliseconds(first), index)));
    }
    let mut requests = vec![0_u32; 27 * 3_600 + 1];
    let mut after_outage = Vec::new();
    while let Some(Reverse((at, index))) = queue.pop() {
        let now = Duration::from_millis(u64::try_from(at).unwrap()).as_secs_f64();
        if now >= END {
            break;
        }
        requests[usize::try_from(at / 1_000).unwrap()] += 1;
        let was_failing = machines[index].failing_since.is_some();
        let next = machines[index].request(now);
        if was_failing && machines[index].failing_since.is_none() {
            after_outage.push(now - OUTAGE.end);
        }
        queue.push(Reverse((in_milliseconds(next.max(now + 0.001)), index)));
    }
    let peak = |from: usize, to: usize| requests[from..to].iter().copied().max().unwrap_or(0);
    let steady: u32 = requests[19 * 3_600..24 * 3_600].iter().sum();
    Peaks {
        boot: peak(0, 1_800),
        second_wave: peak(1_800, 2 * 3_600),
        steady: peak(19 * 3_600, 24 * 3_600),
        steady_rate: f64::from(steady) / (5.0 * HOUR),
        outage: peak(25 * 3_600, 25 * 3_600 + 1_800),
        recovered: after_outage.get(after_outage.len() * 99 / 100).copied().unwrap_or(f64::NAN),
    }
}

pub(super) fn print_table() {
    println!(
        "| 10,000 servers with | requests in the worst second after a power cut | at the first refresh | in steady state (mean) \
         | after an hour's outage | 99 of 100 have a password again after |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, kind) in [("daemon", Kind::Daemon), ("timer", Kind::Timer)] {
        let (plain, ours) = (peaks(kind, false), peaks(kind, true));
        row(&format!("{name}, nothing spread"), &plain, String::new(), String::new());
        let lower = f64::from(plain.boot) / f64::from(ours.boot);
        let times = f64::from(ours.outage) / ours.steady_rate;
        let missed = |is_missed: bool| if is_missed { ", missed" } else { "" };
        row(
            &format!("{name}, as shipped"),
            &ours,
            format!(" ({lower:.0} x lower{})", missed(lower < LOWER)),
            format!(" ({times:.1} x the steady mean{})", missed(times > TIMES_STEADY)),
        );
    }
}

fn row(name: &str, peaks: &Peaks, boot: String, outage: String) {
    let Peaks { boot: at_boot, second_wave, steady, steady_rate, outage: at_outage, recovered } = peaks;
    println!(
        "| {name} | {at_boot}{boot} | {second_wave} | {steady} ({steady_rate:.1}) | {at_outage}{outage} | {recovered:.0} s |"
    );
}
