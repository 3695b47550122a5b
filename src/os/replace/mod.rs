//! Replaces a file atomically and durably, without losing anybody's edit.
//!
//! Nobody locks such files, so there is no lock to join. The file is read ([`Snapshot`]), edited, and read again before the new
//! content takes its place ([`Replacement`]): if somebody changed it meanwhile, we start over from their version ([`persist`]).
//! After that last look nobody can begin to write ([`crate::os::lease`]). Then old and new exchange places, so that a file that
//! somebody renamed over the old one at that very moment is not lost. The displaced file is checked once more before it is removed:
//! what was written to it is carried over ([`Carry`]).

mod attempt;
mod budget;
mod displaced;
mod error;
mod group;
mod leftovers;
mod merge;
mod new_file;
mod quiet;
mod snapshot;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use attempt::{Attempt, Replacement};
use budget::CARRYING;
pub(crate) use budget::{Allowance, Budget};
pub(crate) use displaced::Carry;
pub use error::{FileError, FileFault};
pub(crate) use group::Group;
pub(crate) use leftovers::{are_any_there as are_leftovers_there, remove_leftovers};
use new_file::Names;
pub(crate) use snapshot::{Opened, Snapshot, directory_of};

/// How often what somebody else wrote is carried over before the rest is left for later. An editor saves once, a script a few
/// times; more than this is a fight.
pub(crate) const TRIES: u32 = 10;

/// The longest time between reading a file and saving it, for a program that does not ask a person. After this, what we carried over
/// is known to stay.
const SAVING: Duration = Duration::from_millis(50);

/// The wait before the next try, doubled each time. Short even at its longest: whoever has just saved leaves a gap now.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Where the world may step in between, for tests: an editor that saves, a mount that refuses.
#[doc(hidden)]
pub trait FsHooks: Send + Sync {
    /// The new content is ready; the last look at the old content follows.
    fn ready(&self) {}

    /// There was no file at the last look; the new one is about to get its name.
    fn naming(&self) {}

    /// The new content is in place and is about to be read back.
    fn placed(&self) {}

    /// The new content and what somebody else had written to the displaced file are in place.
    fn carried(&self) {}

    /// The last look is over, and nobody can begin to write to the old file.
    fn looked(&self) {}

    /// Old and new have exchanged places, and the old one has not been checked yet.
    fn displaced(&self) {}

    /// Exchanges the new file and the old one.
    ///
    /// # Errors
    /// As `renameat2(2)`.
    fn exchange(&self, new: &Path, old: &Path) -> io::Result<()> {
        exchange(new, old)
    }

    /// Gives the new file its name, if they cannot be exchanged.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
}

/// The real file system.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl FsHooks for Disk {}

/// Whether an earlier process left a file with this prefix next to the file that this path leads to.
pub(crate) fn has_leftovers(path: &Path, prefix: &str) -> bool {
    let end = end_of(path);
    leftovers::are_there(directory_of(&end), &Names::beside(&end, prefix))
}

/// Whether somebody still writes to a file that was displaced there.
pub(crate) fn is_displaced_being_written(path: &Path, prefix: &str) -> bool {
    let end = end_of(path);
    leftovers::is_one_being_written(directory_of(&end), &Names::beside(&end, prefix))
}

/// Keeps what could not be carried over now for the next run; `path` leads to the file.
pub(crate) fn leave(carry: Option<Carry>, path: &Path, prefix: &str) {
    if let Some(carry) = carry {
        let end = end_of(path);
        carry.leave(directory_of(&end), &Names::beside(&end, prefix));
    }
}

