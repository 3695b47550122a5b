//! Every source file belongs to a program: one that no `mod` names is compiled by nobody, and its tests never run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::files;

#[test]
fn every_source_file_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> =
        ["src", "tests", "benches", "examples"].iter().flat_map(|name| files(&root.join(name))).collect();
    assert!(files.len() > 300, "the files are found: {}", files.len());
    let named: BTreeSet<PathBuf> = files.iter().flat_map(|file| named_in(file)).collect();
    let forgotten: Vec<&PathBuf> =
        files.iter().filter(|file| !is_program(file, root) && !named.contains(*file)).collect();
    assert!(forgotten.is_empty(), "no `mod` names {forgotten:?}");
}

/// What Cargo itself compiles: by its place, or since a Cargo.toml names it.
fn is_program(file: &Path, root: &Path) -> bool {
    let is_root = matches!(file.file_name().and_then(|name| name.to_str()), Some("main.rs" | "lib.rs"));
    let directory = file.parent().unwrap();
    is_root
        || directory.ends_with("src/bin")
        || ["tests", "benches", "examples"].map(|name| root.join(name)).contains(&directory.to_owned())
}

/// Where the modules can be that a file names, with `#[path]` and without.
fn named_in(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap();
    let directory = file.parent().unwrap();
    let own = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "main" | "lib") | None => directory.to_owned(),
        Some(stem) => directory.join(stem),
    };
    let modules =
        text.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
    // A program's first file has its modules beside itself.
    let beside = modules.flat_map(|name| {
        [&own, directory].map(|at: &Path| [at.join(format!("{name}.rs")), at.join(name).join("mod.rs")]).concat()
    });
    let paths = text
        .split("path = \"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(path, _)| clean(&directory.join(path)));
    beside.chain(paths).collect()
}

/// The path without `..`.
fn clean(path: &Path) -> PathBuf {
    path.iter().fold(PathBuf::new(), |mut done, part| {
        if part == ".." {
            done.pop();
        } else {
            done.push(part);
        }
        done
    })
}
