//! The edit: from the bytes of a service file and the sections to keep, the bytes to write. Pure.
//!
//! Invariants, each with a test over many hostile files (`tests/files/service_file.rs`): every byte that is not ours stays, in its
//! order; editing again changes nothing; libpq finds every section that it found before unchanged, and ours as wanted, except
//! where a sentence says otherwise.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::reader::{Kind, LONGEST_LINE, Line, each, lines};
use super::section::Section;

/// The start of the comment that marks a section as ours; the keys that we keep follow, up to `;`.
const MARK: &str = "# dbx-rotator keeps ";

/// The rest of that comment.
const REST: &str = "; what else you write here stays";

/// The outcome of [`edit`].
pub(super) struct Edit {
    /// The new file.
    pub(super) bytes: Vec<u8>,
    /// What was left alone or cannot work, and why.
    pub(super) sentences: Vec<String>,
    /// What in the old file is not as it should be, and is in the new one.
    pub(super) mended: Vec<String>,
}

/// The wanted contents of one section.
struct Wanted<'a> {
    name: &'a str,
    settings: Vec<(&'static str, String)>,
}

/// Puts every section into the file. Of several with the same name, the first counts. Time and memory do not depend on the
/// number of sections times the size of the file.
pub(super) fn edit(file: &[u8], path: &Path, sections: &[Section]) -> Edit {
    let mut sentences = Vec::new();
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    for section in sections {
        if !seen.insert(section.name.as_str()) {
            sentences.push(format!("there is more than one connection {:?}: the first has the section", section.name));
            continue;
        }
        match section.settings() {
            Ok(settings) => wanted.push(Wanted { name: &section.name, settings }),
            Err(sentence) => sentences.push(sentence),
        }
    }
    let survey = Survey::of(file, &wanted.iter().map(|wanted| wanted.name.as_bytes()).collect());
    let mut edit = Edit { bytes: Vec::new(), sentences, mended: Vec::new() };
    let (there, missing): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|wanted| survey.bodies.contains_key(wanted.name.as_bytes()));
    edit.rewrite(file, &survey, &there, path);
    edit.append(survey.ending, &missing, path);
    edit
}

/// What an edit must know about a file.
struct Survey<'f> {
    /// The lines of each section, as libpq finds them by name.
    bodies: HashMap<&'f [u8], Body>,
    /// The number, from 0, of the line where libpq gives up.
    too_long: Option<usize>,
    /// The file's line end if all lines have the same, else LF.
    ending: &'static [u8],
}

/// The lines of a section, without its header.
#[derive(Clone)]
struct Body {
    bytes: Range<usize>,
    /// The number of the first line, from 0.
    line: usize,
}

impl<'f> Survey<'f> {
    fn of(file: &'f [u8], names: &HashSet<&[u8]>) -> Self {
        let mut bodies: HashMap<&[u8], Body> = HashMap::new();
        let (mut open, mut too_long, mut offset) = (None, None, 0);
        let (mut crlf, mut lf) = (false, false);
        for (number, line) in each(file).enumerate() {
            match line.kind {
                Kind::Header(name) => {
                    if let Some(body) = open.take().and_then(|name| bodies.get_mut(name)) {
                        body.bytes.end = offset;
                    }
                    let start = offset + line.bytes.len();
                    let name = name.filter(|name| names.contains(name) && !bodies.contains_key(name));
                    bodies.extend(name.map(|name| (name, Body { bytes: start..file.len(), line: number + 1 })));
                    open = name;
                }
                Kind::TooLong => too_long = too_long.or(Some(number)),
                _ => {}
            }
            crlf |= line.bytes.ends_with(b"\r\n");
            lf |= line.bytes.ends_with(b"\n") && !line.bytes.ends_with(b"\r\n");
            offset += line.bytes.len();
        }
        Survey { bodies, too_long, ending: if crlf && !lf { b"\r\n" } else { b"\n" } }
    }
}

