//! Whose privileges root uses in a place that belongs to somebody else.
//!
//! The owner of a directory decides where its links lead, and can change them between two looks. So root does nothing there
//! with its own privileges: a path through another user's directory is opened, written and removed as that user
//! ([`as_owner_of`]), and a program that was started for somebody's home becomes that user for good ([`leave_root`]). It can
//! then do only what the user could do by hand, and what it makes belongs to that user.
//!
//! Invariant: a process that does not run as root is never affected.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use std::os::unix::fs::MetadataExt;

/// As many links as Linux follows in one path.
const LINK_LIMIT: usize = 40;

/// A user by number, with the group of a file or directory that the user owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nobody acts as somebody else there"))]
    pub(crate) gid: u32,
}

/// Whose place a path leads into: the first user other than root who owns a directory, or a link to one, on the way. None if
/// root owns all of them: then nobody else decides where the path leads.
///
/// A link at the end is followed. Its owner and the file's are checked where the file is opened.
pub(crate) fn owner_of(path: &Path) -> Option<Owner> {
    first_owner(path, 0, Last::Followed)
}

/// What the last part of a path is, if it is a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It leads to the file, whoever owns it.
    Followed,
    /// Its owner decides where it leads.
    OfItsOwner,
    /// The same; and what is there, whatever it is, says what its owner wants.
    IsWhatCounts,
}

/// The first owner on the way to `path` other than `trusted`.
fn first_owner(path: &Path, trusted: u32, last: Last) -> Option<Owner> {
    let path = std::path::absolute(path).ok()?;
    let mut here = PathBuf::from("/");
    let mut rest: Vec<OsString> = names(&path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        // A part that does not exist yet will be made in its parent.
        let data = next.symlink_metadata().ok()?;
        let counts = match last {
            Last::Followed => false,
            Last::OfItsOwner => data.is_symlink(),
            Last::IsWhatCounts => true,
        };
        let is_on_the_way = data.is_dir() || counts || !rest.is_empty();
        if data.uid() != trusted && is_on_the_way {
            return Some(Owner { uid: data.uid(), gid: data.gid() });
        }
        if !data.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        let target = next.read_link().ok().filter(|_| links <= LINK_LIMIT)?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        rest.extend(names(&target));
    }
    None
}

/// The components in reverse order.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Does something to a path: as the user in whose place it is if this process is root, else unchanged.
///
/// `act` must not wait for another task or thread: on Linux only this thread changes its user meanwhile.
///
/// # Errors
/// Root may not become that user here.
pub(crate) fn as_owner_of<T>(path: &Path, act: impl FnOnce() -> T) -> io::Result<T> {
    match owner_of(path).filter(|_| is_root()) {
        Some(owner) => acting::as_user(owner, act),
        None => Ok(act()),
    }
}

/// [`as_owner_of`] for an `act` that can fail itself.
///
/// # Errors
/// As `act`, or as [`as_owner_of`].
pub(crate) fn try_as_owner_of<T, E: From<io::Error>>(path: &Path, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    as_owner_of(path, act)?
}

/// The same where a link at the end is followed without a further look: root does so as the user whose link it is.
///
/// # Errors
/// As `act`, or as [`as_owner_of`].
pub(crate) fn try_as_owner_of_link<T, E: From<io::Error>>(
    path: &Path,
    act: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    match first_owner(path, 0, Last::OfItsOwner).filter(|_| is_root()) {
        Some(owner) => acting::as_user(owner, act)?,
        None => act(),
    }
}

/// Takes the first of these paths that leads into a user's place, or to a user's file, and turns the whole process into that user
/// for good. The process must not have a second thread yet. Returns the user's number if anything changed.
///
/// # Errors
/// Root may not become that user here.
pub(crate) fn leave_root<'p>(paths: impl IntoIterator<Item = &'p Path>) -> io::Result<Option<u32>> {
    if !is_root() {
        return Ok(None);
    }
    let owner = paths.into_iter().find_map(|path| first_owner(path, 0, Last::IsWhatCounts));
    let Some(owner) = owner else { return Ok(None) };
    let has_left = acting::become_user(owner)?;
    LEFT_ROOT.store(has_left, Ordering::Relaxed);
    Ok(has_left.then_some(owner.uid))
}

