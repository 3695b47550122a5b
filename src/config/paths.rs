//! All files that the program reads or writes, as one set, so that no written file has a second role.
//!
//! Paths are compared after following links, and existing files by their identity, so that `..`, a link, a second hard link or
//! different case hides nothing. Several settings may read the same file, but a written file belongs to one setting.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::origin::Origin;

/// After this many links in a row a path is taken as it is (Linux gives up at 40).
const MOST_LINKS: usize = 40;

/// How a file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Reads,
    Writes,
}

/// One file in one role.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The role in words: `token_file of connection "orders"`.
    pub(super) role: String,
    pub(super) origin: Origin,
    pub(super) path: PathBuf,
    pub(super) access: Access,
}

/// Two roles that cannot share a path; `at` is the place to report.
#[derive(Debug)]
pub(super) struct Clash {
    pub(super) at: Origin,
    pub(super) message: String,
}

/// What identifies a file.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Path(PathBuf),
    /// Device and inode.
    File(u64, u64),
    /// A file that does not exist yet, by its directory and its name.
    In(u64, u64, OsString),
}

/// Finds the first clash, in the order of the uses.
///
/// # Errors
/// Two roles share a path and one of them writes, or a path is below one that has a role, and one of them writes.
pub(super) fn check(uses: &[Use]) -> Result<(), Clash> {
    let resolved: Vec<PathBuf> = uses.iter().map(|one| resolve(&one.path)).collect();
    for (one, path) in uses.iter().zip(&resolved) {
        // A log may go to where this process prints.
        if one.access == Access::Writes && is_a_descriptor(path) && !is_log(one) {
            let message = format!("{} ({}) is what a process has open: {}", one.role, one.origin, one.path.display());
            return Err(Clash { at: one.origin.clone(), message });
        }
    }
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (index, (one, path)) in uses.iter().zip(&resolved).enumerate().filter(|(_, (_, path))| !is_device(path)) {
        for key in keys(path) {
            let by_number = matches!(key, Key::File(..));
            let earlier = *known.entry(key).or_insert(index);
            let are_same = || !by_number || are_one_file(&resolved[earlier], path);
            if earlier != index && may_not_meet(&uses[earlier], one) && are_same() {
                return Err(same_file(&uses[earlier], one));
            }
        }
    }
    let files: HashMap<&Path, usize> =
        resolved.iter().enumerate().map(|(index, path)| (path.as_path(), index)).collect();
    for (one, path) in uses.iter().zip(&resolved) {
        let above = path.ancestors().skip(1).find_map(|above| files.get(above)).map(|index| &uses[*index]);
        if let Some(above) = above.filter(|above| may_not_meet(above, one)) {
            if above.path.is_dir() {
                let message = format!("{} ({}) is a directory: {}", above.role, above.origin, above.path.display());
                return Err(Clash { at: above.origin.clone(), message });
            }
            let message = format!(
                "{} ({}) lies below {} ({}), where no other file can be: {}",
                one.role,
                one.origin,
                above.role,
                above.origin,
                one.path.display()
            );
            return Err(Clash { at: pointed_at(above, one), message });
        }
    }
    Ok(())
}

/// Whether two paths lead to one file. A file that was replaced gives its number to the next one, which may be the other: so the first
/// must have the same one before and after.
fn are_one_file(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    (0..3).any(|_| {
        let before = number(one);
        before.is_some() && before == number(other) && before == number(one)
    })
}

/// The log, and the names that earlier ones would have.
fn is_log(one: &Use) -> bool {
    ["log_file", "the old log file"].iter().any(|start| one.role.starts_with(start))
}

/// Whether it leads, with its links followed, to what a process may have open by then, which may be a file of ours (proc(5)).
fn is_a_descriptor(resolved: &Path) -> bool {
    resolved.starts_with("/proc") && resolved.iter().any(|part| part == "fd")
}

/// What `/dev/null` is: it holds nothing, so that nothing of it can be lost.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.file_type().is_char_device())
}

fn may_not_meet(one: &Use, other: &Use) -> bool {
    one.access == Access::Writes || other.access == Access::Writes
}

fn same_file(one: &Use, other: &Use) -> Clash {
    let which = if one.path == other.path {
        one.path.display().to_string()
    } else {
        format!("{} and {}", one.path.display(), other.path.display())
    };
    let message =
        format!("{} ({}) and {} ({}) are the same file: {which}", one.role, one.origin, other.role, other.origin);
    Clash { at: pointed_at(one, other), message }
}

/// The place to report: preferably one in the configuration file, and of two there the one that writes, else the later
/// one.
fn pointed_at(one: &Use, other: &Use) -> Origin {
    let in_file = [other, one].into_iter().filter(|one| matches!(one.origin, Origin::File(..)));
    in_file.min_by_key(|one| one.access != Access::Writes).unwrap_or(other).origin.clone()
}

