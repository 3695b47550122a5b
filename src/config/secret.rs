//! A client secret: where it is, and how it is read when needed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::foreign::{could_be_secret, secrets};
use crate::model::{CLIENT_SECRET, SecretSource, is_around, looks_left_over};
use crate::os::files::{as_text, read_bytes_up_to};
use crate::os::keychain::{self, Item};
use crate::os::streams;
use crate::words;

/// Whether a credential's file holds a secret. If nobody has set one, systemd passes an empty line, since it cannot set less.
pub(crate) fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.len() > 1)
}

/// The file from which the machine's manager takes a unit's secret, if there is one: the plain file, or the encrypted one next to
/// it.
pub(crate) fn credential_source(plain: &Path) -> Option<PathBuf> {
    credential_files(plain).into_iter().find(|path| is_filled(path))
}

/// The files that may hold a secret, given the plain one: encrypted with `systemd-creds` it has `.cred` appended.
pub(crate) fn credential_files(plain: &Path) -> [PathBuf; 2] {
    let mut encrypted = plain.to_owned().into_os_string();
    encrypted.push(".cred");
    [plain.to_owned(), encrypted.into()]
}

/// A client's id or secret without what editors and shells put around it: a byte order mark, blanks, line ends.
///
/// # Errors
/// Why it can be none, to follow its name; never the value, which may be a secret.
pub(crate) fn bare(text: &str) -> Result<&str, String> {
    let bare = text.trim_matches(is_around);
    let quoted = |quote: char| bare.starts_with(quote) || bare.ends_with(quote);
    let quotes = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}'];
    if let Some(quote) = quotes.into_iter().find(|quote| quoted(*quote)) {
        return Err(format!("begins or ends with {quote}: leave out the quotes"));
    }
    if bare.lines().nth(1).is_some() {
        return Err("holds more than one line".to_owned());
    }
    let lower = bare.to_ascii_lowercase();
    if lower.contains("client_") && lower.contains(['=', ':']) {
        return Err("is a whole setting, not its value: leave out the name".to_owned());
    }
    if let Some(looks) = looks_left_over(bare) {
        return Err(format!("{looks}: write the value itself"));
    }
    // RFC 6749, appendix A.
    if bare.chars().any(|c| !(' '..='~').contains(&c)) {
        return Err("holds a character that is no printable ASCII: copy it anew".to_owned());
    }
    Ok(bare)
}

/// What takes away what is around a secret, or says why there is none.
type Bare = fn(&str) -> Result<&str, String>;

/// The same of any secret.
fn bare_and_filled(text: &str) -> Result<&str, String> {
    let secret = bare(text)?;
    if secret.is_empty() { Err("is empty".to_owned()) } else { Ok(secret) }
}

/// The same of a client's secret.
fn bare_secret(text: &str) -> Result<&str, String> {
    let secret = bare_and_filled(text)?;
    if secret.starts_with("dapi") {
        return Err("is a personal access token (dapi...): a service principal has an OAuth secret".to_owned());
    }
    Ok(secret)
}

/// No secret is longer; a larger file must be the wrong one.
const LARGEST_SECRET: usize = 16 * 1024;

/// The largest file that is looked into for one: in UTF-16 a text is twice as long.
const LARGEST_FILE: u64 = 4 * LARGEST_SECRET as u64;

/// How long whoever writes a secret into a pipe is waited for: it may ask a person first.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was read of what can be read only once, for another sign-in of the same process.
static ONCE: Mutex<BTreeMap<PathBuf, Zeroizing<Vec<u8>>>> = Mutex::new(BTreeMap::new());

fn read_once(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut known = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = known.get(path) {
        return Ok(bytes.clone());
    }
    let bytes = streams::read(path, LARGEST_SECRET, PATIENCE)?;
    known.insert(path.to_owned(), bytes.clone());
    Ok(bytes)
}

/// Why a service, which needs a secret at each sign-in, cannot have it from this file; none where it can.
pub(super) fn is_for_one_run(path: &Path) -> Option<String> {
    let shown = path.display();
    if let Some(kind) = streams::kind(path) {
        return Some(format!("{shown} is {kind}, which can be read only once"));
    }
    streams::descriptor(path).map(|_| format!("{shown} means another file for each process"))
}

impl SecretSource {
    /// The secret of this client, read now; with a warning where its file can be read by others.
    ///
    /// # Errors
    /// Permanent: the file cannot be read, is empty, or does not hold a secret.
    pub(crate) fn read(&self, client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        self.find((CLIENT_SECRET, bare_secret), client_id).inspect(|(secret, _)| secrets::keep(secret))
    }

    /// Another secret than that of a client, called `what` in messages.
    ///
    /// # Errors
    /// As [`SecretSource::read`].
    pub(crate) fn read_as(&self, what: &str) -> Result<(SecretString, Option<String>), Failure> {
        self.find((what, bare_and_filled), "").inspect(|(secret, _)| secrets::keep(secret))
    }

