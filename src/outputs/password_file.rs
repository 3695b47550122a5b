//! Entries of the password file that are not wanted any more.

use std::path::Path;

use secrecy::SecretString;

use super::managed_file::ManagedFile;
use crate::failure::Failure;
use crate::os::replace::Allowance;
use crate::pgpass::without;

/// Removes the entries for this host and every database that have this very password, but those of the ports that are in use, and
/// returns how many there were. All else stays, and what somebody writes at the same moment, too.
///
/// # Errors
/// [`crate::Code::CannotWrite`]: the file cannot be read or replaced.
pub(crate) fn remove_entries(
    path: &Path,
    host: &str,
    password: &SecretString,
    in_use: &[u16],
) -> Result<usize, Failure> {
    let place = ManagedFile { what: "password file", path, private: false, given: None };
    let mut removed = 0;
    let now = place.look()?;
    // Where there are none, the file is not touched, and none is made.
    if without(&now.bytes, host, password, in_use).1 == 0 {
        return Ok(0);
    }
    place.keep(&Allowance::default(), |old| {
        let (bytes, count) = without(old, host, password, in_use);
        removed = removed.max(count);
        Ok(bytes)
    })?;
    Ok(removed)
}
