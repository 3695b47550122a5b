//! One attempt to replace the old content: with a new file that is renamed, or in place if that is impossible.
//!
//! Invariants: a reader finds the old content or the new, never less (except when written in place, which is reported); the new
//! file has the old one's owner and attributes before it has its name; a failure leaves nothing behind; what others write at the
//! same moment is kept, if the system can tell that they do.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Gid, OFlags, Uid};
use tempfile::TempPath;

use super::displaced::{Carry, End, Written, look, not_lost, put_back, written_meanwhile};
use super::group::Group;
use super::new_file::{Kind, Names, NewFile, Stamp};
use super::snapshot::{Opened, Snapshot};
use super::{Budget, FileFault, FsHooks};
use crate::os::attributes;
use crate::os::files::{is_append_only, is_impossible, is_the_one, set_mode};
use crate::os::lease::Asked;
use crate::words;

/// How an attempt ended.
pub(crate) enum Attempt {
    /// The new content is in place.
    Done,
    /// Somebody else changed the file meanwhile. Nothing was written: start over.
    Overtaken,
    /// The new content is in place, but somebody wrote to the displaced file: start over with what they wrote.
    Behind(Carry),
}

/// Any access for group or others.
const OTHERS: u32 = 0o077;

/// Attributes of the content or of one file, not of the file's place.
const OWN_ATTRIBUTES: [&str; 4] = ["security.ima", "security.evm", "security.capability", "com.apple.provenance"];

/// The access list of other users. It includes permission bits: if it were copied to a private file, others could open that
/// before the mode is set, and go on reading.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Replaces what `old` found by `bytes`, with this mode. Things to report are added to `notes`.
pub(crate) struct Replacement<'a> {
    pub(crate) old: &'a Snapshot,
    pub(crate) bytes: &'a [u8],
    pub(crate) mode: u32,
    /// The group that it must have; else the one that it had, or that its directory gives it.
    pub(crate) group: Option<Group<'a>>,
    /// What is worth telling where it gets that mode.
    pub(crate) about_mode: Option<String>,
    /// How the names of new files begin, before they have the old one's, and of old ones since: nobody else's files may have such
    /// names.
    pub(crate) prefix: &'a str,
    /// Others must never read the content: it is not written in place into a file that they may have open, and no access
    /// list is kept.
    pub(crate) private: bool,
    /// The path that the person gave, before links were followed.
    pub(crate) path: &'a Path,
    /// Replaces the file even if it has changed since it was read. The others' version is displaced and carried over; until then,
    /// clients and the others do not see what they wrote. For use after being overtaken for too long.
    pub(crate) insist: bool,
    /// Limits how long to wait for somebody who writes.
    pub(crate) budget: &'a Budget<'a>,
    pub(crate) fs_hooks: &'a dyn FsHooks,
    pub(crate) notes: &'a mut Vec<String>,
}

/// The name that the new file has got.
enum Given {
    /// One of its own, which it loses when this is dropped.
    Beside(File, TempPath),
    /// The one that it was to have, since nobody had that.
    Target,
}

/// What preparing the new file came to.
enum Prepared {
    Ready(NewFile),
    /// Renaming is impossible or would do harm; the reason, for the note.
    InPlace(String),
}

