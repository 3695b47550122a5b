//! What the operating system tells and is told: where things are kept, what time it is and when to wake up, what must not be
//! dumped.

pub(crate) mod clock;
pub(crate) mod core_dumps;
pub(crate) mod dirs;
pub(crate) mod files;
pub(crate) mod timer;