/// Whether this process was root before it became the user that it is.
pub(crate) fn has_left_root() -> bool {
    LEFT_ROOT.load(Ordering::Relaxed)
}

/// Set once, before there is a second thread.
static LEFT_ROOT: AtomicBool = AtomicBool::new(false);

#[cfg(target_os = "linux")]
mod acting {
    use std::io;

    use rustix::io::Errno;
    use rustix::process::{Gid, Uid, getgroups};
    use rustix::thread::{CapabilitySet, capabilities};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    use super::Owner;
    use crate::os::accounts;

    /// Capabilities beyond those of a user. A root without them has no more privileges to give up than anybody else.
    const BEYOND: CapabilitySet =
        CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH).union(CapabilitySet::FOWNER);

    /// Restores root's user and groups when it is dropped.
    struct Back {
        groups: Vec<Gid>,
    }

    impl Drop for Back {
        fn drop(&mut self) {
            // The saved user id is still root's, so this cannot fail. If it did, we would only have fewer privileges than needed.
            let _ = set_thread_res_uid(None, Uid::ROOT, None);
            let _ = set_thread_res_gid(None, Gid::ROOT, None);
            let _ = set_thread_groups(&self.groups);
        }
    }

    pub(super) fn as_user<T>(owner: Owner, act: impl FnOnce() -> T) -> io::Result<T> {
        let groups = getgroups()?;
        let gid = Gid::from_raw(group_of(owner));
        let changed = (|| {
            set_thread_groups(&[gid])?;
            let back = Back { groups };
            set_thread_res_gid(None, gid, None)?;
            set_thread_res_uid(None, Uid::from_raw(owner.uid), None)?;
            Ok(back)
        })();
        match changed {
            Ok(back) => {
                let done = act();
                drop(back);
                Ok(done)
            }
            Err(_) if !has_power_over(owner) => Ok(act()),
            Err(error) => Err(refused(owner, error)),
        }
    }

    pub(super) fn become_user(owner: Owner) -> io::Result<bool> {
        let gid = Gid::from_raw(group_of(owner));
        let groups: Vec<Gid> = accounts::groups_of(owner.uid, gid.as_raw()).into_iter().map(Gid::from_raw).collect();
        let uid = Uid::from_raw(owner.uid);
        let changed = set_thread_groups(&groups)
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid));
        match changed {
            Ok(()) => Ok(true),
            Err(_) if !has_power_over(owner) => Ok(false),
            Err(error) => Err(refused(owner, error)),
        }
    }

    /// A root without these capabilities may do no more than anybody else. In a user namespace that does not map the owner,
    /// they do not apply to that owner's files (user_namespaces(7)).
    fn has_power_over(owner: Owner) -> bool {
        let holds = capabilities(None).is_ok_and(|sets| sets.effective.intersects(BEYOND));
        holds && std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| is_mapped(&map, owner.uid))
    }

    /// Whether a line of the map, `FIRST-INSIDE FIRST-OUTSIDE COUNT`, holds this user.
    fn is_mapped(map: &str, uid: u32) -> bool {
        map.lines().any(|line| {
            let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u64>().ok());
            let (first, count) = (numbers.next(), numbers.nth(1));
            first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(uid)))
        })
    }

    /// The user's own group, since the place may have root's, whose privileges must not be used.
    fn group_of(owner: Owner) -> u32 {
        if owner.gid == 0 {
            accounts::of_uid(owner.uid).map_or(accounts::NOBODY, |account| account.gid)
        } else {
            owner.gid
        }
    }

    fn refused(owner: Owner, error: Errno) -> io::Error {
        let kind = io::Error::from(error).kind();
        io::Error::new(kind, format!("it is in a place of uid {}, and root may not become that user here", owner.uid))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_user_namespace_knows_the_users_of_its_map() {
            let map = "         0          0          1\n      1000     100000      65536\n";
            for (uid, mapped) in [(0, true), (1, false), (1_000, true), (66_535, true), (66_536, false)] {
                assert_eq!(is_mapped(map, uid), mapped, "{uid}");
            }
            assert!(is_mapped("0 0 4294967295\n", 65_534) && !is_mapped("", 0) && !is_mapped("x y z\n", 0));
        }
    }
}

