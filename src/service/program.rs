//! Whether a unit can name this program for long. A wheel brings it into an environment of Python's, and some of these are made for
//! one command only (`uvx`, `pipx run`), or in a place that is emptied.

use std::path::{Path, PathBuf};

use crate::failure::{Code, Failure};
use crate::os::dirs::Environment;

/// What is emptied at a boot or after some days; those of a Mac after their links are resolved.
const EMPTIED: [&str; 6] = ["/tmp", "/var/tmp", "/dev/shm", "/private/tmp", "/private/var/tmp", "/private/var/folders"];

/// The names of directories whose content anybody may throw away: XDG's, Apple's, and those of pipx before 1.2 in its own directory.
const CACHES: [&str; 2] = [".cache", "Caches"];

/// Marks a cache wherever it is (bford.info/cachedir): uv writes it.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// How an environment of Python's is recognised (PEP 405).
const OF_ENVIRONMENT: &str = "pyvenv.cfg";

/// How an installed wheel of ours is recognised.
const WHEEL: &str = "dbx_rotator-";

/// Where a program is, as far as it matters for how long it stays there.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// An environment of Python's in a cache.
    Cache(PathBuf),
    /// A directory that is emptied.
    Emptied(PathBuf),
    /// An environment that stays for as long as its owner wants.
    Environment(PathBuf),
    /// Below such a prefix, by pip, without an environment of its own.
    Pip(PathBuf),
    /// Nothing of Python's.
    Other,
}

/// Whether a program of this path would be gone one day, without anybody having removed it.
pub(crate) fn would_vanish(program: &Path, environment: &Environment) -> bool {
    matches!(place(program, environment), Place::Cache(_) | Place::Emptied(_))
}

/// Checks that a unit may name this program.
///
/// # Errors
/// It would be gone one day.
pub(crate) fn check(program: &Path, environment: &Environment) -> Result<(), Failure> {
    let refused = |why: String| {
        let message = format!("a service cannot start {}: {why}", program.display());
        let hint = "install it where it stays (`pipx install dbx-rotator`, `uv tool install dbx-rotator`, or a virtual \
                    environment of your own), and let that one do it";
        Err(Failure::permanent(Code::Configuration, message).hint(hint))
    };
    match place(program, environment) {
        Place::Cache(cache) => refused(format!("it is in a cache, {}, as `uvx` and `pipx run` do it", cache.display())),
        Place::Emptied(directory) => refused(format!("{} is emptied by the system", directory.display())),
        Place::Environment(_) | Place::Pip(_) | Place::Other => Ok(()),
    }
}

/// What an upgrade or a removal of where the program is means for a unit that starts it; none where a package manager sees to it.
pub(crate) fn what_an_upgrade_means(program: &Path, environment: &Environment) -> Option<String> {
    let (place, gone) = match place(program, environment) {
        Place::Environment(root) => (format!("the environment {}", root.display()), "moved or removed"),
        Place::Pip(root) => (format!("what pip has installed below {}", root.display()), "uninstalled"),
        _ => return None,
    };
    Some(format!(
        "The service starts {} of {place}. Upgraded in place, it is used from the next run on (a daemon: after `dbx-rotator service \
         restart`). Before it is {gone}, run `dbx-rotator service uninstall`",
        program.display()
    ))
}

fn place(program: &Path, environment: &Environment) -> Place {
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if let Some(directory) = [program, &real].into_iter().find_map(|path| emptied(path, environment)) {
        return Place::Emptied(directory);
    }
    let Some(root) = real.parent().and_then(Path::parent) else { return Place::Other };
    if root.join(OF_ENVIRONMENT).is_file() {
        // Not itself: `uv venv` marks each environment, so that nobody backs it up.
        return match root.ancestors().skip(1).find(|directory| is_cache(directory)) {
            Some(cache) => Place::Cache(cache.to_owned()),
            None => Place::Environment(root.to_owned()),
        };
    }
    if has_wheel(root) { Place::Pip(root.to_owned()) } else { Place::Other }
}

/// The emptied directory that it is in. Whose home is in there as well has nothing that stays.
fn emptied(path: &Path, environment: &Environment) -> Option<PathBuf> {
    let own = environment.get_os("TMPDIR").map(PathBuf::from).filter(|directory| directory.is_absolute());
    let all = EMPTIED.into_iter().map(PathBuf::from).chain(own).filter(|directory| directory.parent().is_some());
    let home = environment.home().unwrap_or_default();
    let home = home.canonicalize().unwrap_or(home);
    all.into_iter().find(|directory| {
        let real = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        [directory, &real].into_iter().any(|start| path.starts_with(start) && !home.starts_with(start))
    })
}

