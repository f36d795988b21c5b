//! What the program counts about itself, as Prometheus reads it.
//!
//! One set a process; counting never waits and never fails. The names are
//! documented in dk-serve(1).

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

mod ci;

pub use ci::Ci;

/// Which 9P message: `walk`, `read`, …
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Message {
    pub message: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    /// Connections open now, and since the start.
    pub connections: Gauge,
    pub connected: Counter,
    /// Nodes clients hold now.
    pub fids: Gauge,
    /// Streams open now.
    pub streams: Gauge,
    /// Volatile transactions open now.
    pub transactions: Gauge,
    pub requests: Family<Message, Counter>,
    /// Requests that failed.
    pub errors: Family<Message, Counter>,
    /// Seconds from a request's arrival to its answer, those that wait for
    /// something to happen left out.
    pub latency: Family<Message, Histogram>,
    pub commits: Counter,
    pub merges: Counter,
    pub conflicts: Counter,
    pub fsyncs: Counter,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub pushes: Counter,
    pub push_failures: Counter,
    pub push_seconds: Counter<f64, AtomicU64>,
    pub ci: Ci,
}

/// Returns the counts of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let mut made = Self {
            registry: Registry::with_prefix("datakit"),
            connections: Gauge::default(),
            connected: Counter::default(),
            fids: Gauge::default(),
            streams: Gauge::default(),
            transactions: Gauge::default(),
            requests: Family::default(),
            errors: Family::default(),
            latency: Family::new_with_constructor(|| {
                Histogram::new([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
            }),
            commits: Counter::default(),
            merges: Counter::default(),
            conflicts: Counter::default(),
            fsyncs: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            pushes: Counter::default(),
            push_failures: Counter::default(),
            push_seconds: Counter::default(),
            ci: Ci::default(),
        };
        let set = &mut made.registry;
        set.register(
            "connections",
            "Connections open now",
            made.connections.clone(),
        );
        set.register("connected", "Connections accepted", made.connected.clone());
        set.register("fids", "Nodes that clients hold now", made.fids.clone());
        set.register("streams", "Streams open now", made.streams.clone());
        set.register(
            "transactions",
            "Transactions of connections open now",
            made.transactions.clone(),
        );
        set.register("requests", "Requests by message", made.requests.clone());
        set.register(
            "errors",
            "Requests that failed, by message",
            made.errors.clone(),
        );
        set.register_with_unit(
            "request_latency",
            "From a request to its answer, waiting for events left out",
            Unit::Seconds,
            made.latency.clone(),
        );
        set.register(
            "commits",
            "Times a commit or a merge moved a branch",
            made.commits.clone(),
        );
        set.register("merges", "Merges computed", made.merges.clone());
        set.register(
            "conflicts",
            "Merges that found conflicts",
            made.conflicts.clone(),
        );
        set.register("fsyncs", "Files and folders synced", made.fsyncs.clone());
        set.register(
            "cache_hits",
            "Trees found in memory",
            made.cache_hits.clone(),
        );
        set.register(
            "cache_misses",
            "Trees read from the store",
            made.cache_misses.clone(),
        );
        set.register("pushes", "Pushes that ran", made.pushes.clone());
        set.register(
            "push_failures",
            "Pushes that failed",
            made.push_failures.clone(),
        );
        set.register_with_unit(
            "push",
            "Time spent pushing",
            Unit::Seconds,
            made.push_seconds.clone(),
        );
        made.ci.register(set);
        made
    }

    /// Returns them in OpenMetrics' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}
