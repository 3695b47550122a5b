//! A root file system with its own package database, where rpm and dnf really install and scriptlets really run.
//!
//! No distribution with rpm is available here. So one package stands for everything that ours requires: a shell, the
//! libraries that the program is linked with, and a systemd helper and a systemctl that record what they are asked to
//! do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;

use crate::support::skip;
use crate::support::workspace::scratch_directory;
use crate::{printed, with_ending};

const SPEC: &str = r"
Name: base
Version: 1
Release: 1
Summary: All that the package requires
License: none
Provides: /bin/sh /bin/bash systemd rtld(GNU_HASH)
%description
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/lib %{buildroot}/usr/lib64
ln -s usr/bin usr/lib usr/lib64 %{buildroot}
install %{shell} %{buildroot}/usr/bin/busybox
ln -s busybox %{buildroot}/usr/bin/sh
ln -s busybox %{buildroot}/usr/bin/rmdir
install /bin/bash %{buildroot}/usr/bin/bash
for library in $(ldd /bin/bash %{program} | grep -o '/lib[^ ]*' | sort -u); do
  install -D $library %{buildroot}$library
done
%{?helper: install -D %{helper} %{buildroot}/usr/lib/systemd/systemd-update-helper}
%{?helper: install %{helper} %{buildroot}/usr/bin/systemctl}
%files
/bin
/lib
/lib64
/usr
";
const HELPER: &str = r#"#!/bin/sh
case "$0" in *systemctl) set -- systemctl "$@" ;; esac
echo "$@" >>/helper.log
"#;
/// Messages of Debian's rpm at every installation.
const DEBIANS: [&str; 2] = [
    "rpm: RPM should not be used directly install RPM packages, use Alien instead!",
    "rpm: However assuming you know what you are doing...",
];

pub(super) struct Root {
    directory: tempfile::TempDir,
}

/// The result of a command in or on a root.
pub(super) struct Ended {
    line: String,
    output: Output,
}

impl Ended {
    pub(super) fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    /// Its standard output.
    #[track_caller]
    pub(super) fn succeeds(&self) -> String {
        let (said, noise) =
            (String::from_utf8_lossy(&self.output.stdout), String::from_utf8_lossy(&self.output.stderr));
        assert!(self.succeeded(), "{}: {}\n{said}{noise}", self.line, self.output.status);
        said.into_owned()
    }

    #[track_caller]
    pub(super) fn succeeds_quietly(&self) {
        let noise = String::from_utf8_lossy(&self.output.stderr);
        let noise: Vec<&str> = noise.lines().filter(|line| !DEBIANS.contains(line)).collect();
        assert_eq!((self.succeeds(), noise), (String::new(), Vec::new()), "{}", self.line);
    }
}

impl Root {
    pub(super) const NEEDED: [&'static str; 4] = ["rpm", "rpmbuild", "busybox", "bash"];

    /// A root in which the package can be installed, with systemd's helper or, as in a container, without; or a skipped test.
    pub(super) fn new(test: &str, has_helper: bool) -> Option<Self> {
        if !geteuid().is_root() {
            skip(test, "only root can install into a root of its own");
            return None;
        }
        let root = Self { directory: scratch_directory(0o755) };
        let base = base(has_helper);
        root.rpm(&["--initdb"], None).succeeds();
        root.rpm(&["--install"], Some(&with_ending(base.path(), ".rpm"))).succeeds();
        Some(root)
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside.trim_start_matches('/'))
    }

    pub(super) fn rpm(&self, arguments: &[&str], package: Option<&Path>) -> Ended {
        let mut command = Command::new("rpm");
        ended(command.arg("--root").arg(self.directory.path()).args(arguments).args(package))
    }

    /// Runs dnf with the repository in this directory, which must be signed with the key next to it.
    pub(super) fn dnf(&self, repository: &Path, arguments: &[&str]) -> Ended {
        let option = |name: &str, value: &str| format!("--{name}{value}");
        let root = self.directory.path().display();
        let at = repository.display();
        let mut command = Command::new("dnf");
        command.args(["-y", "--disablerepo=*", "--releasever=1", "--nogpgcheck", "--setopt=ours.repo_gpgcheck=1"]);
        command.arg(option("installroot=", &root.to_string()));
        command.arg(option("repofrompath=", &format!("ours,file://{at}/rpm")));
        command.arg(option("setopt=", &format!("ours.gpgkey=file://{at}/dbx-rotator.asc")));
        ended(command.args(arguments).env("LC_ALL", "C.UTF-8"))
    }

    /// Runs a program in the root.
    pub(super) fn run(&self, program_and_arguments: &[&str]) -> Ended {
        let mut command = Command::new("chroot");
        command.arg(self.directory.path()).args(program_and_arguments);
        ended(command.env_clear().env("HOME", "/").env("PATH", "/usr/bin:/usr/sbin"))
    }

    /// What the helper and systemctl have been asked to do since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        let log = self.path("helper.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        text.lines().map(str::to_owned).collect()
    }

    /// The installed version.
    pub(super) fn version(&self) -> Option<String> {
        let query = self.rpm(&["--query", "--queryformat", "%{VERSION}", "dbx-rotator"], None);
        query.succeeded().then(|| query.succeeds())
    }

    /// Files with the package's name in their own, except for the databases of rpm and dnf.
    pub(super) fn traces(&self) -> String {
        let mut find = Command::new("find");
        find.arg(self.directory.path()).args(["-mindepth", "1", "-path", "*/var", "-prune", "-o"]);
        printed(find.args(["(", "-name", "*dbx-rotator*", "-o", "-name", "databricks-oauth*", ")", "-print"]))
    }
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Ended { line: format!("{command:?}"), output }
}

/// A directory with the package that stands for a distribution.
fn base(has_helper: bool) -> tempfile::TempDir {
    let directory = scratch_directory(0o755);
    let path = |name: &str| directory.path().join(name);
    fs::write(path("base.spec"), SPEC).unwrap();
    fs::write(path("helper"), HELPER).unwrap();
    let busybox = printed(Command::new("sh").args(["-c", "command -v busybox"]));
    let mut command = Command::new("rpmbuild");
    let mut define = |name: &str, value: &str| {
        command.args(["--define", &format!("{name} {value}")]);
    };
    define("_topdir", &path("work").display().to_string());
    define("_rpmdir", &directory.path().display().to_string());
    define("_rpmfilename", "base.rpm");
    define("shell", busybox.trim());
    define("program", env!("CARGO_BIN_EXE_dbx-rotator"));
    // Neither stripped nor searched for build ids, which this machine's own packages have as well.
    for off in ["__os_install_post", "debug_package"] {
        define(off, "%{nil}");
    }
    define("_build_id_links", "none");
    if has_helper {
        define("helper", &path("helper").display().to_string());
    }
    printed(command.args(["--quiet", "-bb"]).arg(path("base.spec")));
    directory
}
