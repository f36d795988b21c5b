//! What GitHub lets one token do, and for how long nothing at all.
//!
//! Source: docs.github.com/rest, its page on rate limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long to be quiet after a secondary limit that names no time: twice as
/// long each time.
const QUIET: Duration = Duration::from_secs(60);
/// Nothing GitHub asks for is longer.
const LONGEST_QUIET: Duration = Duration::from_secs(3700);

/// What is left of the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    /// Seconds since 1970 when it is filled again.
    pub reset: Option<u64>,
}

/// The budget of one token.
#[derive(Default)]
pub(super) struct Limits {
    pub budget: Budget,
    /// Nothing is sent before.
    blocked: Option<Instant>,
    /// Secondary limits met in a row.
    met: u32,
}

impl Limits {
    /// Returns how long nothing may be sent, if so.
    pub fn wait(&self) -> Option<Duration> {
        let left = self.blocked?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Notes what an answer says of it.
    pub fn note(&mut self, status: StatusCode, headers: &HeaderMap, body: &str) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        if let Some(remaining) = number("x-ratelimit-remaining") {
            self.budget = Budget {
                limit: number("x-ratelimit-limit"),
                remaining: Some(remaining),
                reset: number("x-ratelimit-reset"),
            };
        }
        let budget = self.budget;
        let exhausted = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
            let reset = budget.reset?;
            (budget.remaining == Some(0))
                .then(|| Duration::from_secs(reset.saturating_sub(now) + 1))
        };
        let refused = matches!(
            status,
            StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        );
        let after = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
        let secondary = status == StatusCode::TOO_MANY_REQUESTS
            || (refused && body.contains("secondary rate limit"));
        let pause = match (refused, after) {
            (true, Some(after)) => Some(after),
            (true, None) => exhausted().or_else(|| {
                let twice = 1 << self.met.min(6);
                secondary.then(|| QUIET * twice)
            }),
            (false, _) => exhausted(),
        };
        self.met = match secondary {
            true => self.met + 1,
            false if status.is_success() => 0,
            false => self.met,
        };
        if let Some(pause) = pause {
            self.blocked = Some(Instant::now() + pause.min(LONGEST_QUIET));
        }
    }
}
