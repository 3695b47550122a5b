//! The place of a person's session for secrets: the keychain of macOS, the Secret Service elsewhere. Blocks for some milliseconds, or
//! for some seconds where the keyring hangs.
//!
//! A person is asked, by the keyring's own dialogue, only where `Ask::Person` allows it.

use zeroize::Zeroizing;

use super::dirs::Environment;
use super::keychain::Item;
use crate::failure::{Code, Failure};

/// What it is called here.
pub(crate) const NAME: &str = if cfg!(target_os = "macos") { "keychain" } else { "keyring" };

/// Whether the keyring may ask a person to unlock it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Nobody,
    /// Somebody is in front of the screen, and has just typed a command.
    Person,
}

/// Makes sure that an item can be kept, before there is something to keep.
///
/// # Errors
/// There is no keyring, or it is locked and stays so.
#[cfg(target_os = "linux")]
pub(crate) fn make_ready(environment: &Environment, ask: Ask) -> Result<(), Failure> {
    linux::open(environment, ask).and_then(|mut keyring| keyring.make_ready()).map_err(|trouble| linux::said(&trouble))
}

/// The item's secret; none where there is no such item.
///
/// # Errors
/// Transient: there is no keyring in this session, or it is locked.
#[cfg(target_os = "linux")]
pub(crate) fn read(item: &Item, environment: &Environment, ask: Ask) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    linux::open(environment, ask).and_then(|mut keyring| keyring.read(item)).map_err(|trouble| linux::said(&trouble))
}

/// Makes the item, or replaces its secret; `label` is what people see of it.
///
/// # Errors
/// As [`read`].
#[cfg(target_os = "linux")]
pub(crate) fn write(
    item: &Item,
    label: &str,
    secret: &[u8],
    environment: &Environment,
    ask: Ask,
) -> Result<(), Failure> {
    let keyring = linux::open(environment, ask);
    keyring.and_then(|mut keyring| keyring.write(item, label, secret)).map_err(|trouble| linux::said(&trouble))
}

/// Removes the item; returns whether it was there.
///
/// # Errors
/// As [`read`].
#[cfg(target_os = "linux")]
pub(crate) fn remove(item: &Item, environment: &Environment, ask: Ask) -> Result<bool, Failure> {
    linux::open(environment, ask).and_then(|mut keyring| keyring.remove(item)).map_err(|trouble| linux::said(&trouble))
}

#[cfg(target_os = "linux")]
mod linux {
    use super::super::dirs::Environment;
    use super::super::secret_service::{Keyring, Trouble};
    use super::{Ask, Code, Failure};

    pub(super) fn open(environment: &Environment, ask: Ask) -> Result<Keyring, Trouble> {
        Keyring::open(environment, ask == Ask::Person)
    }

    pub(super) fn said(trouble: &Trouble) -> Failure {
        let (why, hint) = match trouble {
            Trouble::Absent(why) => (
                format!("there is no keyring to be reached: {why}"),
                "a service that runs while nobody is logged in, and a login by ssh or sudo, have none: `dbx-rotator login --file` \
                 keeps the login in a file",
            ),
            Trouble::Locked => (
                "the keyring is locked".to_owned(),
                "log in at the screen, or unlock it in its program (Seahorse, KWallet, KeePassXC); `dbx-rotator login --file` needs none",
            ),
            Trouble::Other(why) => (
                format!("the keyring failed: {}", crate::foreign::quoted(why)),
                "if it stays so, `dbx-rotator login --file` keeps the login in a file",
            ),
        };
        Failure::transient(Code::Unavailable, why).hint(hint)
    }
}

/// Makes sure that an item can be kept, before there is something to keep.
///
/// # Errors
/// None here: the keychain is always there, and says itself where it is locked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make_ready(_: &Environment, _: Ask) -> Result<(), Failure> {
    if super::keychain::IS_HERE {
        return Ok(());
    }
    Err(Failure::transient(Code::Unavailable, "there is no keyring here").hint("dbx-rotator login --file"))
}

/// The item's secret; none where there is no such item.
///
/// # Errors
/// As [`super::keychain::read`].
#[cfg(not(target_os = "linux"))]
pub(crate) fn read(item: &Item, _: &Environment, _: Ask) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    use secrecy::ExposeSecret;

    let found = super::keychain::find(item)?;
    Ok(found.map(|secret| secret.expose_secret().as_bytes().to_vec().into()))
}

/// Makes the item, or replaces its secret. The keychain keeps no label of ours.
///
/// # Errors
/// As [`super::keychain::write`].
#[cfg(not(target_os = "linux"))]
pub(crate) fn write(item: &Item, _: &str, secret: &[u8], _: &Environment, _: Ask) -> Result<(), Failure> {
    let text = std::str::from_utf8(secret).unwrap_or_default();
    super::keychain::write(item, &secrecy::SecretString::from(text))
}

/// Removes the item; returns whether it was there.
///
/// # Errors
/// As [`super::keychain::remove`].
#[cfg(not(target_os = "linux"))]
pub(crate) fn remove(item: &Item, _: &Environment, _: Ask) -> Result<bool, Failure> {
    super::keychain::remove(item)
}
