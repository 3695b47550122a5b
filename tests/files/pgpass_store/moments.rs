//! Somebody else does something to the file, at one moment of its replacement.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use dbx_rotator::pgpass::FsHooks;

/// The moments are those of [`FsHooks`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Moment {
    Ready,
    Naming,
    Looked,
    Displaced,
    Placed,
    Carried,
}

/// Does something the first times that this moment comes.
pub(super) struct At<F> {
    moment: Moment,
    times: AtomicUsize,
    act: F,
}

impl<F: Fn() + Send + Sync> At<F> {
    pub(super) fn once(moment: Moment, act: F) -> Self {
        Self::times(1, moment, act)
    }

    pub(super) fn times(times: usize, moment: Moment, act: F) -> Self {
        Self { moment, times: AtomicUsize::new(times), act }
    }

    fn reach(&self, moment: Moment) {
        let is_left =
            || self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if moment == self.moment && is_left() {
            (self.act)();
        }
    }
}

impl<F: Fn() + Send + Sync> FsHooks for At<F> {
    fn ready(&self) {
        self.reach(Moment::Ready);
    }

    fn naming(&self) {
        self.reach(Moment::Naming);
    }

    fn looked(&self) {
        self.reach(Moment::Looked);
    }

    fn displaced(&self) {
        self.reach(Moment::Displaced);
    }

    fn placed(&self) {
        self.reach(Moment::Placed);
    }

    fn carried(&self) {
        self.reach(Moment::Carried);
    }
}

/// As most editors save: a new file is renamed over the old one.
pub(super) fn save(path: &Path, text: &str) {
    let beside = path.with_extension("editor");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Saves it with this line below what is there.
pub(super) fn save_with(path: &Path, line: &str) {
    let text = fs::read_to_string(path).unwrap();
    save(path, &format!("{text}{line}"));
}

pub(super) fn append(path: &Path, line: &str) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// The displaced file, by the name that it has for a moment.
pub(super) fn displaced_beside(path: &Path) -> PathBuf {
    let mut names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".pgpass-new-")).unwrap()
}

/// The file that was displaced last.
pub(super) fn newest_beside(path: &Path) -> PathBuf {
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let changed = |path: &PathBuf| fs::metadata(path).map(|data| (data.ctime(), data.ctime_nsec())).unwrap();
    names.filter(|other| other != path).max_by_key(changed).unwrap()
}
