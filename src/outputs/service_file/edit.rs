//! The edit: from the bytes of a service file and the sections to keep, the bytes to write. Pure.
//!
//! Invariants, each with a test over many hostile files (`tests/service_file.rs`): every byte that is not ours stays, in its
//! order; editing again changes nothing; libpq finds every section that it found before, as it was, and ours as they are wanted,
//! but for those of which a sentence tells.

use std::collections::HashSet;
use std::path::Path;

use super::reader::{Kind, LONGEST_LINE, Line, find, lines};
use super::section::Section;

/// How the comment begins that makes a section ours; then come the keys that we keep, up to `;`.
const MARK: &str = "# dbx-rotator keeps ";

/// What it says then.
const REST: &str = "; what else you write here stays";

/// The outcome of [`edit`].
pub(super) struct Edit {
    /// The whole file.
    pub(super) bytes: Vec<u8>,
    /// What was left alone or cannot work, and why.
    pub(super) sentences: Vec<String>,
}

/// What is to stand in one section.
struct Wanted<'a> {
    name: &'a str,
    settings: Vec<(&'static str, String)>,
}

/// Puts every section into the file. Of several of one name the first counts.
pub(super) fn edit(file: &[u8], path: &Path, sections: &[Section]) -> Edit {
    let mut edit = Edit { bytes: file.to_vec(), sentences: Vec::new() };
    let mut seen = HashSet::new();
    for section in sections {
        if !seen.insert(section.name.as_str()) {
            edit.sentences
                .push(format!("there is more than one connection {:?}: the first has the section", section.name));
            continue;
        }
        match section.settings() {
            Ok(settings) => edit.put(&Wanted { name: &section.name, settings }, path),
            Err(sentence) => edit.sentences.push(sentence),
        }
    }
    edit
}

impl Edit {
    fn put(&mut self, wanted: &Wanted<'_>, path: &Path) {
        let lines = lines(&self.bytes);
        let ending = style(&lines);
        let Some(body) = find(&lines, wanted.name.as_bytes()) else {
            let hidden = too_long(&lines);
            self.sentences.extend(hidden.map(|number| wanted.hidden(number, path)));
            match lines.last().filter(|last| !last.bytes.ends_with(b"\n") && last.bytes.len() > LONGEST_LINE) {
                Some(last) if last.kind != Kind::TooLong => self.sentences.push(wanted.no_room(lines.len(), path)),
                _ => self.bytes = append(&self.bytes, &lines, ending, wanted),
            }
            return;
        };
        let (before, rest) = lines.split_at(body.start);
        let (own, after) = rest.split_at(body.len());
        let Some(kept) = kept_keys(own) else {
            if !wanted.stands_in(own) {
                self.sentences.push(wanted.foreign(path));
            }
            return;
        };
        let hidden = too_long(before).or_else(|| too_long(own).map(|number| before.len() + number));
        self.sentences.extend(hidden.map(|number| wanted.hidden(number, path)));
        self.sentences.extend(refused(own).map(|number| wanted.refused(before.len() + number, path)));
        let bytes = |lines: &[Line<'_>]| lines.iter().flat_map(|line| line.bytes).copied().collect::<Vec<u8>>();
        self.bytes = [bytes(before), wanted.rewrite(own, &kept, ending), bytes(after)].concat();
    }
}

/// The file's own line end where all its lines have one, else LF.
fn style(lines: &[Line<'_>]) -> &'static [u8] {
    let mut ended = lines.iter().filter(|line| line.bytes.ends_with(b"\n")).peekable();
    if ended.peek().is_some() && ended.all(|line| line.bytes.ends_with(b"\r\n")) { b"\r\n" } else { b"\n" }
}

/// The number, from 1, of the line at which libpq gives up.
fn too_long(lines: &[Line<'_>]) -> Option<usize> {
    lines.iter().position(|line| line.kind == Kind::TooLong).map(|index| index + 1)
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

/// The keys that our mark in a section names; none where there is no mark.
fn kept_keys<'a>(body: &[Line<'a>]) -> Option<Vec<&'a [u8]>> {
    let list = body.iter().find_map(|line| marked(line))?;
    let list = list.split(|&byte| byte == b';').next().unwrap_or_default();
    Some(list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect())
}

/// What our mark says, if this is one.
fn marked<'a>(line: &Line<'a>) -> Option<&'a [u8]> {
    match line.kind {
        Kind::Comment(text) => text.strip_prefix(MARK.as_bytes()),
        _ => None,
    }
}

/// A new section at the end, with an empty line above it.
fn append(file: &[u8], lines: &[Line<'_>], ending: &[u8], wanted: &Wanted<'_>) -> Vec<u8> {
    let mut out = Out { bytes: file.to_vec(), ending };
    if lines.last().is_some_and(|line| line.kind != Kind::Blank) {
        out.line("");
    }
    out.line(&format!("[{}]", wanted.name));
    out.line(&wanted.mark());
    for (key, value) in &wanted.settings {
        out.line(&format!("{key}={value}"));
    }
    out.bytes
}

/// What is written, line by line.
struct Out<'a> {
    bytes: Vec<u8>,
    ending: &'a [u8],
}

impl Out<'_> {
    /// A line of ours, after the end of the one above where that was cut short.
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

    fn value(&self, key: &[u8]) -> Option<&str> {
        self.settings.iter().find(|(wanted, _)| wanted.as_bytes() == key).map(|(_, value)| value.as_str())
    }

    /// Whether libpq reads from these lines all that is wanted: of several settings of one key the first counts.
    fn stands_in(&self, body: &[Line<'_>]) -> bool {
        self.settings.iter().all(|(wanted, value)| {
            let first = body.iter().find_map(|line| match line.kind {
                Kind::Setting(key, value) if key == wanted.as_bytes() => Some(value),
                _ => None,
            });
            first == Some(value.as_bytes())
        })
    }

    /// The lines of our section, ours as they should be: changed where they stand, gone where they are no longer wanted or come
    /// twice, and added below the mark where they are missing.
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

    // ---- what is said ----

    fn foreign(&self, path: &Path) -> String {
        format!(
            "the section [{}] of {} is not dbx-rotator's and was left as it is: remove or rename it to have one that is kept \
             up to date",
            self.name,
            path.display()
        )
    }

    fn hidden(&self, line: usize, path: &Path) -> String {
        format!(
            "line {line} of {} is longer than libpq reads (1,021 bytes): it does not get to the section [{}] below",
            path.display(),
            self.name
        )
    }

    /// Rare, but ending that line would take its section from libpq.
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
