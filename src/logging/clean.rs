//! Makes each value of an event or a span one printable line without secrets before a sink gets it. So no caller can forget
//! to, whatever foreign text it logs.

use std::fmt::Debug;

use tracing::field::{DisplayValue, Field, FieldSet, Value, ValueSet, Visit, display};
use tracing::{Event, Metadata, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::foreign;

/// No event or span has more fields (`tracing::field`).
const MOST_FIELDS: usize = 32;

/// Cleans what it passes on to a sink.
pub(super) struct Clean<L>(pub(super) L);

impl<S: Subscriber + for<'span> LookupSpan<'span>, L: Layer<S>> Layer<S> for Clean<L> {
    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut texts = Texts::default();
        attributes.record(&mut texts);
        texts.with_values(attributes.metadata().fields(), |values| {
            self.0.on_new_span(&span::Attributes::new(attributes.metadata(), values), id, context);
        });
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(fields) = context.metadata(id).map(Metadata::fields) else { return };
        let mut texts = Texts::default();
        values.record(&mut texts);
        texts.with_values(fields, |values| self.0.on_record(id, &span::Record::new(values), context));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut texts = Texts::default();
        event.record(&mut texts);
        texts.with_values(event.metadata().fields(), |values| {
            self.0.on_event(&Event::new(event.metadata(), values), context);
        });
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

/// The values of fields as printable texts.
#[derive(Default)]
struct Texts(Vec<(Field, DisplayValue<String>)>);

impl Texts {
    fn with_values(&self, fields: &FieldSet, hand_on: impl FnOnce(&ValueSet<'_>)) {
        let Some(any) = fields.iter().next() else { return hand_on(&fields.value_set(&[])) };
        // Fields without a value are ignored.
        let mut values: [(&Field, Option<&dyn Value>); MOST_FIELDS] = [(&any, None); MOST_FIELDS];
        for (place, (field, text)) in values.iter_mut().zip(&self.0) {
            *place = (field, Some(text));
        }
        hand_on(&fields.value_set(&values));
    }

    fn push(&mut self, field: &Field, text: &str) {
        self.0.push((field.clone(), display(foreign::line(text).into_owned())));
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    use secrecy::SecretString;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::foreign::secrets;

    /// A sink that records what it gets.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<String>>);

    struct All<'a>(&'a Mutex<String>);

    impl Visit for All<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0.lock().unwrap(), "{field}={value:?};").unwrap();
        }
    }

    impl<S: Subscriber> Layer<S> for Sink {
        fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
            attributes.record(&mut All(&self.0));
        }

        fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
            values.record(&mut All(&self.0));
        }

        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            event.record(&mut All(&self.0));
        }
    }

    fn sunk(say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::registry().with(Clean(sink.clone()));
        tracing::subscriber::with_default(subscriber, say);
        std::mem::take(&mut sink.0.lock().unwrap())
    }

    #[test]
    fn message_and_fields_are_one_line_each() {
        let (said, next) = ("a\nb\u{1b}[2J", Some(tracing::field::display("1\r2")));
        let sunk =
            sunk(|| tracing::warn!(dbx_connection = said, dbx_next = next, dbx_none = None::<&str>, "x: {said}"));
        assert_eq!(sunk, "message=x: a\\nb\\u001b[2J;dbx_connection=a\\nb\\u001b[2J;dbx_next=1\\r2;");
    }

    #[test]
    fn values_of_spans_are_as_clean_as_those_of_events() {
        let sunk = sunk(|| {
            let span = tracing::error_span!("concerning", dbx_connection = "a\nb", later = tracing::field::Empty);
            span.record("later", "c\u{202e}d");
        });
        assert_eq!(sunk, "dbx_connection=a\\nb;later=c\\u202ed;");
    }

    #[test]
    fn no_secret_comes_through() {
        let secret = "a-marked-secret-of-the-clean-layer";
        secrets::keep(&SecretString::from(secret));
        let sunk = sunk(|| tracing::error!(dbx_subject = secret, dbx_debug = ?secret, "no: {secret}"));
        assert_eq!(sunk, "message=no: ********;dbx_subject=********;dbx_debug=\"********\";");
    }
}
