//! The README and the pages of docs/: what they tell people to type works, what they say that is printed is printed, their settings
//! can be used, where they lead to exists, and the picture and the alerts are those of the program of today.
//!
//! What is run for a page needs PostgreSQL and libnss-wrapper, the alerts need promtool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod command_lines;
mod dashboard;
mod library;
mod links;
mod page;
mod picture;
mod reader;
mod snippets;
mod troubles;
