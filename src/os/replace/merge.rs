//! Merges two edits of one file: ours, and one that somebody made at the same moment.
//!
//! Line by line, since these files consist of lines. No line that either side added is ever lost; a line that one side removed stays
//! removed if that can be told.

use std::collections::{HashMap, VecDeque};

/// The result of two edits, `ours` and `theirs`, of one `base`. Without a base it is unknown what was removed, so every line of both
/// is kept; but of lines with the same `key` only theirs.
pub(super) fn merge(base: Option<&[u8]>, ours: &[u8], theirs: &[u8], key: fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let Some(base) = base else { return unite(ours, theirs, key) };
    if ours == base || ours == theirs {
        return theirs.to_vec();
    }
    if theirs == base {
        return ours.to_vec();
    }
    let base = lines(base);
    let (left, right) = (Hunk::between(&base, &lines(ours)), Hunk::between(&base, &lines(theirs)));
    if left.is_before(&right) {
        return apply(&base, &[left, right]);
    }
    if right.is_before(&left) {
        return apply(&base, &[right, left]);
    }
    unite(ours, theirs, key)
}

/// A stretch of lines from `start` up to but not including `end`, and the lines that replace it.
struct Hunk<'a> {
    start: usize,
    end: usize,
    instead: Vec<&'a [u8]>,
}

impl<'a> Hunk<'a> {
    /// The shortest stretch that turns `old` into `new`.
    fn between(old: &[&[u8]], new: &[&'a [u8]]) -> Self {
        let same =
            |pairs: &mut dyn Iterator<Item = (&&[u8], &&[u8])>| pairs.take_while(|(one, other)| one == other).count();
        let start = same(&mut old.iter().zip(new));
        let most = old.len().min(new.len()) - start;
        let after = same(&mut old.iter().rev().zip(new.iter().rev()).take(most));
        Hunk { start, end: old.len() - after, instead: new[start..new.len() - after].to_vec() }
    }

    /// Whether it ends before the other begins. False for two insertions at the same place, since they may be the same.
    fn is_before(&self, other: &Self) -> bool {
        self.end < other.start || self.end == other.start && (self.start < self.end || other.start < other.end)
    }
}

fn apply(base: &[&[u8]], hunks: &[Hunk<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    for hunk in hunks {
        push(&mut out, &base[at..hunk.start]);
        push(&mut out, &hunk.instead);
        at = hunk.end;
    }
    push(&mut out, &base[at..]);
    out
}

/// All lines of `theirs`, and those of `ours` that it lacks, each below the same line as in `ours`.
fn unite(ours: &[u8], theirs: &[u8], key: fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let key = |line| key(content(line));
    let (ours, theirs) = (lines(ours), lines(theirs));
    // Where each line is in `theirs`, in ascending order.
    let mut places: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    for (index, line) in theirs.iter().enumerate() {
        places.entry(key(line)).or_default().push_back(index);
    }
    let mut out = Vec::new();
    let mut at = 0;
    for line in ours {
        match places.get_mut(key(line)) {
            Some(places) => {
                while places.front().is_some_and(|place| *place < at) {
                    places.pop_front();
                }
                if let Some(place) = places.pop_front() {
                    push(&mut out, &theirs[at..=place]);
                    at = place + 1;
                }
            }
            // A missing empty line does not matter.
            None if content(line).is_empty() => {}
            None => push(&mut out, &[line]),
        }
    }
    push(&mut out, &theirs[at..]);
    out
}

/// The lines with their line ends; the last may have none.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').collect()
}

fn content(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Never joins two lines: if the line above has no line end, it gets one.
fn push(out: &mut Vec<u8>, lines: &[&[u8]]) {
    for line in lines {
        if out.last().is_some_and(|&byte| byte != b'\n') {
            out.push(b'\n');
        }
        out.extend_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: Option<&str>, ours: &str, theirs: &str) -> String {
        String::from_utf8(merge(base.map(str::as_bytes), ours.as_bytes(), theirs.as_bytes(), |line| line)).unwrap()
    }

    #[test]
    fn what_either_side_did_is_done() {
        for (base, ours, theirs, expected) in [
            ("a\nb\n", "a\nb\n", "a\nc\n", "a\nc\n"),
            ("a\nb\n", "a\nc\n", "a\nb\n", "a\nc\n"),
            ("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "A\nb\nC\n"),
            ("a\nb\nc\n", "a\nb\nC\n", "A\nb\nc\n", "A\nb\nC\n"),
            ("a\nb\nc\n", "b\nc\n", "a\nb\n", "b\n"),
            // Both appended: nothing is lost, and equal lines appear once.
            ("a\n", "a\nx\n", "a\ny\n", "a\nx\ny\n"),
            ("a\n", "a\nx\n", "a\nx\n", "a\nx\n"),
            ("a", "a\nx", "b\na", "b\na\nx"),
            // One side rewrote the file from scratch.
            ("t1\nb\n", "new\n", "t2\nb\n", "new\nt2\nb\n"),
            ("", "x\n", "y\n", "x\ny\n"),
        ] {
            assert_eq!(merged(Some(base), ours, theirs), expected, "{base:?} {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn without_a_base_nothing_is_lost_and_lines_stay_below_those_that_they_belong_to() {
        let ours = "[one]\nhost=x\n\n[two]\nhost=y\nport=1\n";
        let theirs = "[one]\nhost=x\n\n[two]\nhost=y\n\n[three]\nhost=z\n";
        assert_eq!(merged(None, ours, theirs), "[one]\nhost=x\n\n[two]\nhost=y\nport=1\n\n[three]\nhost=z\n");
        assert_eq!(merged(None, "a\nb", "c"), "a\nb\nc");
        assert_eq!(merged(None, "a\r\nb\r\n", "b\r\na\r\n"), "b\r\na\r\n");
    }

    #[test]
    fn whatever_two_sides_do_no_line_that_one_of_them_added_is_lost_and_none_is_joined() {
        let mut random = fastrand::Rng::with_seed(0x1a4e_ba5e);
        let file = |random: &mut fastrand::Rng, letters: &str| {
            let mut letter = || letters.as_bytes()[random.usize(..letters.len())] as char;
            let mut text: String = (0..6).map(|_| format!("{}\n", letter())).collect();
            text.truncate(2 * random.usize(..7));
            if random.bool() {
                text.pop();
            }
            text
        };
        for _ in 0..20_000 {
            let base = file(&mut random, "abc");
            let (ours, theirs) = (file(&mut random, "abcxy"), file(&mut random, "abcyz"));
            let base = random.bool().then_some(base.as_str());
            let outcome = merged(base, &ours, &theirs);
            let has = |text: &str, line: &str| text.lines().any(|other| other == line);
            for line in ours.lines().chain(theirs.lines()).filter(|line| !base.is_some_and(|base| has(base, line))) {
                assert!(has(&outcome, line), "{base:?} {ours:?} {theirs:?}: {outcome:?}");
            }
            assert!(outcome.lines().all(|line| has(&ours, line) || has(&theirs, line)), "{outcome:?}");
        }
    }
}
