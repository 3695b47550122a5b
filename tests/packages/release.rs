//! `dist/release`: what is published hangs together. CI has it take the programs that other tests have built; `tests/run release`
//! compiles everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::built;
use crate::printed;
use crate::support::workspace::scratch_directory;
use crate::support::{cache, skip};

const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/release");
const KEY: &str = "release@example.invalid";
const REPOSITORY: &str = "https://forge.example/somebody/dbx-rotator";

/// A temporary key to sign with.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Keys(scratch_directory(0o700));
        let parameters = format!("%no-protection\nKey-Type: eddsa\nKey-Curve: ed25519\nName-Email: {KEY}\n%commit\n");
        let file = keys.0.path().join("parameters");
        fs::write(&file, parameters).unwrap();
        printed(keys.command("gpg").args(["--batch", "--quiet", "--gen-key"]).arg(file));
        keys
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.0.path());
        command
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // gpg leaves an agent running.
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

fn files_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().flatten().map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Each file is named in the sums, they are right, and they are signed by the key.
fn sums_are_right(directory: &Path, keys: &Keys) {
    printed(Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(directory));
    let sums = fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    for name in files_in(directory).iter().filter(|name| !name.starts_with("SHA256SUMS")) {
        assert!(sums.lines().any(|line| line.ends_with(&format!("  {name}"))), "{name}");
    }
    printed(keys.command("gpg").args(["--batch", "--verify", "SHA256SUMS.asc", "SHA256SUMS"]).current_dir(directory));
}

/// By the schema, where `python/tests/prepare` has put a validator.
fn components_are_valid(directory: &Path) {
    let python = cache::directory().join("python/bin/python");
    let names = files_in(directory);
    let lists: Vec<PathBuf> =
        names.iter().filter(|name| name.ends_with(".cdx.json")).map(|name| directory.join(name)).collect();
    assert_eq!(lists.len(), 4);
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    for list in &lists {
        let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(list).unwrap()).unwrap();
        let components = told["components"].as_array().unwrap();
        let names = |scope: &str| -> Vec<&str> {
            components.iter().filter(|one| one["scope"] == scope).map(|one| one["name"].as_str().unwrap()).collect()
        };
        assert!(names("required").contains(&"rustls") && names("required").contains(&"rust-std"), "{}", list.display());
        assert!(names("excluded").contains(&"serde_derive"), "{}", list.display());
        for absent in ["criterion", "plist", "security-framework"] {
            assert!(!names("required").contains(&absent), "{absent} in {}", list.display());
        }
        for hash in components.iter().filter_map(|one| one["hashes"][0]["content"].as_str()) {
            assert!(lock.contains(hash), "{hash}");
        }
    }
    let validate = "import sys\nfrom cyclonedx.schema import SchemaVersion\nfrom cyclonedx.validation.json import JsonStrictValidator\n\
                    for path in sys.argv[1:]:\n    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(path).read())\n    \
                    assert fault is None, fault\n";
    if !python.exists() {
        return skip("components_are_valid", "python/tests/prepare has not been run");
    }
    printed(Command::new(python).args(["-c", validate]).args(lists));
}

fn release(keys: &Keys, output: &Path, arguments: &[&str]) -> Output {
    let words = ["--key", KEY, "--repository", REPOSITORY];
    keys.command(RELEASE).arg(output).args(words).args(arguments).output().unwrap()
}

