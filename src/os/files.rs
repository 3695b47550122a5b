//! Reading small files that a person names: never a pipe that would hang, never a device without end.

use std::fs::OpenOptions;
use std::io::{Error, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Larger than any configuration or secret.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The whole of a regular file, as text.
///
/// # Errors
/// As `read(2)`; and where it is no regular file, is larger than 16 MiB, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>> {
    #[expect(clippy::cast_possible_wrap, reason = "the flag is a small positive number")]
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(Error::other("it is not a regular file"));
    }
    if data.len() > LARGEST {
        return Err(Error::other("it is larger than 16 MiB"));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(data.len()).unwrap_or_default() + 1));
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}
