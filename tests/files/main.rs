//! The files that people have: read and edited inside this process, and held against the real libpq where there is one.
//!
//! A program of its own. The editor asks the kernel whether anybody has a file open; a program that another test is just starting
//! shares the open files of this process for a moment.

#[path = "../support/mod.rs"]
mod support;

mod pgpass_cases;
mod pgpass_libpq;
mod pgpass_store;
mod service_file;
