//! The edit: from the bytes of a password file and the entries to publish, the bytes to write. Pure.
//!
//! Invariants, each with a test over thousands of hostile files:
//! - every foreign line stays as it is, byte for byte, and in its order;
//! - afterwards libpq reads our password for every connection that an entry serves (except where the user has narrower
//!   lines);
//! - the file ends with a line end, because libpq loses a last line of certain lengths without one;
//! - publishing again changes nothing but passwords, and not a byte when they are the same.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::entry::{Entry, Key};
use super::layout::{Layout, lay_out};
use super::reader::{Current, Reading};
use super::survey::{Ending, Survey, survey};

/// The outcome of [`publish`]: what the file is to hold, and what there is to say about it.
///
/// `Debug` leaves the bytes out: they hold passwords.
#[derive(Clone)]
pub struct Edit {
    /// The whole file.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Where each entry stands now, in the order of the entries.
    pub placements: Vec<Placement>,
    /// What moving lines cannot fix.
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes: _, placements, warnings } = self;
        f.debug_struct("Edit").field("placements", placements).field("warnings", warnings).finish_non_exhaustive()
    }
}

/// Where one entry stands after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The key of the entry.
    pub key: Key,
    /// The number of its (first) line in the new file, from 1.
    pub line: usize,
    /// How it got there.
    pub how: How,
    /// Further lines with the same key that were refreshed or added, for readers of the last match.
    pub copies: usize,
}

/// How an entry got to its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was there already.
    InPlace,
    /// The file had no such entry.
    Inserted,
    /// It was moved, since a line above could have won.
    Moved {
        /// The number of its old line, from 1.
        from: usize,
    },
}

/// A problem of the file that moving lines cannot fix. Line numbers are those of the new file, from 1; the text of a
/// warning never holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// asyncpg and DBeaver refuse the whole file, and sqlx stops reading there.
    NotUtf8 {
        /// The first such line.
        line: usize,
    },
    /// pgx ignores the whole file.
    TooLong {
        /// The first such line.
        line: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// libpq does not see the line end, and so misses the next line.
    Nul {
        /// The first such line.
        line: usize,
    },
    /// A byte order mark, which hides its line from most clients.
    ByteOrderMark {
        /// The line; it was the first one.
        line: usize,
    },
    /// The user's own lines for single databases win over our entry for every database.
    Exceptions {
        /// Our entry.
        key: Key,
        /// The first of those lines.
        line: usize,
        /// Its four key fields.
        fields: String,
        /// How many such lines there are.
        count: usize,
    },
    /// In node-postgres, which takes the last match, a line below ours would win; a last copy was not asked for.
    RivalBelow {
        /// Our entry.
        key: Key,
        /// The last such line.
        line: usize,
        /// Its four key fields.
        fields: String,
    },
    /// The same key was given twice; the first was published.
    Repeated {
        /// The key.
        key: Key,
    },
}

/// How much a [`Warning`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For those who look closely: one client, or a choice that the user made.
    Detail,
    /// Some client reads something else, or nothing.
    Warning,
}

impl Warning {
    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::RivalBelow { .. } => Severity::Detail,
            _ => Severity::Warning,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { line } => write!(
                f,
                "line {line} is not UTF-8: asyncpg and DBeaver refuse the whole password file, sqlx reads nothing below it"
            ),
            Self::TooLong { line, length } => {
                write!(f, "line {line} is {length} bytes long: pgx ignores a password file with such a line")
            }
            Self::Nul { line } => {
                write!(f, "line {line} holds a NUL byte: libpq does not see its end, and so loses the line below it")
            }
            Self::ByteOrderMark { line } => {
                write!(f, "line {line} begins with a byte order mark: most clients do not understand that line")
            }
            Self::Exceptions { key, line, fields, count } => {
                write!(f, "line {line} ({fields}) wins over {key} for its database")?;
                match count {
                    1 => Ok(()),
                    2 => write!(f, ", and so does another line"),
                    more => write!(f, ", and so do {} other lines", more - 1),
                }
            }
            Self::RivalBelow { key, line, fields } => {
                write!(f, "line {line} ({fields}) wins over {key} in node-postgres, which takes the last match")
            }
            Self::Repeated { key } => write!(f, "{key} was given more than once: the first was published"),
        }
    }
}

