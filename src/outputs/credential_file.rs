//! The two files that hold a credential: alone, and as a variable.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::filter::shell_value;
use super::managed_file::ManagedFile;
use crate::failure::Failure;
use crate::model::token::{is_publishable, is_signed_token};
use crate::os::replace::Allowance;

/// The variable that libpq and most other clients take the password from.
const VARIABLE: &str = "PGPASSWORD=";

#[derive(Clone, Copy)]
enum Form {
    Bare,
    Variable,
}

/// A file that holds the credential in one of its forms, and nothing else.
pub(super) struct CredentialFile<'a> {
    place: ManagedFile<'a>,
    form: Form,
}

impl<'a> CredentialFile<'a> {
    pub(super) fn token(path: &'a Path) -> Self {
        Self { place: ManagedFile::private("token file", path), form: Form::Bare }
    }

    pub(super) fn variables(path: &'a Path) -> Self {
        Self { place: ManagedFile::private("environment file", path), form: Form::Variable }
    }

    /// Whether it holds this credential and nobody else may read it, as far as its file system can keep anybody out. A mode that is all
    /// that is wrong is mended here.
    pub(super) fn is_current(&self, password: &SecretString) -> bool {
        self.place.look().is_ok_and(|now| {
            now.bytes == self.form.of(password.expose_secret())
                && now.file.as_ref().is_some_and(|file| self.place.is_kept(file))
        })
    }

    /// Its name where its readers find this credential in it.
    ///
    /// # Errors
    /// What keeps them from it.
    #[cfg(feature = "cli")]
    pub(super) fn look(&self, password: &SecretString) -> Result<String, Failure> {
        self.place.holds(&self.form.of(password.expose_secret()))
    }

    /// Whether nothing was left behind beside it.
    pub(super) fn is_settled(&self) -> bool {
        self.place.is_settled()
    }

    /// Removes what was left behind beside it.
    pub(super) fn tidy(&self, is_known: &dyn Fn(&str) -> bool) {
        self.place.tidy(|bytes| self.form.is_ours(bytes, is_known));
    }

    /// Replaces what differs, if it is nothing that would be missed: `is_known` tells the credentials that were written before.
    pub(super) fn write(
        &self,
        password: &SecretString,
        is_known: &dyn Fn(&str) -> bool,
        allowance: &Allowance,
    ) -> Result<(), Failure> {
        if !is_publishable(password.expose_secret()) {
            let why = "the credential holds bytes that no password may have";
            return Err(self.place.failure(&why).hint("rotate again; if that does not help, please report it"));
        }
        self.place.keep(allowance, |old| {
            if !self.form.is_ours(old, is_known) {
                let why = format!("it holds something else than {}, which would be lost", self.form.name());
                return Err(self.place.failure(&why).hint(self.form.elsewhere()));
            }
            Ok(self.form.of(password.expose_secret()))
        })
    }
}

impl Form {
    /// The whole file. The buffer is large enough, since growing would leave a copy of it in memory.
    fn of(self, password: &str) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(VARIABLE.len() + 2 * password.len() + 3));
        match self {
            Self::Bare => text.extend_from_slice(password.as_bytes()),
            Self::Variable => {
                text.extend_from_slice(VARIABLE.as_bytes());
                text.extend_from_slice(shell_value(password).as_bytes());
                text.push(b'\n');
            }
        }
        text
    }

    /// Whether the old contents may be replaced: nothing, a credential that we wrote, or a token. A path is easily mistyped, and
    /// the file there may be somebody's only copy of a password.
    fn is_ours(self, old: &[u8], is_known: &dyn Fn(&str) -> bool) -> bool {
        let Ok(text) = str::from_utf8(old) else { return false };
        let line = text.strip_suffix('\n').unwrap_or(text);
        let value = match self {
            Self::Bare => Some(Zeroizing::new(line.to_owned())),
            Self::Variable => line.strip_prefix(VARIABLE).and_then(plain_value),
        };
        line.trim().is_empty()
            || value.is_some_and(|value| value.is_empty() || is_known(&value) || is_signed_token(&value))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "a token",
            Self::Variable => "a token as PGPASSWORD",
        }
    }

    fn elsewhere(self) -> &'static str {
        match self {
            Self::Bare => "name a file that does not exist yet, or empty this one if nobody needs what it holds",
            Self::Variable => {
                "name a file that does not exist yet (a unit may have several EnvironmentFile=), or empty this one if nobody \
                 needs what it holds"
            }
        }
    }
}

/// The value that [`shell_value`] wrote as this; none for what it never writes.
fn plain_value(text: &str) -> Option<Zeroizing<String>> {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        value.push_str(text);
        return (!text.contains(['"', '\n'])).then_some(value);
    };
    let mut rest = quoted.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => value.push(rest.next()?),
            '"' | '\n' => return None,
            c => value.push(c),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests;
