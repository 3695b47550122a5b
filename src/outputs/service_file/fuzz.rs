//! The service file's edit against the model of libpq's reader, for [`crate::fuzzing`].

use std::path::Path;

use super::edit::{Edit, edit};
use super::reader::{Kind, find, lines};
use super::section::Section;

fn sections(chosen: u8) -> Vec<Section> {
    let names = ["a", "b", "a b", "[x", "a"];
    let section = |(bit, name): (u8, &str)| Section {
        name: name.to_owned(),
        host: format!("h{bit}"),
        port: 5432,
        database: "*".to_owned(),
        user: "u".to_owned(),
        sslmode: "require".to_owned(),
        sslrootcert: (chosen & 0x40 != 0).then(|| "system".to_owned()),
        passfile: (chosen & 0x80 != 0).then(|| "/p".to_owned()),
    };
    (0..).zip(names).filter(|(bit, _)| chosen >> bit & 1 == 1).map(section).collect()
}

/// What libpq reads of a section: its settings, and lines that it refuses.
fn body<'f>(file: &'f [u8], name: &[u8]) -> Option<Vec<Kind<'f>>> {
    let lines = lines(file);
    Some(lines[find(&lines, name)?].iter().map(|line| line.kind).collect())
}

#[allow(missing_docs, clippy::panic, reason = "a broken invariant is to be loud")]
pub fn service_file(data: &[u8]) {
    let Some((chosen, file)) = data.split_first() else { return };
    let sections = sections(*chosen);
    let path = Path::new("/f");
    let Edit { bytes, sentences, .. } = edit(file, path, &sections);
    assert_eq!(edit(&bytes, path, &sections).bytes, bytes, "a second edit changes nothing");
    assert!(sentences.iter().all(|sentence| !sentence.chars().any(char::is_control)), "{sentences:?}");
    // Foreign sections are unchanged, except for empty lines and the line end at the very end.
    let names: Vec<&[u8]> = lines(file)
        .iter()
        .filter_map(|line| if let Kind::Header(Some(name)) = line.kind { Some(name) } else { None })
        .collect();
    let trimmed = |kinds: Option<Vec<Kind<'_>>>| {
        kinds.map(|kinds| {
            let length = kinds.iter().rposition(|kind| *kind != Kind::Blank).map_or(0, |last| last + 1);
            format!("{:?}", &kinds[..length])
        })
    };
    for name in names.iter().filter(|name| !sections.iter().any(|section| section.name.as_bytes() == **name)) {
        assert_eq!(trimmed(body(file, name)), trimmed(body(&bytes, name)), "the section {name:?}");
    }
    if sentences.is_empty() {
        for section in sections {
            let body = body(&bytes, section.name.as_bytes()).unwrap_or_default();
            let first = |key: &[u8]| {
                body.iter().find_map(|kind| match kind {
                    Kind::Setting(name, value) if *name == key => Some(*value),
                    _ => None,
                })
            };
            // A foreign section that says the same already is left alone without a message.
            assert_eq!(first(b"host"), Some(section.host.as_bytes()), "{}", section.name);
            assert_eq!(first(b"passfile"), section.passfile.as_deref().map(str::as_bytes), "{}", section.name);
        }
    }
}
