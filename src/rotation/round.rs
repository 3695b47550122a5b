//! One round: everything that is wished for and may be tried now, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Rotator;
use super::due::Standing;
use super::obtain::{Errand, Obtained};
use super::publication::Publication;
use super::record::{ConnectionRecord, Locked, Record};
use super::report::Outcome;
use super::retry::{Retries, Who};
use super::schedule::attempt_limit;
use super::verify::a_person_can_serve;
use crate::config::Config;
use crate::failure::Failure;
use crate::logging::announce;

/// Which connections are to be rotated.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// Those that are due.
    Due,
    /// Those that are due, or would be dead before a timer's next run has had time to mend that.
    DueBeforeNextRun,
    /// All of them, but those that another instance has rotated since.
    All {
        /// By the wall clock.
        since: Timestamp,
    },
    /// Those that are due or have less than this left.
    ValidFor(SignedDuration),
}

impl Wish {
    pub(super) fn covers(&self, standing: &Standing, known: Option<&ConnectionRecord>) -> bool {
        match self {
            Wish::Due => standing.is_due(),
            Wish::DueBeforeNextRun => standing.is_due() || standing.dies_before_next_run(),
            Wish::ValidFor(least) => standing.is_due() || standing.left().is_none_or(|left| left < *least),
            Wish::All { since } => {
                standing.is_due() || known.and_then(|known| known.last_rotation_at).is_none_or(|last| last < *since)
            }
        }
    }
}

pub(super) type Outcomes = Vec<(usize, String, Outcome)>;

/// What a round has done before the outputs.
struct Attempt {
    outcomes: Outcomes,
    /// Somebody was asked, which the record tells.
    asked: bool,
    /// There is something new in the password file.
    is_news: bool,
}

impl Attempt {
    fn without_asking(outcomes: Outcomes) -> Self {
        Attempt { outcomes, asked: false, is_news: false }
    }
}

/// The first workspace that shares a connection's identity stands for all of them.
pub(super) fn leader_of(config: &Config, connection: usize) -> usize {
    let workspace = config.connections.get(connection).map_or(0, |connection| connection.workspace);
    let Some(own) = config.workspaces.get(workspace) else { return workspace };
    config.workspaces.iter().position(|other| other.shares_identity_with(own)).unwrap_or(workspace)
}

/// Whose waits a connection must heed.
pub(super) fn heeds(config: &Config, connection: usize) -> [Who; 3] {
    [Who::Workspace(leader_of(config, connection)), Who::Connection(connection), Who::File]
}

impl Rotator {
    /// When a connection that is due may be tried, where that lies ahead; `live` is whether clients read a live credential.
    pub(crate) fn next_try(&self, index: usize, live: bool, retries: &Retries, now: Timestamp) -> Option<Timestamp> {
        retries.next_try(&heeds(&self.config, index), live, now)
    }

    /// One attempt for each connection that `wish` covers and whose workspace may be asked now, in one write. `only` narrows it
    /// to some connections; `limit` is for how long another instance is waited for.
    pub(crate) async fn round(
        &self,
        wish: &Wish,
        only: Option<&[usize]>,
        retries: &mut Retries,
        limit: Duration,
    ) -> Outcomes {
        let selected = self.selected(only);
        let (outcomes, told) = {
            // A timer that finds nothing due must not wait for anybody.
            let _lock = match self.store.lock(limit, || self.outcomes_if_none_covered(wish, &selected, false)).await {
                Ok(Locked::Needless(outcomes)) => return outcomes,
                Ok(lock) => lock,
                Err(failure) => return self.all_failed(&selected, &failure, retries),
            };
            self.round_alone(wish, &selected, retries).await
        };
        // No other instance has to wait for the programs that are told.
        self.tell_programs(&outcomes, &told).await;
        outcomes
    }

    /// A round under the lock, with the standings after it.
    async fn round_alone(&self, wish: &Wish, selected: &[usize], retries: &mut Retries) -> (Outcomes, Vec<Standing>) {
        let mut record = self.record();
        self.located(&record).tidy(&record);
        let attempt = self.located(&record).attempt(wish, selected, &mut record, retries).await;
        let Attempt { mut outcomes, asked, is_news } = attempt;
        outcomes.sort_by_key(|(index, ..)| *index);
        let here = self.located(&record);
        let standings = if here.has_outputs() { here.standings(&record).unwrap_or_default() } else { Vec::new() };
        let wrote = here.write_outputs(&mut outcomes, &standings, &mut record);
        if asked || wrote {
            self.keep(&record);
        }
        if is_news && !outcomes.iter().any(|(.., outcome)| matches!(outcome, Outcome::Failed(_))) {
            announce::completed();
        }
        (outcomes, standings)
    }

