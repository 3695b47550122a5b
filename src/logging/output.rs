//! Where messages go: to the service manager's log or to stderr, and to the log file.

use std::fmt::Write as _;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::clean::Clean;
use super::file::LogFile;
use super::{journal, streams};
use crate::failure::{Code, Failure};
use crate::os::zone;
use crate::words;

/// How messages look on stderr, or on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As in a log file, with time and level.
    Log,
    /// The same on stdout, where the Python original wrote it.
    LogOnStdout,
    /// For a person who has just typed the command: `warning: WHAT` and `hint: DO THIS`, a line each, and no report of each step.
    Person,
}

/// Starts logging for the whole process, with messages up to `level`.
///
/// # Errors
/// The log file cannot be written (exit code 73).
pub(crate) fn start(level: LevelFilter, form: Form, file: Option<&Path>) -> Result<(), Failure> {
    let file = file.map(open).transpose()?;
    // A second start, as in tests of one process, leaves the first in place.
    let _ = tracing::subscriber::set_global_default(subscriber(level, form, file));
    Ok(())
}

/// Logs what `say` reports before it is known where else to log; [`start`] may still follow.
pub(crate) fn before_start(say: impl FnOnce()) {
    tracing::subscriber::with_default(subscriber(LevelFilter::INFO, Form::Log, None), say);
}

fn subscriber(level: LevelFilter, form: Form, file: Option<LogFile>) -> impl Subscriber + Send + Sync {
    let journal = journal::connect();
    // No line goes to one place twice.
    let own = if form == Form::LogOnStdout { 1 } else { 2 };
    let is_same = file.as_ref().is_some_and(|file| file.is_descriptor(own));
    let form = Some(form).filter(|_| journal.is_none() && !is_same);
    let lines = Lines { level, form, file };
    tracing_subscriber::registry().with(Clean(lines)).with(journal.map(Clean))
}

struct Lines {
    level: LevelFilter,
    /// None where the journal gets the messages.
    form: Option<Form>,
    file: Option<LogFile>,
}

fn open(path: &Path) -> Result<LogFile, Failure> {
    LogFile::open(path).map_err(|error| {
        Failure::permanent(
            Code::CannotWrite,
            format!("cannot write the log file {}: {}", path.display(), words::of_io(&error)),
        )
        .hint("choose another with --log-file PATH, or leave it out")
    })
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        *metadata.level() <= if ours { self.level } else { self.level.min(LevelFilter::WARN) }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.form.is_none() && self.file.is_none() {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let now = zone::now().strftime("%Y-%m-%d %H:%M:%S");
        let line = format!("{now} - {} - {}{}\n", name(*event.metadata().level()), message.text, message.fields);
        match self.form {
            Some(Form::Log) => streams::to_stderr(&line),
            Some(Form::LogOnStdout) => streams::to_stdout(&line),
            Some(Form::Person) => self.tell(*event.metadata().level(), &message),
            None => {}
        }
        if let Some(trouble) = self.file.as_ref().and_then(|file| file.write(&line)) {
            // This event comes back here, but the file reports the same problem only once.
            tracing::warn!("{trouble}");
        }
    }
}

impl Lines {
    /// Each step of a rotation is for log files, and for those who want to know more.
    fn tell(&self, level: Level, message: &Message) {
        let prefix = match level {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ if self.level < LevelFilter::DEBUG => return,
            _ => "",
        };
        let hint = message.hint.as_ref();
        let text = hint.and_then(|hint| message.text.strip_suffix(&format!(" - {hint}"))).unwrap_or(&message.text);
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        streams::to_stderr(&format!("{prefix}{text}{}\n{hint}", message.fields));
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
    hint: Option<String>,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            // Only for the journal; the message says the same.
            "message_id" => Ok(()),
            "dbx_hint" => {
                self.hint = Some(format!("{value:?}"));
                Ok(())
            }
            name if name.starts_with("dbx_") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
