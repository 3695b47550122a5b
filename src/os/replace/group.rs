//! The group that a file must have.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use rustix::fs::Gid;

use super::{FileFault, Opened};

/// A group that a file is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    /// As the person wrote it.
    pub(crate) name: &'a str,
    pub(crate) gid: u32,
}

impl Group<'_> {
    /// Whether a file has it.
    pub(crate) fn is_of(self, file: &Opened) -> bool {
        file.metadata.gid() == self.gid
    }

    /// Gives a file to it.
    pub(super) fn give(self, file: &File) -> Result<(), FileFault> {
        let Group { name, gid } = self;
        let is_its_own = || file.metadata().is_ok_and(|found| found.gid() == gid);
        if is_its_own() {
            return Ok(());
        }
        let refused = |source| FileFault::Group { name: name.to_owned(), source };
        rustix::fs::fchown(file, None, Some(Gid::from_raw(gid))).map_err(|error| refused(error.into()))?;
        // Some file systems only seem to do it.
        if is_its_own() { Ok(()) } else { Err(refused(ErrorKind::Unsupported.into())) }
    }
}
