//! A client secret: where it is to be had, and how it is read when it is needed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::SecretSource;
use crate::os::files::read_bytes;
use crate::os::keychain::{self, Item};

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

/// What a client's id or secret is without what editors and shells put around it: a byte order mark, blanks, line ends.
///
/// # Errors
/// Why it can be none, to follow its name.
pub(crate) fn bare(text: &str) -> Result<&str, String> {
    let bare = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let quoted = |quote: char| bare.starts_with(quote) || bare.ends_with(quote);
    if let Some(quote) = ['"', '\'', '`'].into_iter().find(|quote| quoted(*quote)) {
        return Err(format!("begins or ends with {quote}: leave out the quotes"));
    }
    if bare.lines().nth(1).is_some() {
        return Err("holds more than one line".to_owned());
    }
    Ok(bare)
}

/// A file's bytes as text.
fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err("it is UTF-16 text, as Windows PowerShell writes it: save it as UTF-8");
    }
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text, but perhaps Latin-1: save it as UTF-8")
}

/// No secret is longer; a larger file is the wrong file.
const LARGEST_SECRET: usize = 16 * 1024;

impl SecretSource {
    /// The secret of this client, read now; with a warning where its file can be read by others.
    ///
    /// # Errors
    /// Permanent: the file cannot be read, is empty, or is no secret.
    pub(crate) fn read(&self, client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        self.find(client_id).inspect(|(secret, _)| secrets::keep(secret))
    }

    fn find(&self, client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        let refuse = |why: String| {
            Failure::permanent(Code::Configuration, format!("the client secret {why}"))
                .hint("give it as the workspace showed it, with nothing around it")
        };
        let bare = |secret: SecretString| bare(secret.expose_secret()).map(SecretString::from).map_err(refuse);
        match self {
            SecretSource::Given(secret) => Ok((bare(secret.clone())?, None)),
            SecretSource::Keychain(service) => {
                let item = Item { service: service.clone(), account: client_id.to_owned() };
                Ok((bare(keychain::read(&item)?)?, None))
            }
            SecretSource::File(path) => {
                let fail = |why: String| {
                    Failure::permanent(
                        Code::Configuration,
                        format!("cannot use the client secret in {}: {why}", path.display()),
                    )
                    .hint("put the secret alone into that file, owned by you, with mode 0600")
                };
                let bytes = Zeroizing::new(read_bytes(path).map_err(|error| fail(error.to_string()))?);
                let text = text(&bytes).map_err(|why| fail(why.to_owned()))?;
                let secret = self::bare(text).map_err(|why| fail(format!("it {why}")))?;
                if secret.is_empty() {
                    return Err(fail("the file is empty".to_owned()));
                }
                if secret.len() > LARGEST_SECRET {
                    return Err(fail("it is too long for a secret".to_owned()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_and_shells_put_around_a_secret_is_no_part_of_it() {
        for around in ["", "\n", "\r\n", "\u{feff}", " ", "\t", "\u{a0}", "\r\n\r\n"] {
            for text in [format!("{around}dose1"), format!("dose1{around}"), format!("{around}dose1{around}")] {
                assert_eq!(bare(&text).as_deref(), Ok("dose1"), "{text:?}");
            }
        }
        for quoted in ["\"dose1\"", "'dose1'\r\n", "`dose1`", "\"dose1", "dose1'"] {
            assert!(bare(quoted).unwrap_err().contains("leave out the quotes"), "{quoted}");
        }
        assert!(bare("a\nb").unwrap_err().contains("more than one line"));
        assert_eq!(bare(" \r\n").as_deref(), Ok(""));
    }

    #[test]
    fn every_source_of_a_secret_is_read_by_the_same_rule() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("secret");
        for (text, wanted) in
            [("\u{feff} dose1\r\n", Ok("dose1")), ("\"dose1\"", Err("quotes")), ("do\nse1", Err("more than one line"))]
        {
            std::fs::write(&path, text).unwrap();
            for source in [SecretSource::given(text), SecretSource::File(path.clone())] {
                match (source.read("id"), wanted) {
                    (Ok((secret, _)), Ok(wanted)) => assert_eq!(secret.expose_secret(), wanted),
                    (Err(failure), Err(why)) => assert!(failure.message.contains(why), "{failure}"),
                    (read, _) => panic!("{text:?}: {}", read.is_ok()),
                }
            }
        }
    }

    #[test]
    fn a_file_in_another_encoding_is_called_what_it_is() {
        let utf16: Vec<u8> = "dose1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [[b"\xff\xfe", &utf16[..]].concat(), utf16] {
            assert!(text(&bytes).unwrap_err().contains("UTF-16"));
        }
        assert!(text(b"caf\xe9").unwrap_err().contains("Latin-1"));
    }
}
