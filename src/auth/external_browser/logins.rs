//! The logins that are kept: for each a description that holds no secret, its tokens in the keyring or in a file beside that, and a lock.
//!
//! Invariants: tokens are written under the lock, and before the description that names their place; they are removed before it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::vault::{LARGEST, Tokens};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::logging::json;
use crate::model::Workspace;
use crate::model::token::fingerprint;
use crate::os::blocking::on_a_thread;
use crate::os::dirs::Environment;
use crate::os::durable::{self, Prepared};
use crate::os::files::{make_directories, open_regular, read_text_up_to};
use crate::os::identity::try_as_owner_of;
use crate::os::keychain::{Item, LOGINS};
use crate::os::keyring::{self, Ask};
use crate::typed::{shell_path, shell_word};
use crate::words;

/// The format of a description.
const VERSION: u32 = 1;

/// The largest description, in bytes.
const LARGEST_DESCRIPTION: u64 = 16 * 1024;

/// How long another process's refresh is waited for: it may take 30 s, and a keyring some more.
const LOCK_LIMIT: Duration = Duration::from_secs(45);

/// How often a waiting process checks the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Where the tokens of a login are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Keyring,
    File,
}

/// A login, whether or not there is one: a workspace's address, and the group whose rights were asked for.
#[derive(Clone)]
pub(crate) struct Login {
    origin: String,
    group_id: Option<String>,
    /// The workspace's name in the configuration.
    workspace: String,
    directory: PathBuf,
    environment: Environment,
}

/// What is known of a login without its tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    version: u32,
    origin: String,
    #[serde(default)]
    group_id: Option<String>,
    /// Whose it is, as far as the workspace's token told.
    pub(crate) user: Option<String>,
    pub(crate) place: Place,
    pub(super) since: Timestamp,
    /// The workspace takes it no more.
    #[serde(default)]
    ended: Option<Ended>,
}

/// Why a login is of no more use.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ended {
    at: Timestamp,
    why: String,
}

impl Login {
    pub(crate) fn of(workspace: &Workspace, environment: &Environment) -> Self {
        Login {
            origin: workspace.host.origin().to_owned(),
            group_id: workspace.group_id.clone(),
            workspace: workspace.name.clone(),
            directory: environment.logins_dir(),
            environment: environment.clone(),
        }
    }

    /// Whether somebody has logged in, and not out.
    pub(crate) fn is_there(&self) -> bool {
        self.description().exists()
    }

    /// What a person types to log in again.
    pub(crate) fn command(&self) -> String {
        match self.workspace.as_str() {
            "default" => "dbx-rotator login".to_owned(),
            name => format!("dbx-rotator login --workspace {}", shell_word(name)),
        }
    }

    /// The file that changes when somebody logs in or out, or the login ends.
    pub(crate) fn description(&self) -> PathBuf {
        self.file("json")
    }