    pub(super) fn keep(&self, record: &Record) {
        if let Err(error) = self.store.write(record) {
            tracing::warn!("cannot keep a record in {}: {error}", self.config.state_dir.display());
        }
    }

    /// The attempt itself, of a rotator whose connections are located.
    async fn attempt(&self, wish: &Wish, selected: &[usize], record: &mut Record, retries: &mut Retries) -> Attempt {
        let (due, standings) = match self.wanted(wish, selected, record) {
            Ok(found) => found,
            Err(failure) => return Attempt::without_asking(self.all_failed(selected, &failure, retries)),
        };
        let mut outcomes = self.outcomes_without_asking(selected, &due, &standings, wish, record);
        let now = Timestamp::now();
        let may_be_tried = |index: &usize| {
            let live = standings[*index].left_to_clients().is_some();
            self.next_try(*index, live, retries, now).is_none()
        };
        let asked: Vec<usize> = due.into_iter().filter(may_be_tried).collect();
        if asked.is_empty() {
            return Attempt::without_asking(outcomes);
        }
        let in_trouble = |index: &usize| heeds(&self.config, *index).iter().any(|who| retries.is_in_trouble(*who));
        if !asked.iter().all(in_trouble) {
            announce::start();
        }
        let obtained = self.obtain(wish, &asked, &standings, record).await;
        let (here, moved) = self.with_what_was_found(&obtained, record);
        // What is published is to be judged by the entry that it will have.
        let standings = if moved { here.standings(record).unwrap_or(standings) } else { standings };
        let mut publication = Publication::new(&here.config, &standings, record, retries);
        let is_news = publication.settle(obtained);
        outcomes.extend(publication.into_outcomes());
        Attempt { outcomes, asked: true, is_news }
    }

    /// Remembers what the API said, and the connections with the keys that follow from it; whether any of these is new.
    fn with_what_was_found(&self, obtained: &[Obtained], record: &mut Record) -> (Self, bool) {
        let mut located = Vec::new();
        for brought in obtained.iter().filter_map(|one| one.result.as_ref().ok()) {
            let Some(first) = brought.parcels.first() else { continue };
            let of_the_same = &self.config.connections[first.index];
            if let Some(user) = &brought.user {
                record.remember_user(&self.config, of_the_same, user);
            }
            for (place, known) in &brought.known {
                record.remember(&self.config, of_the_same, place, known.clone());
            }
            located.extend(brought.parcels.iter().filter_map(|parcel| Some((parcel.index, parcel.located.as_ref()?))));
        }
        self.relocated(&located)
    }

    pub(super) fn selected(&self, only: Option<&[usize]>) -> Vec<usize> {
        only.map_or_else(|| (0..self.config.connections.len()).collect(), <[usize]>::to_vec)
    }

    /// The outcomes, where `wish` covers nothing of what is selected; with `strictly`, and nothing beside the password file is to
    /// be written either.
    pub(super) fn outcomes_if_none_covered(&self, wish: &Wish, selected: &[usize], strictly: bool) -> Option<Outcomes> {
        let record = self.record();
        let here = self.located(&record);
        let (due, standings) = here.wanted(wish, selected, &record).ok()?;
        let none = due.is_empty() && (!strictly || here.outputs_are_current(selected, &standings) && here.is_settled());
        none.then(|| self.not_due(selected, &standings))
    }

    fn wanted(&self, wish: &Wish, selected: &[usize], record: &Record) -> Result<(Vec<usize>, Vec<Standing>), Failure> {
        let standings = self.standings(record)?;
        let due = selected.iter().copied().filter(|index| self.covers(wish, *index, &standings, record)).collect();
        Ok((due, standings))
    }

    fn covers(&self, wish: &Wish, index: usize, standings: &[Standing], record: &Record) -> bool {
        wish.covers(&standings[index], record.connection(&self.config, &self.config.connections[index]))
    }

    // ---- outcomes that need nobody ----