impl Edit {
    /// Rewrites the file, with the existing sections as they should be.
    fn rewrite(&mut self, file: &[u8], survey: &Survey<'_>, wanted: &[&Wanted<'_>], path: &Path) {
        let mut changed: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        for wanted in wanted {
            let Some(body) = survey.bodies.get(wanted.name.as_bytes()) else { continue };
            let own = lines(&file[body.bytes.clone()]);
            let Some(kept) = kept_keys(&own) else {
                if !wanted.stands_in(&own) {
                    self.sentences.push(wanted.foreign(body.line, path));
                }
                continue;
            };
            let hidden = survey.too_long.filter(|line| *line < body.line + own.len());
            self.sentences.extend(hidden.map(|line| wanted.hidden(line + 1, path)));
            self.sentences.extend(refused(&own).map(|number| wanted.refused(body.line + number, path)));
            let new = wanted.rewrite(&own, &kept, survey.ending);
            if new != file[body.bytes.clone()] {
                self.mended.push(wanted.outdated(body.line, path));
            }
            changed.push((body.bytes.clone(), new));
        }
        changed.sort_by_key(|(bytes, _)| bytes.start);
        self.bytes.reserve(file.len());
        let mut copied = 0;
        for (replaced, new) in changed {
            self.bytes.extend_from_slice(&file[copied..replaced.start]);
            self.bytes.extend_from_slice(&new);
            copied = replaced.end;
        }
        self.bytes.extend_from_slice(&file[copied..]);
    }

    /// Appends new sections, each after an empty line.
    fn append(&mut self, ending: &[u8], wanted: &[&Wanted<'_>], path: &Path) {
        if wanted.is_empty() {
            return;
        }
        let (mut count, mut too_long, mut is_blank, mut has_no_room) = (0, None, true, false);
        for line in each(&self.bytes) {
            count += 1;
            if line.kind == Kind::TooLong {
                too_long = too_long.or(Some(count));
            }
            is_blank = line.kind == Kind::Blank;
            let ends = line.bytes.ends_with(b"\n");
            has_no_room = !ends && line.bytes.len() > LONGEST_LINE && line.kind != Kind::TooLong;
        }
        let mut out = Out { bytes: std::mem::take(&mut self.bytes), ending };
        for wanted in wanted {
            self.sentences.extend(too_long.map(|number| wanted.hidden(number, path)));
            if has_no_room {
                self.sentences.push(wanted.no_room(count, path));
                continue;
            }
            self.mended.push(format!("{} has no section [{}]", path.display(), wanted.name));
            if !is_blank {
                out.line("");
            }
            is_blank = false;
            out.line(&format!("[{}]", wanted.name));
            out.line(&wanted.mark());
            for (key, value) in &wanted.settings {
                out.line(&format!("{key}={value}"));
            }
        }
        self.bytes = out.bytes;
    }
}

/// The number, from 1, of a line that libpq refuses in any section.
fn refused(lines: &[Line<'_>]) -> Option<usize> {
    let is_refused = |line: &Line<'_>| match line.kind {
        Kind::Other(text) => !text.starts_with(b"ldap"),
        Kind::Setting(key, _) => {
            let is_word = key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            key.is_empty() || !is_word || key == b"service" || key == b"servicefile"
        }
        _ => false,
    };
    lines.iter().position(is_refused).map(|index| index + 1)
}

/// The keys named by our mark in a section; none if there is no mark.
fn kept_keys<'a>(body: &[Line<'a>]) -> Option<Vec<&'a [u8]>> {
    let list = body.iter().find_map(|line| marked(line))?;
    let list = list.split(|&byte| byte == b';').next().unwrap_or_default();
    Some(list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect())
}

/// The text of our mark, if this line is one.
fn marked<'a>(line: &Line<'a>) -> Option<&'a [u8]> {
    match line.kind {
        Kind::Comment(text) => text.strip_prefix(MARK.as_bytes()),
        _ => None,
    }
}

