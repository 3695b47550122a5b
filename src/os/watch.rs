//! Waits for changes of files, however they are made: written, replaced, moved, removed, or with another mode.
//!
//! It watches the directories of the files, since most programs replace a file instead of writing into it. If a directory
//! does not exist yet, the nearest existing one above it is watched. Of a directory that is to be watched itself, everything in
//! it is.

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::ffi::OsString;
#[cfg(target_os = "linux")]
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file is often changed in several steps (truncate, write, chmod): it must be unchanged for this long before it is
/// read.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);

/// How often files are checked where the system does not report changes.
const GLANCE: Duration = Duration::from_secs(2);

/// As many links as Linux follows in one path.
#[cfg(target_os = "linux")]
const LINK_LIMIT: usize = 40;

/// How many entries of a watched directory are looked at.
const MOST_ENTRIES: usize = 4_096;

/// Stands for every name in a directory.
#[cfg(target_os = "linux")]
const ANY: &str = "";

/// File names by directory.
#[cfg(target_os = "linux")]
type Places = BTreeMap<PathBuf, Vec<OsString>>;

/// What to watch for these files: every directory entry on the way that can change what a path leads to. A link can be
/// replaced, and so can its target.
#[cfg(target_os = "linux")]
fn places(files: &[PathBuf]) -> Places {
    let mut places = Places::new();
    let mut add = |path: &Path| {
        let mut path = path;
        while let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
            if directory.is_dir() {
                let names = places.entry(directory.to_owned()).or_default();
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
                return;
            }
            path = directory;
        }
    };
    for file in files {
        add(file);
        for link in links_on_the_way(file) {
            add(&link);
        }
        if let Ok(target) = file.canonicalize() {
            add(&target);
        }
    }
    for directory in files.iter().filter(|file| file.is_dir()) {
        places.entry(directory.clone()).or_default().push(ANY.into());
    }
    places
}

/// Every link that decides where a path leads, including links to directories.
#[cfg(target_os = "linux")]
fn links_on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut links = Vec::new();
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        for part in path.ancestors() {
            let Ok(end) = part.read_link() else { continue };
            if links.iter().any(|known| known == part) || links.len() >= LINK_LIMIT {
                continue;
            }
            links.push(part.to_owned());
            let beyond = path.strip_prefix(part).unwrap_or(Path::new(""));
            rest.push(part.parent().unwrap_or(Path::new("/")).join(end).join(beyond));
        }
    }
    links
}

/// Tells two states of a file apart without reading it, and of a directory with the files in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<Option<Stamp>>);

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mode: u32,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamps {
    pub(crate) fn of(files: &[PathBuf]) -> Self {
        let stamp = |file: &PathBuf| {
            let data = std::fs::metadata(file).ok()?;
            Some(Stamp {
                inode: data.ino(),
                size: data.size(),
                mode: data.mode(),
                seconds: data.mtime(),
                nanoseconds: data.mtime_nsec(),
            })
        };
        let with_entries = |file: &PathBuf| {
            let entries = if file.is_dir() { entries_of(file) } else { Vec::new() };
            std::iter::once(stamp(file)).chain(entries.iter().map(stamp).collect::<Vec<_>>())
        };
        Stamps(files.iter().flat_map(with_entries).collect())
    }
}

/// The paths in a directory, in an order that stays.
fn entries_of(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().take(MOST_ENTRIES).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Waits until one of these files has changed and then stayed unchanged for a moment. `has_changed` is called once the files are
/// watched, so that no earlier change is missed. If the system has no more watches, the files are checked every two seconds
/// instead.
#[cfg(target_os = "linux")]
pub(crate) async fn changed(files: &[PathBuf], has_changed: impl Fn() -> bool) {
    if let Err(error) = told_of_a_change(files, &has_changed).await {
        tracing::debug!(
            "changes of files are not told ({}): looking at them every {} s",
            crate::words::of_io(&error),
            GLANCE.as_secs()
        );
        look_until_changed(files, GLANCE, has_changed).await;
    }
}

#[cfg(target_os = "linux")]
async fn told_of_a_change(files: &[PathBuf], has_changed: impl Fn() -> bool) -> io::Result<()> {
    let mut events = Events::of(files)?;
    if !has_changed() {
        events.next().await?;
    }
    while let Ok(more) = tokio::time::timeout(SETTLE, events.next()).await {
        more?;
    }
    Ok(())
}

/// The same by checking now and then. That costs little: it is only done while a failure needs a person.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn changed(files: &[PathBuf], has_changed: impl Fn() -> bool) {
    look_until_changed(files, GLANCE, has_changed).await;
}

