//! libpq's connection service file (`~/.pg_service.conf`, or what PGSERVICEFILE names): a section for each connection, so that
//! `psql service=orders` knows where to go.
//!
//! A comment in a section marks it as ours and names the keys that we keep; other lines in it are the user's and stay, as does
//! every byte outside of it. A section with the same name but without that comment is left alone, with a message. A section of
//! ours for a removed connection must be removed by hand: another configuration may keep it.
//!
//! The file is bytes, never text, and is read as libpq reads it (`parseServiceFile` in PostgreSQL's
//! src/interfaces/libpq/fe-connect.c).

mod edit;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod reader;
mod section;

use std::path::Path;

use zeroize::Zeroizing;

use super::managed_file::ManagedFile;
use crate::failure::{Code, Failure};
use crate::os::replace::Allowance;
use edit::{Edit, edit};
pub use section::Section;

/// Whether [`update`] would change nothing: every section that can be ours is as it should be. False if the file cannot be
/// read: [`update`] says why.
#[must_use]
pub fn is_current(path: &Path, sections: &[Section]) -> bool {
    remarks(path, sections).is_some()
}

/// One sentence for each thing that was left alone or cannot work, if [`update`] would change nothing; else none.
#[must_use]
pub(crate) fn remarks(path: &Path, sections: &[Section]) -> Option<Vec<String>> {
    let now = place(path).look().ok()?;
    let Edit { bytes, sentences, .. } = edit(&now.bytes, path, sections);
    (bytes == *now.bytes).then_some(sentences)
}

/// Everything that keeps `psql service=NAME` from what these sections mean.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only commands look at it without writing it"))]
pub(crate) fn faults(path: &Path, sections: &[Section]) -> Vec<Failure> {
    let now = match place(path).look() {
        Ok(now) => now,
        Err(failure) => return vec![failure],
    };
    let Edit { mended, sentences, .. } = edit(&now.bytes, path, sections);
    let fault = |sentence| Failure::permanent(Code::TryAgain, sentence);
    let mended = mended.into_iter().map(|sentence| fault(sentence).hint("run `dbx-rotator rotate`, which mends it"));
    sentences.into_iter().map(fault).chain(mended).collect()
}

/// Whether nothing was left behind beside it; otherwise [`update`] deals with it.
#[must_use]
pub(crate) fn is_settled(path: &Path) -> bool {
    place(path).is_settled()
}

/// Whether somebody still writes to the replaced file: [`update`] will carry that over.
pub(crate) fn is_waited_for(path: &Path) -> bool {
    place(path).is_waited_for()
}

fn place(path: &Path) -> ManagedFile<'_> {
    ManagedFile { what: "service file", path, private: false, given: None }
}

/// Puts the sections in and keeps every other byte. Returns one sentence for each thing that was left alone or cannot work.
/// Nothing is written if nothing would change, and no file is made if there are no sections.
///
/// Replaced atomically and durably, like the password file. A new file gets mode 0600 and its missing directories 0700; an
/// old one keeps its mode, since libpq accepts any and the file holds no secret.
///
/// # Errors
/// [`crate::Code::CannotWrite`]: why, and what to do next. The old file is in place, unless the message says otherwise.
pub fn update(path: &Path, sections: &[Section]) -> Result<Vec<String>, Failure> {
    update_within(&Allowance::default(), path, sections)
}

/// The same; and others who write to it may cost no more than this.
pub(crate) fn update_within(allowance: &Allowance, path: &Path, sections: &[Section]) -> Result<Vec<String>, Failure> {
    let mut said = Vec::new();
    place(path).keep(allowance, |old| {
        let Edit { bytes, sentences, .. } = edit(old, path, sections);
        said = sentences;
        Ok(Zeroizing::new(bytes))
    })?;
    Ok(said)
}
