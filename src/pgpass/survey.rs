//! One pass over the password file: where our own lines are, and which foreign lines matter to which entry.
//!
//! Lines are numbered from 0 in here, and from 1 wherever people see them.

use std::collections::HashMap;
use std::ops::Range;

use super::entry::Entry;
use super::line::{Fields, Kind, Print, Relation, Wanted, strip_line_end};

/// One longer line makes pgx ignore the whole file.
const PGX_LIMIT: usize = 65_535;

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Lf,
    CrLf,
    /// The last line without a line end: it gets the file's usual one.
    None,
}

impl Ending {
    fn of(line: &[u8]) -> Self {
        match line {
            [.., b'\r', b'\n'] => Self::CrLf,
            [.., b'\n'] => Self::Lf,
            _ => Self::None,
        }
    }

    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::None => b"",
        }
    }
}

/// A line of ours: its four fields are those of an entry to publish.
#[derive(Clone, Debug)]
pub(crate) struct OwnLine {
    pub(crate) line: usize,
    /// Its place in the file, line end included.
    pub(crate) span: Range<usize>,
    pub(crate) ending: Ending,
    /// The line above has a NUL that hides its line end from libpq, so that without this line the next one would be
    /// lost.
    pub(crate) shields: bool,
}

/// A foreign line worth naming.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    pub(crate) line: usize,
    span: Range<usize>,
}

impl Foreign {
    /// Its four key fields; `bytes` is the file that was surveyed.
    pub(crate) fn fields(&self, bytes: &[u8]) -> String {
        let line = bytes.get(self.span.clone()).unwrap_or_default();
        Fields::split(line).map(|fields| fields.display()).unwrap_or_default()
    }
}

/// What the file holds for one entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finding {
    /// Its lines, from the top.
    pub(crate) own: Vec<OwnLine>,
    /// The first foreign line that it must be above: a rival or a hazard.
    pub(crate) bar: Option<usize>,
    /// The narrower lines above the bar and above its first own line: how many, the first, and where the last one ends.
    pub(crate) exceptions: usize,
    pub(crate) first_exception: Option<Foreign>,
    pub(crate) below_exceptions: Slot,
    /// The last rival, for readers that take the last match.
    pub(crate) last_rival: Option<Foreign>,
}

/// A place between two lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// The line below it.
    pub(crate) line: usize,
    /// The same as an offset in the file.
    pub(crate) offset: usize,
}

/// What holds for the file as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// One for each entry, in the same order.
    pub(crate) findings: Vec<Finding>,
    /// The line end for new lines: the file's own, LF if it is mixed.
    pub(crate) ending: Ending,
    /// The first line with a NUL.
    pub(crate) nul: Option<usize>,
    /// The first line that is too long for pgx, and its length in bytes.
    pub(crate) too_long: Option<(usize, usize)>,
}

/// Finds the few entries that a line can concern.
struct Index<'e> {
    wanted: Vec<Wanted<'e>>,
    by_place: HashMap<u64, Vec<usize>>,
}

impl<'e> Index<'e> {
    fn new(entries: &[&'e Entry]) -> Self {
        let wanted: Vec<_> = entries.iter().map(|entry| Wanted::new(entry.key())).collect();
        let mut by_place: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, wanted) in wanted.iter().enumerate() {
            if let Some(place) = wanted.print.place {
                by_place.entry(place).or_default().push(index);
            }
        }
        Self { wanted, by_place }
    }

    /// Collects into `found` the entries that the line is not disjoint from. A line of one entry means nothing to the
    /// others: the layout decides how our own lines relate to each other.
    fn find(&self, fields: &Fields<'_>, torn: bool, found: &mut Vec<(usize, Relation)>) {
        found.clear();
        let print = Print::from(fields);
        let mut judge = |index: usize| {
            let Some(wanted) = self.wanted.get(index) else { return };
            if wanted.print.meets(print) {
                match wanted.relation(fields) {
                    Relation::Disjoint => {}
                    Relation::Own if torn => found.push((index, Relation::Rival)),
                    relation => found.push((index, relation)),
                }
            }
        };
        match print.place {
            Some(place) => self.by_place.get(&place).into_iter().flatten().copied().for_each(&mut judge),
            None => (0..self.wanted.len()).for_each(&mut judge),
        }
        if found.iter().any(|(_, relation)| *relation == Relation::Own) {
            found.retain(|(_, relation)| *relation == Relation::Own);
        }
    }
}

