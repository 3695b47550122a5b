//! The files that people have: read and edited inside this process, and compared with the real libpq if there is one.
//!
//! A test program of its own: the editor asks the kernel whether anybody has a file open, and a program that another test is just
//! starting shares this process's open files for a moment.

#[path = "../support/mod.rs"]
mod support;

mod pgpass_cases;
mod pgpass_libpq;
mod pgpass_store;
mod service_file;
