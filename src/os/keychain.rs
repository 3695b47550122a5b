//! The macOS keychain: a client secret is stored as a generic password, with the client id as its account, and a person's login with
//! its workspace. Never interactive: where the keychain would ask a person, the result is a failure that says so.

use secrecy::SecretString;

use crate::failure::{Code, Failure};

/// The name of the items that `service install` makes.
pub(crate) const SERVICE: &str = super::launchd::SUBSYSTEM;

/// The name of the items that `login` makes, here and in the keyrings of other systems.
pub(crate) const LOGINS: &str = "app.dbx-rotator.login";

/// Whether this platform has a keychain.
pub(crate) const IS_HERE: bool = cfg!(target_os = "macos");

/// One generic password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) service: String,
    pub(crate) account: String,
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the keychain item {} of {}", self.service, self.account)
    }
}

/// The item's password.
///
/// # Errors
/// Permanent where a person must do something; transient while the keychain is locked.
#[cfg(target_os = "macos")]
pub(crate) fn read(item: &Item) -> Result<SecretString, Failure> {
    use secrecy::ExposeSecret;

    let found = find(item)?.ok_or_else(|| explained(NO_SUCH_ITEM, "there is no such item", item))?;
    Ok(SecretString::from(found.expose_secret().trim()))
}

/// The same; none where there is no such item.
///
/// # Errors
/// As [`read`].
#[cfg(target_os = "macos")]
pub(crate) fn find(item: &Item) -> Result<Option<SecretString>, Failure> {
    use security_framework::passwords::{PasswordOptions, generic_password};

    let _quiet = never_ask();
    let wanted = PasswordOptions::new_generic_password(&item.service, &item.account);
    match generic_password(wanted).map(zeroize::Zeroizing::new) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| explained(NOT_TEXT, "it is not text", item))?;
            Ok(Some(SecretString::from(text)))
        }
        Err(error) if error.code() == NO_SUCH_ITEM => Ok(None),
        Err(error) => Err(explained(error.code(), &error.to_string(), item)),
    }
}

/// Makes the item, or replaces its password.
///
/// # Errors
/// As [`read`].
#[cfg(target_os = "macos")]
pub(crate) fn write(item: &Item, secret: &SecretString) -> Result<(), Failure> {
    use secrecy::ExposeSecret;
    use security_framework::passwords::set_generic_password;

    let _quiet = never_ask();
    set_generic_password(&item.service, &item.account, secret.expose_secret().as_bytes())
        .map_err(|error| explained(error.code(), &error.to_string(), item))
}

/// Removes the item; returns whether it was there.
///
/// # Errors
/// As [`read`].
#[cfg(target_os = "macos")]
pub(crate) fn remove(item: &Item) -> Result<bool, Failure> {
    let _quiet = never_ask();
    match security_framework::passwords::delete_generic_password(&item.service, &item.account) {
        Ok(()) => Ok(true),
        Err(error) if error.code() == NO_SUCH_ITEM => Ok(false),
        Err(error) => Err(explained(error.code(), &error.to_string(), item)),
    }
}

/// While this is held, no dialogue opens.
#[cfg(target_os = "macos")]
fn never_ask() -> Option<impl Drop> {
    security_framework::os::macos::keychain::SecKeychain::disable_user_interaction().ok()
}

/// There is no keychain here.
#[cfg(not(target_os = "macos"))]
pub(crate) fn read(item: &Item) -> Result<SecretString, Failure> {
    Err(absent(item))
}

/// There is no keychain here.
#[cfg(not(any(target_os = "macos", target_os = "linux")))]
pub(crate) fn find(item: &Item) -> Result<Option<SecretString>, Failure> {
    Err(absent(item))
}

/// There is no keychain here.
#[cfg(not(target_os = "macos"))]
pub(crate) fn write(item: &Item, _: &SecretString) -> Result<(), Failure> {
    Err(absent(item))
}

