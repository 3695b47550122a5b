//! Keeps a Databricks Lakebase password alive.
//!
//! Lakebase (managed PostgreSQL) takes an OAuth token as its password, which lives for about an hour. `dbx-rotator` writes a
//! fresh one into the password file (`~/.pgpass`) before the old one expires. The program is a thin layer over this library:
//! [`Rotator`] does the same inside an application, and hands out live passwords to its connection pools.
//!
//! | you want | call |
//! |---|---|
//! | all passwords fresh now | [`Rotator::run_once`] |
//! | what is due fresh now | [`Rotator::run_if_due`] |
//! | them kept fresh for ever | [`Rotator::run`] |
//! | a live password for a new connection | [`Rotator::credential`] |
//!
//! It works under any executor, on a thread of its own. Messages are [`tracing`] events. It changes nothing
//! process-wide: no logger, no panic hook, no default provider of rustls.
//!
//! The feature `cli`, on by default, adds the program: `default-features = false` leaves out clap, the log file, and what only
//! systemd and launchd need.

// Code that only the program calls is dead in a library without it. Code that nobody calls is found by the build with
// the program.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod auth;
#[cfg(feature = "cli")]
mod cli;
mod config;
mod daemon;
mod failure;
mod foreign;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "cli")]
mod generated;
mod http;
mod kubernetes;
mod lakebase;
mod logging;
mod model;
mod os;
mod outputs;
pub mod pgpass;
#[doc(hidden)]
pub mod postgres;
mod proxies;
#[cfg(feature = "cli")]
mod proxy;
mod rotation;
mod rotator;
#[cfg(feature = "cli")]
mod service;
#[doc(hidden)]
pub mod simulation;
mod spelling;
mod typed;
mod vendor_errors;
mod words;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::{DocumentedExitCode, EXIT_CODES, command, main};
pub use config::{Config, ConfigError, Origin, Overrides, Setting, parse_duration};
pub use failure::{Code, Failure, Kind};
pub use model::{AuthMethod, AuthType, Connection, Workspace, WorkspaceHost};
#[doc(hidden)]
pub use outputs::service_file;
pub use rotation::{Outcome, Report};
pub use rotator::{Builder, Credential, Rotator};