fn is_cache(directory: &Path) -> bool {
    let is_named = |name: &std::ffi::OsStr| CACHES.iter().any(|cache| name == *cache);
    directory.file_name().is_some_and(is_named) || directory.join(CACHE_TAG).is_file()
}

/// Whether pip has installed a wheel of ours below this prefix.
fn has_wheel(root: &Path) -> bool {
    let entries = |directory: PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_wheel = |name: &str| name.starts_with(WHEEL) && name.ends_with(".dist-info");
    let libraries = ["lib", "lib64"].into_iter().flat_map(|name| entries(root.join(name)));
    let libraries = libraries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
    libraries
        .flat_map(|library| ["site-packages", "dist-packages"].map(|name| library.path().join(name)))
        .flat_map(entries)
        .any(|entry| is_wheel(&entry.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home, with a program at this path below it, and these empty files.
    fn home(program: &str, files: &[&str]) -> (tempfile::TempDir, PathBuf, Environment) {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().canonicalize().unwrap();
        for file in files.iter().chain([&program]) {
            let path = home.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let environment = [("HOME", home.clone())].into_iter().collect();
        let program = home.join(program);
        (scratch, program, environment)
    }

    fn found(program: &str, files: &[&str]) -> (Place, bool, bool) {
        let (scratch, program, environment) = home(program, files);
        let place = match place(&program, &environment) {
            Place::Cache(path) => Place::Cache(within(&scratch, &path)),
            Place::Environment(path) => Place::Environment(within(&scratch, &path)),
            Place::Pip(path) => Place::Pip(within(&scratch, &path)),
            other => other,
        };
        let told = what_an_upgrade_means(&program, &environment);
        assert_eq!(would_vanish(&program, &environment), check(&program, &environment).is_err());
        (place, check(&program, &environment).is_ok(), told.is_some())
    }

    fn within(scratch: &tempfile::TempDir, path: &Path) -> PathBuf {
        path.strip_prefix(scratch.path().canonicalize().unwrap()).unwrap().to_owned()
    }

    #[test]
    fn environments_for_one_command_are_refused_and_others_are_told_of() {
        let at = |path: &str| PathBuf::from(path);
        for (program, files, expected) in [
            // pipx run, on Linux and on a Mac; and uvx, wherever its cache is.
            (
                ".cache/pipx/3c1/bin/dbx-rotator",
                &[".cache/pipx/3c1/pyvenv.cfg"][..],
                (Place::Cache(at(".cache")), false, false),
            ),
            (
                "Library/Caches/pipx/3c1/bin/dbx-rotator",
                &["Library/Caches/pipx/3c1/pyvenv.cfg"],
                (Place::Cache(at("Library/Caches")), false, false),
            ),
            (
                "uv/archive-v0/x/bin/dbx-rotator",
                &["uv/archive-v0/x/pyvenv.cfg", "uv/CACHEDIR.TAG"],
                (Place::Cache(at("uv")), false, false),
            ),
            // A virtual environment, pipx install, uv tool install; pip install --user.
            (
                "work/venv/bin/dbx-rotator",
                &["work/venv/pyvenv.cfg", "work/venv/CACHEDIR.TAG"],
                (Place::Environment(at("work/venv")), true, true),
            ),
            (
                ".local/bin/dbx-rotator",
                &[".local/lib/python3.11/site-packages/dbx_rotator-1.0.dist-info/METADATA"],
                (Place::Pip(at(".local")), true, true),
            ),
            // Not of Python's, even in what cargo calls a cache.
            ("target/debug/dbx-rotator", &["target/CACHEDIR.TAG"], (Place::Other, true, false)),
            (
                ".cargo/bin/dbx-rotator",
                &[".cargo/lib/python3.11/site-packages/other-1.0.dist-info/METADATA"],
                (Place::Other, true, false),
            ),
        ] {
            assert_eq!(found(program, files), expected, "{program}");
        }
    }

    #[test]
    fn what_is_emptied_is_refused_even_behind_a_link_unless_all_of_the_home_is_there() {
        let (scratch, program, environment) = home("x/dbx-rotator", &[]);
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        let environment = environment.with("TMPDIR", &temporary);
        assert_eq!(place(&program, &environment), Place::Other);
        let elsewhere = environment.with("HOME", "/home/ada");
        let refused = check(&program, &elsewhere).unwrap_err();
        assert!(refused.message.contains("is emptied") && refused.hint.unwrap().contains("pipx install"));
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink("/usr/bin/env", &link).unwrap();
        assert!(would_vanish(&link, &elsewhere), "the unit would name the link");
        assert!(!would_vanish(Path::new("/usr/bin/env"), &elsewhere));
    }
}
