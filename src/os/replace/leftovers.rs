//! What a process left behind that was killed, or lost its power, before its new file got its name.

use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A new file that is older than this has no process any more that would give it its name.
const LEFTOVER_AGE: Duration = Duration::from_secs(60 * 60);

/// Removes new files that a process left behind which was killed or lost its power before they got their name. They hold
/// what their successor held then, so it would be a pity to keep them; but it is no failure.
pub(super) fn remove_leftovers(directory: &Path, prefix: &str) {
    let is_old = |path: &Path| {
        let modified = path.symlink_metadata().ok().filter(Metadata::is_file).and_then(|data| data.modified().ok());
        modified.and_then(|time| SystemTime::now().duration_since(time).ok()).is_some_and(|age| age > LEFTOVER_AGE)
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) && is_old(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn old_new_files_go_and_those_of_a_process_that_may_live_and_all_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - 2 * LEFTOVER_AGE;
        for (name, time) in [(".x-new-1", long_ago), (".x-new-2", SystemTime::now()), ("x-new-3", long_ago)] {
            File::create(directory.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        fs::create_dir(directory.path().join(".x-new-4")).unwrap();
        File::open(directory.path().join(".x-new-4")).unwrap().set_modified(long_ago).unwrap();
        remove_leftovers(directory.path(), ".x-new-");
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".x-new-2", ".x-new-4", "x-new-3"]);
    }
}
