//! What happens to one machine in a year: sleep, outages, an API that does not answer, changes of the clock.

use fastrand::Rng;

pub(crate) const DAY: f64 = 86_400.0;
pub(crate) const YEAR: f64 = 365.0 * DAY;

/// Spans of time in order, without overlaps.
#[derive(Default)]
pub(crate) struct Spans(Vec<(f64, f64)>);

impl Spans {
    fn of(mut all: Vec<(f64, f64)>) -> Self {
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut merged: Vec<(f64, f64)> = Vec::new();
        for (start, end) in all {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Spans(merged)
    }

    /// The end of the span that contains this time.
    pub(crate) fn end(&self, at: f64) -> Option<f64> {
        let after = self.0.partition_point(|span| span.0 <= at);
        self.0[..after].last().filter(|span| at < span.1).map(|span| span.1)
    }

    /// How much of a period is within the spans.
    fn within(&self, from: f64, to: f64) -> f64 {
        let first = self.0.partition_point(|span| span.1 <= from);
        self.0[first..].iter().take_while(|span| span.0 < to).map(|span| span.1.min(to) - span.0.max(from)).sum()
    }
}

/// One machine's year.
pub(crate) struct World {
    pub(crate) asleep: Spans,
    /// The machine has just resumed and has no network yet: requests fail at once.
    pub(crate) without_network: Spans,
    /// The token endpoint is unreachable.
    pub(crate) unreachable: Spans,
    /// The token endpoint answers, but the API that mints does not.
    pub(crate) hanging: Spans,
    /// Asleep or unreachable.
    out: Spans,
    /// The wall clock is an hour ahead. A clock that is behind makes no difference, since the workspace's time corrects
    /// it.
    ahead: Spans,
}

impl World {
    pub(crate) fn new(seed: u64, laptop: bool, minted: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let asleep = if laptop { nights(&mut random) } else { Vec::new() };
        let mut unreachable = now_and_then(&mut random, DAY, 6.0 * 60.0, 1.5);
        // After a resume the network needs a few seconds.
        let without_network: Vec<_> = asleep.iter().map(|(_, end)| (*end, end + 2.0 + 10.0 * random.f64())).collect();
        unreachable.extend(&without_network);
        let hanging = now_and_then(&mut random, 14.0 * DAY, 45.0 * 60.0, 1.2);
        let hanging = if minted { Spans::of(hanging) } else { Spans::default() };
        let ahead = Spans::of(now_and_then(&mut random, 30.0 * DAY, 3_600.0, 1.0));
        let out = Spans::of([asleep.clone(), unreachable.clone()].concat());
        let without_network = Spans::of(without_network);
        World { asleep: Spans::of(asleep), without_network, unreachable: Spans::of(unreachable), hanging, out, ahead }
    }

    /// The workspace's time as the program estimates it: it believes a clock that was set forward.
    pub(crate) fn believed(&self, at: f64) -> f64 {
        if self.ahead.end(at).is_some() { at + 3_600.0 } else { at }
    }

    /// The first time when a request would be answered.
    pub(crate) fn possible(&self, mut at: f64) -> f64 {
        while let Some(end) = self.out.end(at).or_else(|| self.hanging.end(at)) {
            at = end;
        }
        at
    }

    /// How long the machine is awake between two times, and how much of that the token endpoint is reachable.
    pub(crate) fn awake(&self, from: f64, to: f64) -> (f64, f64) {
        if to <= from {
            return (0.0, 0.0);
        }
        (to - from - self.asleep.within(from, to), to - from - self.out.within(from, to))
    }

    /// When this many more seconds of awake time will have passed.
    pub(crate) fn after_awake(&self, mut at: f64, mut wait: f64) -> f64 {
        loop {
            at = self.asleep.end(at).unwrap_or(at);
            let next = self.asleep.0.partition_point(|span| span.0 <= at);
            match self.asleep.0.get(next) {
                Some((start, end)) if start - at < wait => (wait, at) = (wait - (start - at), *end),
                _ => return at + wait,
            }
        }
    }
}

/// One span in `every` seconds on average, with lognormal lengths of this median and spread, at most eight hours.
fn now_and_then(random: &mut Rng, every: f64, median: f64, sigma: f64) -> Vec<(f64, f64)> {
    let (mut at, mut all) = (0.0, Vec::new());
    loop {
        at -= every * (1.0 - random.f64()).ln();
        if at >= YEAR {
            return all;
        }
        let length = (median * (sigma * normal(random)).exp()).min(8.0 * 3_600.0);
        all.push((at, at + length));
    }
}

/// A normal random number (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// When a laptop is asleep: it is used from about 8 to about 19 o'clock, and closed now and then.
fn nights(random: &mut Rng) -> Vec<(f64, f64)> {
    let mut all = Vec::new();
    for day in 0..365_u32 {
        let midnight = f64::from(day) * DAY;
        let hour = |hours: f64| midnight + hours * 3_600.0;
        let (morning, evening) = (hour(7.5 + random.f64()), hour(18.5 + random.f64()));
        all.push((midnight, morning));
        let mut at = morning;
        loop {
            let closed = at + (0.5 + 3.0 * random.f64()) * 3_600.0;
            if closed >= evening {
                break;
            }
            at = (closed + (0.1 + 1.5 * random.f64()) * 3_600.0).min(evening);
            all.push((closed, at));
        }
        all.push((evening, midnight + DAY));
    }
    all
}