/// Where links end; where they end nowhere, nothing has been displaced.
fn end_of(path: &Path) -> PathBuf {
    snapshot::resolve(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The result of one attempt of [`persist`].
pub(crate) enum Round<T> {
    Done(T),
    /// Somebody else came in between: try again after a pause.
    Overtaken,
    /// Our content is in place, but what somebody else wrote is not yet: try again at once.
    Behind,
    /// Both our content and what somebody else wrote are in place. But another program that read the file earlier may still save
    /// it without that: check once more after a pause.
    Placed,
}

/// What an attempt of [`persist`] must know about the earlier ones.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// The number of this attempt; attempts that ended as [`Round::Behind`] or [`Round::Placed`] do not count.
    pub(crate) number: u32,
    /// The time for all attempts.
    pub(crate) budget: &'a Budget<'a>,
    /// See [`Replacement::insist`].
    pub(crate) insist: bool,
}

/// Makes attempt after attempt until one is done: what it brought, or `None` where somebody else came in between each time. Blocks:
/// usually for some milliseconds, for as long as is allowed where somebody else keeps writing.
pub(crate) fn persist<T, E>(
    allowance: &Allowance,
    attempt: impl FnMut(Turn<'_>) -> Result<Round<T>, E>,
) -> Result<Option<T>, E> {
    persist_within(&Budget::of(allowance), attempt)
}

fn persist_within<T, E>(
    budget: &Budget<'_>,
    mut attempt: impl FnMut(Turn<'_>) -> Result<Round<T>, E>,
) -> Result<Option<T>, E> {
    let (mut longest_pause, mut number, mut behind) = (FIRST_PAUSE, 1, 0);
    loop {
        let insist = budget.is_patience_over();
        let (pause, times, may_end) = match budget.attempt(|| attempt(Turn { number, budget, insist }))? {
            Round::Done(done) => return Ok(Some(done)),
            Round::Behind | Round::Placed if behind >= TRIES => return Ok(None),
            round @ (Round::Behind | Round::Placed) => {
                behind += 1;
                budget.fall_behind();
                let pause = if matches!(round, Round::Placed) { SAVING } else { Duration::ZERO };
                // The next attempt is the first that carries something, unless this one did.
                (pause, if behind == 1 { CARRYING } else { 1 }, true)
            }
            Round::Overtaken => {
                // A random part, so as never to keep in step with somebody who saves at regular times.
                let pause = longest_pause.mul_f64(0.5 + fastrand::f64());
                longest_pause = LONGEST_PAUSE.min(longest_pause * 2);
                number += 1;
                // Two attempts are made in any case, and one of them so that nobody can come in between where that can be helped.
                (pause, 1, insist && number > 2)
            }
        };
        // The caller has waited long enough, and clients have what they need: the rest is left to the next run.
        if may_end && !budget.has_room_after(pause, times) {
            return Ok(None);
        }
        budget.wait(pause);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::budget::Clock;
    use super::budget::tests::Still;
    use super::*;

    /// What others do during an attempt.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Others {
        /// They rename their file in between unless that is made impossible; then they write to the displaced file.
        Rename,
        /// The same if it cannot be made impossible.
        RenameWhereNothingCanBeExchanged,
        /// They remove what was carried over for them.
        Undo,
    }

    /// One file beside others: how often it was tried, and whether it was replaced.
    fn replace(clock: &Still, allowance: &Allowance, own: Duration, held: Duration, others: Others) -> (u32, bool) {
        let (mut tries, mut is_placed) = (0, false);
        let outcome = persist_within(&Budget::by(clock, allowance), |Turn { budget, insist, .. }| {
            tries += 1;
            let own = if is_placed && others == Others::Rename { CARRYING * own } else { own };
            clock.sleep(own / 2);
            budget.wait(budget.until().saturating_duration_since(clock.now()).min(held));
            clock.sleep(own / 2);
            let is_overtaken = match others {
                Others::Rename => !insist,
                Others::RenameWhereNothingCanBeExchanged => true,
                Others::Undo => false,
            };
            is_placed |= !is_overtaken;
            Ok::<Round<()>, ()>(match others {
                _ if is_overtaken => Round::Overtaken,
                Others::Undo => Round::Placed,
                _ => Round::Behind,
            })
        });
        assert_eq!(outcome, Ok(None));
        (tries, is_placed)
    }

    #[test]
    fn whatever_others_do_they_cost_a_command_less_than_a_second_however_many_files_it_replaces() {
        let millis = Duration::from_millis;
        for own in
            [Duration::from_micros(100), millis(3), millis(40), millis(130), millis(290), millis(440), millis(700)]
        {
            for held in [Duration::ZERO, millis(50), millis(300), Duration::MAX] {
                for others in [Others::Rename, Others::RenameWhereNothingCanBeExchanged, Others::Undo] {
                    let (clock, allowance) = (Still::new(), Allowance::default());
                    for files in 1..=6 {
                        let (tries, is_placed) = replace(&clock, &allowance, own, held, others);
                        let took = clock.passed();
                        let what =
                            format!("{own:?}, held for {held:?}, {others:?}: file {files}, {tries} tries, {took:?}");
                        assert_eq!(is_placed, others != Others::RenameWhereNothingCanBeExchanged, "{what}");
                        let cost = took.saturating_sub(files * own);
                        let mut bound = Duration::from_secs(1).max(files * own);
                        if others == Others::RenameWhereNothingCanBeExchanged {
                            // Each file is tried once more in any case.
                            bound += files * own;
                        }
                        assert!(cost < bound, "{what}: others cost {cost:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_others_do_a_replacement_takes_less_than_a_second_or_twice_its_own_time() {
        let second = Duration::from_secs(1);
        let millis = Duration::from_millis;
        for own in
            [Duration::from_micros(100), millis(3), millis(40), millis(130), millis(290), millis(440), millis(700)]
        {
            // How long somebody has the file open for writing in each attempt.
            for held in [Duration::ZERO, millis(50), millis(300), Duration::MAX] {
                for others in [Others::Rename, Others::RenameWhereNothingCanBeExchanged, Others::Undo] {
                    let (clock, allowance) = (Still::new(), Allowance::default());
                    let (tries, is_placed) = replace(&clock, &allowance, own, held, others);
                    let took = clock.passed();
                    let what = format!("{own:?}, held for {held:?}, {others:?}: {tries} tries in {took:?}");
                    assert!(took < second.max(2 * own + SAVING), "{what}");
                    assert_eq!(is_placed, others != Others::RenameWhereNothingCanBeExchanged, "{what}");
                }
            }
        }
    }

    struct Mount;

    impl FsHooks for Mount {
        fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::ResourceBusy.into())
        }

        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }

    #[test]
    fn what_is_private_is_never_written_into_a_file_that_others_may_have_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for (mode, private, written) in [(0o644, true, false), (0o600, true, true), (0o644, false, true)] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let (old, mut notes) = (Snapshot::take(&path).unwrap(), Vec::new());
            let allowance = Allowance::default();
            let replacement = Replacement {
                old: &old,
                bytes: b"new",
                mode: 0o600,
                group: None,
                about_mode: None,
                prefix: ".new-",
                private,
                path: &path,
                insist: false,
                budget: &Budget::of(&allowance),
                fs_hooks: &Mount,
                notes: &mut notes,
            };
            let outcome = replacement.run();
            assert_eq!(matches!(outcome, Err(FileFault::Open)), !written, "{mode:o}");
            assert_eq!(fs::read(&path).unwrap(), if written { b"new" } else { b"old" }, "{mode:o}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn who_an_access_list_let_in_is_not_let_in_to_what_is_private() {
        const LIST: &str = "system.posix_acl_access";
        // Version 2; then tag, permissions and id of each: the owner, the user 4711, the group, the mask, others.
        let none = u32::MAX;
        let entries = [(1, 6, none), (2, 4, 4711), (4, 0, none), (0x10, 4, none), (0x20, 0, none)];
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(permissions)].concat());
            list.extend(u32::to_le_bytes(id));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "old").unwrap();
        if rustix::fs::setxattr(&path, LIST, &list, rustix::fs::XattrFlags::empty()).is_err() {
            return; // This file system has no access lists.
        }
        for (private, kept) in [(false, true), (true, false)] {
            let (old, mut notes) = (Snapshot::take(&path).unwrap(), Vec::new());
            let (old, notes) = (&old, &mut notes);
            let bytes: &[u8] = if private { b"private" } else { b"new" };
            let allowance = Allowance::default();
            let (budget, insist) = (&Budget::of(&allowance), false);
            Replacement {
                old,
                bytes,
                mode: 0o600,
                group: None,
                about_mode: None,
                prefix: ".new-",
                private,
                path: &path,
                budget,
                insist,
                fs_hooks: &Disk,
                notes,
            }
            .run()
            .unwrap();
            assert_eq!(rustix::fs::getxattr_query(&path, LIST).is_ok(), kept, "{private}");
        }
    }
}
