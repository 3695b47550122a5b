//! Where every entry goes. Decided from a [`Survey`] alone, before a byte is written.
//!
//! The rule, for each entry:
//! 1. If its own line is above every rival and hazard, it stays; further copies are refreshed.
//! 2. Otherwise its lines are removed and it becomes the first line, or comes directly below the user's narrower lines
//!    above the first rival or hazard. All parsers that a bad line confuses are confused by lines *above*.
//! 3. Of our own entries, one for a named database comes before the one for every database, or it would never be read.
//! 4. If the last line is to be read too (`last_copy`), one copy comes below every rival.
//!
//! A second run finds everything in place, and moves nothing.

use std::collections::HashMap;

use super::entry::Entry;
use super::survey::{Finding, Slot, Survey};

/// How many lines of one entry are refreshed from the top, besides the last one.
const MOST_COPIES: usize = 100;

/// What happens to one entry's lines.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where a line is inserted; `None` if its first line stays.
    pub(crate) insert: Option<Slot>,
    /// For each of its lines: is it written again in place, or removed?
    pub(crate) keep: Vec<bool>,
    /// Is one more copy appended as the last line?
    pub(crate) append: bool,
}

/// A position in the new file: twice a line's number for the place above the line, plus one for the line itself.
type Position = usize;

fn above(slot: Slot) -> Position {
    2 * slot.line
}

fn at(line: usize) -> Position {
    2 * line + 1
}

/// The plans for all entries, in the order of the entries, and the order of writing where several are inserted at one
/// place or appended.
pub(crate) struct Layout {
    pub(crate) plans: Vec<Plan>,
    /// Indices of entries as inserted, for those that share a place.
    pub(crate) insert_order: Vec<usize>,
    /// Indices of entries as appended.
    pub(crate) append_order: Vec<usize>,
}

/// Lays out all entries. Their keys must differ.
pub(crate) fn lay_out(entries: &[&Entry], survey: &Survey) -> Layout {
    let open = open_entries(entries);
    let mut stays = vec![false; entries.len()];
    for (index, finding) in survey.findings.iter().enumerate() {
        // A named entry must also be above the open one: above its line, or above the highest place that it can get.
        let limit = open[index].map(|open| ceiling(&survey.findings[open])).unwrap_or_default();
        stays[index] = match finding.own.first() {
            Some(own) => [finding.bar, limit].into_iter().flatten().all(|bar| own.line < bar),
            None => false,
        };
    }
    let mut inserts: Vec<Option<Slot>> = survey
        .findings
        .iter()
        .zip(&stays)
        .map(|(finding, stays)| (!stays).then_some(finding.below_exceptions))
        .collect();
    // An open entry that moves goes below the named ones that stay.
    for (named, open) in open.iter().enumerate() {
        if let (true, Some(open)) = (stays[named], *open)
            && let (Some(slot), Some(own)) = (&mut inserts[open], survey.findings[named].own.first())
        {
            *slot = (*slot).max(Slot { line: own.line + 1, offset: own.span.end });
        }
    }
    let plans = keep_and_append(entries, survey, &open, &inserts);
    let (insert_order, append_order) = orders(&open, &plans);
    Layout { plans, insert_order, append_order }
}

/// For each entry of a named database: the entry for every database of the same host, port and user.
fn open_entries(entries: &[&Entry]) -> Vec<Option<usize>> {
    let place = |entry: &Entry| {
        let key = entry.key();
        (key.host().to_owned(), key.port(), key.user().to_owned())
    };
    let open: HashMap<_, _> = (0..)
        .zip(entries)
        .filter(|(_, entry)| entry.key().every_database())
        .map(|(index, entry)| (place(entry), index))
        .collect();
    let find = |entry: &&Entry| {
        let named = !open.is_empty() && !entry.key().every_database();
        named.then(|| open.get(&place(entry)).copied()).flatten()
    };
    entries.iter().map(find).collect()
}

/// The line that everything to be read before this open entry must be above.
fn ceiling(open: &Finding) -> Option<usize> {
    let first = open.own.first().map(|own| own.line);
    [first, open.bar].into_iter().flatten().min()
}

/// Decides which lines stay as copies and which entries need a last line, open entries first: for readers of the last
/// match, an open entry is the rival of its named ones.
fn keep_and_append(entries: &[&Entry], survey: &Survey, open: &[Option<usize>], inserts: &[Option<Slot>]) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::with_capacity(entries.len());
    for ((entry, finding), insert) in entries.iter().zip(&survey.findings).zip(inserts) {
        let rival = finding.last_rival.as_ref().map(|rival| at(rival.line));
        plans.push(plan(entry, finding, *insert, rival));
    }
    for (index, open) in open.iter().enumerate() {
        let Some(open) = *open else { continue };
        let finding = &survey.findings[index];
        let foreign = finding.last_rival.as_ref().map(|rival| at(rival.line));
        let rival = [foreign, lowest(&plans[open], &survey.findings[open])].into_iter().flatten().max();
        plans[index] = plan(entries[index], finding, inserts[index], rival);
    }
    plans
}

fn plan(entry: &Entry, finding: &Finding, insert: Option<Slot>, last_rival: Option<Position>) -> Plan {
    // If the entry stays: the first line and all copies. If it moves: only lines that shield the next one from a NUL
    // above. Copies beyond any sensible number are removed: each is as long as a token.
    let last = finding.own.len().saturating_sub(1);
    let is_kept = |at: usize| insert.is_none() && (at < MOST_COPIES || at == last);
    let mut keep: Vec<bool> = (0..).zip(&finding.own).map(|(at, own)| is_kept(at) || own.shields).collect();
    let mut append = false;
    if let (true, Some(rival)) = (entry.last_copy(), last_rival) {
        match finding.own.last() {
            // A copy that stands below every rival already does what a new one would.
            Some(own) if at(own.line) > rival => keep[finding.own.len() - 1] = true,
            // The copy of an earlier run is no longer last: it moves.
            Some(own) if insert.is_none() && finding.own.len() > 1 => {
                keep[finding.own.len() - 1] = own.shields;
                append = true;
            }
            // At the same place an open entry is inserted below its named one.
            _ => append = insert.is_none_or(|slot| rival >= above(slot)),
        }
    }
    Plan { insert, keep, append }
}

/// Where the lowest line of an entry will be.
fn lowest(plan: &Plan, finding: &Finding) -> Option<Position> {
    if plan.append {
        return Some(Position::MAX);
    }
    let kept = finding.own.iter().zip(&plan.keep).filter(|(_, keep)| **keep).map(|(own, _)| at(own.line)).max();
    kept.max(plan.insert.map(above))
}

/// In the order given, except for open entries: inserted they come after their named ones, appended before them.
fn orders(open: &[Option<usize>], plans: &[Plan]) -> (Vec<usize>, Vec<usize>) {
    let count = open.len();
    // (place in the order, is it an open entry held back to that place?)
    let mut inserted: Vec<(usize, bool)> = (0..count).map(|index| (index, false)).collect();
    let mut appended = inserted.clone();
    for (named, open) in open.iter().enumerate() {
        let Some(open) = *open else { continue };
        if plans[named].insert.is_some() {
            inserted[open] = inserted[open].max((named, true));
        }
        appended[named] = appended[named].max((open, true));
    }
    let sorted = |places: Vec<(usize, bool)>| {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&index| (places[index], index));
        order
    };
    let mut insert_order = sorted(inserted);
    insert_order.retain(|&index| plans[index].insert.is_some());
    let mut append_order = sorted(appended);
    append_order.retain(|&index| plans[index].append);
    (insert_order, append_order)
}