/// Puts every entry into the file so that clients read it, and changes nothing else.
///
/// Of entries with the same key only the first is used, with a warning. Without entries nothing changes.
///
/// ```
/// use dbx_rotator::pgpass::{Entry, Key, publish};
///
/// let key = Key::new("db.example.com", 5432, "*", "alice@example.com")?;
/// let entry = Entry::new(key, "token".into(), false)?;
/// let edit = publish(b"*:*:*:*:for the rest\n", &[entry]);
/// assert_eq!(edit.bytes.as_slice(), b"db.example.com:5432:*:alice@example.com:token\n*:*:*:*:for the rest\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn publish(original: &[u8], entries: &[Entry]) -> Edit {
    let (entries, repeated) = distinct(entries);
    if entries.is_empty() {
        return Edit { bytes: Zeroizing::new(original.to_vec()), placements: Vec::new(), warnings: Vec::new() };
    }
    let survey = survey(original, &entries);
    let layout = lay_out(&entries, &survey);
    let assembled = Assembly::new(original, &entries, &survey, &layout).run();
    let placements = placements(&entries, &survey, &layout, &assembled);
    let mut warnings = warnings(original, &entries, &survey, &layout, &assembled);
    warnings.extend(repeated.into_iter().map(|key| Warning::Repeated { key }));
    Edit { bytes: assembled.bytes, placements, warnings }
}

/// The first entry of each key, and the keys that were repeated.
fn distinct(entries: &[Entry]) -> (Vec<&Entry>, Vec<Key>) {
    let mut seen = HashSet::with_capacity(entries.len());
    let (first, again): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| seen.insert(entry.key()));
    (first, again.into_iter().map(|entry| entry.key().clone()).collect())
}

/// One edit of the old file.
struct Change {
    /// The bytes that it replaces; empty for an inserted line.
    span: Range<usize>,
    /// The number of the old line that it replaces or precedes, from 0.
    line: usize,
    entry: usize,
    /// The line end of the new line; `None` removes a line.
    write: Option<Ending>,
}

struct Assembly<'a> {
    original: &'a [u8],
    entries: &'a [&'a Entry],
    ending: Ending,
    /// In the order of the file.
    changes: Vec<Change>,
    appended: &'a [usize],
}

/// The new file, and how its lines are numbered.
struct Assembled {
    bytes: Zeroizing<Vec<u8>>,
    /// For each entry, the first line written, from 0.
    first_line: Vec<usize>,
    /// Where line numbers shift: from which old line on, and by how much in total.
    shifts: Vec<(usize, isize)>,
}

impl Assembled {
    /// The new number of an old line that still exists, from 1.
    fn line(&self, old: usize) -> usize {
        let after = self.shifts.partition_point(|(from, _)| *from <= old);
        let shift = after.checked_sub(1).and_then(|index| self.shifts.get(index)).map_or(0, |(_, shift)| *shift);
        old.saturating_add_signed(shift) + 1
    }
}

impl<'a> Assembly<'a> {
    fn new(original: &'a [u8], entries: &'a [&'a Entry], survey: &'a Survey, layout: &'a Layout) -> Self {
        let mut changes: Vec<Change> = Vec::new();
        for &entry in &layout.insert_order {
            if let Some(slot) = layout.plans[entry].insert {
                changes.push(Change {
                    span: slot.offset..slot.offset,
                    line: slot.line,
                    entry,
                    write: Some(survey.ending),
                });
            }
        }
        for (entry, finding) in survey.findings.iter().enumerate() {
            for (own, keep) in finding.own.iter().zip(&layout.plans[entry].keep) {
                let ending = if own.ending == Ending::None { survey.ending } else { own.ending };
                changes.push(Change { span: own.span.clone(), line: own.line, entry, write: keep.then_some(ending) });
            }
        }
        // A stable sort: what is inserted at one place keeps its order, before the line that is already there.
        changes.sort_by_key(|change| change.span.start);
        Self { original, entries, ending: survey.ending, changes, appended: &layout.append_order }
    }

    fn run(self) -> Assembled {
        let Self { original, entries, ending, changes, appended } = self;
        let written = changes.iter().filter(|change| change.write.is_some()).map(|change| change.entry);
        let room: usize = written.chain(appended.iter().copied()).map(|entry| entries[entry].longest_line()).sum();
        // Reserve everything: a growing buffer would leave copies of passwords behind.
        let replaced: usize = changes.iter().map(|change| change.span.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(original.len().saturating_sub(replaced) + room + 2));
        let mut first_line = vec![usize::MAX; entries.len()];
        let mut shifts = Vec::new();
        let mut shift: isize = 0;
        let mut copied = 0;
        for change in changes {
            bytes.extend_from_slice(&original[copied..change.span.start]);
            copied = change.span.end;
            let inserted = change.span.is_empty();
            match change.write {
                Some(line_end) => {
                    let line = change.line.saturating_add_signed(shift);
                    first_line[change.entry] = first_line[change.entry].min(line);
                    write_line(entries[change.entry], ending, line_end, &mut bytes);
                    shift += isize::from(inserted);
                }
                None => shift -= 1,
            }
            if inserted || change.write.is_none() {
                shifts.push((change.line, shift));
            }
        }
        bytes.extend_from_slice(&original[copied..]);
        for &entry in appended {
            write_line(entries[entry], ending, ending, &mut bytes);
        }
        end_line(ending, &mut bytes);
        Assembled { bytes, first_line, shifts }
    }
}

/// Writes one line. Ends the line above first if its line end is missing.
fn write_line(entry: &Entry, file_ending: Ending, line_end: Ending, out: &mut Vec<u8>) {
    end_line(file_ending, out);
    entry.write(out);
    out.extend_from_slice(line_end.bytes());
}

fn end_line(ending: Ending, out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'\n')) {
        out.extend_from_slice(ending.bytes());
    }
}