/// Checks the files every `pause`, until they have changed and then stayed unchanged for one `pause`.
async fn look_until_changed(files: &[PathBuf], pause: Duration, has_changed: impl Fn() -> bool) {
    let first = Stamps::of(files);
    let mut last = Stamps::of(files);
    if has_changed() {
        return tokio::time::sleep(SETTLE).await;
    }
    loop {
        tokio::time::sleep(pause).await;
        let now = Stamps::of(files);
        if now == last && now != first {
            return;
        }
        last = now;
    }
}

#[cfg(target_os = "linux")]
struct Events {
    stream: inotify::EventStream<Vec<u8>>,
    names: std::collections::HashMap<inotify::WatchDescriptor, Vec<OsString>>,
}

#[cfg(target_os = "linux")]
impl Events {
    fn of(files: &[PathBuf]) -> io::Result<Self> {
        use inotify::{Inotify, WatchMask};

        let mask = WatchMask::ATTRIB
            | WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ONLYDIR;
        let inotify = Inotify::init()?;
        let mut names = std::collections::HashMap::new();
        for (directory, wanted) in places(files) {
            names.insert(inotify.watches().add(&directory, mask)?, wanted);
        }
        // Room for at least one event with the longest name (inotify(7)).
        Ok(Events { stream: inotify.into_event_stream(vec![0; 4_096])?, names })
    }

