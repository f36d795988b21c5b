//! What GitHub tells by itself: a listener that believes only what is signed.
//!
//! An event that was answered is kept until the sync that used it was
//! committed; one that comes twice counts once. There is room for so many:
//! beyond, GitHub is told to come back, and its list of deliveries has it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use tokio::sync::Notify;

use super::api::Event;
use super::wire::{self, Pull, Repository};
use crate::forge::context;
use crate::metrics::metrics;

/// The longest payload GitHub sends.
const LONGEST: usize = 25 << 20;
/// Events that wait to be synchronised.
const WAITING: usize = 10_000;
/// Deliveries remembered, so that none counts twice.
const REMEMBERED: usize = 10_000;

/// The events that came and were not used up yet.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    seen: HashSet<String>,
    order: VecDeque<String>,
    /// Somebody rang, without an event.
    rung: bool,
}

impl Inbox {
    fn state(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is there, and leaves it there.
    pub fn events(&self) -> Vec<Event> {
        let state = &mut *self.state();
        state.rung = false;
        state.events.iter().cloned().collect()
    }

    /// Wakes whoever waits, with nothing to tell.
    pub fn ring(&self) {
        self.state().rung = true;
        self.bell.notify_waiters();
    }

    /// Takes away the first so many, which have been committed.
    pub fn used(&self, count: usize) {
        let events = &mut self.state().events;
        let count = count.min(events.len());
        events.drain(..count);
    }

    /// Waits until something is there.
    pub async fn filled(&self) {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            // From here on it is heard.
            bell.as_mut().enable();
            let ready = {
                let state = &*self.state();
                state.rung || !state.events.is_empty()
            };
            if ready {
                return;
            }
            bell.await;
        }
    }

    /// Adds what one delivery told. `false`: there is no room.
    pub(super) fn add(&self, delivery: Option<&str>, events: Vec<Event>) -> bool {
        let state = &mut *self.state();
        if let Some(delivery) = delivery
            && state.seen.contains(delivery)
        {
            return true;
        }
        if state.events.len() + events.len() > WAITING {
            return false;
        }
        if let Some(delivery) = delivery {
            state.seen.insert(delivery.into());
            state.order.push_back(delivery.into());
            if state.order.len() > REMEMBERED
                && let Some(oldest) = state.order.pop_front()
            {
                state.seen.remove(&oldest);
            }
        }
        if !events.is_empty() {
            state.events.extend(events);
            self.bell.notify_waiters();
        }
        true
    }
}

/// What the listener knows.
struct Door {
    secret: String,
    inbox: Arc<Inbox>,
}

/// Returns what answers GitHub's deliveries, signed with `secret`, on any path.
pub fn router(secret: String, inbox: Arc<Inbox>) -> Router {
    let door = Arc::new(Door { secret, inbox });
    Router::new().fallback(deliver).with_state(door)
}

