//! Which part of the program imports which: no two rooms (the modules that src/lib.rs names) may need each other, nor two modules of
//! one room. Parts that need each other can only be understood, tested and changed together.
//!
//! Read from the source text, without tests and comments. A path counts if it begins with `crate`, `super` or `self`; a name that a
//! room re-exports (`pub use`) counts as the room that it comes from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "rooms/compiled.rs"]
mod compiled;
#[path = "rooms/source.rs"]
mod source;
#[path = "rooms/texts.rs"]
mod texts;
#[path = "rooms/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use source::{Source, sources};

/// Who imports what, and where.
type Imports = BTreeMap<(String, String), BTreeSet<String>>;

#[test]
fn no_two_parts_of_the_program_need_each_other() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut circles = in_circles(&imports(&sources, &[]));
    let rooms: BTreeSet<&String> = sources.iter().filter_map(|source| source.module.first()).collect();
    assert!(rooms.len() > 10, "the rooms are found: {rooms:?}");
    for room in rooms {
        circles.extend(in_circles(&imports(&sources, std::slice::from_ref(room))));
    }
    let said: String = circles
        .iter()
        .map(|(import, lines)| {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            format!("{import} is part of a circle: {}\n", lines.join(", "))
        })
        .collect();
    assert!(said.is_empty(), "\n{said}");
}

/// What the children of this module import from each other. The children of the crate are its rooms.
fn imports(sources: &[Source], parent: &[String]) -> Imports {
    let child_of = |module: &[String]| module.strip_prefix(parent).and_then(<[String]>::first).cloned();
    let children: BTreeSet<String> = sources.iter().filter_map(|source| child_of(&source.module)).collect();
    let from: HashMap<String, String> = sources
        .iter()
        .filter(|source| source.module == parent)
        .flat_map(|source| source.handed_on())
        .filter_map(|(name, path)| Some((name, child_of(&path).filter(|child| children.contains(child))?)))
        .collect();
    let mut imports = Imports::new();
    for source in sources {
        let Some(importer) = child_of(&source.module) else { continue };
        for (path, line) in source.paths() {
            let Some(name) = child_of(&path) else { continue };
            let Some(imported) = children.get(&name).or_else(|| from.get(&name)) else { continue };
            if *imported != importer {
                let whole = |child: &str| [parent, &[child.to_owned()]].concat().join("::");
                let lines = imports.entry((whole(&importer), whole(imported))).or_default();
                lines.insert(format!("{}:{line}", source.path.display()));
            }
        }
    }
    imports
}

/// The imports that are part of a circle, as `importer -> imported`.
fn in_circles(imports: &Imports) -> BTreeMap<String, BTreeSet<String>> {
    let leads_back = |start: &str, end: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![end]);
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(
                    imports.keys().filter(|(importer, _)| importer == at).map(|(_, imported)| imported.as_str()),
                );
            }
        }
        seen.contains(start)
    };
    let circle = |((importer, imported), lines): (&(String, String), &BTreeSet<String>)| {
        leads_back(importer, imported).then(|| (format!("{importer} -> {imported}"), lines.clone()))
    };
    imports.iter().filter_map(circle).collect()
}

#[test]
fn every_way_to_write_an_import_is_found_and_none_in_tests_comments_and_texts() {
    let text = r##"
        use crate::{one::A, two::{self, B as C}, Three};
        // use crate::comment;
        /* crate::comment /* crate::comment */ */
        fn f<'a>(x: &'a str, y: char) -> super::four::D { let _ = (r#"crate::text""#, "\"crate::text", 'x', '"'); self::five() }
        #[cfg(all(test, unix))]
        mod tests { use crate::test::E; }
        #[cfg(test)]
        mod elsewhere;
        #[cfg(not(test))]
        use crate::six;
        pub(crate) fn g() {}
    "##;
    let source = Source::new("src/room/file.rs", text);
    let found: Vec<String> = source.paths().into_iter().map(|(path, _)| path.join("::")).collect();
    let expected = ["one::A", "two", "two::B", "Three", "room::four::D", "room::file::five", "six"];
    assert_eq!(found, expected);
    assert_eq!(source.only_for_tests(), [["room", "file", "elsewhere"]]);
    assert_eq!(Source::new("src/room/mod.rs", "use super::other::X;").paths(), [(vec!["other".into(), "X".into()], 1)]);
}

#[test]
fn circles_of_any_length_are_found_and_names_count_as_the_room_that_they_come_from() {
    let sources = [
        Source::new("src/lib.rs", "mod a; mod b; mod c; mod d;\npub use c::{Thing as Other};"),
        Source::new("src/a.rs", "use crate::b::X;\nuse crate::d::Y;"),
        Source::new("src/b/mod.rs", "mod inner;"),
        Source::new("src/b/inner.rs", "fn f() { crate::Other::new(); }"),
        Source::new("src/c.rs", "use crate::a;"),
        Source::new("src/d.rs", ""),
    ];
    let found: Vec<String> = in_circles(&imports(&sources, &[])).into_keys().collect();
    assert_eq!(found, ["a -> b", "b -> c", "c -> a"]);
}
