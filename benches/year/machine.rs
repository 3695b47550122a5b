//! One machine for a year: how long clients read a dead password, with each schedule.

use std::time::Duration;

use dbx_rotator::simulation::{
    Backoff, NEXT_RUN, RetryScope, Spread, Step, TIME_FOR_TRIES, ask_cli_again, attempt_limit, dies_before_next_run,
    refresh_at,
};
use dbx_rotator::{Code, Failure};
use fastrand::Rng;
use jiff::SignedDuration;

use super::world::{World, YEAR};
use super::{moment, seconds, timestamp};

const LIFE: f64 = 3_600.0;
/// How long an answered request takes.
const ANSWER: f64 = 0.5;
const MACHINES: u64 = 5;
/// The target: at most this factor above the best possible.
const TARGET: f64 = 1.1;
/// How long a timer's run goes on (`--retry-for` in the units).
const RUN: Duration = Duration::from_secs(8 * 60);
const SCOPE: RetryScope = RetryScope::Connection(0);

#[derive(Clone, Copy, PartialEq)]
enum Schedule {
    /// The Python original's: every 50 minutes of awake time, whatever happens.
    Loop,
    Daemon,
    Timer,
    /// From the refresh point on, at the first moment when a request would be answered.
    Best,
    /// At every moment when a request would be answered: not a schedule, but the limit of what is possible.
    Always,
}

/// The results of a year.
#[derive(Clone, Copy, Default)]
struct Year {
    dead: f64,
    dead_though_reachable: f64,
    requests: f64,
}

struct Machine<'w> {
    world: &'w World,
    cli: bool,
    is_server: bool,
    is_without_network: bool,
    /// Since when it has been failing, as the record of a timer's runs keeps it.
    failing_since: Option<f64>,
    random: Rng,
    now: f64,
    issued: f64,
    expires: f64,
    year: Year,
}

impl Machine<'_> {
    /// Makes a request; whether there is an answer. The time passes.
    fn ask(&mut self) -> bool {
        self.is_without_network = false;
        let left = SignedDuration::from_secs_f64(self.expires - self.now);
        let life = SignedDuration::from_secs_f64(self.expires - self.issued);
        let limit = attempt_limit(Some(left), Some(life)).as_secs_f64();
        if self.world.without_network.end(self.now).is_some() {
            // Nothing leaves this machine.
            self.is_without_network = true;
            self.now += 0.05;
            return false;
        }
        self.year.requests += 1.0;
        if self.world.unreachable.end(self.now).is_some() {
            // Half of them are refused at once, the other half are never answered.
            self.now += if self.random.bool() { 0.1 } else { limit };
            return false;
        }
        if self.world.hanging.end(self.now).is_some() {
            self.now += limit;
            return false;
        }
        self.now += ANSWER;
        let repeats = self.cli && self.expires - self.now > 300.0;
        if !repeats {
            self.publish(self.now);
        }
        true
    }

    fn publish(&mut self, at: f64) {
        let (dead, though_reachable) = self.world.awake(self.expires, at.min(YEAR));
        self.year.dead += dead;
        self.year.dead_though_reachable += though_reachable;
        (self.issued, self.expires) = (at - ANSWER, at - ANSWER + LIFE);
    }

    /// The refresh point in real time.
    fn refresh_at(&self, spread: Spread) -> f64 {
        seconds(refresh_at(timestamp(self.issued), timestamp(self.expires), None, spread))
    }

    fn is_due(&self, spread: Spread) -> bool {
        self.world.believed(self.now) >= self.refresh_at(spread)
    }

    fn sleep_until(&mut self, at: f64) {
        // A nanosecond may be lost when a time stamp is converted to seconds.
        self.now = at.max(self.now) + 0.001;
        self.now = self.world.asleep.end(self.now).unwrap_or(self.now);
    }

    /// Tries once and notes the result; returns when to try again.
    fn attempt(&mut self, backoff: &mut Backoff) -> Option<f64> {
        let (before, expires) = (self.now, self.expires);
        let answered = self.ask();
        self.failing_since = if answered { None } else { self.failing_since.or(Some(before)) };
        let (now, left) = (moment(self.now), SignedDuration::from_secs_f64(self.expires - self.now));
        match (answered, self.expires > expires) {
            (true, true) => backoff.succeeded(SCOPE, None, now),
            (true, false) => {
                let until = ask_cli_again(timestamp(self.world.believed(self.now)), timestamp(self.expires));
                backoff.repeated(SCOPE, until, left, now);
            }
            (false, _) => {
                let failure = Failure::transient(Code::Unavailable, "");
                backoff.failed(SCOPE, Step::SignIn, &failure, Some(left), now, self.random.f64());
                if self.is_without_network {
                    backoff.without_network(SCOPE, now, self.random.f64());
                }
            }
        }
        backoff.next_try(&[SCOPE], self.expires > self.now, now).map(seconds)
    }

    fn new_backoff(&self) -> Backoff {
        if self.is_server { Backoff::for_servers() } else { Backoff::default() }
    }

    fn daemon(&mut self, spread: Spread) {
        let mut backoff = self.new_backoff();
        while self.now < YEAR {
            let next = backoff.next_try(&[SCOPE], self.expires > self.now, moment(self.now)).map(seconds);
            match next {
                _ if !self.is_due(spread) => {
                    // The daemon looks at the clock every minute.
                    self.sleep_until(self.refresh_at(spread).min(self.now + 60.0));
                }
                // The wait for a newer token ends when the present one expires.
                Some(next) if self.expires > self.now => self.sleep_until(next.min(self.expires)),
                Some(next) => self.sleep_until(next),
                None => drop(self.attempt(&mut backoff)),
            }
        }
    }

    fn timer(&mut self, delay: f64) {
        while self.now < YEAR {
            let (issued, expires) = (timestamp(self.issued), timestamp(self.expires));
            let believed = timestamp(self.world.believed(self.now));
            if self.is_due(Spread::NONE) || dies_before_next_run(issued, expires, believed) {
                self.run();
            }
            let next = ((self.now - delay) / 600.0).floor() * 600.0 + 600.0 + delay;
            // A resume starts a run at once.
            self.sleep_until(next);
        }
    }

    /// One run, which goes on trying for 8 minutes.
    fn run(&mut self) {
        let (mut backoff, mut end) = (self.new_backoff(), self.now + RUN.as_secs_f64());
        if let Some(since) = self.failing_since {
            let left = SignedDuration::from_secs_f64(self.expires - self.now);
            let (failing_for, left) =
                (Duration::from_secs_f64(self.now - since), Some(left).filter(|left| left.is_positive()));
            backoff.resume(SCOPE, failing_for, left, RUN - TIME_FOR_TRIES, moment(self.now), self.random.f64());
            if let Some(next) = backoff.next_try(&[SCOPE], self.expires > self.now, moment(self.now)) {
                self.sleep_until(seconds(next));
            }
        }
        loop {
            let expires = self.expires;
            let next = self.attempt(&mut backoff);
            let left = SignedDuration::from_secs_f64(self.expires - self.now);
            // If the same token came again but lives until the next run, it is left to that.
            let lives = !backoff.has_failed(SCOPE) && left >= NEXT_RUN;
            match next.filter(|next| self.expires == expires && *next < end && !lives) {
                Some(next) => {
                    let before = self.now;
                    self.sleep_until(next);
                    // The run's time stands still while the machine sleeps.
                    end += self.now - before - self.world.awake(before, self.now).0;
                }
                None => return,
            }
        }
    }

    fn fixed_loop(&mut self) {
        while self.now < YEAR {
            self.ask();
            self.now = self.world.after_awake(self.now, 3_000.0);
        }
    }

    /// `earliest` is the age at which a credential may be replaced.
    fn best(&mut self, earliest: f64) {
        while self.now < YEAR {
            let from = if self.cli { self.expires - 300.0 } else { self.issued + earliest };
            self.now = self.world.possible(from.max(self.now));
            self.year.requests += 1.0;
            self.now += ANSWER;
            self.publish(self.now);
        }
    }
}

