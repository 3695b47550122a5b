//! A client secret: where it is to be had, and how it is read when it is needed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::failure::{Code, Failure};
use crate::logging::secrets;
use crate::os::files::read_text;
use crate::os::keychain::{self, Item};

/// Where a client secret is.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// Given in full, by flag, environment or profile.
    Given(SecretString),
    /// In a file: one line, or a systemd credential.
    File(PathBuf),
    /// In macOS's keychain: the generic password of this service, for the account that is the client id.
    Keychain(String),
}

/// Whether a file that a unit is handed over, or takes it from, holds a secret. Where nobody has put one systemd passes an empty
/// line: less, it cannot set.
pub(crate) fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.len() > 1)
}

/// Where the machine's manager takes a unit's secret from, where there is one: the plain file, or one beside it that is encrypted.
pub(crate) fn credential_source(plain: &Path) -> Option<PathBuf> {
    credential_files(plain).into_iter().find(|path| is_filled(path))
}

/// The files that a secret may be in where this is the plain one: `systemd-creds` adds `.cred` to what it encrypts.
pub(crate) fn credential_files(plain: &Path) -> [PathBuf; 2] {
    let mut encrypted = plain.to_owned().into_os_string();
    encrypted.push(".cred");
    [plain.to_owned(), encrypted.into()]
}

/// No secret is longer; a larger file is the wrong file.
const LARGEST_SECRET: usize = 16 * 1024;

impl SecretSource {
    /// What a setting with it is called.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            SecretSource::Given(_) => "client_secret",
            SecretSource::File(_) => "client_secret_file",
            SecretSource::Keychain(_) => "client_secret_keychain",
        }
    }

    /// A secret that is given in full: from here on nothing that is shown holds it.
    pub(crate) fn given(secret: impl Into<SecretString>) -> Self {
        let secret = secret.into();
        secrets::keep(&secret);
        SecretSource::Given(secret)
    }

    /// The secret of this client, read now; with a warning where its file can be read by others.
    ///
    /// # Errors
    /// Permanent: the file cannot be read, is empty, or is no secret.
    pub(crate) fn read(&self, client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        self.find(client_id).inspect(|(secret, _)| secrets::keep(secret))
    }

    fn find(&self, client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        match self {
            SecretSource::Given(secret) => Ok((secret.clone(), None)),
            SecretSource::Keychain(service) => {
                let item = Item { service: service.clone(), account: client_id.to_owned() };
                Ok((keychain::read(&item)?, None))
            }
            SecretSource::File(path) => {
                let fail = |why: String| {
                    Failure::permanent(
                        Code::Configuration,
                        format!("cannot use the client secret in {}: {why}", path.display()),
                    )
                    .hint("put the secret alone into that file, owned by you, with mode 0600")
                };
                let text = read_text(path).map_err(|error| fail(error.to_string()))?;
                let secret = text.trim();
                if secret.is_empty() {
                    return Err(fail("the file is empty".to_owned()));
                }
                if secret.len() > LARGEST_SECRET || secret.lines().nth(1).is_some() {
                    return Err(fail("it holds more than one line".to_owned()));
                }
                Ok((SecretString::from(secret), self.loose_mode()))
            }
        }
    }

    fn loose_mode(&self) -> Option<String> {
        let SecretSource::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0)
            .then(|| format!("{} has mode {mode:04o}: others can read the client secret; chmod 600 it", path.display()))
    }
}