/// The new file, written line by line.
struct Out<'a> {
    bytes: Vec<u8>,
    ending: &'a [u8],
}

impl Out<'_> {
    /// Writes a line. Ends the line above first if its line end is missing.
    fn line(&mut self, text: &str) {
        if !self.bytes.is_empty() && !self.bytes.ends_with(b"\n") {
            self.bytes.extend_from_slice(self.ending);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(self.ending);
    }
}

impl Wanted<'_> {
    fn mark(&self) -> String {
        let keys: Vec<&str> = self.settings.iter().map(|(key, _)| *key).collect();
        format!("{MARK}{}{REST}", keys.join(", "))
    }

    fn outdated(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {}: the section [{}] differs from what dbx-rotator writes there",
            path.display(),
            self.name
        )
    }

    fn value(&self, key: &[u8]) -> Option<&str> {
        self.settings.iter().find(|(wanted, _)| wanted.as_bytes() == key).map(|(_, value)| value.as_str())
    }

    /// Whether libpq reads everything wanted from these lines: of several settings with the same key, the first counts.
    fn stands_in(&self, body: &[Line<'_>]) -> bool {
        self.settings.iter().all(|(wanted, value)| {
            let first = body.iter().find_map(|line| match line.kind {
                Kind::Setting(key, value) if key == wanted.as_bytes() => Some(value),
                _ => None,
            });
            first == Some(value.as_bytes())
        })
    }

    /// The lines of our section as they should be: changed in place, removed if no longer wanted or repeated, and added below
    /// the mark if missing.
    fn rewrite(&self, body: &[Line<'_>], kept: &[&[u8]], ending: &[u8]) -> Vec<u8> {
        let mut out = Out { bytes: Vec::new(), ending };
        let mut is_marked = false;
        let mut written = HashSet::new();
        for line in body {
            match line.kind {
                Kind::Setting(key, value) => match self.value(key) {
                    Some(_) if !written.insert(key) => {}
                    Some(wanted) if wanted.as_bytes() == value => out.bytes.extend_from_slice(line.bytes),
                    Some(wanted) => out.line(&format!("{}={wanted}", String::from_utf8_lossy(key))),
                    None if kept.contains(&key) => {}
                    None => out.bytes.extend_from_slice(line.bytes),
                },
                Kind::Comment(text) if marked(line).is_some() && !is_marked => {
                    is_marked = true;
                    match self.mark() {
                        mark if mark.as_bytes() == text => out.bytes.extend_from_slice(line.bytes),
                        mark => out.line(&mark),
                    }
                    for (key, value) in self.missing(body) {
                        out.line(&format!("{key}={value}"));
                    }
                }
                _ => out.bytes.extend_from_slice(line.bytes),
            }
        }
        out.bytes
    }

    fn missing(&self, body: &[Line<'_>]) -> impl Iterator<Item = &(&'static str, String)> {
        let stands = |wanted: &str| {
            body.iter().any(|line| matches!(line.kind, Kind::Setting(key, _) if key == wanted.as_bytes()))
        };
        self.settings.iter().filter(move |(key, _)| !stands(key))
    }

    // ---- messages ----

    fn foreign(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {}: the section [{name}] is not dbx-rotator's and was left as it is, so `service={name}` goes where it \
             says: remove or rename that section to have one that is kept up to date, or set service_file = false for {name}",
            path.display(),
            name = self.name
        )
    }

    fn hidden(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {} is longer than libpq reads (1,021 bytes): it does not get to the section [{}] below",
            path.display(),
            self.name
        )
    }

    /// Rare, but a line end here would make the line too long and hide its section from libpq.
    fn no_room(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {} is as long as libpq reads and has no line end: shorten it, so that the section [{}] can follow",
            path.display(),
            self.name
        )
    }

    fn refused(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {} is no setting that libpq knows (KEY=VALUE without blanks around the =): it refuses all of the \
             section [{}] for it",
            path.display(),
            self.name
        )
    }
}