/// On other systems no maintained crate can give up all of root's groups, so root is told to run as that user.
#[cfg(not(target_os = "linux"))]
mod acting {
    use std::io;

    use super::Owner;

    pub(super) fn as_user<T>(owner: Owner, _: impl FnOnce() -> T) -> io::Result<T> {
        Err(refused(owner))
    }

    pub(super) fn become_user(owner: Owner) -> io::Result<bool> {
        Err(refused(owner))
    }

    fn refused(owner: Owner) -> io::Error {
        let why = format!("it is in a place of uid {}: run as that user, not as root", owner.uid);
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_first_on_the_way_who_is_not_trusted_owns_the_place() {
        let scratch = tempfile::tempdir().unwrap();
        let stranger = me() + 1;
        fs::create_dir(scratch.path().join("a")).unwrap();
        symlink("/", scratch.path().join("a/root")).unwrap();
        // Checked as a root with another number, so that everything here belongs to somebody.
        for path in ["", "a", "a/not/yet", "a/root/etc"] {
            let found = first_owner(&scratch.path().join(path), stranger, Last::Followed);
            assert!(found.is_some() && (me() == 0 || found.is_some_and(|owner| owner.uid == 0)), "{path}: {found:?}");
        }
        if me() == 0 {
            for (path, owner) in [("a", None), ("a/not/yet", None), ("a/root/etc", None), ("a/../..", None)] {
                assert_eq!(first_owner(&scratch.path().join(path), 0, Last::Followed), owner, "{path}");
            }
            std::os::unix::fs::chown(scratch.path().join("a"), Some(4711), Some(4712)).unwrap();
            let theirs = Some(Owner { uid: 4711, gid: 4712 });
            symlink(scratch.path().join("a"), scratch.path().join("link")).unwrap();
            for path in ["a", "a/not/yet", "a/root/etc", "link/x", "link", "a/root/../../x"] {
                assert_eq!(first_owner(&scratch.path().join(path), 0, Last::Followed), theirs, "{path}");
            }
            std::os::unix::fs::lchown(scratch.path().join("link"), Some(4711), Some(4712)).unwrap();
            assert_eq!(first_owner(&scratch.path().join("link"), 0, Last::Followed), theirs);
            // A file, or a link to one, does not decide where the path leads.
            fs::write(scratch.path().join("file"), "").unwrap();
            symlink("file", scratch.path().join("to-file")).unwrap();
            symlink(".", scratch.path().join("to-here")).unwrap();
            for name in ["file", "to-file", "to-here"] {
                std::os::unix::fs::lchown(scratch.path().join(name), Some(4711), Some(4712)).unwrap();
            }
            assert_eq!(first_owner(&scratch.path().join("file"), 0, Last::Followed), None);
            assert_eq!(first_owner(&scratch.path().join("to-file"), 0, Last::Followed), None);
            assert_eq!(first_owner(&scratch.path().join("to-file"), 0, Last::OfItsOwner), theirs, "whose link it is");
            assert_eq!(
                first_owner(&scratch.path().join("to-here/file"), 0, Last::Followed),
                theirs,
                "a link to a directory does"
            );
            assert_eq!(
                first_owner(&scratch.path().join("a/../b"), 0, Last::Followed),
                theirs,
                "the kernel goes into it, too"
            );
        }
    }

    #[test]
    fn links_in_a_circle_are_nobodys_place() {
        let scratch = tempfile::tempdir().unwrap();
        symlink("b", scratch.path().join("a")).unwrap();
        symlink("a", scratch.path().join("b")).unwrap();
        assert_eq!(
            first_owner(&scratch.path().join("a/x"), me(), Last::Followed).filter(|owner| owner.uid == me()),
            None
        );
    }
}