#[test]
fn a_dry_run_of_a_release_makes_of_the_packages_that_are_there_what_is_published() {
    let test = "a_dry_run_of_a_release_makes_of_the_packages_that_are_there_what_is_published";
    let ready = built::missing(&["gpg", "git", "dpkg-query", "python3"]).map_or(Ok(()), Err);
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let parts = ready.and_then(|()| {
        Ok([
            built::packages(None)?,
            built::for_target(&triple)?,
            built::quickly_for_target("aarch64-unknown-linux-gnu")?,
        ])
    });
    let parts = match parts {
        Ok(parts) => parts,
        Err(reason) => return skip(test, &reason),
    };
    let (scratch, keys) = (scratch_directory(0o755), Keys::new());
    let (there, output) = (scratch.path().join("built"), scratch.path().join("release"));
    fs::create_dir(&there).unwrap();
    for (name, path) in
        parts.iter().flat_map(|part| files_in(part).into_iter().map(|name| (name.clone(), part.join(name))))
    {
        fs::copy(path, there.join(name)).unwrap();
    }
    let ran = release(&keys, &output, &["--dry-run", "--built", there.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    // What would have been refused is said, and what is not there is named.
    assert!(
        said.contains("is not tagged v") && said.contains("the wheel for musllinux_1_2_aarch64 was not built"),
        "{said}"
    );
    sums_are_right(&output, &keys);
    components_are_valid(&output);
    let version = env!("CARGO_PKG_VERSION");
    let names = files_in(&output);
    for name in [
        format!("dbx-rotator_{version}-1_arm64.deb"),
        format!("dbx-rotator-{version}-1.aarch64.rpm"),
        format!("dbx-rotator-{version}-image.tar"),
        format!("dbx-rotator-{version}.tar.gz"),
        "dbx-rotator.rb".to_owned(),
    ] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    let formula = fs::read_to_string(output.join("dbx-rotator.rb")).unwrap();
    assert!(formula.contains(REPOSITORY) && !formula.contains('@'), "{formula}");
    let sums = fs::read_to_string(output.join("SHA256SUMS")).unwrap();
    let source = sums.lines().find(|line| line.ends_with(&format!("-{version}.tar.gz"))).unwrap();
    assert!(formula.contains(source.split(' ').next().unwrap()), "the formula's sum is that of the source");
    // In earnest it refuses what is no release, before anything is compiled or written.
    let earnest = release(&keys, &scratch.path().join("no"), &[]);
    assert_eq!(earnest.status.code(), Some(65), "{}", String::from_utf8_lossy(&earnest.stderr));
    assert!(!scratch.path().join("no").exists());
}

/// Half an hour on two cores. What CI has tried of it, it tries of what is shipped: with the optimization of a release, for both
/// processors.
#[test]
#[ignore = "compiles everything: tests/run release"]
fn everything_of_a_release_is_made_and_runs() {
    let (scratch, keys) = (scratch_directory(0o755), Keys::new());
    let output = scratch.path().join("release");
    let ran = release(&keys, &output, &["--dry-run"]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && !said.contains("left out"), "{said}");
    sums_are_right(&output, &keys);
    components_are_valid(&output);
    let names = files_in(&output);
    for (ending, count) in [(".deb", 2), (".rpm", 2), ("-static.tar.gz", 2), (".whl", 4), ("-image.tar", 1)] {
        assert_eq!(names.iter().filter(|name| name.ends_with(ending)).count(), count, "{ending}: {names:?}");
    }
    let image = output.join(format!("dbx-rotator-{}-image.tar", env!("CARGO_PKG_VERSION")));
    let index =
        printed(Command::new("skopeo").args(["inspect", "--raw"]).arg(format!("oci-archive:{}", image.display())));
    for architecture in ["amd64", "arm64"] {
        assert!(index.contains(&format!("\"architecture\": \"{architecture}\"")), "{index}");
    }
    for name in names.iter().filter(|name| name.contains("-linux-") && name.ends_with(".tar.gz")) {
        printed(Command::new("tar").arg("-xzf").arg(output.join(name)).arg("-C").arg(scratch.path()));
        let home = crate::support::Home::new();
        let unpacked = scratch.path().join(name.strip_suffix(".tar.gz").unwrap());
        let program = unpacked.join("bin/dbx-rotator");
        let processor = if name.contains("aarch64") { "aarch64" } else { "x86_64" };
        let session = if processor == std::env::consts::ARCH {
            home.command(&program)
        } else {
            let libraries = format!("/usr/{processor}-linux-gnu");
            home.command(format!("/usr/bin/qemu-{processor}")).args(["-L", &libraries]).arg(&program)
        };
        let workspace = crate::support::Workspace::start();
        let session = session.signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "instance.example");
        session.arg("rotate").run().exits(0);
        assert!(workspace.holders()(&home.password()).is_ok(), "{name}");
    }
}