impl Replacement<'_> {
    /// Replaces the file, if it is still the one that was seen.
    pub(crate) fn run(self) -> Result<Attempt, FileFault> {
        self.run_with(Kind::Nameless)
    }

    fn run_with(mut self, kind: Kind) -> Result<Attempt, FileFault> {
        let told = self.notes.len();
        let new = match self.prepare(kind)? {
            Prepared::Ready(new) => new,
            Prepared::InPlace(reason) => return self.overwrite(&reason),
        };
        let is_nameless = new.is_nameless();
        match self.give_name(new)? {
            Ok(Given::Beside(file, name)) => self.swap(file, name),
            Ok(Given::Target) => {
                self.settle();
                Ok(Attempt::Done)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Attempt::Overtaken),
            Err(error) if is_nameless => {
                let why = words::of_io(&error);
                tracing::debug!("{}: a file without a name cannot get one: {why}", self.path.display());
                self.notes.truncate(told);
                self.run_with(Kind::Named)
            }
            // Another of our processes has removed it as a leftover, before it was locked.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Attempt::Overtaken),
            Err(error) => Err(self.failed("give the new file its name", error)),
        }
    }

    fn names(&self) -> Names<'_> {
        self.old.names_beside(self.prefix)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> FileFault {
        FileFault::Write { doing, source }
    }

    /// Writes the new file beside the old one, complete and on disk, under a name of its own.
    fn prepare(&mut self, kind: Kind) -> Result<Prepared, FileFault> {
        let for_good = is_append_only(self.old.directory());
        if for_good && self.old.file.is_some() {
            return Ok(Prepared::InPlace("nothing can be renamed in its directory (append-only)".to_owned()));
        }
        let new = match NewFile::create(self.old.directory(), self.names().own(), kind, for_good) {
            Ok(new) => new,
            Err(error) if self.old.file.is_some() && is_refusal(&error) => {
                return Ok(Prepared::InPlace(format!("no file can be created beside it ({})", reason(&error))));
            }
            Err(source) if source.kind() == ErrorKind::NotFound => {
                let directory = self.old.directory().to_owned();
                return Err(FileFault::NoDirectory(directory));
            }
            Err(source) => return Err(self.failed("create a file beside it", source.kind().into())),
        };
        match &self.old.file {
            Some(old) => {
                copy_attributes(&old.file, new.file(), self.private, self.notes);
                if let Some(reason) = self.keep_owner(old, new.file())? {
                    return Ok(Prepared::InPlace(reason));
                }
            }
            None => self.adopt_directory_owner(new.file())?,
        }
        // In this order: nobody may read it who is not meant to, not even while it is empty, since who has it open reads on.
        self.group.map_or(Ok(()), |group| group.give(new.file()))?;
        self.set_mode(new.file())?;
        new.file().write_all(self.bytes).map_err(|error| self.failed("write the new file", error))?;
        sync(new.file()).map_err(|error| self.failed("bring the new file to the disk", error))?;
        Ok(Prepared::Ready(new))
    }

    /// Gives the new file its mode. Where its file system sets none, that it has another is told: what others may read there is for
    /// the person to decide who chose the place.
    fn set_mode(&mut self, new: &File) -> Result<(), FileFault> {
        let mode = self.mode;
        match set_mode(new, mode).map_err(|error| self.failed("set the mode of the new file", error))? {
            None => self.notes.extend(self.about_mode.clone()),
            Some(found) => {
                let others = if found & !mode & OTHERS != 0 { ", so that others may have access to it" } else { "" };
                self.notes.push(format!("its mode is {found:04o}{others}: its file system sets no other ({mode:04o})"));
            }
        }
        Ok(())
    }

    /// Gives the new file the old one's owner and group. A reason to write in place, where only that keeps the owner.
    fn keep_owner(&mut self, old: &Opened, new: &File) -> Result<Option<String>, FileFault> {
        let (uid, gid) = (old.metadata.uid(), old.metadata.gid());
        let made = new.metadata().map_err(|error| self.failed("look at the new file", error))?;
        if made.uid() != uid && rustix::fs::fchown(new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).is_err() {
            if open_for_writing(self.old).is_ok() {
                return Ok(Some(format!("its owner (uid {uid}) could not be kept otherwise")));
            }
            self.notes.push(format!("the owner changed from uid {uid} to uid {}", made.uid()));
        }
        let made = new.metadata().map_err(|error| self.failed("look at the new file", error))?;
        if made.gid() != gid && rustix::fs::fchown(new, None, Some(Gid::from_raw(gid))).is_err() {
            self.notes.push(format!("the group changed from gid {gid} to gid {}", made.gid()));
        }
        Ok(None)
    }

    /// A file that root makes in somebody's home must be theirs, or their clients silently cannot open it.
    fn adopt_directory_owner(&mut self, new: &File) -> Result<(), FileFault> {
        if !rustix::process::geteuid().is_root() {
            // Root is acting as that user.
            if rustix::process::getuid().is_root() {
                self.notes.push(for_owner(rustix::process::geteuid().as_raw()));
            }
            return Ok(());
        }
        let directory = self.old.directory().metadata().map_err(|error| self.failed("look at its directory", error))?;
        let (uid, gid) = (directory.uid(), directory.gid());
        let made = new.metadata().map_err(|error| self.failed("look at the new file", error))?;
        // Where the file system knows no owners, all files have the same.
        if uid != 0 && made.uid() != uid {
            rustix::fs::fchown(new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| self.failed("give the new file to the owner of its directory", error.into()))?;
            self.notes.push(for_owner(uid));
        }
        Ok(())
    }

    /// Has nobody touched the file since it was read?
    fn unchanged(&self) -> Result<bool, FileFault> {
        self.old.is_there_still(self.path)
    }

    /// Gives the new file its first name; where there was no file, that is the one that it is to have.
    fn give_name(&self, new: NewFile) -> Result<io::Result<Given>, FileFault> {
        if let Some(old) = &self.old.file {
            let named = new.into_named(self.names().own(), Stamp::of(&old.metadata));
            return Ok(named.map(|(file, name)| Given::Beside(file, name)));
        }
        self.fs_hooks.ready();
        if !self.unchanged()? {
            return Ok(Err(ErrorKind::AlreadyExists.into()));
        }
        self.fs_hooks.naming();
        Ok(new.persist_noclobber(&self.old.target).map(|()| Given::Target))
    }

    /// Lets the new file and the old one change places. From the last look until then nobody can begin to write to the old one, where
    /// the file system grants leases; all that takes time is done before.
    fn swap(mut self, file: File, name: TempPath) -> Result<Attempt, FileFault> {
        let Some(old) = &self.old.file else { return Ok(Attempt::Overtaken) };
        self.fs_hooks.ready();
        let lease = old.hold(self.budget);
        if matches!(lease, Asked::Unknown) {
            tracing::debug!("{}: its file system does not tell whether somebody writes to it", self.path.display());
        }
        let target = &self.old.target;
        // Reading took a moment, and somebody may have renamed another file over it meanwhile.
        let is_unchanged = self.unchanged()? && is_the_one(target, &old.metadata);
        if !is_unchanged && !self.insist {
            return Ok(Attempt::Overtaken);
        }
        self.fs_hooks.looked();
        let name = match self.fs_hooks.exchange(&name, target) {
            Ok(()) if !self.insist && !is_the_one(&name, &old.metadata) => {
                let new = file.metadata().map_err(|error| self.failed("look at the new file", error))?;
                drop((file, lease));
                self.give_back(name, &new).map_err(|error| self.failed("put back what it was", error))?;
                return Ok(Attempt::Overtaken);
            }
            Ok(()) => Some(name),
            // Then theirs would be lost.
            Err(error) if is_impossible(&error) && !is_unchanged => return Ok(Attempt::Overtaken),
            // As renameat2(2) has it where a file system cannot, and as older systems and sandboxes do.
            Err(error) if is_impossible(&error) => match self.fs_hooks.rename(&name, target) {
                Ok(()) => {
                    tracing::debug!("{}: its file system cannot exchange two files", self.path.display());
                    // The temporary name no longer exists: the guard must not remove it.
                    name.keep().map_err(|error| self.failed("give the new file its name", error.error))?;
                    None
                }
                Err(error) => {
                    drop((name, lease));
                    return self.refused(error);
                }
            },
            Err(error) => {
                drop((name, lease));
                return self.refused(error);
            }
        };
        // While open for writing, it would look as if somebody else had it open.
        drop((file, lease));
        let displaced_at = Instant::now();
        if !is_unchanged {
            self.notes.push(
                "somebody else kept changing it, so it was replaced all the same; what they wrote meanwhile is taken over"
                    .to_owned(),
            );
        }
        if old.metadata.nlink() > 1 {
            self.notes.push(format!(
                "it had {} names (hard links): this one is a new file now, the others keep the old content",
                old.metadata.nlink()
            ));
        }
        self.settle();
        self.fs_hooks.displaced();
        match look(self.old, old, name, displaced_at, self.budget)
            .map_err(|error| self.failed("look at what it was", error))?
        {
            End::Gone => Ok(Attempt::Done),
            End::Edited(carry) => Ok(Attempt::Behind(carry)),
            End::Strange(name) => {
                // Its owner put something other than a file there, such as a link. It stays, and we start over from it.
                put_back(name, target).map_err(|error| self.failed("put back what it was", error))?;
                Ok(Attempt::Overtaken)
            }
            End::BeingWritten { is_kept } => {
                let fate = if is_kept { "is put into it by this rotation or the next" } else { "is lost" };
                self.notes
                    .push(format!("somebody has it open for writing for so long: what they write from now on {fate}"));
                Ok(Attempt::Done)
            }
        }
    }

    /// Somebody renamed their file over the old one at the last moment. Theirs gets its place back at once, before they see our
    /// file without their change.
    fn give_back(&self, name: TempPath, new: &Metadata) -> io::Result<()> {
        let target = &self.old.target;
        if let Err(error) = self.fs_hooks.exchange(&name, target) {
            return not_lost(name, error);
        }
        if !is_the_one(&name, new) {
            // They have renamed again: the newest one wins.
            return put_back(name, target);
        }
        match written_meanwhile(&name, self.bytes, self.budget)? {
            Written::Nothing => {}
            Written::Something(carry) => carry.leave(self.old.directory(), &self.names()),
            // It keeps its name for the next run.
            Written::NotYet => drop(name.keep()),
        }
        Ok(())
    }

    /// What to do where the new file could not get its name.
    fn refused(self, error: io::Error) -> Result<Attempt, FileFault> {
        match error {
            // The old file has just been removed, or another of our processes removed the new one as a leftover.
            gone if gone.kind() == ErrorKind::NotFound => Ok(Attempt::Overtaken),
            error if is_refusal(&error) || is_mount(&error) => {
                self.overwrite(&format!("it cannot be replaced ({})", reason(&error)))
            }
            error => Err(self.failed("give the new file its name", error)),
        }
    }

    /// A name is only durable once its directory is synced.
    fn settle(&mut self) {
        let synced = File::open(self.old.directory()).and_then(|directory| sync(&directory));
        if let Err(error) = synced.as_ref()
            && error.kind() != ErrorKind::PermissionDenied
        {
            self.notes.push(format!("its directory could not be brought to the disk ({})", reason(error)));
        }
    }

    /// Whether somebody may have it open who must not read what is about to be in it.
    fn is_open_to_strangers(&self, old: &Opened) -> bool {
        let has_its_group = self.group.is_none_or(|group| group.is_of(old));
        old.mode() & OTHERS & if has_its_group { !self.mode } else { OTHERS } != 0
    }

    /// The way for a bind-mounted file: over the old content, in one write, cut to length afterwards.
    fn overwrite(mut self, why: &str) -> Result<Attempt, FileFault> {
        if self.private && self.old.file.as_ref().is_some_and(|old| self.is_open_to_strangers(old)) {
            return Err(FileFault::Open);
        }
        let file = open_for_writing(self.old).map_err(|error| self.failed("write it in place", error))?;
        let metadata = file.metadata().map_err(|error| self.failed("look at it", error))?;
        let seen = self.old.file.as_ref().map(|old| (old.metadata.dev(), old.metadata.ino()));
        self.fs_hooks.ready();
        if seen != Some((metadata.dev(), metadata.ino())) || !self.unchanged()? {
            return Ok(Attempt::Overtaken);
        }
        // Tight before the new password is in it.
        self.group.map_or(Ok(()), |group| group.give(&file))?;
        let was = metadata.mode() & 0o7777;
        if was != self.mode {
            match file.set_permissions(std::fs::Permissions::from_mode(self.mode)) {
                Ok(()) => self.notes.extend(self.about_mode.take()),
                Err(error) => self.notes.push(format!("its mode stays {was:04o} ({})", reason(&error))),
            }
        }
        reserve(&file, self.bytes.len()).map_err(|error| self.failed("reserve room for it", error))?;
        if let Err(error) = write_over(&file, self.bytes) {
            let doing = match write_over(&file, &self.old.bytes) {
                Ok(()) => "write it in place (the old content was put back)",
                Err(_) => "write it in place (and could not put the old content back: it may be damaged)",
            };
            return Err(self.failed(doing, error));
        }
        self.notes.push(format!(
            "written in place, because {why}: a client that read it at that very moment may have found it incomplete"
        ));
        Ok(Attempt::Done)
    }
}

