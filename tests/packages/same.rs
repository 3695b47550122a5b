//! Both packages give people the same, except where the distributions want things in other places.
//!
//! `Cargo.toml` lists the files of each separately, and a change may have been made to only one list.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::workspace::scratch_directory;
use crate::{built, printed, with_ending};

/// What only Debian wants.
const ONLY_DEB: [&str; 3] = [
    "usr/share/doc/dbx-rotator/changelog.Debian.gz",
    "usr/share/doc/dbx-rotator/copyright",
    "usr/share/lintian/overrides/dbx-rotator",
];
const ONLY_RPM: [&str; 1] = ["usr/share/licenses/dbx-rotator/LICENSE"];
/// Where zsh looks for completions: on Debian, and elsewhere.
const ZSH: (&str, &str) = ("usr/share/zsh/vendor-completions/", "usr/share/zsh/site-functions/");
/// Links in one package, scripts in the other, which cannot contain links.
const OTHER_NAMES: &str = "usr/bin/databricks-oauth-";

#[derive(Debug, PartialEq)]
enum Entry {
    File(u32, Vec<u8>),
    OtherName,
}

/// The unpacked files, by path.
fn unpacked(root: &Path) -> BTreeMap<String, Entry> {
    fn below(root: &Path, directory: &Path, found: &mut BTreeMap<String, Entry>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let inside = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                below(root, &path, found);
            } else if inside.starts_with(OTHER_NAMES) {
                found.insert(inside, Entry::OtherName);
            } else {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                found.insert(inside, Entry::File(mode, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    below(root, root, &mut found);
    found
}

/// Removes what only this package should have.
#[track_caller]
fn without(mut files: BTreeMap<String, Entry>, only: &[&str]) -> BTreeMap<String, Entry> {
    for path in only {
        assert!(files.remove(*path).is_some(), "{path} is missing");
    }
    files
}

#[test]
fn the_packages_for_debian_and_for_fedora_have_the_same_files() {
    let name = "the_packages_for_debian_and_for_fedora_have_the_same_files";
    let Some(packages) = built::packages_or_skip(name, None, &["dpkg-deb", "rpm2cpio", "cpio"]) else { return };
    let (deb, rpm) = (scratch_directory(0o755), scratch_directory(0o755));
    printed(Command::new("dpkg-deb").arg("-x").arg(with_ending(&packages, ".deb")).arg(deb.path()));
    unpack_rpm(&with_ending(&packages, ".rpm"), rpm.path());

    let of_deb: BTreeMap<_, _> =
        unpacked(deb.path()).into_iter().map(|(path, entry)| (path.replace(ZSH.0, ZSH.1), entry)).collect();
    let (of_deb, of_rpm) = (without(of_deb, &ONLY_DEB), without(unpacked(rpm.path()), &ONLY_RPM));
    let paths = |files: &BTreeMap<String, Entry>| files.keys().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(paths(&of_deb), paths(&of_rpm), "the .deb and the .rpm");
    for (path, entry) in &of_deb {
        // Not with assert_eq, which would print the program.
        assert!(of_rpm[path] == *entry, "{path} is another one in the .rpm, or has another mode");
    }
    assert!(of_deb.len() > 40, "only {} files", of_deb.len());
}

pub(crate) fn unpack_rpm(package: &Path, root: &Path) {
    let line = r#"rpm2cpio "$1" | cpio --quiet --extract --make-directories --directory "$2""#;
    printed(Command::new("sh").args(["-ec", line, "unpack"]).arg(package).arg(root));
}

/// Programs for people to call, and files that only the tests read.
const NOT_PACKAGED: [&str; 6] =
    ["dist/build", "dist/image", "dist/release", "dist/repository", "dist/sbom", "rpm/rpmlint.toml"];

/// What runs on another machine than the packages are for, each with a test of its own.
const NOT_FOR_PACKAGES: [&str; 2] = ["dist/ansible/", "dist/kubernetes/"];

/// The words in a text that name a file or all files of one of our directories.
fn references(text: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || "/._-@*$".contains(c);
    let words = text.split(|c| !part(c)).map(|word| word.trim_end_matches(['.', '/']));
    words.filter(|word| ["debian/", "rpm/", "dist/"].iter().any(|start| word.starts_with(start))).collect()
}

#[test]
fn each_file_for_the_packages_is_used_and_each_that_is_used_exists() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(repository.join(file)).unwrap();
    let pages = read("examples/pages/main.rs").replace("../../", "");
    let text = ["Cargo.toml", "dist/build", "dist/environment", "homebrew/dbx-rotator.rb"].map(read).concat() + &pages;
    let references = references(&text);
    for word in references.iter().filter(|word| !word.contains(['*', '$'])) {
        assert!(repository.join(word).exists(), "{word} is used, and is not there");
    }
    let listed = printed(Command::new("git").arg("-C").arg(repository).args(["ls-files", "debian", "rpm", "dist"]));
    let for_packages = |file: &str| !NOT_FOR_PACKAGES.iter().any(|directory| file.starts_with(directory));
    for file in listed.lines().filter(|file| !NOT_PACKAGED.contains(file) && for_packages(file)) {
        let (directory, name) = file.rsplit_once('/').unwrap();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let ways = [
            file.to_owned(),
            format!("{directory}/*"),
            format!("{directory}/*.{extension}"),
            "debian/$script".to_owned(),
        ];
        let by_script = file.starts_with("debian/") && ["postinst", "prerm", "postrm"].contains(&name);
        let used =
            references.iter().any(|word| ways[..3].contains(&(*word).to_owned()) || (by_script && *word == ways[3]));
        let whole = references.contains(&directory);
        assert!(used || whole, "nothing uses {file}");
    }
}
