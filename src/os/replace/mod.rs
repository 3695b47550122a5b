//! Replacing a file atomically and durably, so that nobody's edit is lost.
//!
//! Nobody locks such files, so there is no lock to join. The file is read ([`Snapshot`]), edited, and before the new content
//! takes its place ([`Replacement`]) it is read again: whoever edited it meanwhile is heard first ([`persist`]). From that last look
//! on nobody can begin to write ([`crate::os::lease`]). Old and new then change places, so that nothing that somebody renamed over
//! the old at that very moment is lost, and what lost its place is looked at once more before it goes: what was written to it is
//! carried over ([`Carry`]).

mod attempt;
mod budget;
mod displaced;
mod error;
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
pub(crate) use leftovers::{are_any_there as are_leftovers_there, remove_leftovers};
use new_file::Names;
pub(crate) use snapshot::{Opened, Snapshot, directory_of};

/// How often what somebody else wrote is put in before the rest is left for later: an editor saves once, a script a few times; what
/// goes on longer is a fight.
pub(crate) const TRIES: u32 = 10;

/// How long it takes at most from reading a file to saving it, for who does so without asking a person. It is after so long that what
/// was put into the file for somebody is known to stay there.
const SAVING: Duration = Duration::from_millis(50);

/// Wait before another try, doubled each time. Short in any case: who has just saved leaves a gap now.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Where the world may step in between, for tests: an editor that saves, a mount that refuses.
#[doc(hidden)]
pub trait FsHooks: Send + Sync {
    /// The new content is ready; the old is about to be looked at for the last time.
    fn ready(&self) {}

    /// There was no file at the last look, and the new one is about to get its name.
    fn naming(&self) {}

    /// The new content has taken its place and is about to be read back.
    fn placed(&self) {}

    /// What somebody else had written to what was displaced is in place with the new content.
    fn carried(&self) {}

    /// The old content has been looked at for the last time, and nobody can begin to write to it.
    fn looked(&self) {}

    /// Old and new have changed places, and nobody has looked at the old since.
    fn displaced(&self) {}

    /// Lets the new file and the old one change places.
    ///
    /// # Errors
    /// As `renameat2(2)`.
    fn exchange(&self, new: &Path, old: &Path) -> io::Result<()> {
        exchange(new, old)
    }

    /// Gives the new file its name, where they cannot change places.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
}

/// The world as it is.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl FsHooks for Disk {}

/// Whether an earlier process has left something beside the file that this path leads to, under a name that begins so.
pub(crate) fn has_leftovers(path: &Path, prefix: &str) -> bool {
    let end = end_of(path);
    leftovers::are_there(directory_of(&end), &Names::beside(&end, prefix))
}

/// Whether somebody still writes to what lost the place that this path leads to.
pub(crate) fn is_displaced_being_written(path: &Path, prefix: &str) -> bool {
    let end = end_of(path);
    leftovers::is_one_being_written(directory_of(&end), &Names::beside(&end, prefix))
}

/// What could not be carried over now is kept for who looks next; `path` is what leads to the file.
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

/// What one attempt of [`persist`] came to.
pub(crate) enum Round<T> {
    Done(T),
    /// Somebody else came in between: again, after a pause.
    Overtaken,
    /// It is in place, but what somebody else wrote is not yet: again, at once.
    Behind,
    /// It is in place, and what somebody else wrote is, too. Another who had read the file before may still save it without that:
    /// it is looked at once more, after a pause.
    Placed,
}

/// What an attempt of [`persist`] has to know of those before it.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// How often it was tried, this time included; those that were only behind do not count.
    pub(crate) number: u32,
    /// The time that all of them have.
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
                // The next to come is the first that carries something, unless this did.
                (pause, if behind == 1 { CARRYING } else { 1 }, true)
            }
            Round::Overtaken => {
                // Never in step with somebody who saves at regular times.
                let pause = longest_pause.mul_f64(0.5 + fastrand::f64());
                longest_pause = LONGEST_PAUSE.min(longest_pause * 2);
                number += 1;
                // Two attempts are made in any case, and one of them so that nobody can come in between where that can be helped.
                (pause, 1, insist && number > 2)
            }
        };
        // Whoever called has waited long enough, and clients have what they need: the rest is for the next.
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

    /// What others do to an attempt.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Others {
        /// They come in between unless that is made impossible, and then have written to what was displaced.
        Rename,
        /// The same where it cannot be made impossible.
        RenameWhereNothingCanBeExchanged,
        /// They take away what was put in for them.
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
            // For how long somebody has the file open for writing in each attempt.
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
        // Version 2; then tag, permissions, id: the owner, the user 4711, the group, the mask, others.
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
            return; // This file system knows none.
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