fn for_owner(uid: u32) -> String {
    format!("created by root for the owner of its directory (uid {uid})")
}

fn open_for_writing(old: &Snapshot) -> io::Result<File> {
    if let Some(old) = &old.file {
        old.release();
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(&old.target)
}

/// Writes first and truncates afterwards, so that the file is never shorter than its new content.
fn write_over(file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    sync(file)
}

/// Syncs it, if the file system supports that.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Detects a full disk before anything is overwritten, if the file system can tell.
#[cfg(target_os = "linux")]
fn reserve(file: &File, length: usize) -> io::Result<()> {
    check_limit(length)?;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length as u64) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, length: usize) -> io::Result<()> {
    check_limit(length)
}

/// A write beyond this process's file size limit (`ulimit -f`) would fail.
fn check_limit(length: usize) -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < length as u64) { Err(ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Copies extended attributes, which include ACLs and the SELinux label. Not every file system has them, and not
/// everybody may set them, but a working password matters more.
fn copy_attributes(old: &File, new: &File, private: bool, notes: &mut Vec<String>) {
    let Ok(names) = attributes::names(old) else { return };
    let is_left = |name: &OsString| OWN_ATTRIBUTES.iter().any(|own| name == own) || private && name == ACCESS_LIST;
    for name in names.into_iter().filter(|name| !is_left(name)) {
        let Ok(Some(value)) = attributes::get(old, &name) else { continue };
        // The default label is often right already, and setting it may be forbidden.
        if attributes::get(new, &name).is_ok_and(|there| there.as_ref() == Some(&value)) {
            continue;
        }
        if let Err(error) = attributes::set(new, &name, &value) {
            let name = name.to_string_lossy();
            notes.push(format!("its attribute {name} could not be kept ({})", reason(&error)));
        }
    }
}

/// The directory or its file system does not allow it (EACCES, EPERM, EROFS).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The file is a mount point (EBUSY, EXDEV).
fn is_mount(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices)
}

/// The cause in words, without temporary names that mean nothing to people. tempfile's errors hide their number, so
/// their kind is used.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => words::of_io(error),
        None => words::of_io(&error.kind().into()),
    }
}