fn placements(entries: &[&Entry], survey: &Survey, layout: &Layout, assembled: &Assembled) -> Vec<Placement> {
    let place = |(index, entry): (usize, &&Entry)| {
        let (plan, finding) = (&layout.plans[index], &survey.findings[index]);
        let how = match (plan.insert, finding.own.first()) {
            (None, _) => How::InPlace,
            (Some(_), None) => How::Inserted,
            (Some(_), Some(own)) => How::Moved { from: own.line + 1 },
        };
        let lines = plan.keep.iter().filter(|keep| **keep).count()
            + usize::from(plan.insert.is_some())
            + usize::from(plan.append);
        Placement { key: entry.key().clone(), line: assembled.first_line[index] + 1, how, copies: lines - 1 }
    };
    entries.iter().enumerate().map(place).collect()
}

fn warnings(
    original: &[u8],
    entries: &[&Entry],
    survey: &Survey,
    layout: &Layout,
    assembled: &Assembled,
) -> Vec<Warning> {
    let number = |line: usize| assembled.line(line);
    let mut warnings = Vec::new();
    // UTF-8, UTF-16 little and big endian.
    if [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| original.starts_with(mark)) {
        warnings.push(Warning::ByteOrderMark { line: number(0) });
    }
    if let Err(error) = str::from_utf8(&assembled.bytes) {
        let (good, _) = assembled.bytes.split_at(error.valid_up_to());
        warnings.push(Warning::NotUtf8 { line: good.iter().filter(|&&byte| byte == b'\n').count() + 1 });
    }
    warnings.extend(survey.nul.map(|line| Warning::Nul { line: number(line) }));
    warnings.extend(survey.too_long.map(|(line, length)| Warning::TooLong { line: number(line), length }));
    for ((entry, finding), plan) in entries.iter().zip(&survey.findings).zip(&layout.plans) {
        let key = || entry.key().clone();
        if let Some(first) = &finding.first_exception {
            let (line, fields, count) = (number(first.line), first.fields(original), finding.exceptions);
            warnings.push(Warning::Exceptions { key: key(), line, fields, count });
        }
        let lowest = match (plan.insert, finding.own.last()) {
            (None, Some(own)) => own.line,
            _ => 0,
        };
        if let Some(rival) = finding.last_rival.as_ref().filter(|rival| rival.line >= lowest && !entry.last_copy()) {
            warnings.push(Warning::RivalBelow { key: key(), line: number(rival.line), fields: rival.fields(original) });
        }
    }
    warnings
}

/// An entry that clients would not read as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The key of the entry.
    pub key: Key,
    /// What clients read instead.
    pub found: Found,
}

/// What clients read instead of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing at all.
    Nothing,
    /// Another line.
    Shadow {
        /// Its number, from 1.
        line: usize,
        /// Its four key fields.
        fields: String,
    },
    /// The entry's line, but with another password.
    OtherPassword {
        /// Its number, from 1.
        line: usize,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.found {
            Found::Nothing => write!(f, "no line serves {key}"),
            Found::Shadow { line, fields } => write!(f, "line {line} ({fields}) wins over {key}"),
            Found::OtherPassword { line } => write!(f, "line {line} holds another password for {key}"),
        }
    }
}

/// Checks as clients do: does each entry win, with its password?
///
/// # Errors
/// One [`Mismatch`] for each entry that does not.
pub fn verify(bytes: &[u8], entries: &[Entry]) -> Result<(), Vec<Mismatch>> {
    let reading = Reading::new(bytes);
    let (entries, _) = distinct(entries);
    let mismatch = |entry: &&Entry| {
        let found = match reading.current(entry.key()) {
            Current::Missing => Found::Nothing,
            Current::Shadowed { line, fields } => Found::Shadow { line, fields },
            Current::Ours { password: Some(password), .. }
                if password.expose_secret() == entry.password().expose_secret() =>
            {
                return None;
            }
            Current::Ours { line, .. } => Found::OtherPassword { line },
        };
        Some(Mismatch { key: entry.key().clone(), found })
    };
    let mismatches: Vec<_> = entries.iter().filter_map(mismatch).collect();
    if mismatches.is_empty() { Ok(()) } else { Err(mismatches) }
}
