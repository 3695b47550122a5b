//! Where a secret may go, which files may be written, whose text is printed, and what root does in a home that is not its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

#[path = "security/files.rs"]
mod files;
#[path = "security/formats.rs"]
mod formats;
#[path = "security/homes.rs"]
mod homes;
#[path = "security/origins.rs"]
mod origins;
#[path = "security/text.rs"]
mod text;
