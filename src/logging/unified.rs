//! What the macOS unified log gets of an event: its message and its level, without the fields for the journal, and nothing
//! private. Its text is not redacted: every administrator of the machine can read it.
//!
//! The writing layer is passed in, so that this can be tested on systems without such a log.

use std::fmt::Write as _;

use tracing::field::{Field, Visit, display};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer};

use super::PRIVATE;

/// Passes on to `inner` what the unified log may have.
pub(super) struct Unified<L>(L);

impl<L> Unified<L> {
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "made by tests alone"))]
    pub(super) fn new(inner: L) -> Self {
        Unified(inner)
    }
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Unified<L> {
    // The layer for os_log looks in each span for its own data.
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == PRIVATE {
            return;
        }
        let Some(field) = metadata.fields().field("message") else { return };
        let mut message = Message::default();
        event.record(&mut message);
        let text = display(message.0);
        let values = [(&field, Some(&text as &dyn tracing::field::Value))];
        let values = metadata.fields().value_set(&values);
        self.0.on_event(&Event::new(metadata, &values), context);
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What was passed on, with all of its fields.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<(Level, String)>>>);

    struct All(String);

    impl Visit for All {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            write!(self.0, "{field}={value:?};").unwrap();
        }
    }

    impl<S: Subscriber> Layer<S> for Log {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut all = All(String::new());
            event.record(&mut all);
            self.0.lock().unwrap().push((*event.metadata().level(), all.0));
        }
    }

    fn logged(say: impl FnOnce()) -> Vec<(Level, String)> {
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(Unified::new(log.clone()));
        tracing::subscriber::with_default(subscriber, say);
        std::mem::take(&mut log.0.lock().unwrap())
    }

    #[test]
    fn it_gets_the_message_and_the_level_and_no_fields_for_the_journal() {
        let connection = "orders";
        let log = logged(|| {
            let _span = tracing::error_span!("concerning", dbx_connection = connection).entered();
            tracing::warn!(message_id = "8b56", dbx_outcome = "failed", "{connection}: no \"network\"");
            tracing::error!("gone");
        });
        let expected = [(Level::WARN, "message=orders: no \"network\";"), (Level::ERROR, "message=gone;")];
        assert_eq!(log, expected.map(|(level, text)| (level, text.to_owned())));
    }

    #[test]
    fn it_gets_nothing_of_what_is_private() {
        let log = logged(|| {
            tracing::info!(target: PRIVATE, "  - Subject: ada@example.com");
            tracing::info!("public");
        });
        assert_eq!(log, [(Level::INFO, "message=public;".to_owned())]);
        // All other sinks treat it as one of our own messages.
        assert!(PRIVATE.starts_with(env!("CARGO_CRATE_NAME")));
    }
}
