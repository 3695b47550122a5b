//! Installed, upgraded and erased, by rpm itself and by dnf from a repository as people use it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::root::Root;
use super::{package, query};
use crate::built::{NEWER, NEWER_PACKAGED};
use crate::support::skip;
use crate::support::workspace::scratch_directory;
use crate::{built, printed};

const KEY: &str = "packages@example.invalid";

// What Fedora's macros make systemd's helper do. System units are templates: enabled ones are found by the template's
// name, running ones by a pattern for its instances; rpm/preun explains why it asks systemctl.
const INSTALLED: [&str; 2] = [
    "install-user-units dbx-rotator.timer dbx-rotator-daemon.service dbx-rotator-proxy.socket",
    "install-system-units dbx-rotator@.timer dbx-rotator-daemon@.service dbx-rotator-proxy@.socket",
];
const UPGRADED: [&str; 2] = [
    "mark-restart-user-units dbx-rotator.timer dbx-rotator-daemon.service",
    "mark-restart-system-units dbx-rotator@*.timer dbx-rotator-daemon@*.service",
];
const REMOVED: [&str; 2] = [
    "remove-user-units dbx-rotator.timer dbx-rotator-daemon.service dbx-rotator-proxy.socket",
    "systemctl --quiet --no-reload disable dbx-rotator@.timer dbx-rotator-daemon@.service dbx-rotator-proxy@.socket",
];

/// Asserts that all files of the package are in the root unchanged.
#[track_caller]
fn assert_complete(root: &Root, package: &Path) {
    for path in query(package, "[%{FILENAMES}\n]").lines() {
        assert!(root.path(path).is_file(), "{path} is not there");
    }
    root.rpm(&["--verify", "--nodeps", "dbx-rotator"], None).succeeds_quietly();
}

#[test]
fn rpm_installs_upgrades_and_erases_the_package_and_asks_systemd_for_the_right_thing_each_time() {
    let name = "rpm_installs_upgrades_and_erases_the_package_and_asks_systemd_for_the_right_thing_each_time";
    let Some(package_now) = package(name, None, &Root::NEEDED) else { return };
    let Some(package_next) = package(name, Some(NEWER), &[]) else { return };
    let Some(root) = Root::new(name, true) else { return };
    root.rpm(&["--install"], Some(&package_now)).succeeds_quietly();
    assert_eq!(root.asked(), INSTALLED);
    assert_complete(&root, &package_now);
    root.rpm(&["--upgrade"], Some(&package_next)).succeeds_quietly();
    assert_eq!(root.asked(), UPGRADED);
    assert_eq!(root.version().as_deref(), Some(NEWER_PACKAGED));
    assert_complete(&root, &package_next);
    root.rpm(&["--upgrade", "--oldpackage"], Some(&package_now)).succeeds_quietly();
    assert_eq!(root.asked(), UPGRADED, "a downgrade is an upgrade to systemd");
    root.rpm(&["--erase", "dbx-rotator"], None).succeeds_quietly();
    assert_eq!(root.asked(), REMOVED);
    assert_eq!(root.traces(), "");
    root.rpm(&["--install"], Some(&package_now)).succeeds_quietly();
    assert_eq!(root.asked(), INSTALLED, "again");
}

#[test]
fn without_systemds_helper_rpm_installs_upgrades_and_erases_the_package_as_quietly() {
    let name = "without_systemds_helper_rpm_installs_upgrades_and_erases_the_package_as_quietly";
    let Some(package_now) = package(name, None, &Root::NEEDED) else { return };
    let Some(package_next) = package(name, Some(NEWER), &[]) else { return };
    let Some(root) = Root::new(name, false) else { return };
    root.rpm(&["--install"], Some(&package_now)).succeeds_quietly();
    root.rpm(&["--upgrade"], Some(&package_next)).succeeds_quietly();
    assert_complete(&root, &package_next);
    root.rpm(&["--erase", "dbx-rotator"], None).succeeds_quietly();
    assert_eq!(root.traces(), "");
}

/// A repository in a directory, and the temporary key that signs it.
struct Published {
    directory: tempfile::TempDir,
    keys: tempfile::TempDir,
}

impl Published {
    fn new() -> Self {
        let published = Self { directory: scratch_directory(0o755), keys: scratch_directory(0o700) };
        let parameters =
            ["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEY, "default", "sign", "1d"];
        printed(published.command("gpg").args(parameters));
        published
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.keys.path());
        command
    }

    /// Makes the repository again from the packages of these versions.
    fn publish(&self, versions: &[Option<&str>]) -> Result<(), String> {
        let all = scratch_directory(0o755);
        for version in versions {
            for file in fs::read_dir(built::packages(*version)?).unwrap().flatten() {
                fs::copy(file.path(), all.path().join(file.file_name())).unwrap();
            }
        }
        let script = Path::new(super::REPOSITORY).join("dist/repository");
        printed(self.command(script.to_str().unwrap()).arg(all.path()).arg(self.directory.path()).arg(KEY));
        Ok(())
    }

    /// Whether the repository's metadata is signed with the key that it offers, for a client with no other key.
    fn is_signed(&self) -> bool {
        let ring = scratch_directory(0o700);
        let keyring = ring.path().join("keyring");
        let repodata = self.directory.path().join("rpm/repodata");
        let mut dearmor = self.command("gpg");
        printed(dearmor.arg("--dearmor").arg("-o").arg(&keyring).arg(self.directory.path().join("dbx-rotator.asc")));
        let mut verify = Command::new("gpgv");
        verify.arg("--keyring").arg(keyring).arg(repodata.join("repomd.xml.asc")).arg(repodata.join("repomd.xml"));
        verify.output().unwrap().status.success()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // gpg leaves an agent running.
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

#[test]
fn dnf_installs_upgrades_and_removes_the_package_from_a_signed_repository() {
    let name = "dnf_installs_upgrades_and_removes_the_package_from_a_signed_repository";
    if let Some(reason) = built::missing(&["dnf", "createrepo_c", "apt-ftparchive", "gpg", "gpgv"]) {
        return skip(name, &reason);
    }
    let Some(package_now) = package(name, None, &Root::NEEDED) else { return };
    let Some(root) = Root::new(name, true) else { return };
    let published = Published::new();
    let repository = published.directory.path();
    published.publish(&[None]).unwrap();
    assert!(published.is_signed());
    root.dnf(repository, &["install", "dbx-rotator"]).succeeds();
    assert_eq!(root.asked(), INSTALLED);
    assert_complete(&root, &package_now);
    published.publish(&[None, Some(NEWER)]).unwrap();
    root.dnf(repository, &["--refresh", "upgrade", "dbx-rotator"]).succeeds();
    assert_eq!((root.asked(), root.version().as_deref()), (UPGRADED.map(str::to_owned).into(), Some(NEWER_PACKAGED)));
    root.dnf(repository, &["remove", "dbx-rotator"]).succeeds();
    assert_eq!((root.asked(), root.version()), (REMOVED.map(str::to_owned).into(), None));
    assert_eq!(root.traces(), "");
    // An attacker who can write to the mirror but does not have the key.
    let index = repository.join("rpm/repodata/repomd.xml");
    fs::write(&index, fs::read_to_string(&index).unwrap() + "\n").unwrap();
    assert!(!published.is_signed());
    assert!(
        !root.dnf(repository, &["--refresh", "install", "dbx-rotator"]).succeeded(),
        "dnf takes a changed repository"
    );
}