    fn find(&self, (what, bare_one): (&str, Bare), client_id: &str) -> Result<(SecretString, Option<String>), Failure> {
        let refuse = |why: String| {
            Failure::permanent(Code::Configuration, format!("the {what} {why}"))
                .hint("give it as the workspace showed it, with nothing around it")
        };
        let bare = |secret: SecretString| bare_one(secret.expose_secret()).map(SecretString::from).map_err(refuse);
        match self {
            SecretSource::Given(secret) | SecretSource::InProfile(secret, _) => {
                Ok((bare(secret.clone())?, self.loose_mode(what)))
            }
            SecretSource::Keychain(service) => {
                let item = Item { service: service.clone(), account: client_id.to_owned() };
                Ok((bare(keychain::read(&item)?)?, None))
            }
            SecretSource::File(path) => {
                let fail = |why: String| {
                    Failure::permanent(
                        Code::Configuration,
                        format!("cannot use the {what} in {}: {why}", path.display()),
                    )
                    .hint("put the secret alone into that file, owned by you, with mode 0600")
                };
                let bytes = if streams::kind(path).is_some() {
                    read_once(path)
                } else {
                    read_bytes_up_to(path, LARGEST_FILE).map(Zeroizing::new)
                };
                let bytes = bytes.map_err(|error| fail(words::of_io(&error)))?;
                let text = as_text(&bytes).map_err(|why| fail(why.to_owned()))?;
                if text.trim_matches(is_around).is_empty() {
                    return Err(fail("the file is empty".to_owned()));
                }
                let secret = bare_one(text).map_err(|why| fail(format!("it {why}")))?;
                if secret.len() > LARGEST_SECRET {
                    return Err(fail("it is too long for a secret".to_owned()));
                }
                Ok((SecretString::from(secret), self.loose_mode(what)))
            }
        }
    }

    /// What is to be said where others can read its file.
    pub(crate) fn loose_mode(&self, what: &str) -> Option<String> {
        let path = self.file()?;
        if streams::descriptor(path).is_some() { None } else { remark_on_mode(path, 0o077, what) }
    }
}

/// Remembers what looks like a secret and is no file's path: it may be one that was given where a path belongs, and is to be shown nowhere.
pub(crate) fn keep_if_no_path(text: &Path) {
    if let Some(text) = text.to_str().filter(|text| could_be_secret(text) && !Path::new(text).exists()) {
        secrets::keep(&SecretString::from(text));
    }
}

/// What is to be said of a file with a secret where its mode has one of these bits.
pub(crate) fn remark_on_mode(path: &Path, bits: u32, what: &str) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & bits != 0)
        .then(|| format!("{} has mode {mode:04o}: others can read the {what}; chmod 600 it", path.display()))
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
    fn what_can_be_no_secret_is_named_and_not_shown() {
        for (text, why) in [
            (" \r\n", "is empty"),
            ("\u{201c}dose1\u{201d}", "leave out the quotes"),
            ("do\rse1", "printable ASCII"),
            ("do\u{a0}se1", "printable ASCII"),
            ("do\u{200b}se1", "printable ASCII"),
            ("dos\u{e9}1", "printable ASCII"),
            ("do\tse1", "printable ASCII"),
            ("DATABRICKS_CLIENT_SECRET=dose1", "whole setting"),
            ("export DATABRICKS_CLIENT_SECRET=dose1", "whole setting"),
            ("client_secret = dose1", "whole setting"),
            ("{\"client_secret\": \"dose1\"}", "whole setting"),
            ("<secret>", "placeholder"),
            ("${SECRET}", "variable"),
            ("{{ secret }}", "placeholder"),
            ("changeme", "no value"),
            ("********", "masked"),
            ("dapi0123456789abcdef", "personal access token"),
        ] {
            let said = bare_secret(text).unwrap_err();
            assert!(said.contains(why) && !said.contains("dose1"), "{text:?}: {said}");
        }
        for text in ["\u{200b}dose1\u{200b}", "\u{2060}dose1", "dose1\u{200e}"] {
            assert_eq!(bare_secret(text).as_deref(), Ok("dose1"), "{text:?}");
        }
        for text in ["dose 1", "a=b:c", "~!@#$%^&*()_+", "client-secret"] {
            assert_eq!(bare_secret(text).as_deref(), Ok(text));
        }
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
    fn what_can_be_read_only_once_is_not_for_a_service() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, pipe) = (scratch.path().join("secret"), scratch.path().join("pipe"));
        std::fs::write(&file, "dose1").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, said) in [
            (pipe, Some("is a named pipe, which can be read only once")),
            ("/dev/null".into(), Some("is a device")),
            ("/dev/stdin".into(), Some("/dev/stdin ")),
            ("/proc/self/fd/0".into(), Some("/proc/self/fd/0 ")),
            (file, None),
            (scratch.path().join("absent"), None),
        ] {
            let why = is_for_one_run(&path);
            assert_eq!(why.is_some(), said.is_some(), "{why:?}");
            assert!(why.unwrap_or_default().contains(said.unwrap_or_default()));
        }
    }
}
