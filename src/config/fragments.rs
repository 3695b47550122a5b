//! The further files of a configuration: `conf.d/*.toml` beside config.toml, in which packages, roles and teams put theirs.
//!
//! Only the usual places have one (`~/.config/dbx-rotator`, `/etc/dbx-rotator`): a file that somebody names with `--config` is read
//! alone. Fragments come after config.toml, in the order of the bytes of their names. Names that do not end in `.toml`, or begin
//! with a dot, are left alone: what editors and package managers leave behind is called otherwise (`x.toml~`, `x.toml.rpmnew`).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::ConfigError;
use super::file::ConfigFile;
use super::source::{ConfigSource, Wanted};
use crate::os::dirs::Environment;
use crate::os::files::is_read_only_mount;
use crate::os::identity::try_as_owner_of;
use crate::typed::shell_path;
use crate::words;

/// The largest configuration, all its files together, in bytes. A connection takes 100 to 300.
const LARGEST: u64 = 1024 * 1024;

/// How many connections it may have. Every client reads their password file at each login.
const MOST_CONNECTIONS: usize = 10_000;

/// How many fragments there may be: all are read whenever the timer looks.
const MOST_FRAGMENTS: usize = 256;

/// How many names of a directory are looked at, those that are no fragments included.
const MOST_NAMES: usize = 4_096;

/// The name of the directory beside config.toml.
pub(super) const DIRECTORY: &str = "conf.d";

/// Which file is the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its path, which says where its fragments are and where relative paths start.
    pub(crate) file: PathBuf,
    /// Where its text is, if that is not in its place yet.
    pub(crate) text: Option<PathBuf>,
    /// The directory of its fragments, if it has one.
    pub(super) fragments: Option<PathBuf>,
    /// Whether somebody named it, so that it must exist.
    pub(super) is_named: bool,
}

impl Place {
    /// A file that somebody named, or that was found in one of the usual places.
    pub(super) fn new(file: PathBuf, is_named: bool, environment: &Environment) -> Self {
        let whole = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
        let directory = whole.parent().filter(|parent| environment.is_of_configuration(parent));
        let fragments = directory.map(|directory| directory.join(DIRECTORY));
        Place { file, text: None, fragments, is_named }
    }

    /// The file of a service; what is in `text` stands for what is or will be in it.
    pub(crate) fn of_service(file: &Path, text: Option<&Path>) -> Self {
        let fragments = file.parent().map(|directory| directory.join(DIRECTORY));
        Place { file: file.to_owned(), text: text.map(Path::to_owned), fragments, is_named: false }
    }

    /// The same where it must exist.
    #[must_use]
    pub(crate) fn named(mut self) -> Self {
        self.is_named = true;
        self
    }

    /// Whether there is anything to read.
    pub(crate) fn is_there(&self) -> bool {
        self.file.exists()
            || self.fragments.as_deref().is_some_and(|directory| !list(directory).is_ok_and(|all| all.is_empty()))
    }

    /// The same for who would write the file where there is nothing yet.
    ///
    /// # Errors
    /// That cannot be known, or the file is a link that leads nowhere: somebody wants it elsewhere.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only a command writes it"))]
    pub(crate) fn look(&self) -> Result<bool, ConfigError> {
        if self.file.exists() {
            return Ok(true);
        }
        if let Ok(target) = fs::read_link(&self.file) {
            let (link, target) = (self.file.display(), target.display());
            let error = ConfigError::new(format!("{link} is a link that leads nowhere: there is no {target}"));
            return Err(error.hint("make the file that it leads to, or remove the link, and run this again"));
        }
        self.fragments.as_deref().map_or(Ok(false), |directory| list(directory).map(|all| !all.is_empty()))
    }

    /// The file, or the directory with the fragments where that is all there is.
    pub(crate) fn shown(&self) -> String {
        let fragments = self.fragments.as_ref().filter(|_| !self.file.exists());
        fragments.unwrap_or(&self.file).display().to_string()
    }

    /// All files that are there, config.toml first.
    ///
    /// # Errors
    /// One cannot be read, is no TOML, or may be written by everybody; there are too many; together they are too large.
    pub(super) fn read(&self) -> Result<Vec<ConfigSource>, ConfigError> {
        let base = self.file.parent().unwrap_or(Path::new(""));
        let mut wanted = Wanted {
            path: &self.file,
            text: self.text.as_deref(),
            base,
            is_fragment: false,
            largest: LARGEST,
            missing: self.is_named.then_some("check --config and DBX_ROTATOR_CONFIG"),
        };
        let mut sources: Vec<ConfigSource> = ConfigSource::read(&wanted)?.into_iter().collect();
        let mut left = LARGEST - sources.first().map_or(0, |source| source.text.len() as u64);
        let fragments = self.fragments.as_deref().map_or_else(|| Ok(Vec::new()), list)?;
        for path in &fragments {
            // What is removed between two looks is gone; a link that leads nowhere is a mistake.
            let missing = path.is_symlink().then_some("the link leads nowhere: remove it, or make what it leads to");
            check_size(path, left)?;
            wanted = Wanted { path, text: None, is_fragment: true, largest: left, missing, ..wanted };
            let Some(source) = ConfigSource::read(&wanted)? else { continue };
            left -= source.text.len() as u64;
            sources.push(source);
        }
        check_number(&sources)?;
        Ok(sources)
    }
}

