//! The .rpm: what it contains and requires, and its whole life under the real rpm, dnf and systemd.
//!
//! cargo-generate-rpm makes a package of whatever it is told, so that a mistyped name in Cargo.toml only shows when
//! somebody installs the package, as happens here. Its scriptlets run as root on other people's machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::workspace::scratch_directory;
use crate::{built, printed, with_ending};

#[path = "rpm/life.rs"]
mod life;
#[path = "rpm/root.rs"]
mod root;
#[path = "rpm/services.rs"]
mod services;

use root::Root;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// The places of scriptlets in `Cargo.toml`, and in a package.
const SCRIPTLETS: [(&str, &str); 6] = [
    ("pre_install_script", "PREIN"),
    ("post_install_script", "POSTIN"),
    ("pre_uninstall_script", "PREUN"),
    ("post_uninstall_script", "POSTUN"),
    ("pre_trans_script", "PRETRANS"),
    ("post_trans_script", "POSTTRANS"),
];
/// RHEL 9's version, the oldest that people are told to install it on.
const GLIBC: (u32, u32) = (2, 34);

/// The .rpm of this version, or a skipped test.
fn package(test: &str, version: Option<&str>, programs: &[&str]) -> Option<PathBuf> {
    built::packages_or_skip(test, version, programs).map(|directory| with_ending(&directory, ".rpm"))
}

fn query(package: &Path, format: &str) -> String {
    printed(Command::new("rpm").args(["-qp", "--queryformat", format]).arg(package))
}

/// `[package.metadata.generate-rpm]`.
fn metadata() -> toml_edit::Table {
    let text = fs::read_to_string(Path::new(REPOSITORY).join("Cargo.toml")).unwrap();
    let manifest: toml_edit::DocumentMut = text.parse().unwrap();
    manifest["package"]["metadata"]["generate-rpm"].as_table().unwrap().clone()
}

// rpmlint's findings.

fn rpmlint(package: &Path, configuration: &Path) -> Output {
    Command::new("rpmlint").arg("-c").arg(configuration).arg(package).env("LC_ALL", "C.UTF-8").output().unwrap()
}

