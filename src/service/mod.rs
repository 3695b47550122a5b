//! What the operating system's service manager is told and asked.

pub(crate) mod systemctl;
