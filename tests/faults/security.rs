//! Where a secret may go, which files may be written, whose text is printed, and what root does in another user's home.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod files;
mod formats;
mod homes;
mod origins;
mod text;