#[test]
fn rpmlint_finds_no_error_in_the_package() {
    let name = "rpmlint_finds_no_error_in_the_package";
    let Some(package) = package(name, None, &["rpmlint"]) else { return };
    let output = rpmlint(&package, &Path::new(REPOSITORY).join("rpm/rpmlint.toml"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" 0 errors"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_rpmlint_filter_is_explained_and_needed_for_the_package() {
    let name = "each_rpmlint_filter_is_explained_and_needed_for_the_package";
    let Some(package) = package(name, None, &["rpmlint"]) else { return };
    let text = fs::read_to_string(Path::new(REPOSITORY).join("rpm/rpmlint.toml")).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let scratch = scratch_directory(0o755);
    let mut filters = 0;
    for (before, filter) in lines.iter().zip(&lines[1..]).filter(|(_, line)| line.starts_with('"')) {
        filters += 1;
        assert!(before.starts_with("# "), "{filter} is not explained");
        if before.contains("Said only where") {
            continue;
        }
        let without = scratch.path().join("without.toml");
        fs::write(&without, text.replacen(filter, "", 1)).unwrap();
        let said = rpmlint(&package, &without).stdout;
        let word = filter.trim_matches([',', '"']);
        assert!(String::from_utf8_lossy(&said).contains(word), "{filter} hides nothing");
    }
    assert!(filters > 5, "only {filters} filters were read");
}

// Its sources.

#[test]
fn each_scriptlet_of_the_package_is_the_script_that_was_meant() {
    let name = "each_scriptlet_of_the_package_is_the_script_that_was_meant";
    let Some(package) = package(name, None, &["rpm"]) else { return };
    let metadata = metadata();
    for (key, tag) in SCRIPTLETS {
        let text = query(&package, &format!("%{{{tag}}}"));
        let Some(path) = metadata.get(key).and_then(toml_edit::Item::as_str) else {
            assert_eq!(text, "(none)", "{key} is not in Cargo.toml");
            continue;
        };
        let meant = fs::read_to_string(Path::new(REPOSITORY).join(path));
        assert_eq!(Some(text.trim_end()), meant.ok().as_deref().map(str::trim_end), "{key} = {path:?}");
        assert!(text.contains("/usr/lib/systemd/systemd-update-helper"), "{key} does nothing for units");
        assert_eq!(query(&package, &format!("%{{{tag}PROG}}")), "/bin/sh", "{key} needs its interpreter");
        printed(Command::new("sh").args(["-n", "-c", &text]));
    }
    let scripts: Vec<_> = metadata.iter().map(|(key, _)| key).filter(|key| key.ends_with("_script")).collect();
    assert_eq!(scripts.len(), 3, "{scripts:?}");
}

// Its contents.

#[test]
fn each_file_of_the_rpm_package_is_roots_and_has_the_right_mode() {
    let name = "each_file_of_the_rpm_package_is_roots_and_has_the_right_mode";
    let Some(package) = package(name, None, &["rpm"]) else { return };
    let files = query(&package, "[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]");
    for line in files.lines() {
        let path = line.split(' ').next_back().unwrap();
        let mode = if path.starts_with("/usr/bin/") { "100755" } else { "100644" };
        assert_eq!(line, format!("{mode} root:root {path}"));
    }
    assert!(files.lines().count() > 40, "{files}");
}

/// The versions in lines like `libc.so.6(GLIBC_2.34)(64bit)`.
fn versions(requirements: &str, prefix: &str) -> Vec<(u32, u32)> {
    let parsed = |text: &str| {
        let mut numbers = text.split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap_or(0))
    };
    let texts = requirements.split(prefix).skip(1).map(|rest| rest.split(')').next().unwrap());
    texts.map(parsed).collect()
}

#[test]
fn what_the_rpm_package_requires_is_in_rhel_9() {
    let name = "what_the_rpm_package_requires_is_in_rhel_9";
    let Some(package) = package(name, None, &["rpm"]) else { return };
    let requirements = printed(Command::new("rpm").args(["-qp", "--requires"]).arg(package));
    let glibc = versions(&requirements, "libc.so.6(GLIBC_");
    assert!(glibc.iter().max().is_some_and(|newest| *newest <= GLIBC), "{glibc:?}");
    for line in requirements.lines() {
        let known = ["/bin/bash", "/bin/sh", "systemd", "rtld(GNU_HASH)"].contains(&line)
            || ["ld-linux", "libc.so.6(", "libgcc_s.so.1(", "libm.so.6(", "rpmlib("]
                .iter()
                .any(|it| line.starts_with(it));
        assert!(known, "it requires {line}");
    }
    for needed in ["/bin/bash", "/bin/sh", "systemd"] {
        assert!(requirements.lines().any(|line| line == needed), "{needed} is missing:\n{requirements}");
    }
}

#[test]
fn the_former_names_in_the_rpm_package_run_the_program_under_that_name() {
    let name = "the_former_names_in_the_rpm_package_run_the_program_under_that_name";
    let Some(package) = package(name, None, &Root::NEEDED) else { return };
    let Some(root) = Root::new(name, true) else { return };
    root.rpm(&["--install"], Some(&package)).succeeds();
    let names = query(&package, "[%{FILENAMES}\n]");
    let names = names.lines().filter(|path| path.starts_with("/usr/bin/databricks-oauth-"));
    let helps: BTreeMap<&str, String> = names.map(|path| (path, root.run(&[path, "--help"]).succeeds())).collect();
    assert_eq!(helps.len(), 5);
    for (path, help) in helps {
        let name = path.rsplit('/').next().unwrap();
        assert!(help.contains(&format!("Usage: {name}")), "{path} --help:\n{help}");
    }
}
