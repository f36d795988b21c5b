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

/// How a call of GitHub's API ended: `ok`, `unchanged` (which costs nothing),
/// `refused` or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    pub result: &'static str,
}

/// What became of a webhook's delivery: `ok`, `refused`, or `full`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Delivery {
    pub result: &'static str,
}

/// A repository of a forge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Repository {
    pub repository: String,
}

/// Everything that is counted.
pub struct Metrics {
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
    /// Repositories a bridge follows and can read.
    pub bridge_repositories: Gauge,
    /// 1 for each repository a bridge cannot read now.
    pub bridge_unread: Family<Repository, Gauge>,
    pub bridge_syncs: Counter,
    pub bridge_sync_failures: Counter,
    /// What the forge was told, and of that, what it did not take.
    pub bridge_pushes: Counter,
    pub bridge_refused: Counter,
    pub bridge_deliveries: Family<Delivery, Counter>,
    pub github_calls: Family<Call, Counter>,
    /// Calls that are left until GitHub fills the budget again.
    pub github_budget: Gauge,
}

/// Returns the counts of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        Self {
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
            bridge_repositories: Gauge::default(),
            bridge_unread: Family::default(),
            bridge_syncs: Counter::default(),
            bridge_sync_failures: Counter::default(),
            bridge_pushes: Counter::default(),
            bridge_refused: Counter::default(),
            bridge_deliveries: Family::default(),
            github_calls: Family::default(),
            github_budget: Gauge::default(),
        }
    }

    fn register(&self, set: &mut Registry) {
        set.register(
            "connections",
            "Connections open now",
            self.connections.clone(),
        );
        set.register("connected", "Connections accepted", self.connected.clone());
        set.register("fids", "Nodes that clients hold now", self.fids.clone());
        set.register("streams", "Streams open now", self.streams.clone());
        set.register(
            "transactions",
            "Transactions of connections open now",
            self.transactions.clone(),
        );
        set.register("requests", "Requests by message", self.requests.clone());
        set.register(
            "errors",
            "Requests that failed, by message",
            self.errors.clone(),
        );
        set.register_with_unit(
            "request_latency",
            "From a request to its answer, waiting for events left out",
            Unit::Seconds,
            self.latency.clone(),
        );
        set.register(
            "commits",
            "Times a commit or a merge moved a branch",
            self.commits.clone(),
        );
        set.register("merges", "Merges computed", self.merges.clone());
        set.register(
            "conflicts",
            "Merges that found conflicts",
            self.conflicts.clone(),
        );
        set.register("fsyncs", "Files and folders synced", self.fsyncs.clone());
        set.register(
            "cache_hits",
            "Trees found in memory",
            self.cache_hits.clone(),
        );
        set.register(
            "cache_misses",
            "Trees read from the store",
            self.cache_misses.clone(),
        );
        set.register("pushes", "Pushes that ran", self.pushes.clone());
        set.register(
            "push_failures",
            "Pushes that failed",
            self.push_failures.clone(),
        );
        set.register_with_unit(
            "push",
            "Time spent pushing",
            Unit::Seconds,
            self.push_seconds.clone(),
        );
        self.ci.register(set);
        self.register_bridge(set);
    }

    fn register_bridge(&self, set: &mut Registry) {
        set.register(
            "bridge_repositories",
            "Repositories that are followed and can be read",
            self.bridge_repositories.clone(),
        );
        set.register(
            "bridge_unread",
            "1 for each repository that cannot be read now",
            self.bridge_unread.clone(),
        );
        set.register("bridge_syncs", "Syncs", self.bridge_syncs.clone());
        set.register(
            "bridge_sync_failures",
            "Syncs that failed as a whole",
            self.bridge_sync_failures.clone(),
        );
        set.register(
            "bridge_pushes",
            "Changes that the forge was told",
            self.bridge_pushes.clone(),
        );
        set.register(
            "bridge_refused",
            "Changes that the forge did not take",
            self.bridge_refused.clone(),
        );
        set.register(
            "bridge_deliveries",
            "Deliveries of webhooks, by what became of them",
            self.bridge_deliveries.clone(),
        );
        set.register(
            "github_calls",
            "Calls of GitHub's API, by how they ended",
            self.github_calls.clone(),
        );
        set.register(
            "github_budget",
            "Calls that are left until GitHub fills the budget again",
            self.github_budget.clone(),
        );
    }

    /// Returns them in OpenMetrics' text format.
    pub fn text(&self) -> String {
        // Named here and not before: who never tells them pays next to nothing.
        let mut set = Registry::with_prefix("datakit");
        self.register(&mut set);
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &set) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}