/// Surveys the file for these entries, whose keys must differ.
pub(crate) fn survey(bytes: &[u8], entries: &[&Entry]) -> Survey {
    let index = Index::new(entries);
    let mut surveyor = Surveyor {
        findings: vec![Finding::default(); entries.len()],
        first_hazard: None,
        nul: None,
        too_long: None,
        after_nul: false,
        found: Vec::new(),
    };
    let (mut crlf, mut lf) = (false, false);
    let mut offset = 0;
    for (line, text) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let ending = Ending::of(text);
        crlf |= ending == Ending::CrLf;
        lf |= ending == Ending::Lf;
        surveyor.line(line, text, offset, &index);
        offset += text.len();
    }
    let Surveyor { mut findings, first_hazard, nul, too_long, .. } = surveyor;
    for finding in &mut findings {
        finding.bar = [finding.bar, first_hazard].into_iter().flatten().min();
    }
    let ending = if crlf && !lf { Ending::CrLf } else { Ending::Lf };
    Survey { findings, ending, nul, too_long }
}

struct Surveyor {
    findings: Vec<Finding>,
    first_hazard: Option<usize>,
    nul: Option<usize>,
    too_long: Option<(usize, usize)>,
    /// Whether the line above has a NUL.
    after_nul: bool,
    /// The entries that the current line concerns.
    found: Vec<(usize, Relation)>,
}

impl Surveyor {
    fn line(&mut self, line: usize, text: &[u8], offset: usize, index: &Index<'_>) {
        let (fields, odd, torn) = match Kind::of(strip_line_end(text)) {
            Kind::Nothing => (None, false, false),
            Kind::Hazard(fields) => (fields, true, true),
            Kind::Entry { fields, odd } => (Some(fields), odd, false),
        };
        self.found.clear();
        if let Some(fields) = &fields {
            index.find(fields, torn, &mut self.found);
        }
        // An odd form of our own line does not matter, since it is written anew.
        let own = self.found.iter().any(|(_, relation)| *relation == Relation::Own);
        let hazard = odd && !own;
        if hazard {
            self.first_hazard.get_or_insert(line);
        }
        self.note_findings(line, text, offset);
        self.after_nul = hazard && text.contains(&0);
        if self.after_nul {
            self.nul.get_or_insert(line);
        }
        if text.len() > PGX_LIMIT && !own {
            self.too_long.get_or_insert((line, text.len()));
        }
    }

    fn note_findings(&mut self, line: usize, text: &[u8], offset: usize) {
        let span = offset..offset + text.len();
        for (entry, relation) in &self.found {
            let Some(finding) = self.findings.get_mut(*entry) else { continue };
            match relation {
                Relation::Disjoint => {}
                Relation::Own => {
                    let shields = self.after_nul;
                    finding.own.push(OwnLine { line, span: span.clone(), ending: Ending::of(text), shields });
                }
                Relation::Narrower => {
                    // Only if our line is still to come, and nothing above forces it to the top.
                    if self.first_hazard.is_none() && finding.bar.is_none() && finding.own.is_empty() {
                        finding.exceptions += 1;
                        finding.below_exceptions = Slot { line: line + 1, offset: span.end };
                        finding.first_exception.get_or_insert(Foreign { line, span: span.clone() });
                    }
                }
                Relation::Rival => {
                    finding.bar.get_or_insert(line);
                    finding.last_rival = Some(Foreign { line, span: span.clone() });
                }
            }
        }
    }
}
