//! A page of documentation as Markdown has it: blocks between fences with what a comment says of them, code inside of sentences,
//! headings and links.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Page {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What stands between two fences.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// `PATH:LINE`, for messages.
    pub(crate) place: String,
    pub(crate) notes: Notes,
}

/// What the comment right above a block says, as in `<!-- not run: needs a Mac -->`. A reader of the page does not see it.
#[derive(Default)]
pub(crate) struct Notes {
    /// `not run: needs WHAT`
    pub(crate) needs: Option<String>,
    /// `given: WHAT`: what happens before the block is run.
    pub(crate) given: Vec<String>,
    /// `ends with N`
    pub(crate) code: i32,
    /// `typed: the secret`: what the block reads.
    pub(crate) typed: bool,
    /// `stays`: until it is told to end.
    pub(crate) stays: bool,
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and all pages of docs/.
pub(crate) fn all() -> Vec<Page> {
    let listed = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = listed.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(repository().join("README.md"));
    paths.sort();
    paths.into_iter().map(|path| Page::read(path.strip_prefix(repository()).unwrap().to_str().unwrap())).collect()
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Page { path: path.to_owned(), text }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, "");
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    let place = format!("{}:{}", self.path, number + 1);
                    let notes = Notes::read(before, &place);
                    open = Some(Block { language: language.to_owned(), text: String::new(), place, notes });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {
                    assert!(!before.starts_with("<!-- "), "{}:{number}: no block follows this comment", self.path);
                }
            }
            before = line.trim();
        }
        assert!(open.is_none(), "{}: the last block has no end", self.path);
        blocks
    }

    /// The text without its blocks.
    pub(crate) fn sentences(&self) -> String {
        let mut inside = false;
        let mut outside = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        };
        self.text.lines().filter(|line| outside(line)).collect::<Vec<_>>().join("\n")
    }

    /// What stands between backticks in sentences, with line breaks as spaces.
    pub(crate) fn inline_code(&self) -> Vec<String> {
        self.sentences().split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect()
    }

    /// The targets of `[text](target)`.
    pub(crate) fn links(&self) -> Vec<String> {
        let sentences = self.sentences();
        let ends = sentences.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        ends.map(|(target, _)| target.to_owned()).collect()
    }

    pub(crate) fn headings(&self) -> Vec<String> {
        let sentences = self.sentences();
        let lines = sentences.lines().filter(|line| line.starts_with('#'));
        lines.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
    }

    /// By which name a link finds each heading: as GitHub and others make it.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let part = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        let slug = |heading: &String| heading.to_lowercase().chars().filter(part).collect::<String>().replace(' ', "-");
        self.headings().iter().map(slug).collect()
    }
}

impl Notes {
    fn read(line: &str, place: &str) -> Self {
        let mut notes = Notes::default();
        let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
            return notes;
        };
        for note in comment.split("; ") {
            match note.split_once(": ") {
                Some(("not run", reason)) => notes.needs = Some(reason.trim_start_matches("needs ").to_owned()),
                Some(("given", what)) => notes.given.push(what.to_owned()),
                Some(("typed", "the secret")) => notes.typed = true,
                None if note == "stays" => notes.stays = true,
                None if note.starts_with("ends with ") => {
                    notes.code = note["ends with ".len()..].parse().unwrap_or_else(|_| panic!("{place}: {note}"));
                }
                _ => panic!("{place}: nobody knows what `{note}` means"),
            }
        }
        notes
    }
}
