//! The password file (`~/.pgpass`): some of its lines are ours, all others belong to somebody else.
//!
//! Four parts, from deciding to doing:
//! - an [`Entry`] is what to publish, checked so that every client can read it;
//! - [`Reading`] is what clients read now: a model of libpq's own reader;
//! - [`publish`] decides what the new file holds, and [`verify`] reads it back through the model; both are pure;
//! - [`PasswordFile`] reads and replaces the file on disk, atomically and durably.
//!
//! The file is bytes here, never text: one Latin-1 comment must not stop a rotation. Only its four unescaped key fields
//! make a line ours.

mod document;
mod entry;
#[cfg(test)]
mod hostile;
mod layout;
mod line;
mod reader;
#[cfg(feature = "cli")]
mod removal;
mod store;
mod survey;

#[doc(hidden)]
pub use crate::os::replace::{Disk, FsHooks};
pub use crate::os::replace::{FileError, FileFault};
pub use document::{Edit, Found, How, Mismatch, Placement, Severity, Warning, publish, verify};
pub use entry::{Entry, Key, KeyError, PasswordError};
pub use reader::{Current, DEBIAN_SOCKET_DIRECTORY, Match, Reading, Target};
#[cfg(feature = "cli")]
pub(crate) use removal::Unwanted;
pub use store::{Contents, PasswordFile, Published};
