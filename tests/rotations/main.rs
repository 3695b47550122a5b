//! Rotations from a stand-in workspace into files that a real PostgreSQL accepts, and the stand-ins themselves.

#[path = "../support/mod.rs"]
mod support;

mod browser_login;
mod clients;
mod custom_url;
mod kubernetes;
mod lakebase;
mod local_proxy;
mod login;
mod password_files;
mod pgbouncer;
mod postgres_login;
mod proxy;
mod python;
mod rotation;
mod rounds;
mod sign_in;
mod soak;
mod standin;
#[cfg(target_os = "linux")]
mod timers;
