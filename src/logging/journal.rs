//! The systemd journal, by its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
//!
//! journald learns a message's unit from the cgroup of its sender when it reads the message. If the sender has ended by then, the
//! message belongs to no unit, and `journalctl -u` does not find it. So a process that logged something waits at its end until
//! journald has read all of it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tracing::{Event, Subscriber, span};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// What `journalctl --user -u dbx-rotator` looks for beside the messages of that unit itself: messages about it (systemd's logs-show.c,
/// add_matches_for_user_unit). With it the daemon, whose unit has another name, is found by the same words as the timer's runs.
const USER_UNIT: (&str, &str) = ("USER_UNIT", concat!(env!("CARGO_PKG_NAME"), ".service"));

const SOCKET: &str = "/run/systemd/journal/socket";

/// journald reads faster than this even on a busy machine; if it hangs, a timely exit matters more than a log.
const LONGEST_WAIT: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// A datagram of this size fills the smallest possible send buffer, so the socket is only writable again once it has been read.
const FENCE: [u8; 2_048] = [b'#'; 2_048];

/// Whether there are messages that may not have been read yet.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Whether stderr is connected to the journal (`JOURNAL_STREAM`, systemd.exec(5)).
pub(crate) fn is_connected() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|journal| leads_to(&journal, io::stderr()))
}

/// Whether the file has this device and inode, in decimal. Needed because a redirected process inherits the variable,
/// too.
fn leads_to(journal: &str, file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The layer for the journal, if stderr is connected to it and it can be reached.
pub(super) fn connect() -> Option<Journal> {
    if !is_connected() {
        return None;
    }
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::Layer::new().ok()?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(Journal(
        layer
            .with_field_prefix(None)
            .with_syslog_identifier(env!("CARGO_PKG_NAME").to_owned())
            .with_priority_mappings(priorities)
            .with_custom_fields(is_of_user_manager(&cgroup).then_some(USER_UNIT)),
    ))
}

/// Whether the process is in a unit of a user's service manager, which is itself `user@UID.service` (cgroups(7)).
fn is_of_user_manager(cgroup: &str) -> bool {
    cgroup.contains("/user@")
}

/// `tracing_journald`'s layer, remembering that it was used.
pub(super) struct Journal(tracing_journald::Layer);

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.on_event(event, context);
        UNREAD.store(true, Ordering::Relaxed);
    }
}

/// Waits until journald has read all messages of this process; call this last.
pub(crate) fn settle() {
    if UNREAD.swap(false, Ordering::Relaxed) {
        // Best effort: there is nobody to report to.
        let _ = fence();
    }
}

/// journald handles one datagram completely before it reads the next. So once it has read one more, a comment that it ignores,
/// it has looked up the sender of all earlier ones.
fn fence() -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    set_socket_send_buffer_size(&socket, 0)?;
    socket.set_nonblocking(true)?;
    socket.connect(SOCKET)?;
    let writable = || poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&LONGEST_WAIT));
    // journald's queue may be full.
    writable()?;
    socket.send(&FENCE)?;
    writable()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_stream_is_the_journals_only_with_its_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let (device, inode) = (file.metadata().unwrap().dev(), file.metadata().unwrap().ino());
        assert!(leads_to(&format!("{device}:{inode}"), &file));
        for other in [
            format!("{device}:{}", inode + 1),
            format!("{}:{inode}", device + 1),
            format!("{device}:{inode}:1"),
            format!("{device}"),
            String::new(),
            ":".to_owned(),
        ] {
            assert!(!leads_to(&other, &file), "{other}");
        }
    }
}