    /// The file with its tokens, where a file holds them.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.file("token")
    }

    /// A name that people recognise, and no two logins share.
    fn file(&self, kind: &str) -> PathBuf {
        let host = self.origin.split("://").nth(1).unwrap_or_default();
        let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let all = fingerprint(&self.account());
        self.directory.join(format!("{}-{}.{kind}", &host[..host.len().min(100)], &all[..8]))
    }

    /// What tells it from other logins.
    fn account(&self) -> String {
        match &self.group_id {
            Some(group) => format!("{} group {group}", self.origin),
            None => self.origin.clone(),
        }
    }

    fn item(&self) -> Item {
        Item { service: LOGINS.to_owned(), account: self.account() }
    }

    /// What is known of it; none where nobody has logged in.
    ///
    /// # Errors
    /// Its description cannot be read, or is another login's.
    pub(crate) fn kept(&self) -> Result<Option<Kept>, Failure> {
        let path = self.description();
        let unusable = |why: &str| {
            let message = format!("cannot use the login in {}: {why}", path.display());
            Failure::permanent(Code::LoginNeeded, message).hint(format!("run `{}`", self.command()))
        };
        let text = match read_text_up_to(&path, LARGEST_DESCRIPTION) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&words::of_io(&error))),
        };
        let kept = serde_json::from_str::<Kept>(&text).ok().filter(|kept| kept.version == VERSION);
        let kept = kept.ok_or_else(|| unusable("it holds no login"))?;
        if kept.origin != self.origin || kept.group_id != self.group_id {
            return Err(unusable("it is of another workspace"));
        }
        Ok(Some(kept))
    }

    /// The same where there must be one that lives.
    pub(super) fn live(&self) -> Result<Kept, Failure> {
        let kept = self.kept()?.ok_or_else(|| self.nobody())?;
        match &kept.ended {
            Some(ended) => Err(self.over(&ended.why)),
            None => Ok(kept),
        }
    }

    fn nobody(&self) -> Failure {
        let group = self.group_id.as_ref().map_or_else(String::new, |group| format!(" for the group {group}"));
        let message = format!("nobody has logged in to {}{group} here", self.origin);
        Failure::permanent(Code::LoginNeeded, message).hint(format!("run `{}`", self.command()))
    }

    /// The failure of a login that has ended.
    fn over(&self, why: &str) -> Failure {
        let message = format!("the login to {} has ended: {why}", self.origin);
        Failure::permanent(Code::LoginNeeded, message).hint(format!("run `{}`", self.command()))
    }

    /// The tokens of a login that lives.
    ///
    /// # Errors
    /// Permanent: nobody has logged in, the login has ended, or its tokens are lost. Transient: the keyring.
    pub(super) async fn tokens(&self) -> Result<Tokens, Failure> {
        let kept = self.live()?;
        self.tokens_in(kept.place).await
    }

    pub(super) async fn tokens_in(&self, place: Place) -> Result<Tokens, Failure> {
        let lost = |why: &str| {
            let message = format!("the tokens of the login to {} are lost: {why}", self.origin);
            Failure::permanent(Code::LoginNeeded, message).hint(format!("run `{}`", self.command()))
        };
        let text = match place {
            Place::File => {
                let path = self.token_file();
                let text = read_text_up_to(&path, LARGEST as u64);
                text.map_err(|error| lost(&format!("{}: {}", path.display(), words::of_io(&error))))?
                    .as_bytes()
                    .to_vec()
            }
            Place::Keyring => {
                let (item, environment) = (self.item(), self.environment.clone());
                let read = aside(move || keyring::read(&item, &environment, Ask::Nobody)).await?;
                read.ok_or_else(|| lost(&format!("the {} does not have them", keyring::NAME)))?.to_vec()
            }
        };
        let text = zeroize::Zeroizing::new(text);
        Tokens::read(&text).ok_or_else(|| lost("what is kept is cut off or changed"))
    }

    /// What is unwise about how they are kept.
    pub(super) fn warning(&self) -> Option<String> {
        let path = self.token_file();
        let mode = path.metadata().ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            let command = format!("chmod 600 {}", shell_path(&path));
            format!("{} has mode {mode:04o}, so that others can use the login: `{command}`", path.display())
        })
    }

    // ---- changes, all under the lock ----

    /// Takes room for new tokens, where a file keeps them.
    pub(super) fn prepare(&self, place: Place) -> Result<Option<Prepared>, Failure> {
        if place != Place::File {
            return Ok(None);
        }
        let path = self.token_file();
        let prepared = try_as_owner_of(&self.directory, || {
            durable::remove_leftovers(&path);
            durable::prepare(&path, LARGEST)
        });
        prepared.map(Some).map_err(|error| cannot_keep(&path, &error))
    }

    /// Writes new tokens to their place, durably.
    pub(super) async fn put(
        &self,
        tokens: &Tokens,
        place: Place,
        room: Option<Prepared>,
        ask: Ask,
    ) -> Result<(), Failure> {
        match (place, room) {
            (Place::File, Some(room)) => {
                let put = try_as_owner_of(&self.directory, || room.put(&tokens.text()));
                put.map_err(|error| cannot_keep(&self.token_file(), &error))
            }
            (Place::File, None) => {
                let path = self.token_file();
                let put = try_as_owner_of(&self.directory, || durable::put(&path, &tokens.text()));
                put.map_err(|error| cannot_keep(&path, &error))
            }
            (Place::Keyring, _) => {
                let (item, environment, text) = (self.item(), self.environment.clone(), tokens.text());
                let label = format!("dbx-rotator: login to {}", self.account());
                aside(move || keyring::write(&item, &label, &text, &environment, ask)).await
            }
        }
    }

    /// Keeps a new login; of another place the one before is removed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn keep(&self, tokens: &Tokens, user: Option<&str>, place: Place) -> Result<(), Failure> {
        let lock = self.lock().await?;
        self.put(tokens, place, None, Ask::Person).await?;
        let kept = Kept {
            version: VERSION,
            origin: self.origin.clone(),
            group_id: self.group_id.clone(),
            user: user.map(str::to_owned),
            place,
            since: Timestamp::now(),
            ended: None,
        };
        self.describe(&kept)?;
        lock.clear();
        let other = if place == Place::File { Place::Keyring } else { Place::File };
        if let Err(failure) = self.remove(other, Ask::Nobody).await {
            tracing::debug!("a login of before may still be in the {other:?}: {failure}");
        }
        Ok(())
    }

    /// Notes that a login has ended.
    pub(super) fn end(&self, kept: Kept, why: String) -> Failure {
        let failure = self.over(&why);
        if let Err(cannot) = self.describe(&Kept { ended: Some(Ended { at: Timestamp::now(), why }), ..kept }) {
            tracing::warn!("{cannot}");
        }
        failure
    }

    fn describe(&self, kept: &Kept) -> Result<(), Failure> {
        let path = self.description();
        let line = json::line(kept).unwrap_or_default();
        let put = try_as_owner_of(&self.directory, || {
            durable::remove_leftovers(&path);
            durable::put(&path, line.as_bytes())
        });
        put.map_err(|error| cannot_keep(&path, &error))
    }

    /// Logs out: forgets the tokens. Returns whose they were; none where nobody had logged in.
    ///
    /// # Errors
    /// They cannot be removed.
    pub(crate) async fn forget(&self) -> Result<Option<Kept>, Failure> {
        // One that cannot be read is removed as well.
        let kept = || self.kept().ok().flatten().or_else(|| self.unreadable());
        if kept().is_none() {
            return Ok(None);
        }
        let _lock = self.lock().await?;
        // Somebody may just have logged in, into another place.
        let Some(kept) = kept() else { return Ok(None) };
        self.remove(Place::File, Ask::Nobody).await?;
        if kept.place == Place::Keyring {
            self.remove(Place::Keyring, Ask::Person).await?;
        }
        let path = self.description();
        let removed = try_as_owner_of(&self.directory, || durable::remove(&path));
        removed.map_err(|error| cannot_keep(&path, &error))?;
        Ok(Some(kept))
    }

    fn unreadable(&self) -> Option<Kept> {
        self.is_there().then(|| Kept {
            version: VERSION,
            origin: self.origin.clone(),
            group_id: self.group_id.clone(),
            user: None,
            place: Place::File,
            since: Timestamp::UNIX_EPOCH,
            ended: None,
        })
    }

    async fn remove(&self, place: Place, ask: Ask) -> Result<bool, Failure> {
        match place {
            Place::File => {
                let path = self.token_file();
                let removed = try_as_owner_of(&self.directory, || durable::remove(&path));
                removed.map_err(|error| cannot_keep(&path, &error))
            }
            Place::Keyring => {
                let (item, environment) = (self.item(), self.environment.clone());
                aside(move || keyring::remove(&item, &environment, ask)).await
            }
        }
    }

    // ---- the lock ----

    /// Waits until no other process changes this login.
    ///
    /// # Errors
    /// Transient: one holds it for too long. Permanent: there can be no lock.
    pub(super) async fn lock(&self) -> Result<Lock, Failure> {
        let path = self.file("lock");
        let file = self.open_lock(&path).map_err(|error| cannot_keep(&path, &error))?;
        let waiting = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
                    Err(TryLockError::Error(error)) => return Err(cannot_keep(&path, &error)),
                }
            }
        };
        match tokio::time::timeout(LOCK_LIMIT, waiting).await {
            Ok(locked) => locked.map(|()| Lock { file }),
            Err(_) => {
                let (path, seconds) = (path.display(), LOCK_LIMIT.as_secs());
                Err(Failure::transient(Code::TryAgain, format!("another dbx-rotator has held {path} for {seconds} s"))
                    .hint("see which with `pgrep -a dbx-rotator`"))
            }
        }
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        try_as_owner_of(&self.directory, || {
            make_directories(&self.directory, 0o700)?;
            open_regular(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))
        })
    }
}

