//! The outcome for each connection.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::failure::{Code, Failure};

/// The outcome for one connection.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A new credential is published.
    Rotated {
        /// When it expires.
        expires_at: Timestamp,
    },
    /// The published credential is live, and no newer one was needed or available.
    NotDue {
        /// When it expires, if known.
        expires_at: Option<Timestamp>,
    },
    /// No new credential was published, or another file for the connection could not be written.
    Failed(Failure),
}

/// Outcomes of connections, each by its place in the configuration.
pub(super) type Outcomes = Vec<(usize, Outcome)>;

/// The outcome for all connections.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the configuration.
    outcomes: Vec<(usize, String, Outcome)>,
    names: Vec<String>,
}

impl Report {
    pub(super) fn new(config: &Config) -> Self {
        let names = config.connections.iter().map(|connection| connection.name.clone()).collect();
        Report { outcomes: Vec::new(), names }
    }

    /// That of unnamed connections.
    #[cfg(test)]
    pub(crate) fn of(outcomes: Vec<Outcome>) -> Self {
        let outcomes =
            outcomes.into_iter().enumerate().map(|(index, outcome)| (index, String::new(), outcome)).collect();
        Report { outcomes, names: Vec::new() }
    }

    /// One for all connections.
    pub(crate) fn of_failure(config: &Config, failure: &Failure) -> Self {
        let mut report = Report::new(config);
        report.add((0..config.connections.len()).map(|index| (index, Outcome::Failed(failure.clone()))).collect());
        report
    }

    /// Adds later outcomes. A rotated connection stays so, even if nothing was due any more later.
    pub(super) fn add(&mut self, outcomes: Outcomes) {
        for (index, outcome) in outcomes {
            match self.outcomes.binary_search_by_key(&index, |(known, ..)| *known) {
                Ok(at) => {
                    let known = &mut self.outcomes[at].2;
                    if !matches!((&known, &outcome), (Outcome::Rotated { .. }, Outcome::NotDue { .. })) {
                        *known = outcome;
                    }
                }
                Err(at) => {
                    let name = self.names.get(index).cloned().unwrap_or_default();
                    self.outcomes.insert(at, (index, name, outcome));
                }
            }
        }
    }

    /// The earliest next try of the transient failures, by `next_try`; the inner none means now. None if another try cannot
    /// help.
    pub(super) fn next_try(
        &self,
        is_in_flight: impl Fn(usize) -> bool,
        next_try: impl Fn(usize) -> Option<Timestamp>,
    ) -> Option<Option<Timestamp>> {
        let failed = self.outcomes.iter().filter(|(index, _, outcome)| {
            matches!(outcome, Outcome::Failed(failure) if failure.is_transient()) && !is_in_flight(*index)
        });
        failed.map(|(index, ..)| next_try(*index)).min()
    }

    /// Whether it says what became of this connection.
    pub(super) fn has(&self, index: usize) -> bool {
        self.outcomes.binary_search_by_key(&index, |(known, ..)| *known).is_ok()
    }

    /// The connections that did not fail.
    pub(super) fn not_failed(&self) -> impl Iterator<Item = usize> {
        self.outcomes.iter().filter(|(.., outcome)| !matches!(outcome, Outcome::Failed(_))).map(|(index, ..)| *index)
    }

    /// Gives each transient failure the code for "try again later" if the next run is soon enough for it, and no other failure
    /// that code. Returns whether there is one to be left to the next run.
    pub(super) fn leave_to_next_run(&mut self, is_soon_enough: impl Fn(usize) -> bool) -> bool {
        let mut any = false;
        for (index, _, outcome) in &mut self.outcomes {
            let Outcome::Failed(failure) = outcome else { continue };
            if failure.is_transient() && is_soon_enough(*index) {
                failure.code = Code::TryAgain;
                any = true;
            } else if failure.code == Code::TryAgain {
                failure.code = Code::Unavailable;
            }
        }
        any
    }

    /// Time has run out. A failure with a wait that the other side asked for gets the code for "try again later".
    pub(super) fn give_up(&mut self, wait: Duration) {
        for (.., outcome) in &mut self.outcomes {
            if let Outcome::Failed(failure) = outcome
                && failure.retry_after.is_some()
            {
                failure.code = Code::TryAgain;
                failure.hint = Some(format!("try again in {} s, as it asks", wait.as_secs()));
            }
        }
    }

    /// Each connection's name and outcome, in the order of the configuration.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.outcomes.iter().map(|(_, name, outcome)| (name.as_str(), outcome))
    }

    /// Whether no connection failed. Then all of them are live.
    pub fn succeeded(&self) -> bool {
        self.exit_code() == 0
    }

    /// 0, or the first of 78, 77, 73, 69, 75 that occurred (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        let codes: Vec<Code> = self.failures().map(|failure| failure.code).collect();
        Code::exit_code_of(codes)
    }

    pub(crate) fn failure_of(&self, index: usize) -> Option<&Failure> {
        self.outcomes.iter().find_map(|(known, _, outcome)| match outcome {
            Outcome::Failed(failure) if *known == index => Some(failure),
            _ => None,
        })
    }

    fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.outcomes.iter().filter_map(|(.., outcome)| match outcome {
            Outcome::Failed(failure) => Some(failure),
            _ => None,
        })
    }
}
