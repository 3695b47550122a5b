//! Where messages go: to the system's own log where a service manager runs this, else to stderr, and to a log file where one is
//! wanted, in the form that users of the Python original know: `2025-01-22 14:30:00 - INFO - Starting OAuth token rotation cycle`.

pub(crate) mod announce;
#[cfg_attr(target_os = "macos", path = "os_log.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), path = "no_journal.rs")]
pub(crate) mod journal;
#[cfg(any(target_os = "macos", test))]
mod unified;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::failure::{Code, Failure};

/// The size at which a log file is put aside, in bytes (as in the Python original).
const LARGEST_FILE: usize = 10 * 1024 * 1024;

/// The target of messages that say who somebody is: they stay with that person, on stderr and in the log file.
pub(crate) const PRIVATE: &str = concat!(env!("CARGO_CRATE_NAME"), "::private");

/// How many old log files are kept (as in the Python original).
const OLD_FILES: usize = 5;

/// Starts logging for the whole process, with messages up to `level`.
///
/// # Errors
/// The log file cannot be written (exit code 73).
pub(crate) fn start(level: LevelFilter, file: Option<&Path>) -> Result<(), Failure> {
    let file = file.map(open).transpose()?;
    // A second start, as in tests of one process, leaves the first in place.
    let _ = tracing::subscriber::set_global_default(subscriber(level, file));
    Ok(())
}

/// Logs what `say` says before it is known where else to log to: [`start`] may still follow.
pub(crate) fn before_start(say: impl FnOnce()) {
    tracing::subscriber::with_default(subscriber(LevelFilter::INFO, None), say);
}

fn subscriber(level: LevelFilter, file: Option<LogFile>) -> impl Subscriber + Send + Sync {
    let journal = journal::connect();
    tracing_subscriber::registry().with(Lines { level, stderr: journal.is_none(), file }).with(journal)
}

type LogFile = Mutex<Box<dyn Write + Send>>;

struct Lines {
    level: LevelFilter,
    stderr: bool,
    file: Option<LogFile>,
}

fn open(path: &Path) -> Result<LogFile, Failure> {
    let fail = |error: io::Error| {
        Failure::permanent(Code::CannotWrite, format!("cannot write the log file {}: {error}", path.display()))
            .hint("choose another with --log-file PATH, or leave it out")
    };
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    // Tried first: the crate panics where it cannot, and would put a device or a link aside as if it were a log.
    let file = options.open(path).map_err(fail)?;
    let target = std::fs::canonicalize(path).map_err(fail)?;
    let data = file.metadata().map_err(fail)?;
    if !data.is_file() {
        return Ok(Mutex::new(Box::new(file)));
    }
    if data.permissions().mode() & 0o077 != 0 {
        // Best effort: it may be somebody else's.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    }
    let limit = ContentLimit::BytesSurpassed(LARGEST_FILE);
    let rotating = FileRotate::new(target, AppendCount::new(OLD_FILES), limit, Compression::None, Some(options));
    Ok(Mutex::new(Box::new(rotating)))
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        *metadata.level() <= if ours { self.level } else { self.level.min(LevelFilter::WARN) }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !self.stderr && self.file.is_none() {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let now = jiff::ZonedDateTime::now().strftime("%Y-%m-%d %H:%M:%S");
        let line = format!("{now} - {} - {}{}\n", name(*event.metadata().level()), message.text, message.fields);
        // Nobody is left to tell when a log cannot be written.
        if self.stderr {
            let _ = io::stderr().write_all(line.as_bytes());
        }
        if let Some(mut file) = self.file.as_ref().and_then(|file| file.lock().ok()) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// The names that the original used.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            // For the journal; the message says it too.
            "message_id" => Ok(()),
            name if name.starts_with("dbx_") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