/// There is no keychain here.
#[cfg(not(target_os = "macos"))]
pub(crate) fn remove(item: &Item) -> Result<bool, Failure> {
    Err(absent(item))
}

#[cfg(not(target_os = "macos"))]
fn absent(item: &Item) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot use {item}: only macOS has a keychain"))
        .hint("put the secret into a file of mode 0600, and name that: client_secret_file")
}

/// errSecItemNotFound.
#[cfg(any(target_os = "macos", test))]
const NO_SUCH_ITEM: i32 = -25_300;

/// Not one of Apple's codes.
#[cfg(any(target_os = "macos", test))]
const NOT_TEXT: i32 = 1;

/// What one of Apple's codes (SecBase.h) means for the reader of the item.
#[cfg(any(target_os = "macos", test))]
fn explained(code: i32, said: &str, item: &Item) -> Failure {
    let why = format!("cannot use {item}: {said} ({code})");
    let Item { service, account } = item;
    if service == LOGINS {
        let failure = match code {
            -25_308 | -25_291 | -25_315 => Failure::transient(Code::Unavailable, why),
            _ => Failure::permanent(Code::Configuration, why),
        };
        return failure.hint(
            "log in at the screen, which unlocks the keychain, and see in Keychain Access who may use the item; or let a file keep \
             the login: dbx-rotator login --file",
        );
    }
    match code {
        NO_SUCH_ITEM => Failure::permanent(Code::Configuration, why).hint(format!(
            "security add-generic-password -U -s {} -a {} -T \"$(command -v dbx-rotator)\" -w",
            crate::typed::shell_word(service),
            crate::typed::shell_word(account)
        )),
        // errSecInteractionNotAllowed: the keychain is locked, or another version of the program made the item.
        -25_308 => Failure::transient(Code::Unavailable, why).hint(
            "log in at the screen, which unlocks the keychain; after an upgrade make the item anew: \
             dbx-rotator service install --keychain --client-secret-file PATH",
        ),
        // errSecNotAvailable, errSecInteractionRequired: this session has no keychain, as over ssh.
        -25_291 | -25_315 => Failure::transient(Code::Unavailable, why).hint("log in at the screen"),
        // errSecAuthFailed, errSecUserCanceled: a person or the item's access list has refused.
        _ => Failure::permanent(Code::Configuration, why)
            .hint("see the item in Keychain Access, and who may use it; or name a file: client_secret_file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item { service: SERVICE.to_owned(), account: "0b1c".to_owned() }
    }

    #[test]
    fn a_keychain_that_is_locked_may_be_unlocked_and_an_item_that_is_not_there_is_made_by_a_person() {
        let locked = explained(-25_308, "User interaction is not allowed.", &item());
        assert!(locked.is_transient() && locked.code == Code::Unavailable);
        let absent = explained(NO_SUCH_ITEM, "not found", &item());
        assert!(!absent.is_transient() && absent.code == Code::Configuration);
        let hint = absent.hint.unwrap();
        // `-w` comes last, so that the secret is asked for and never on a command line.
        assert!(hint.contains("-s app.dbx-rotator -a 0b1c") && hint.ends_with(" -w"), "{hint}");
        assert!(!explained(-25_293, "auth failed", &item()).is_transient());
        assert!(!explained(NOT_TEXT, "it is not text", &item()).is_transient());
        let login = Item { service: LOGINS.to_owned(), account: "https://w.example".to_owned() };
        for (code, is_transient) in [(-25_308, true), (-25_291, true), (-25_293, false)] {
            let failure = explained(code, "no", &login);
            assert_eq!(failure.is_transient(), is_transient);
            assert!(failure.hint.unwrap().ends_with("dbx-rotator login --file"));
        }
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn where_there_is_no_keychain_that_is_said() {
        let failure = read(&item()).unwrap_err();
        assert!(failure.message.contains("only macOS") && failure.hint.unwrap().contains("client_secret_file"));
    }
}
