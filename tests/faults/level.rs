//! How much to run: a sample, or everything.

use std::env;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whether everything should run, however long that takes.
pub(crate) fn whole() -> bool {
    env::var_os("DBX_ROTATOR_FAULTS").is_some_and(|level| level == "all")
}

/// All cases, or this many of them, evenly spaced from a random one.
pub(crate) fn sample<T: Debug>(test: &str, cases: Vec<T>, most: usize) -> Vec<T> {
    let all = cases.len();
    if whole() || all <= most {
        eprintln!("{test}: all of {all} cases");
        return cases;
    }
    let seed = seed();
    eprintln!("{test}: {most} of {all} cases, DBX_ROTATOR_SEED={seed}");
    let first = fastrand::Rng::with_seed(seed).usize(..all);
    let mut cases: Vec<Option<T>> = cases.into_iter().map(Some).collect();
    (0..most).filter_map(|index| cases[(first + index * all / most) % all].take()).collect()
}

fn seed() -> u64 {
    let given = env::var("DBX_ROTATOR_SEED").ok().map(|seed| seed.parse().expect("DBX_ROTATOR_SEED is a number"));
    given.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos()))
}

/// So often it is said how far a run has come.
const TOLD_EVERY: usize = 250;

/// What was found wrong, collected so that one run shows all of it.
#[derive(Default)]
pub(crate) struct Findings {
    tried: usize,
    missed: usize,
    wrong: Vec<String>,
}

impl Findings {
    pub(crate) fn add(&mut self, case: impl Debug, faults: Vec<String>) {
        self.tried += 1;
        for fault in faults {
            // Said at once, too: all of it takes hours.
            eprintln!("found: {case:?}: {fault}");
            self.wrong.push(format!("{case:?}: {fault}"));
        }
        if self.tried.is_multiple_of(TOLD_EVERY) {
            eprintln!("{} cases tried, {} missed, {} findings", self.tried, self.missed, self.wrong.len());
        }
    }

    /// A case that did not occur: the program took another path this time.
    pub(crate) fn miss(&mut self) {
        self.missed += 1;
    }

    /// Asserts that nothing is wrong, and that most cases occurred.
    #[track_caller]
    pub(crate) fn are_none(&self, test: &str) {
        const SHOWN: usize = 40;
        eprintln!("{test}: {} cases, {} missed, {} findings", self.tried, self.missed, self.wrong.len());
        assert!(self.missed * 10 <= self.tried, "{test}: {} of {} cases did not come about", self.missed, self.tried);
        let shown = self.wrong.iter().take(SHOWN).map(|fault| format!("  {fault}\n")).collect::<String>();
        assert!(self.wrong.is_empty(), "{test}: {} findings in {} cases:\n{shown}", self.wrong.len(), self.tried);
    }
}
