//! The proxy's own password: for clients of which the kernel does not tell whose they are.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::remark_on_mode;
use crate::foreign::secrets;
use crate::os::files::{make_directories, read_text_up_to};
use crate::os::identity::try_as_owner_of;

/// The name of its file, in the directory of the record.
const NAME: &str = "proxy-password";

/// How long it is, in characters of 64 kinds: 192 bits.
const LENGTH: usize = 32;

/// The longest that somebody may have put there, in bytes.
const LONGEST: u64 = 1024;

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Where it is.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// That others can read it, where they can.
pub(crate) fn remark(state_dir: &Path) -> Option<String> {
    remark_on_mode(&path(state_dir), 0o077, "proxy's own password")
}

/// The password in the file, or a new one that is put there.
///
/// # Errors
/// The file cannot be read or made, or holds no password.
pub(super) fn kept(state_dir: &Path) -> io::Result<SecretString> {
    let path = path(state_dir);
    let password = match of_file(&path) {
        Ok(password) => password,
        Err(error) if error.kind() == io::ErrorKind::NotFound => try_as_owner_of(state_dir, || make(state_dir, &path))?,
        Err(error) => return Err(error),
    };
    secrets::keep(&password);
    Ok(password)
}

/// The password in this file.
///
/// # Errors
/// It cannot be read, or holds no password.
pub(super) fn of_file(path: &Path) -> io::Result<SecretString> {
    of_text(&read_text_up_to(path, LONGEST)?)
}

fn of_text(text: &str) -> io::Result<SecretString> {
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || !password.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "it holds no password of printable characters: remove it, and a new one is made";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(password.into())
}

/// Makes a password, and its file in one step: whoever starts at the same moment reads the same.
fn make(state_dir: &Path, path: &Path) -> io::Result<SecretString> {
    make_directories(state_dir, 0o700)?;
    let password = random_text(LENGTH)?;
    let mut file = tempfile::Builder::new().prefix(".proxy-password").tempfile_in(state_dir)?;
    file.write_all(password.expose_secret().as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(password),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => of_text(&read_text_up_to(path, LONGEST)?),
        Err(error) => Err(error.error),
    }
}

/// Characters that nobody can guess.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn random_text(length: usize) -> io::Result<SecretString> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    random(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| char::from(CHARACTERS[usize::from(byte % 64)])).collect();
    Ok(text.into())
}

/// Bytes that nobody can guess.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the system has no random numbers"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let first = kept(&state).unwrap();
        assert_eq!(first.expose_secret().len(), LENGTH);
        assert_eq!(kept(&state).unwrap().expose_secret(), first.expose_secret());
        assert_eq!(path(&state).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(path(&state), "ch0sen-by-hand\n").unwrap();
        assert_eq!(kept(&state).unwrap().expose_secret(), "ch0sen-by-hand");
        for bad in ["", "\n", "two words\n", "a\nb\n"] {
            std::fs::write(path(&state), bad).unwrap();
            assert!(kept(&state).is_err(), "{bad:?}");
        }
    }
}