    fn outcome(&self, index: usize, outcome: Outcome) -> (usize, String, Outcome) {
        (index, self.config.connections[index].name.clone(), outcome)
    }

    fn not_due(&self, selected: &[usize], standings: &[Standing]) -> Outcomes {
        let expiry = |index: usize| standings[index].token.as_ref().map(|token| token.expires_at);
        selected.iter().map(|index| self.outcome(*index, Outcome::NotDue { expires_at: expiry(*index) })).collect()
    }

    /// Without the password file, or the lock, nothing can be done for anybody.
    fn all_failed(&self, selected: &[usize], failure: &Failure, retries: &mut Retries) -> Outcomes {
        if retries.failed(Who::File, failure, None, Timestamp::now()).1 {
            let names: Vec<&str> = selected.iter().map(|index| self.config.connections[*index].name.as_str()).collect();
            announce::failed(failure, None, &names);
        }
        selected.iter().map(|index| self.outcome(*index, Outcome::Failed(failure.clone()))).collect()
    }

    /// What is not due after all; for a wish for all of them, that is because another instance has just rotated it.
    fn outcomes_without_asking(
        &self,
        selected: &[usize],
        due: &[usize],
        standings: &[Standing],
        wish: &Wish,
        record: &Record,
    ) -> Outcomes {
        let rest: Vec<usize> = selected.iter().copied().filter(|index| !due.contains(index)).collect();
        let by_another = |index: usize| {
            let rotated = record.connection(&self.config, &self.config.connections[index])?.last_rotation_at;
            let recent = matches!(wish, Wish::All { since } if rotated.is_some_and(|at| at >= *since));
            let expires_at = standings[index].token.as_ref()?.expires_at;
            recent.then_some(Outcome::Rotated { expires_at })
        };
        let mut outcomes = self.not_due(&rest, standings);
        for (index, _, outcome) in &mut outcomes {
            if let Some(rotated) = by_another(*index) {
                tracing::debug!(
                    "connection {} was rotated by another dbx-rotator meanwhile",
                    self.config.connections[*index].name
                );
                *outcome = rotated;
            }
        }
        outcomes
    }

    // ---- obtain ----

    /// Signs in once for each identity, all of them side by side.
    async fn obtain(&self, wish: &Wish, asked: &[usize], standings: &[Standing], record: &Record) -> Vec<Obtained> {
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for index in asked {
            groups.entry(leader_of(&self.config, *index)).or_default().push(*index);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (leader, connections) in groups {
            let of_all = connections.iter().map(|index| &self.config.connections[*index]);
            let known = of_all.filter_map(|connection| {
                Some((connection.place.clone()?, record.known(&self.config, connection)?.clone()))
            });
            let errand = Errand {
                config: Arc::clone(&self.config),
                leader,
                known: known.collect(),
                limit: attempt_limit(connections.iter().filter_map(|index| standings[*index].left()).min()),
                person_can_serve: self.a_person_can_serve(&connections),
                by_timer: matches!(wish, Wish::DueBeforeNextRun),
                least: if let Wish::ValidFor(least) = wish { *least } else { SignedDuration::ZERO },
                now: connections.first().map_or_else(Timestamp::now, |index| standings[*index].now),
                connections,
            };
            tasks.spawn(errand.run());
        }
        let mut obtained = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(one) => obtained.push(one),
                Err(fault) => tracing::error!("a sign-in ended unexpectedly: {fault}"),
            }
        }
        obtained.sort_by_key(|one| one.leader);
        obtained
    }

    fn a_person_can_serve(&self, connections: &[usize]) -> bool {
        connections.iter().any(|index| {
            let connection = &self.config.connections[*index];
            a_person_can_serve(connection, self.config.workspace_of(connection))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::State;

    fn standing(state: State) -> Standing {
        Standing { state, reason: None, token: None, now: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_wish_for_all_leaves_alone_what_another_instance_has_rotated_since() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let wish = Wish::All { since: at(100) };
        let rotated = |second| ConnectionRecord { last_rotation_at: Some(at(second)), ..ConnectionRecord::default() };
        assert!(wish.covers(&standing(State::Live), None));
        assert!(wish.covers(&standing(State::Live), Some(&rotated(99))));
        assert!(!wish.covers(&standing(State::Live), Some(&rotated(100))));
        assert!(wish.covers(&standing(State::Missing), Some(&rotated(100))));
    }
}