    /// Waits for the next event that concerns one of the files.
    async fn next(&mut self) -> io::Result<()> {
        loop {
            let event = std::future::poll_fn(|context| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut self.stream), context)
            })
            .await
            .ok_or(io::ErrorKind::UnexpectedEof)??;
            let is_wanted = |name: &OsString, wanted: &[OsString]| wanted.iter().any(|one| one == ANY || one == name);
            let concerns = |name: &OsString| self.names.get(&event.wd).is_some_and(|wanted| is_wanted(name, wanted));
            // An event without a name: the directory itself has changed, or events were lost.
            if event.name.as_ref().is_none_or(concerns) {
                return Ok(());
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Whether `change` is noticed when `file` is watched.
    #[allow(clippy::unwrap_used, reason = "a test's own helper")]
    async fn is_noticed(file: &Path, change: impl FnOnce()) -> bool {
        let files = [file.to_owned()];
        let mut events = Events::of(&files).unwrap();
        change();
        // Events come in order, so the marker's comes after the one of the change.
        let marker = file.with_file_name("marker");
        let mut marked = Events::of(std::slice::from_ref(&marker)).unwrap();
        fs::write(&marker, "").unwrap();
        marked.next().await.unwrap();
        tokio::time::timeout(Duration::ZERO, events.next()).await.is_ok()
    }

    #[tokio::test]
    async fn every_way_of_mending_a_file_is_noticed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("secret"), "old").unwrap();
        let secret = at("secret");
        assert!(is_noticed(&secret, || fs::write(&secret, "new").unwrap()).await, "written");
        let mode = || fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(is_noticed(&secret, mode).await, "mode");
        fs::write(at("other"), "newer").unwrap();
        assert!(is_noticed(&secret, || fs::rename(at("other"), &secret).unwrap()).await, "replaced");
        assert!(is_noticed(&secret, || fs::remove_file(&secret).unwrap()).await, "removed");
        assert!(is_noticed(&secret, || fs::write(&secret, "again").unwrap()).await, "created");
        assert!(!is_noticed(&secret, || fs::write(at("other"), "").unwrap()).await, "another file");
    }

    #[tokio::test]
    async fn a_file_in_a_directory_to_be_and_the_target_of_a_link_are_watched() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(is_noticed(&at("a"), || fs::create_dir(at("a")).unwrap()).await);
        let deep = [at("b/c/d")];
        assert_eq!(places(&deep), Places::from([(directory.path().to_owned(), vec!["b".into()])]));
        fs::write(at("target"), "old").unwrap();
        std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
        assert!(is_noticed(&at("link"), || fs::write(at("target"), "new").unwrap()).await);
    }

    #[tokio::test]
    async fn of_a_directory_every_file_is_watched_once_it_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("conf.d");
        let fragment = directory.join("orders.toml");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("made", &|| fs::create_dir(&directory).unwrap()),
            ("added", &|| fs::write(&fragment, "1").unwrap()),
            ("changed", &|| fs::write(&fragment, "other").unwrap()),
            ("removed", &|| fs::remove_file(&fragment).unwrap()),
        ];
        for (what, change) in changes {
            let before = Stamps::of(std::slice::from_ref(&directory));
            assert!(is_noticed(&directory, change).await, "{what}");
            assert_ne!(before, Stamps::of(std::slice::from_ref(&directory)), "{what}");
        }
    }

    #[tokio::test]
    async fn a_link_to_a_directory_that_leads_elsewhere_now_is_noticed_wherever_it_stands_on_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["one/deep", "two/deep", "top"] {
            fs::create_dir_all(at(name)).unwrap();
            fs::write(at(name).join("secret"), name).unwrap();
        }
        std::os::unix::fs::symlink("../one", at("top/link")).unwrap();
        std::os::unix::fs::symlink(at("top/link/deep"), at("outer")).unwrap();
        let swap = |link: &str, target: &str| {
            std::os::unix::fs::symlink(target, at("new")).unwrap();
            fs::rename(at("new"), at(link)).unwrap();
        };
        for (link, target) in [("top/link", "../two"), ("outer", "one/deep")] {
            let file = at("outer/secret");
            let mut events = Events::of(std::slice::from_ref(&file)).unwrap();
            swap(link, target);
            tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap();
        }
        // A loop of links must not hang.
        std::os::unix::fs::symlink("b", at("a")).unwrap();
        std::os::unix::fs::symlink("a", at("b")).unwrap();
        assert!(links_on_the_way(&at("a/x")).len() <= LINK_LIMIT);
    }

    #[tokio::test]
    async fn where_the_system_does_not_tell_of_a_change_it_is_seen_once_the_file_is_left_in_peace() {
        let directory = tempfile::tempdir().unwrap();
        let files = [directory.path().join("secret")];
        let pause = Duration::from_millis(20);
        assert!(GLANCE >= SETTLE, "a file is mended in several steps");
        let mut looking = std::pin::pin!(look_until_changed(&files, pause, || false));
        assert!(tokio::time::timeout(pause * 5, &mut looking).await.is_err(), "nothing has changed");
        fs::write(&files[0], "new").unwrap();
        tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_that_came_before_anybody_watched_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let files = [directory.path().join("secret")];
        let before = Stamps::of(&files);
        fs::write(&files[0], "new").unwrap();
        let has_changed = || Stamps::of(&files) != before;
        tokio::time::timeout(Duration::from_secs(20), changed(&files, has_changed)).await.unwrap();
        let looking = look_until_changed(&files, GLANCE, has_changed);
        tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
    }

    #[test]
    fn a_stamp_tells_a_replaced_file_from_an_untouched_one() {
        let directory = tempfile::tempdir().unwrap();
        let files = [directory.path().join("secret")];
        let none = Stamps::of(&files);
        fs::write(&files[0], "1").unwrap();
        let one = Stamps::of(&files);
        assert_ne!(none, one);
        assert_eq!(one, Stamps::of(&files));
    }
}
