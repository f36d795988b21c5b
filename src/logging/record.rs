//! From events to lines: one record a line, whatever is in it.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime as _;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use super::writer::Queue;

/// Turns events into lines, and queues them.
pub(super) struct Lines {
    format: Format,
    queue: Queue,
}

impl Lines {
    pub fn new(format: Format, queue: Queue) -> Self {
        Self { format, queue }
    }
}

/// The keys of an event or a span, with their values.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    /// An error is told with its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.0.insert(field.name().into(), text.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        let spans = context.event_scope(event).into_iter();
        for span in spans.flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.0.extend(outer.0.clone());
            }
        }
        event.record(&mut fields);
        let line = line(self.format, event, fields.0);
        self.queue.put(line);
    }
}

fn line(format: Format, event: &Event<'_>, mut fields: Map<String, Value>) -> String {
    let mut time = String::new();
    let _ = tracing_subscriber::fmt::time::SystemTime.format_time(&mut Writer::new(&mut time));
    let level = super::word(*event.metadata().level());
    let target = event.metadata().target();
    let target = super::room(target).unwrap_or(target);
    let message = fields.remove("message").unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match format {
        Format::Json => {
            let fixed: [(&str, Value); 4] = [
                ("time", time.into()),
                ("level", level.into()),
                ("target", target.into()),
                ("message", text(&message).into()),
            ];
            let mut line = String::from("{");
            for (key, value) in &fixed {
                let _ = write!(line, "{}:{value},", Value::from(*key));
            }
            fields.retain(|key, _| fixed.iter().all(|(name, _)| name != key));
            for (key, value) in fields {
                let _ = write!(line, "{}:{value},", Value::from(key));
            }
            line.pop();
            line + "}"
        }
        Format::Text => {
            let mut line = format!("{time} {level} {target}: ");
            plain(&mut line, &text(&message));
            for (key, value) in &fields {
                let _ = write!(line, " {key}=");
                let value = text(value);
                let quoted = value.is_empty()
                    || value.contains(|c: char| c == '"' || c == '=' || c.is_whitespace());
                match quoted {
                    true => line.push_str(&format!("{value:?}")),
                    false => plain(&mut line, &value),
                }
            }
            line
        }
    }
}

/// Adds text with its control characters escaped: no line is forged, and no
/// terminal obeys.
fn plain(line: &mut String, text: &str) {
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::writer;
    use super::*;

    /// What is printed for some events, without their times.
    fn printed(format: Format) -> Vec<String> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let into = said.clone();
        let say = move |line: &str| into.lock().expect("no panic").push(line.to_string());
        let writer = writer::Writer::new(None, Box::new(say));
        let lines = Lines::new(format, writer.queue());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("connection", peer = "1.2.3.4:5");
            let _in = span.enter();
            tracing::warn!(target: "ninep", count = 3, "a \x1b[1m line\nand one");
            let error = io_error();
            tracing::error!(target: "elsewhere", error = &error as &dyn std::error::Error, level = "x y", "failed");
        });
        drop(writer);
        let said = said.lock().expect("no panic");
        said.clone()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    fn io_error() -> Outer {
        Outer(std::io::Error::other("in\"ner"))
    }

    #[test]
    fn a_record_is_a_line() {
        let printed = printed(Format::Text);
        let shown: Vec<&str> = printed
            .iter()
            .map(|line| line.split_once(' ').expect("a time").1)
            .collect();
        assert_eq!(
            shown,
            [
                "warning ninep: a \\u{1b}[1m line\\nand one count=3 peer=1.2.3.4:5",
                "error elsewhere: failed error=\"outer: in\\\"ner\" level=\"x y\" peer=1.2.3.4:5",
            ]
        );
        assert!(printed[0].starts_with("20") && printed[0].contains("Z warning"));
    }

    #[test]
    fn a_record_is_an_object() {
        let printed = printed(Format::Json);
        let objects: Vec<Value> = printed
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(objects[0]["message"], "a \u{1b}[1m line\nand one");
        assert_eq!(objects[0]["count"], 3);
        assert_eq!(objects[0]["target"], "ninep");
        assert_eq!(objects[1]["level"], "error");
        assert_eq!(objects[1]["error"], "outer: in\"ner");
        assert!(printed[0].starts_with(r#"{"time":"20"#), "{}", printed[0]);
    }
}