/// Held by whoever changes a login; released on drop, also by a kill.
pub(super) struct Lock {
    file: File,
}

/// What stands in the lock's file while a refresh token is being exchanged.
const BEGUN: &str = "an exchange began at ";

impl Lock {
    /// Notes that an exchange begins: what the workspace answers may be the only refresh token.
    pub(super) fn mark(&self) -> io::Result<()> {
        let text = format!("{BEGUN}{:.0}\n", Timestamp::now());
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.sync_data()
    }

    /// The exchange has an end, and its result is kept.
    pub(super) fn clear(&self) {
        // One that stays says at worst that a login may have ended by it.
        let _ = self.file.set_len(0);
    }

    /// When an exchange began that never came to its end.
    pub(super) fn cut_off(&self) -> Option<Timestamp> {
        let mut text = [0; 64];
        let length = self.file.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.trim().strip_prefix(BEGUN)?.parse().ok()
    }
}

impl Login {
    /// The failure where the lock cannot be written.
    pub(super) fn cannot_lock(&self, error: &io::Error) -> Failure {
        cannot_keep(&self.file("lock"), error)
    }
}

fn cannot_keep(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot keep the login in {}: {}", path.display(), quoted(&words::of_io(error)));
    Failure::transient(Code::CannotWrite, message).hint("check the disk, and who may write there")
}

/// Runs what blocks beside everything else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    on_a_thread(work).await.unwrap_or_else(|error| {
        let message = format!("the {} could not be asked: {}", keyring::NAME, words::of_io(&error));
        Err(Failure::transient(Code::Unavailable, message))
    })
}

#[cfg(test)]
mod tests;
