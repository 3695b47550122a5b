//! A Rust source file, as far as its imports and its texts: without comments and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A module's path within the crate.
pub(crate) type Module = Vec<String>;

pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) module: Module,
    words: Vec<Word>,
    only_for_tests: Vec<Module>,
}

/// A name, `::`, a string as it is written, or any other character, and its line from 1.
#[derive(Clone)]
struct Word {
    text: String,
    line: usize,
}

/// All files of Rust below a directory, in order.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All files below src, except those for tests only.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let files = files(root);
    let shown = |path: &Path| Path::new("src").join(path.strip_prefix(root).unwrap());
    let all: Vec<Source> =
        files.iter().map(|path| Source::new(shown(path), &fs::read_to_string(path).unwrap())).collect();
    let apart: Vec<Module> = all.iter().flat_map(|source| source.only_for_tests.clone()).collect();
    all.into_iter().filter(|source| !apart.iter().any(|module| source.module.starts_with(module))).collect()
}

impl Source {
    pub(crate) fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let path = path.into();
        let mut module: Module =
            path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
        module.pop_if(|last| matches!(last.as_str(), "mod" | "lib" | "main"));
        let mut only_for_tests = Vec::new();
        let words = without_tests(words(text), &module, &mut only_for_tests);
        Source { path, module, words, only_for_tests }
    }

    /// The modules in their own files that are declared for tests.
    pub(crate) fn only_for_tests(&self) -> &[Module] {
        &self.only_for_tests
    }

    /// Each path that begins at the crate or at this module, as a path from the crate, with its line.
    pub(crate) fn paths(&self) -> Vec<(Module, usize)> {
        let mut paths = Vec::new();
        for at in 0..self.words.len() {
            let is_inside = at > 0 && self.is(at - 1, "::");
            if !is_inside && ["crate", "self", "super"].iter().any(|start| self.is(at, start)) && self.is(at + 1, "::")
            {
                let mut leaves = Vec::new();
                self.tree(at, &[], &mut leaves);
                let absolute = leaves.into_iter().filter_map(|(path, _)| self.absolute(path));
                paths.extend(absolute.map(|path| (path, self.words[at].line)));
            }
        }
        paths
    }

    /// The names that a `use` here defines, with their sources.
    pub(crate) fn handed_on(&self) -> Vec<(String, Module)> {
        let mut leaves = Vec::new();
        for at in (0..self.words.len()).filter(|at| self.is(*at, "use")) {
            self.tree(at + 1, &[], &mut leaves);
        }
        let named = |(path, alias): (Module, Option<String>)| {
            let name = alias.or_else(|| path.last().cloned())?;
            // Without such a beginning, it is a child of this module or another crate; the latter is not a child of
            // anything here.
            let begins = ["crate", "self", "super"].contains(&path.first()?.as_str());
            let path = if begins { self.absolute(path)? } else { [self.module.clone(), path].concat() };
            Some((name, path))
        };
        leaves.into_iter().filter_map(named).collect()
    }

    /// Each string, as the program has it.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.words.iter().filter(|word| is_string(&word.text)).map(|word| meant(&word.text))
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.words.get(at).is_some_and(|word| word.text == text)
    }

    /// Reads a path or the tree of a `use`; returns its end.
    fn tree(&self, mut at: usize, before: &[String], leaves: &mut Vec<(Module, Option<String>)>) -> usize {
        let mut path = before.to_vec();
        while let Some(word) = self.words.get(at) {
            if word.text == "{" {
                at += 1;
                while at < self.words.len() && !self.is(at, "}") {
                    at = self.tree(at, &path, leaves);
                    if !self.is(at, ",") && !self.is(at, "}") {
                        return at;
                    }
                    at += usize::from(self.is(at, ","));
                }
                return at + 1;
            }
            // `self` in braces stands for the path before them.
            if word.text != "self" || before.is_empty() {
                path.push(word.text.clone());
            }
            at += 1;
            if !self.is(at, "::") {
                break;
            }
            at += 1;
        }
        let alias = self.is(at, "as").then(|| self.words.get(at + 1)).flatten().map(|word| word.text.clone());
        leaves.push((path, alias.clone()));
        if alias.is_some() { at + 2 } else { at }
    }

    fn absolute(&self, path: Module) -> Option<Module> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&self.module, &path[1..]].concat()),
            // More `super`s than that occur only in a module within this file.
            _ => Some([self.module.get(..self.module.len().checked_sub(supers)?)?, &path[supers..]].concat()),
        }
    }
}

fn is_string(word: &str) -> bool {
    word.ends_with(['"', '#']) && word.trim_start_matches(['b', 'c', 'r', '#']).starts_with('"')
}

