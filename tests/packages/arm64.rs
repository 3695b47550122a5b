//! What is released for another processor than this machine's: the package is for it, needs what it says, and its program does its work
//! under QEMU, which runs a single program of another processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::workspace::scratch_directory;
use crate::support::{Home, Postgres, Session, Workspace, skip};
use crate::{built, printed, with_ending};

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
const QEMU: &str = "/usr/bin/qemu-aarch64";
/// Debian's package libc6-arm64-cross.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// What belongs to Debian's package libc6, the only one that ours depends on.
const OF_GLIBC: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-aarch64.so.1"];
/// As `depends` in Cargo.toml and the pages promise.
const GLIBC: (u32, u32) = (2, 17);

/// The directory of the packages, and what the one for Debian holds; or a skipped test.
fn unpacked(test: &str) -> Option<(PathBuf, tempfile::TempDir)> {
    let ready = built::missing(&["dpkg-deb", "readelf"]).map_or(Ok(()), Err);
    let packages = ready.and_then(|()| built::quickly_for_target(TRIPLE)).map_err(|reason| skip(test, &reason)).ok()?;
    let root = scratch_directory(0o755);
    printed(Command::new("dpkg-deb").arg("-x").arg(with_ending(&packages, ".deb")).arg(root.path()));
    Some((packages, root))
}

/// The program, run by QEMU unless this machine can run it itself.
fn program<'a>(home: &'a Home, root: &Path) -> Session<'a> {
    let program = root.join("usr/bin/dbx-rotator");
    if cfg!(target_arch = "aarch64") {
        return home.command(program);
    }
    home.command(QEMU).args(["-L", LIBRARIES]).arg(program)
}

#[test]
fn the_package_for_arm64_rotates_and_its_password_logs_in() {
    let test = "the_package_for_arm64_rotates_and_its_password_logs_in";
    let there = cfg!(target_arch = "aarch64") || [QEMU, LIBRARIES].iter().all(|path| Path::new(path).exists());
    if !there {
        return skip(test, "qemu-user or libc6-arm64-cross is not installed");
    }
    let Some((_, root)) = unpacked(test) else { return };
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id().to_owned();
    let server = match Postgres::start(&workspace, &[&user]) {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    program(&home, root.path()).arg("--version").run().exits(0).stdout_has(env!("CARGO_PKG_VERSION"));
    let session = program(&home, root.path()).signed_in_to(&workspace);
    let session = session.env("PGHOST", server.address().to_string()).env("PGPORT", server.port().to_string());
    session.clone().arg("rotate").run().exits(0);
    let asked = server.psql(&home.path(".pgpass"), &user, "select current_user");
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), user, "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(home.mode(".pgpass"), 0o600);
    session.clone().args(["rotate", "--if-due"]).run().exits(0);
    assert_eq!(workspace.tokens_issued(), 1, "what it has written it reads again");
}

#[test]
fn the_packages_for_arm64_are_for_it_and_need_an_old_glibc_alone() {
    let test = "the_packages_for_arm64_are_for_it_and_need_an_old_glibc_alone";
    let Some((packages, root)) = unpacked(test) else { return };
    let field = |name: &str| printed(Command::new("dpkg-deb").arg("-f").arg(with_ending(&packages, ".deb")).arg(name));
    assert_eq!((field("Architecture").trim(), field("Package").trim()), ("arm64", "dbx-rotator"));
    assert_eq!(field("Depends").trim(), format!("libc6 (>= {}.{})", GLIBC.0, GLIBC.1));
    let program = root.path().join("usr/bin/dbx-rotator");
    let told = printed(Command::new("readelf").args(["-hdVW"]).arg(&program));
    assert!(told.contains("AArch64"), "{told}");
    for line in told.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(OF_GLIBC.iter().any(|library| line.contains(&format!("[{library}]"))), "{line}");
    }
    let versions = told.split("Name: GLIBC_").skip(1).map(|rest| {
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap(), numbers.next().unwrap())
    });
    let newest: (u32, u32) = versions.max().unwrap();
    assert!(newest <= GLIBC, "it needs glibc {newest:?}");
    assert!(with_ending(&packages, ".rpm").to_string_lossy().ends_with("-1.aarch64.rpm"));
    if built::missing(&["rpm"]).is_none() {
        let rpm = with_ending(&packages, ".rpm");
        let architecture = printed(Command::new("rpm").args(["-qp", "--queryformat", "%{ARCH}"]).arg(&rpm));
        assert_eq!(architecture, "aarch64");
        let requires = printed(Command::new("rpm").args(["-qp", "--requires"]).arg(&rpm));
        assert!(requires.contains("libc.so.6(GLIBC_2.17)(64bit)") && requires.contains("/bin/bash"), "{requires}");
    }
    let files = fs::read_dir(&packages).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
    assert_eq!(files.filter(|name| name.ends_with("-linux-aarch64.tar.gz")).count(), 1);
}
