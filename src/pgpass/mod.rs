//! The password file (`~/.pgpass`): one of its lines is ours, all others are somebody else's.
//!
//! Four parts, from deciding to doing:
//! - an [`Entry`] is what is to be published, checked so that every client can read it;
//! - [`Reading`] is what clients read today: libpq's own reader as a model;
//! - [`publish`] decides what the file is to hold, and [`verify`] reads that back through the model; both are pure;
//! - [`PasswordFile`] reads and replaces the file on disk, atomically and durably.
//!
//! The file is bytes here, never text: one Latin-1 comment must not stop a rotation. A line is ours by its four
//! unescaped key fields and by nothing else.

mod document;
mod entry;
#[cfg(test)]
mod hostile;
mod layout;
mod line;
mod reader;
mod store;
mod survey;

#[doc(hidden)]
pub use crate::os::replace::{Disk, FsHooks};
pub use crate::os::replace::{FileError, FileFault};
pub use document::{Edit, Found, How, Mismatch, Placement, Severity, Warning, publish, verify};
pub use entry::{Entry, Key, KeyError, PasswordError};
pub use reader::{Current, DEBIAN_SOCKET_DIRECTORY, Match, Reading, Target};
pub use store::{Contents, PasswordFile, Published};