async fn deliver(
    State(door): State<Arc<Door>>,
    request: Request<Body>,
) -> (StatusCode, &'static str) {
    let (parts, body) = request.into_parts();
    if parts.method != axum::http::Method::POST {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            "405: deliveries are posted\n",
        );
    }
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            "413: too long for a delivery\n",
        );
    };
    let header = |name: &str| text(&parts.headers, name);
    let count = |result| {
        let label = crate::metrics::Delivery { result };
        metrics().bridge_deliveries.get_or_create(&label).inc();
    };
    if !is_signed(&door.secret, &body, header("x-hub-signature-256")) {
        count("refused");
        return (
            StatusCode::FORBIDDEN,
            "403: Forbidden (Request verification failure)\n",
        );
    }
    let events = match parse(header("x-github-event").unwrap_or_default(), &body) {
        Ok(events) => events,
        Err(error) => {
            tracing::warn!(target: "bridge", "a delivery is not understood: {error}");
            count("refused");
            return (StatusCode::BAD_REQUEST, "400: not understood\n");
        }
    };
    match door.inbox.add(header("x-github-delivery"), events) {
        true => {
            count("ok");
            (StatusCode::NO_CONTENT, "")
        }
        false => {
            count("full");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "503: too much is waiting\n",
            )
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Tells, in the same time for every wrong signature, whether it is right.
fn is_signed(secret: &str, body: &[u8], signature: Option<&str>) -> bool {
    let Some(hex) = signature.and_then(|signature| signature.strip_prefix("sha256=")) else {
        return false;
    };
    let digits = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let Some(signature) = digits.collect::<Option<Vec<u8>>>() else {
        return false;
    };
    // A key may have any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(&signature).is_ok()
}

#[derive(Deserialize)]
struct PullRequest {
    number: u64,
    pull_request: Pull,
    repository: Repository,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    name: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    head_commit: Option<Commit>,
    repository: Repository,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
}

#[derive(Deserialize)]
struct StatusEvent {
    sha: String,
    repository: Repository,
    #[serde(flatten)]
    status: wire::Status,
}

#[derive(Deserialize)]
struct Delete {
    #[serde(rename = "ref")]
    name: String,
    ref_type: String,
    repository: Repository,
}

/// Something about an issue; pull requests are issues too.
#[derive(Deserialize)]
struct IssueEvent {
    issue: Issue,
    repository: Repository,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    pull_request: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ReviewEvent {
    pull_request: Bare,
    repository: Repository,
}

#[derive(Deserialize)]
struct Bare {
    number: u64,
}

#[derive(Deserialize)]
struct CheckRunEvent {
    action: String,
    check_run: CheckRun,
    repository: Repository,
}

#[derive(Deserialize)]
struct CheckRun {
    head_sha: String,
    name: String,
    external_id: Option<String>,
}

#[derive(Deserialize)]
struct CheckSuiteEvent {
    action: String,
    check_suite: CheckSuite,
    repository: Repository,
}

#[derive(Deserialize)]
struct CheckSuite {
    head_sha: String,
}

#[derive(Deserialize)]
struct RepositoryEvent {
    repository: Owned,
}

#[derive(Deserialize)]
struct Owned {
    owner: wire::User,
}

#[derive(Deserialize)]
struct InstallationEvent {
    installation: Installation,
}

#[derive(Deserialize)]
struct Installation {
    account: wire::User,
}

/// What somebody asks for with a button.
const AGAIN: &str = "rerequested";

/// Returns what a delivery tells; nothing for kinds that do not matter.
pub fn parse(kind: &str, body: &[u8]) -> serde_json::Result<Vec<Event>> {
    let of = |repository: &Repository| repository.repo();
    Ok(match kind {
        "pull_request" => {
            let told: PullRequest = serde_json::from_slice(body)?;
            let pr = told.pull_request.read();
            let event = |repo| Event::Pr(repo, told.number, pr);
            of(&told.repository).map(event).into_iter().collect()
        }
        "push" => {
            let told: Push = serde_json::from_slice(body)?;
            let gone = told.deleted || told.after.bytes().all(|digit| digit == b'0');
            // Of an annotated tag `after` is the tag itself.
            let head = told.head_commit.map_or(told.after, |commit| commit.id);
            let named = of(&told.repository).zip(wire::ref_name(&told.name));
            let event = |(repo, name)| Event::Ref(repo, name, (!gone).then_some(head));
            named.map(event).into_iter().collect()
        }
        "delete" => {
            let told: Delete = serde_json::from_slice(body)?;
            let folder = if told.ref_type == "tag" {
                "tags"
            } else {
                "heads"
            };
            let name = wire::ref_name(&format!("refs/{folder}/{}", told.name));
            let named = of(&told.repository).zip(name);
            named
                .map(|(repo, name)| Event::Ref(repo, name, None))
                .into_iter()
                .collect()
        }
        "status" => {
            let told: StatusEvent = serde_json::from_slice(body)?;
            let named = of(&told.repository).zip(told.status.read());
            let event = |(repo, (context, status))| Event::Status(repo, told.sha, context, status);
            named.map(event).into_iter().collect()
        }
        "issue_comment" => {
            let told: IssueEvent = serde_json::from_slice(body)?;
            let is_pull = told.issue.pull_request.is_some();
            let repo = of(&told.repository).filter(|_| is_pull);
            repo.map(|repo| Event::Look(repo, told.issue.number))
                .into_iter()
                .collect()
        }
        "pull_request_review" => {
            let told: ReviewEvent = serde_json::from_slice(body)?;
            let event = |repo| Event::Look(repo, told.pull_request.number);
            of(&told.repository).map(event).into_iter().collect()
        }
        "check_run" => {
            let told: CheckRunEvent = serde_json::from_slice(body)?;
            let run = told.check_run;
            let name = run
                .external_id
                .filter(|id| !id.is_empty())
                .unwrap_or(run.name);
            let repo = of(&told.repository).filter(|_| told.action == AGAIN);
            let named = repo.zip(context(&name));
            let event = |(repo, context)| Event::Rebuild(repo, run.head_sha, Some(context));
            named.map(event).into_iter().collect()
        }
        "check_suite" => {
            let told: CheckSuiteEvent = serde_json::from_slice(body)?;
            let repo = of(&told.repository).filter(|_| told.action == AGAIN);
            let event = |repo| Event::Rebuild(repo, told.check_suite.head_sha, None);
            repo.map(event).into_iter().collect()
        }
        "repository" => {
            let told: RepositoryEvent = serde_json::from_slice(body)?;
            vec![Event::Account(told.repository.owner.login)]
        }
        "installation" | "installation_repositories" => {
            let told: InstallationEvent = serde_json::from_slice(body)?;
            vec![Event::Account(told.installation.account.login)]
        }
        _ => {
            // Whatever it is, it has to be JSON.
            serde_json::from_slice::<serde::de::IgnoredAny>(body)?;
            Vec::new()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_signed_is_believed() {
        // The example of GitHub's documentation.
        let (secret, body) = ("It's a Secret to Everybody", b"Hello, World!");
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(is_signed(secret, body, Some(right)));
        for wrong in [
            None,
            Some(""),
            Some("sha256="),
            Some("sha256=zz"),
            Some(&right[..right.len() - 2]),
            Some(&right.replace('7', "8")),
            Some(&right[7..]),
        ] {
            assert!(!is_signed(secret, body, wrong), "{wrong:?}");
        }
        assert!(!is_signed("other", body, Some(right)));
    }

    #[test]
    fn a_delivery_counts_once_and_there_is_an_end_to_room() {
        let inbox = Inbox::default();
        let repo: crate::forge::Repo = "a/b".parse().expect("legal");
        let event = || Event::Look(repo.clone(), 1);
        assert!(inbox.add(Some("1"), vec![event()]));
        assert!(inbox.add(Some("1"), vec![event()]));
        assert_eq!(inbox.events().len(), 1);
        assert!(!inbox.add(
            Some("2"),
            std::iter::repeat_with(event).take(WAITING).collect()
        ));
        inbox.used(1);
        assert!(inbox.add(
            Some("2"),
            std::iter::repeat_with(event).take(WAITING).collect()
        ));
    }
}
