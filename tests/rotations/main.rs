//! Rotations from a stand-in workspace into files that a real PostgreSQL accepts, and the stand-ins themselves.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod custom_url;
mod lakebase;
mod login;
mod password_files;
mod pgbouncer;
mod postgres_login;
mod proxy;
mod rotation;
mod rounds;
mod soak;
mod standin;
#[cfg(target_os = "linux")]
mod timers;
