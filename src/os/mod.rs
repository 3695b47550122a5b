//! What we need of the operating system: directories, clocks and timers, watching files, replacing them, leases, children,
//! the service manager, and no core dumps.

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only there root becomes another user"))]
pub(crate) mod accounts;
#[cfg(feature = "cli")]
pub(crate) mod activation;
pub(crate) mod ancestors;
pub(crate) mod attributes;
pub(crate) mod blocking;
pub(crate) mod child;
pub(crate) mod clock;
#[cfg(feature = "cli")]
pub(crate) mod connections;
#[cfg(feature = "cli")]
pub(crate) mod core_dumps;
#[cfg(target_os = "linux")]
mod dbus;
#[cfg(feature = "cli")]
pub(crate) mod descriptors;
pub(crate) mod dirs;
pub(crate) mod durable;
pub(crate) mod files;
pub(crate) mod heap;
pub(crate) mod identity;
#[cfg(test)]
pub(crate) mod inherited;
pub(crate) mod keepalive;
pub(crate) mod keychain;
pub(crate) mod keyring;
pub(crate) mod launchd;
pub(crate) mod lease;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod replace;
#[cfg(target_os = "linux")]
mod secret_service;
#[cfg(feature = "cli")]
pub(crate) mod signals;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) mod socket_owner;
pub(crate) mod streams;
pub(crate) mod timer;
pub(crate) mod trust;
pub(crate) mod watch;
pub(crate) mod watchdog;
pub(crate) mod wiped;
pub(crate) mod zone;
