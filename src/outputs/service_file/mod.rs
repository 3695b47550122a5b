//! libpq's connection service file (`~/.pg_service.conf`, or what PGSERVICEFILE names): a section for each connection, so that
//! `psql service=orders` knows where to go.
//!
//! A section is ours by a comment in it that says so and names the keys that we keep; what else stands in it is the user's and
//! stays, as does every byte outside of it. A section of the same name without that comment is left alone, and that is said.
//! A section of ours whose connection is gone is left to be removed by hand: another configuration may keep it.
//!
//! The file is bytes, never text, and read as libpq reads it (`parseServiceFile` in PostgreSQL's
//! src/interfaces/libpq/fe-connect.c).

mod edit;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod reader;
mod section;

use std::path::Path;

use zeroize::Zeroizing;

use super::managed_file::ManagedFile;
use crate::failure::Failure;
use crate::os::replace::Allowance;
use edit::{Edit, edit};
pub use section::Section;

/// Whether [`update`] would change nothing: every section that can be ours stands there as it should. Not so where the file
/// cannot be read: [`update`] says why.
#[must_use]
pub fn is_current(path: &Path, sections: &[Section]) -> bool {
    remarks(path, sections).is_some()
}

/// What was left alone or cannot work, a sentence each, where [`update`] would change nothing; none where it would.
#[must_use]
pub(crate) fn remarks(path: &Path, sections: &[Section]) -> Option<Vec<String>> {
    let now = place(path).look().ok()?;
    let Edit { bytes, sentences } = edit(&now.bytes, path, sections);
    (bytes == *now.bytes).then_some(sentences)
}

/// Whether nothing was left behind beside it; [`update`] sees to that.
#[must_use]
pub(crate) fn is_settled(path: &Path) -> bool {
    place(path).is_settled()
}

/// Whether somebody still writes to what was replaced: [`update`] will take that over.
pub(crate) fn is_waited_for(path: &Path) -> bool {
    place(path).is_waited_for()
}

fn place(path: &Path) -> ManagedFile<'_> {
    ManagedFile { what: "service file", path, private: false }
}

/// Puts the sections in, every other byte kept; returns what was left alone or cannot work, a sentence each. Nothing is written
/// where nothing would change, and no file is made for no sections.
///
/// Replaced as the password file is, atomically and durably. A new file gets mode 0600 and its missing directories 0700; an
/// old one keeps its mode, since libpq reads any and there is no secret in it.
///
/// # Errors
/// [`crate::Code::CannotWrite`]: why, and what to do next. The old file is there, unless the message says otherwise.
pub fn update(path: &Path, sections: &[Section]) -> Result<Vec<String>, Failure> {
    update_within(&Allowance::default(), path, sections)
}

/// The same; and others who write to it may cost no more than this.
pub(crate) fn update_within(allowance: &Allowance, path: &Path, sections: &[Section]) -> Result<Vec<String>, Failure> {
    let mut said = Vec::new();
    place(path).keep(allowance, |old| {
        let Edit { bytes, sentences } = edit(old, path, sections);
        said = sentences;
        Ok(Zeroizing::new(bytes))
    })?;
    Ok(said)
}