/// A directory, and the fragments in it as far as they can be listed.
pub(super) fn with_all_in(directory: PathBuf) -> Vec<PathBuf> {
    let mut all = list(&directory).unwrap_or_default();
    all.push(directory);
    all
}

/// The fragments in this directory, in their order; none where it does not exist.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let cannot = |error: &io::Error| {
        if let Some(above) = no_directory_above(directory).filter(|_| error.kind() == io::ErrorKind::NotADirectory) {
            let message = format!("cannot read {}: {} is no directory", directory.display(), above.display());
            return ConfigError::new(message).hint("move that file away, or make a directory of it");
        }
        ConfigError::new(format!("cannot read the directory {}: {}", directory.display(), words::of_io(error))).hint(
            "check who owns it, and its mode; where it is no directory, or a link that leads nowhere, move it away",
        )
    };
    let names = try_as_owner_of(directory, || {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_symlink() => return Ok(Vec::new()),
            entries => entries?,
        };
        let names: io::Result<Vec<_>> = entries.take(MOST_NAMES + 1).map(|entry| Ok(entry?.file_name())).collect();
        names
    })
    .map_err(|error| cannot(&error))?;
    if names.len() > MOST_NAMES {
        let why = format!("there are more than {MOST_NAMES} names in {}", directory.display());
        return Err(ConfigError::new(why).hint("move away what is none of the settings"));
    }
    let is_fragment = |name: &std::ffi::OsString| {
        let name = name.as_bytes();
        name.ends_with(b".toml") && !name.starts_with(b".")
    };
    let mut fragments: Vec<_> = names.into_iter().filter(is_fragment).collect();
    if fragments.len() > MOST_FRAGMENTS {
        let why = format!(
            "there are {} files in {}, and at most {MOST_FRAGMENTS} may be",
            fragments.len(),
            directory.display()
        );
        return Err(ConfigError::new(why).hint("put several connections into one file"));
    }
    // `OsString` compares bytes.
    fragments.sort();
    let fragments: Vec<PathBuf> = fragments.into_iter().map(|name| directory.join(name)).collect();
    if !fragments.is_empty() {
        check_writers(directory)?;
    }
    fragments.iter().try_for_each(|path| check_writers(path))?;
    Ok(fragments)
}

/// What stands above this path where a directory would have to be.
fn no_directory_above(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|above| fs::metadata(above).is_ok_and(|data| !data.is_dir()))
}

/// That not everybody may write it: settings name programs that are run.
fn check_writers(path: &Path) -> Result<(), ConfigError> {
    let Ok(Ok(data)) = try_as_owner_of(path, || io::Result::Ok(fs::metadata(path))) else { return Ok(()) };
    let mode = data.permissions().mode() & 0o7777;
    let can_hold_settings = data.is_file() || data.is_dir();
    if mode & 0o002 == 0 || !can_hold_settings || is_read_only_mount(path) {
        return Ok(());
    }
    let shown = path.display();
    Err(ConfigError::new(format!("{shown} has mode {mode:04o}: everybody on this machine may write settings there"))
        .hint(format!("chmod o-w {}, once you have looked at what it holds", shell_path(path))))
}

fn check_size(path: &Path, left: u64) -> Result<(), ConfigError> {
    let size =
        try_as_owner_of(path, || fs::metadata(path)).map_or(0, |data| if data.is_file() { data.len() } else { 0 });
    if size <= left {
        return Ok(());
    }
    let why = format!(
        "the files of the configuration are larger than {} KiB together, with {}",
        LARGEST / 1024,
        path.display()
    );
    Err(ConfigError::new(why).hint("check that they are the right files"))
}

fn check_number(sources: &[ConfigSource]) -> Result<(), ConfigError> {
    let count: usize = sources.iter().map(|source| source.file.connection.len()).sum();
    let mut left = MOST_CONNECTIONS;
    for source in sources {
        let ConfigFile { connection, .. } = &source.file;
        if let Some(first) = connection.get(left) {
            let why = format!("there are {count} connections, and at most {MOST_CONNECTIONS} may be");
            return Err(source.fault(first, why));
        }
        left -= connection.len();
    }
    Ok(())
}

/// The paths of the fragments that were read.
pub(super) fn paths(sources: &[ConfigSource]) -> Vec<Arc<Path>> {
    sources.iter().filter(|source| source.is_fragment).map(|source| Arc::clone(&source.path)).collect()
}

#[cfg(test)]
mod tests;
