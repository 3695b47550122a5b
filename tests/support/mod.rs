//! What tests share: the stand-ins, a scratch home, and sessions that read like a person's commands.
//!
//! ```ignore
//! let workspace = Workspace::start();
//! let home = Home::new();
//! home.watch(&workspace); // none of its secrets may ever be printed
//! dbx_rotator!(home).args(["rotate"]).env("DATABRICKS_HOST", workspace.url()).run().exits(0).stderr_has("updated");
//! assert!(home.pgpass().contains(":eyJ"));
//! ```
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

pub mod cache;
pub mod cli;
pub mod cluster;
pub mod door;
pub mod machine;
pub mod names;
pub mod outcome;
pub mod person;
pub mod ports;
pub mod postgres;
pub mod proxy;
pub mod psql;
pub mod refusing;
pub mod relay;
pub mod session;
pub mod skips;
pub mod vendor_sdk;
pub mod vm;
pub mod workspace;

pub use cli::{Cli, Failure, Invocation, legacy_cli};
pub use cluster::Cluster;
pub use door::Door;
pub(crate) use machine::on_each_release;
pub use machine::{Machine, Release};
pub use outcome::{Outcome, assert_no_secret};
pub use ports::free_port;
pub use postgres::Postgres;
pub use relay::Relay;
pub use session::{Home, Running, Session};
pub use skips::skip;
pub use vm::Vm;
pub use workspace::{Branch, ComputeEndpoint, Endpoint, Fault, Instance, Project, Upgraded, Workspace};

/// A session with the program under test, whose path only test targets and benches know.
macro_rules! dbx_rotator {
    ($home:expr) => {
        $home.command(env!("CARGO_BIN_EXE_dbx-rotator"))
    };
}
pub(crate) use dbx_rotator;