fn keys(path: &Path) -> Vec<Key> {
    let mut keys = vec![Key::Path(path.to_owned())];
    match fs::metadata(path) {
        Ok(data) if data.is_file() => keys.push(Key::File(data.dev(), data.ino())),
        Ok(_) => {}
        Err(_) => {
            let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
            if let (Some(directory), Some(name)) = (directory, path.file_name()) {
                // On macOS names that differ only in case usually mean the same file.
                let name = if cfg!(target_os = "macos") { name.to_ascii_lowercase() } else { name.to_owned() };
                keys.push(Key::In(directory.dev(), directory.ino(), name));
            }
        }
    }
    keys
}

/// The path with all links followed, even dangling ones, so that it is known where a file would be created.
fn resolve(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest: VecDeque<OsString> = parts(&whole);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(part);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            _ => done = next,
        }
    }
    done
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn one(role: &str, path: impl Into<PathBuf>, access: Access) -> Use {
        Use { role: role.to_owned(), origin: Origin::Default, path: path.into(), access }
    }

    #[test]
    fn who_writes_a_file_has_it_alone_however_it_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/secret"), "x").unwrap();
        symlink("real", at("linked")).unwrap();
        symlink("real/secret", at("to-secret")).unwrap();
        symlink("real/to-be", at("to-nowhere")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::hard_link(at("real/secret"), at("hard")).unwrap();
        for (first, second, same) in [
            ("real/secret", "real/secret", true),
            ("real/secret", "real/../real/./secret", true),
            ("real/secret", "linked/secret", true),
            ("real/secret", "linked/../real/secret", true),
            ("real/secret", "to-secret", true),
            ("real/secret", "hard", true),
            ("real/to-be", "to-nowhere", true),
            ("real/to-be", "linked/to-be", true),
            ("absent/one", "absent/../absent/one", true),
            ("loop", "loop", true),
            ("real/secret", "real/secret2", false),
            ("real/to-be", "to-be", false),
            ("loop", "linked/loop", false),
            ("/dev/null", "/dev/null", false),
        ] {
            let uses = |one_access, other_access| {
                [one("password_file", at(first), one_access), one("token_file", at(second), other_access)]
            };
            for (a, b) in
                [(Access::Writes, Access::Reads), (Access::Reads, Access::Writes), (Access::Writes, Access::Writes)]
            {
                let clash = check(&uses(a, b));
                assert_eq!(clash.is_err(), same, "{first} {second}: {clash:?}");
                if let Err(Clash { message, .. }) = clash {
                    assert!(message.contains("password_file") && message.contains("token_file"), "{message}");
                }
            }
            assert!(check(&uses(Access::Reads, Access::Reads)).is_ok(), "{first} {second}: to read twice is fine");
        }
    }

    #[test]
    fn a_third_that_writes_is_found_behind_two_that_read() {
        let uses = [Access::Reads, Access::Reads, Access::Writes].map(|access| one("x", "/nowhere/file", access));
        assert!(check(&uses).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_is_written_to_what_this_process_has_open() {
        let scratch = tempfile::tempdir().unwrap();
        symlink("/proc/self/fd/999999", scratch.path().join("linked")).unwrap();
        let own = format!("/proc/{}/fd/999999", std::process::id());
        let linked = scratch.path().join("linked").display().to_string();
        for path in [
            "/proc/self/fd/999999",
            "/dev/fd/999999",
            "/proc/thread-self/fd/999999",
            &own,
            "/proc/self/task/1/fd/999999",
            &linked,
        ] {
            let clash = check(&[one("token_file", path, Access::Writes)]).unwrap_err();
            assert!(clash.message.starts_with("token_file"), "{}", clash.message);
            assert!(check(&[one("client_secret_file", path, Access::Reads)]).is_ok(), "{path}");
            for log in ["log_file", "the old log file 1"] {
                assert!(check(&[one(log, path, Access::Writes)]).is_ok(), "{path}");
            }
        }
        for path in ["/dev/null", "/proc-of-mine/fd/token", "/srv/fd/token"] {
            assert!(check(&[one("token_file", path, Access::Writes)]).is_ok(), "{path}");
        }
    }

    #[test]
    fn nothing_lies_below_a_file() {
        let scratch = tempfile::tempdir().unwrap();
        let below = check(&[
            one("token_file", scratch.path().join("a/b"), Access::Writes),
            one("password_file", scratch.path().join("a"), Access::Writes),
        ]);
        assert!(below.unwrap_err().message.contains("lies below password_file"));
    }
}
