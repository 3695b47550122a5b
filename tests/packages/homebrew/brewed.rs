//! The formula for a release of this working tree, installed by the stand-in for Homebrew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::built::as_from_a_shell;
use crate::support::{Home, Outcome, skip};

pub(crate) const FORMULA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/homebrew/dbx-rotator.rb");
pub(crate) const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/homebrew/release");
pub(crate) const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist");
pub(crate) const HARNESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packages/homebrew/formula.rb");
pub(crate) const REPOSITORY: &str = "https://example.com/dbx-rotator";

/// The name of this version's source archive.
pub(crate) fn tarball() -> String {
    format!("dbx-rotator-{}.tar.gz", env!("CARGO_PKG_VERSION"))
}

/// Whether a system program is installed; if not, the test reports that it is skipped.
pub(crate) fn is_here(test: &str, program: &str) -> bool {
    let here = ["/usr/bin", "/bin"].iter().any(|directory| Path::new(directory).join(program).exists());
    if !here {
        skip(test, &format!("no {program}"));
    }
    here
}

/// Packs everything in the working tree that git tracks or would add, like a release's archive: but not a build directory, which
/// cargo marks as a cache and may have been told to put here.
pub(crate) fn pack_source(tarball: &Path) {
    let pack = "git ls-files -z --cached --others --directory --exclude-standard | \
        tar --create --gzip --exclude-caches-all --null --files-from=- --ignore-failed-read --transform=\"s,^,$1/,\" --file=\"$2\"";
    let folder = format!("dbx-rotator-{}", env!("CARGO_PKG_VERSION"));
    let packed = Command::new("sh")
        .args(["-c", pack, "sh", &folder])
        .arg(tarball)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run sh");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
}

/// The formula, installed into its own prefix.
pub(crate) struct Brewed {
    pub(crate) home: Home,
    /// The formula's declarations.
    pub(crate) said: Value,
    /// The names of the man pages.
    pub(crate) pages: Vec<String>,
}

impl Brewed {
    /// None, and the test is skipped, without Ruby.
    pub(crate) fn install(test: &str) -> Option<Self> {
        if !is_here(test, "ruby") {
            return None;
        }
        let home = Home::new();
        fs::create_dir_all(home.path("brew/build")).unwrap();
        pack_source(&home.path(tarball()));
        home.command("tar")
            .args(["--extract", "--strip-components=1", "--directory", "brew/build", "--file"])
            .arg(home.path(tarball()))
            .run()
            .exits(0);
        let url = format!("{REPOSITORY}/{}", tarball());
        // Directly into the file, without showing it: it is long, and in the repository.
        home.command("sh")
            .args(["-c", "\"$@\" >dbx-rotator.rb", "sh", RELEASE, REPOSITORY, &url])
            .arg(home.path(tarball()))
            .run()
            .exits(0);

        let mut brewed = Self { home, said: Value::Null, pages: names_in(pages()) };
        let (program, pages) = (env!("CARGO_BIN_EXE_dbx-rotator"), pages().to_str().unwrap());
        brewed.said = brewed.run(&["install", program, pages]).exits(0).json();
        Some(brewed)
    }

    /// Runs the stand-in with these words after the formula and the prefix.
    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        self.home.command("ruby").args([HARNESS, "dbx-rotator.rb", "brew"]).args(words).run()
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.prefix_path().join(inside)
    }

    pub(crate) fn keg(&self, inside: &str) -> PathBuf {
        Path::new(self.said["keg"].as_str().expect("where the keg is")).join(inside)
    }

    pub(crate) fn names_in(&self, inside: &str) -> Vec<String> {
        names_in(&self.keg(inside))
    }

    pub(crate) fn prefix_path(&self) -> PathBuf {
        self.home.path("brew").canonicalize().unwrap()
    }

    /// The prefix as the formula knows it.
    pub(crate) fn prefix(&self) -> String {
        self.prefix_path().display().to_string()
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A directory with the man pages that `examples/pages` writes.
fn pages() -> &'static Path {
    static PAGES: OnceLock<PathBuf> = OnceLock::new();
    PAGES.get_or_init(|| {
        let target =
            Path::new(env!("CARGO_BIN_EXE_dbx-rotator")).ancestors().nth(2).expect("target/PROFILE/dbx-rotator");
        let directory = target.join("pages-for-homebrew");
        let _ = fs::remove_dir_all(&directory);
        let mut make = Command::new(env!("CARGO"));
        as_from_a_shell(&mut make);
        let made = make
            .args(["run", "--quiet", "--locked", "--example", "pages", "--target-dir"])
            .args([target.as_os_str(), "--".as_ref(), directory.as_os_str()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(made.expect("run cargo").success(), "the man pages cannot be made");
        directory
    })
}
