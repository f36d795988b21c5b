//! What the CI counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which kind of target: `branch`, `tag` or `pr`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Type {
    pub r#type: &'static str,
}

/// See the fields of [`super::Metrics`].
#[derive(Default)]
pub struct Ci {
    targets: Family<Type, Gauge>,
    /// Targets evaluated.
    pub evaluations: Counter,
    /// Statuses written.
    pub statuses: Counter,
    pub failed_rounds: Counter,
    pub builds_started: Counter,
    pub builds_succeeded: Counter,
    pub builds_failed: Counter,
    /// Builds that run or wait for their turn.
    pub builds_running: Gauge,
    /// Of the pages.
    pub web_requests: Counter,
    /// Answers that say something is wrong here.
    pub web_errors: Counter,
    pub web_logins: Counter,
    pub web_logins_rejected: Counter,
}

impl Ci {
    pub(super) fn register(&self, set: &mut Registry) {
        let set = set.sub_registry_with_prefix("ci");
        set.register(
            "targets",
            "Targets that are tested, by type",
            self.targets.clone(),
        );
        set.register("evaluations", "Targets evaluated", self.evaluations.clone());
        set.register("status_updates", "Statuses written", self.statuses.clone());
        set.register(
            "failed_rounds",
            "Rounds that failed and were tried again",
            self.failed_rounds.clone(),
        );
        set.register(
            "builds_started",
            "Builds started",
            self.builds_started.clone(),
        );
        set.register(
            "builds_succeeded",
            "Builds that succeeded",
            self.builds_succeeded.clone(),
        );
        set.register(
            "builds_failed",
            "Builds that failed or were cancelled",
            self.builds_failed.clone(),
        );
        set.register(
            "builds_in_progress",
            "Builds that run or wait for their turn",
            self.builds_running.clone(),
        );
        set.register(
            "web_requests",
            "Requests to the pages",
            self.web_requests.clone(),
        );
        set.register(
            "web_errors",
            "Answers of 500 and more",
            self.web_errors.clone(),
        );
        set.register(
            "web_logins",
            "Logins that were right",
            self.web_logins.clone(),
        );
        set.register(
            "web_logins_rejected",
            "Logins that were not",
            self.web_logins_rejected.clone(),
        );
    }

    /// How many targets of a type there are.
    pub fn targets(&self, r#type: &'static str) -> Gauge {
        self.targets.get_or_create(&Type { r#type }).clone()
    }
}
