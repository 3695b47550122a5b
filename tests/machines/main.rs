//! Machines that are booted: containers with a real systemd, and an emulated machine that can be suspended.

#[path = "../support/mod.rs"]
mod support;

mod machine;
mod suspend;
mod systemd;
