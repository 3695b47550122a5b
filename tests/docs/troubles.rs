//! docs/troubleshooting.md has a part for each id of docs/checks.md, and what it quotes as messages is what the program says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::page::{Page, repository};

/// The first cells of the rows of a page's tables.
fn first_cells(page: &Page) -> Vec<String> {
    let sentences = page.sentences();
    let rows = sentences.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    rows.map(|(first, _)| first.to_owned()).collect()
}

/// A single piece of code: `` `id` ``.
fn as_code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|code| !code.contains('`'))
}

fn ids() -> BTreeSet<String> {
    first_cells(&Page::read("docs/checks.md")).iter().filter_map(|cell| as_code(cell)).map(str::to_owned).collect()
}

#[test]
fn each_finding_has_its_part() {
    let troubles = Page::read("docs/troubleshooting.md");
    let cells = first_cells(&troubles);
    let there: BTreeSet<String> = cells.iter().filter_map(|cell| as_code(cell)).map(str::to_owned).collect();
    let ids = ids();
    assert!(ids.len() > 15, "{ids:?}");
    for id in &ids {
        assert!(there.contains(id), "{id} is missing in docs/troubleshooting.md");
    }
    // What is no id is a message.
    let source = source();
    for message in there.difference(&ids) {
        for part in message.split("...").map(str::trim).filter(|part| !part.is_empty()) {
            assert!(source.contains(part), "no message of the program has `{part}`");
        }
    }
    assert!(there.len() > ids.len() + 15, "{} messages", there.len() - ids.len());
}

/// The text of all literals of the program that go over several lines, in one line each.
fn source() -> String {
    fn below(directory: &Path, text: &mut String) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                below(&entry.path(), text);
            } else {
                *text += &fs::read_to_string(entry.path()).unwrap();
            }
        }
    }
    let mut text = String::new();
    below(&repository().join("src"), &mut text);
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.trim_start()).replace("\\\"", "\"").replace("{{", "{")
}