/// What a string in the source means.
fn meant(literal: &str) -> String {
    let start = literal.trim_start_matches(['b', 'c']);
    if let Some(raw) = start.strip_prefix('r') {
        return raw.trim_matches('#').trim_matches('"').to_owned();
    }
    let (mut text, mut rest) = (String::new(), start[1..].chars().peekable());
    while let Some(letter) = rest.next() {
        match (letter, if letter == '\\' { rest.next() } else { None }) {
            ('"', _) => break,
            // The text goes on at the next line's first letter.
            (_, Some('\n')) => while rest.next_if(|letter| letter.is_whitespace()).is_some() {},
            (_, Some('n')) => text.push('\n'),
            (_, Some(quote @ ('"' | '\\' | '\''))) => text.push(quote),
            (_, Some(other)) => text.extend(['\\', other]),
            (letter, None) => text.push(letter),
        }
    }
    text
}

/// The words of the program, without comments.
fn words(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let (mut words, mut at, mut line) = (Vec::new(), 0, 1);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    while at < bytes.len() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if is_name(&bytes[at]) {
            bytes[at..].iter().take_while(|byte| is_name(byte)).count()
        } else if rest.starts_with("::") {
            2
        } else {
            1
        };
        let word = &rest[..length];
        let is_word = if literal(rest).is_some() { is_string(word) } else { is_name(&bytes[at]) };
        if is_word || word == "::" || length == 1 && !word.trim().is_empty() {
            words.push(Word { text: word.to_owned(), line });
        }
        line += word.matches('\n').count();
        at += length;
    }
    words
}

/// The length of a comment in `/* */`; they may be nested.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let ends = rest[at..].starts_with("*/");
        if ends || rest[at..].starts_with("/*") {
            depth = if ends { depth - 1 } else { depth + 1 };
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the string or character that begins here, if one does.
fn literal(rest: &str) -> Option<usize> {
    let start = rest.trim_start_matches(['b', 'c']);
    let before = rest.len() - start.len();
    if let Some(raw) = start.strip_prefix('r').filter(|raw| raw.starts_with(['"', '#'])) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inside = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(before + 1 + hashes + 1 + inside.find(&end).map_or(inside.len(), |at| at + end.len()));
    }
    let quote = start.chars().next().filter(|c| (*c == '"' || *c == '\'') && before <= 1)?;
    if quote == '\'' {
        // A lifetime has no closing quote.
        let mut inside = start[1..].chars();
        let escaped = inside.next()? == '\\';
        if !escaped && inside.next()? != '\'' {
            return None;
        }
    }
    let mut escaped = false;
    let end = start[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(before + end.map_or(start.len(), |end| end + 2))
}

/// Without what is compiled only for tests or fuzzing.
fn without_tests(words: Vec<Word>, module: &[String], apart: &mut Vec<Module>) -> Vec<Word> {
    let mut kept = Vec::new();
    let mut at = 0;
    let text = |at: usize| words.get(at).map_or("", |word| word.text.as_str());
    while at < words.len() {
        if !(text(at) == "#" && text(at + 1) == "[" && text(at + 2) == "cfg") {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        let end = end_of(&words, at + 1);
        let condition: Vec<&str> = (at..end).map(text).collect();
        let is_test = condition.contains(&"test") && !condition.windows(3).any(|words| words == ["not", "(", "test"]);
        if is_test {
            let item = end;
            at = end_of_item(&words, item);
            let declares = |place: usize| text(place) == "mod" && text(place + 2) == ";";
            if let Some(place) = (item..at).find(|place| declares(*place)) {
                apart.push([module, &[text(place + 1).to_owned()]].concat());
            }
        } else {
            kept.extend_from_slice(&words[at..end]);
            at = end;
        }
    }
    kept
}

/// The position after the bracket that closes the one here.
fn end_of(words: &[Word], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate().skip(start) {
        match word.text.as_str() {
            "[" | "{" | "(" => depth += 1,
            "]" | "}" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    words.len()
}

/// The position after the item, field, arm or statement that begins here, including its other attributes.
fn end_of_item(words: &[Word], start: usize) -> usize {
    let mut at = start;
    let is_use = words[start..].iter().take(6).any(|word| word.text == "use");
    while let Some(word) = words.get(at) {
        match word.text.as_str() {
            ";" | "," => return at + 1,
            "}" | ")" => return at,
            "{" if !is_use => return end_of(words, at),
            "[" | "(" | "{" => at = end_of(words, at),
            _ => at += 1,
        }
    }
    at
}
