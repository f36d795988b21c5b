//! What is counted of requests, found without a look-up by name.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::{Message, metrics};
use crate::ninep::message::Request;

/// The counts of one kind of request.
pub struct Counts {
    requests: Counter,
    errors: Counter,
    latency: Histogram,
}

static COUNTS: LazyLock<Vec<Counts>> = LazyLock::new(|| {
    let mut names = ["unknown"; 128];
    for (number, name) in Request::TYPES {
        names[usize::from(*number) / 2] = name;
    }
    let all = metrics();
    let counts = |message| {
        let label = Message { message };
        Counts {
            requests: all.requests.get_or_create(&label).clone(),
            errors: all.errors.get_or_create(&label).clone(),
            latency: all.latency.get_or_create(&label).clone(),
        }
    };
    names.into_iter().map(counts).collect()
});

/// Returns the counts of requests of this type.
pub fn counts(number: u8) -> &'static Counts {
    &COUNTS[usize::from(number) / 2]
}

impl Counts {
    pub fn asked(&self) {
        self.requests.inc();
    }

    /// `since`: when it came, unless it waited for something to happen.
    pub fn answered(&self, failed: bool, since: Option<Instant>) {
        if failed {
            self.errors.inc();
        }
        if let Some(since) = since {
            self.latency.observe(since.elapsed().as_secs_f64());
        }
    }
}
