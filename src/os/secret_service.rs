//! The keyring of a Linux session: the Secret Service, as GNOME Keyring, KWallet and KeePassXC have it (freedesktop.org, Secret
//! Storage Specification 0.2).
//!
//! Never interactive unless asked to be: where the keyring is locked, the result says so. Secrets go over the session's bus, a socket
//! that only this user and root can reach, and not once more encrypted: who can listen there can also ask the keyring.

use std::io;
use std::time::Duration;

use zeroize::Zeroizing;

use super::dbus::{Body, Bus, Fault, Message, Target};
use super::dirs::Environment;
use super::keychain::Item;

/// For each answer, as the vendor's CLI has it (databricks/cli, libs/auth/storage/keyring.go).
const LIMIT: Duration = Duration::from_secs(3);

/// How long a person may take to unlock the keyring.
const UNLOCK_LIMIT: Duration = Duration::from_secs(120);

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: Target<'_> = (SERVICE, "/org/freedesktop/secrets", "org.freedesktop.Secret.Service");
const ITEM: &str = "org.freedesktop.Secret.Item";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
/// Where new items go: the collection that a session unlocks at its login.
const DEFAULT: &str = "/org/freedesktop/secrets/aliases/default";

/// What stands for "nobody need be asked".
const NO_PROMPT: &str = "/";

/// Why the keyring is of no use.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no bus, or no keyring on it.
    Absent(String),
    /// A person must unlock it.
    Locked,
    /// Something else.
    Other(String),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                Trouble::Other(format!("it did not answer within {} s", LIMIT.as_secs()))
            }
            Fault::Io(error) => Trouble::Absent(crate::words::of_io(&error)),
            Fault::Refused { name, text } => match name.as_str() {
                "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                    Trouble::Absent("no keyring runs in this session".to_owned())
                }
                name if name.starts_with("org.freedesktop.DBus.Error.Spawn.") => {
                    Trouble::Absent("the keyring of this session cannot be started".to_owned())
                }
                "org.freedesktop.Secret.Error.IsLocked" => Trouble::Locked,
                "org.freedesktop.Secret.Error.NoSuchObject" => {
                    Trouble::Absent("the keyring of this session has no place for secrets yet".to_owned())
                }
                _ => Trouble::Other(format!("{name}: {text}")),
            },
        }
    }
}

/// A conversation with the keyring.
pub(super) struct Keyring {
    bus: Bus,
    session: String,
    /// Whether a dialogue may be shown.
    may_ask: bool,
}

impl Keyring {
    /// # Errors
    /// There is none.
    pub(super) fn open(environment: &Environment, may_ask: bool) -> Result<Self, Trouble> {
        let mut bus = Bus::of_session(environment, LIMIT)?;
        let opened = bus.call(ROOT, "OpenSession", Body::default().text("plain").variant_text(""))?;
        let mut fields = opened.fields();
        let session = fields.pass_over_variant().and_then(|()| fields.text()).ok_or_else(nonsense)?;
        Ok(Keyring { bus, session, may_ask })
    }

    /// Makes sure that something can be kept, before it is there.
    ///
    /// # Errors
    /// It cannot.
    pub(super) fn make_ready(&mut self) -> Result<(), Trouble> {
        self.unlock(DEFAULT)
    }

    /// The item's secret; none where there is no such item.
    ///
    /// # Errors
    /// The item is locked, or the keyring fails.
    pub(super) fn read(&mut self, item: &Item) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
        let Some(path) = self.find(item)? else { return Ok(None) };
        let answer = self.bus.call((SERVICE, &path, ITEM), "GetSecret", Body::default().path(&self.session))?;
        let secret = answer.fields().secret().map(|secret| secret.to_vec().into());
        secret.map(Some).ok_or_else(nonsense)
    }

    /// Makes the item, or replaces its secret. The keyring has it on its disk when this returns.
    ///
    /// # Errors
    /// The keyring is locked, or fails.
    pub(super) fn write(&mut self, item: &Item, label: &str, secret: &[u8]) -> Result<(), Trouble> {
        self.unlock(DEFAULT)?;
        let (label_key, attributes_key) =
            ("org.freedesktop.Secret.Item.Label", "org.freedesktop.Secret.Item.Attributes");
        let attributes = attributes(item);
        let body = Body::default()
            .properties((label_key, label), (attributes_key, &attributes))
            .secret(&self.session, secret, "application/json")
            .flag(true);
        let answer = self.bus.call((SERVICE, DEFAULT, COLLECTION), "CreateItem", body)?;
        let mut fields = answer.fields();
        match fields.text().zip(fields.text()).ok_or_else(nonsense)? {
            (_, prompt) if prompt == NO_PROMPT => Ok(()),
            (_, prompt) => self.ask(&prompt),
        }
    }

    /// Removes the item; returns whether it was there.
    ///
    /// # Errors
    /// As [`Keyring::read`].
    pub(super) fn remove(&mut self, item: &Item) -> Result<bool, Trouble> {
        let Some(path) = self.find(item)? else { return Ok(false) };
        let answer = self.bus.call((SERVICE, &path, ITEM), "Delete", Body::default())?;
        match answer.fields().text().ok_or_else(nonsense)? {
            prompt if prompt == NO_PROMPT => {}
            prompt => self.ask(&prompt)?,
        }
        Ok(true)
    }

    fn find(&mut self, item: &Item) -> Result<Option<String>, Trouble> {
        let answer = self.bus.call(ROOT, "SearchItems", Body::default().dictionary(&attributes(item)))?;
        let mut fields = answer.fields();
        let (unlocked, locked) = fields.paths().zip(fields.paths()).ok_or_else(nonsense)?;
        match (unlocked.into_iter().next(), locked.into_iter().next()) {
            (Some(path), _) => Ok(Some(path)),
            (None, Some(path)) => self.unlock(&path).map(|()| Some(path)),
            (None, None) => Ok(None),
        }
    }

    /// Unlocks what is locked, where a person may be asked; else says that it is.
    fn unlock(&mut self, path: &str) -> Result<(), Trouble> {
        let answer = self.bus.call(ROOT, "Unlock", Body::default().paths(&[path]))?;
        let mut fields = answer.fields();
        let (unlocked, prompt) = fields.paths().zip(fields.text()).ok_or_else(nonsense)?;
        match prompt.as_str() {
            NO_PROMPT if unlocked.is_empty() => {
                Err(Trouble::Absent("the keyring of this session has no place for secrets yet".to_owned()))
            }
            NO_PROMPT => Ok(()),
            prompt => self.ask(prompt),
        }
    }

    /// Lets the keyring show its dialogue; one that must not be shown is dismissed.
    fn ask(&mut self, prompt: &str) -> Result<(), Trouble> {
        let target = (SERVICE, prompt, "org.freedesktop.Secret.Prompt");
        if !self.may_ask {
            // One that is gone already need not be dismissed.
            let _ = self.bus.call(target, "Dismiss", Body::default());
            return Err(Trouble::Locked);
        }
        let waiting = ("Completed", UNLOCK_LIMIT);
        let completed: Message = self.bus.call_and_wait(target, "Prompt", Body::default().text(""), waiting)?;
        if completed.fields().flag().ok_or_else(nonsense)? { Err(Trouble::Locked) } else { Ok(()) }
    }
}

/// By which the item is found again.
fn attributes(item: &Item) -> [(&str, &str); 3] {
    [("xdg:schema", "org.freedesktop.Secret.Generic"), ("service", &item.service), ("account", &item.account)]
}

fn nonsense() -> Trouble {
    Trouble::Other("it does not follow the rules of the Secret Service".to_owned())
}