fn year(schedule: Schedule, laptop: bool, cli: bool) -> Year {
    let mut sum = Year::default();
    for seed in 0..MACHINES {
        let world = World::new(seed, laptop, !cli);
        let random = Rng::with_seed(seed + 1_000);
        let (now, issued, expires, year) = (world.possible(0.0), 0.0, 0.0, Year::default());
        let expires = if laptop { now } else { expires };
        let (is_server, failing_since) = (!laptop, None);
        let mut machine = Machine {
            world: &world,
            cli,
            is_server,
            is_without_network: false,
            failing_since,
            random,
            now,
            issued,
            expires,
            year,
        };
        let spread = Spread::of(&seed.to_be_bytes(), 0);
        match schedule {
            Schedule::Loop => machine.fixed_loop(),
            Schedule::Daemon => machine.daemon(spread),
            Schedule::Timer => machine.timer(90.0 * Rng::with_seed(seed).f64()),
            Schedule::Best => machine.best(2_400.0),
            Schedule::Always => machine.best(60.0),
        }
        machine.publish(YEAR);
        sum.dead += machine.year.dead;
        sum.dead_though_reachable += machine.year.dead_though_reachable;
        sum.requests += machine.year.requests;
    }
    let many = Duration::from_secs(MACHINES).as_secs_f64();
    Year {
        dead: sum.dead / many,
        dead_though_reachable: sum.dead_though_reachable / many,
        requests: sum.requests / many,
    }
}

pub(super) fn print_table() {
    println!(
        "| machine | credential | schedule | s dead though reachable | x best | s dead in all | x best | requests |"
    );
    println!("|---|---|---|---:|---:|---:|---:|---:|");
    for (machine, laptop) in [("laptop", true), ("server", false)] {
        for (credential, cli) in [("minted", false), ("CLI token", true)] {
            let best = year(Schedule::Best, laptop, cli);
            for (name, schedule) in [
                ("50-minute loop", Schedule::Loop),
                ("timer", Schedule::Timer),
                ("daemon", Schedule::Daemon),
                ("best possible", Schedule::Best),
                ("all the time", Schedule::Always),
            ] {
                let one = year(schedule, laptop, cli);
                let ours = matches!(schedule, Schedule::Daemon | Schedule::Timer);
                let times = |one: f64, best: f64| {
                    let missed = if ours && one > best * TARGET { " (missed)" } else { "" };
                    format!("{:.2}{missed}", one / best.max(0.001))
                };
                println!(
                    "| {machine} | {credential} | {name} | {:.0} | {} | {:.0} | {} | {:.0} |",
                    one.dead_though_reachable,
                    times(one.dead_though_reachable, best.dead_though_reachable),
                    one.dead,
                    times(one.dead, best.dead),
                    one.requests
                );
            }
        }
    }
}
