//! Where the file cannot be renamed it is written in place, or left as it is.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use dbx_rotator::pgpass::{FileFault, FsHooks, PasswordFile};

use super::{Home, OURS, root_or_skip, token};
use crate::support::skip;

struct RefusesRename(i32);

impl FsHooks for RefusesRename {
    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }
}

const EIO: i32 = 5;
const EXDEV: i32 = 18;
const EBUSY: i32 = 16;

#[test]
fn a_file_that_cannot_be_replaced_is_written_in_place_and_cut_to_length() {
    for errno in [EBUSY, EXDEV] {
        let home = Home::new();
        home.write(&format!("# kept\n{OURS}a-much-longer-password-than-the-new-one\n"), 0o644);
        let inode = fs::metadata(home.path()).unwrap().ino();
        let published = home.with_fs_hooks(RefusesRename(errno)).publish(&token("new")).unwrap();
        assert_eq!((home.text(), home.mode()), (format!("# kept\n{OURS}new\n"), 0o600));
        assert_eq!(fs::metadata(home.path()).unwrap().ino(), inode);
        assert!(published.notes.iter().any(|note| note.contains("written in place")), "{:?}", published.notes);
        home.holds_only(&[".pgpass"]);
    }
}

#[test]
fn any_other_failure_leaves_the_old_file_and_nothing_else() {
    let home = Home::with_old("");
    let error = home.with_fs_hooks(RefusesRename(EIO)).publish(&token("new")).unwrap_err();
    assert!(matches!(error.fault, FileFault::Write { .. }) && !error.is_read(), "{error}");
    assert!(error.to_string().contains(&*home.path().to_string_lossy()));
    assert_eq!(home.text(), format!("{OURS}old\n"));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn in_a_directory_where_nothing_can_be_renamed_nothing_is_left_behind() {
    let test = "in_a_directory_where_nothing_can_be_renamed_nothing_is_left_behind";
    let home = Home::with_old("");
    let chattr = |change: &str| {
        let done = Command::new("chattr").arg(change).arg(home.0.path()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !chattr("+a") {
        skip(test, "chattr +a needs root and a file system that knows it");
        return;
    }
    let published = home.file().publish(&token("new"));
    let other = PasswordFile::new(home.0.path().join("other")).publish(&token("new"));
    assert!(chattr("-a"));
    assert!(published.unwrap().notes[0].contains("append-only"));
    other.unwrap();
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "other"]);
}

/// Runs the inside of this test in a mount namespace of its own.
fn in_own_mounts(test: &str) {
    inside_under(&["unshare", "-m"], test);
}

/// Runs the inside of this test, alone, under a command that restricts it.
fn inside_under(wrapper: &[&str], test: &str) {
    if !root_or_skip(test) {
        return;
    }
    let command = || {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command
    };
    if !command().arg("true").status().is_ok_and(|status| status.success()) {
        skip(test, &format!("{} is not permitted", wrapper.join(" ")));
        return;
    }
    let inside = format!("pgpass_store::in_place::inside_{test}");
    let arguments = ["--exact", &inside, "--ignored", "--nocapture"];
    let output = command().arg(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    // A test that does not exist would succeed as well.
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && ran,
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

fn bind(from: &Path, to: &Path) {
    mount(&["--bind", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// Makes the home read-only except for the password file, in whose place this one is mounted.
fn bind_in_read_only(home: &Home, file: &Path) {
    let directory = home.0.path();
    bind(directory, directory);
    bind(file, &home.path());
    mount(&["-o", "remount,bind,ro", directory.to_str().unwrap()]);
}

fn unmount(places: &[&Path]) {
    assert!(Command::new("umount").args(places).status().unwrap().success(), "umount {places:?}");
}

#[test]
fn a_bind_mounted_file_is_written_in_place() {
    in_own_mounts("a_bind_mounted_file_is_written_in_place");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_bind_mounted_file_is_written_in_place"]
fn inside_a_bind_mounted_file_is_written_in_place() {
    let home = Home::with("");
    let volume = home.0.path().join("volume");
    fs::write(&volume, format!("# kept\n{OURS}old-and-longer\n")).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o600)).unwrap();
    bind(&volume, &home.path());
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("busy"), "{:?}", published.notes);
    assert_eq!(home.text(), format!("# kept\n{OURS}new\n"));
    assert_eq!(fs::read_to_string(volume).unwrap(), home.text());
    home.holds_only(&[".pgpass", "volume"]);
    unmount(&[&home.path()]);
}

#[test]
fn a_writable_file_in_a_read_only_directory_is_written_in_place() {
    in_own_mounts("a_writable_file_in_a_read_only_directory_is_written_in_place");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_writable_file_in_a_read_only_directory_is_written_in_place"]
fn inside_a_writable_file_in_a_read_only_directory_is_written_in_place() {
    // As under systemd's ProtectHome=read-only with ReadWritePaths=~/.pgpass.
    let home = Home::with_old("");
    bind_in_read_only(&home, &home.path());
    assert!(fs::write(home.0.path().join("probe"), "").is_err(), "the directory must be read-only");
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("read-only"), "{:?}", published.notes);
    assert_eq!(home.text(), format!("{OURS}new\n"));
    unmount(&[&home.path(), home.0.path()]);
}

#[test]
fn an_owner_that_cannot_be_given_is_kept_by_writing_in_place() {
    // Root in a container may be unable to change owners: a new file would lock the owner out.
    let wrapper = ["setpriv", "--inh-caps=-chown", "--bounding-set=-chown"];
    inside_under(&wrapper, "an_owner_that_cannot_be_given_is_kept_by_writing_in_place");
}

#[test]
#[ignore = "runs without CAP_CHOWN, started by an_owner_that_cannot_be_given_is_kept_by_writing_in_place"]
fn inside_an_owner_that_cannot_be_given_is_kept_by_writing_in_place() {
    // Without CAP_CHOWN, this is the only way to get somebody else's file: another user makes it.
    let home = Home::new();
    fs::set_permissions(home.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = r#"umask 077; printf 'db.example.com:5432:*:alice:old\n' > "$1""#;
    let made = Command::new("setpriv")
        .args(["--reuid", "1234", "--clear-groups", "sh", "-c", script, "sh"])
        .arg(home.path())
        .status()
        .unwrap();
    assert!(made.success());
    let published = home.file().publish(&token("new")).unwrap();
    assert_eq!((home.text(), fs::metadata(home.path()).unwrap().uid()), (format!("{OURS}new\n"), 1234));
    assert!(published.notes[0].contains("its owner (uid 1234)"), "{:?}", published.notes);
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    in_own_mounts("a_full_disk_leaves_the_old_file");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_full_disk_leaves_the_old_file"]
fn inside_a_full_disk_leaves_the_old_file() {
    let home = Home::new();
    mount(&["-t", "tmpfs", "-o", "size=16k", "tmpfs", home.0.path().to_str().unwrap()]);
    home.write(&format!("{OURS}old\n"), 0o600);
    fs::write(home.0.path().join("ballast"), vec![0; 8192]).unwrap();
    let error = home.file().publish(&token(&"x".repeat(20_000))).unwrap_err();
    assert!(error.hint().contains("make room"), "{error}");
    assert_eq!(home.text(), format!("{OURS}old\n"));
    home.holds_only(&[".pgpass", "ballast"]);

    // The same for a file that can only be written in place: nothing is overwritten until there is room for all of it.
    let elsewhere = Home::with("");
    bind_in_read_only(&elsewhere, &home.path());
    let error = elsewhere.file().publish(&token(&"x".repeat(20_000))).unwrap_err();
    assert!(error.to_string().contains("reserve room") && error.hint().contains("make room"), "{error}");
    assert_eq!(home.text(), format!("{OURS}old\n"));
    unmount(&[&elsewhere.path(), elsewhere.0.path(), home.0.path()]);
}
