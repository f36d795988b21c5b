//! Having GitHub tell what happens: webhooks of repositories and
//! organisations, and the deliveries that were missed.
//!
//! A hook is ours if it has our URL. It is made, or set right, once; its id and
//! the newest delivery that was looked at are noted, so that a restart asks only
//! what is new. A missed delivery is not believed to be the present state: it
//! makes its repository one that is read again. The secret is kept elsewhere.
//!
//! Source: docs.github.com/rest: repos/webhooks, orgs/webhooks.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::api::{Error, Event, Result};
use super::http::{Http, Of, PAGE, parse};
use super::notes::Notes;
use super::webhook::{self, Inbox};
use super::wire::{Delivered, Delivery, Hook, Numbered};
use crate::forge::Repo;
use crate::model::text::hex;

/// What is to be told of a repository.
const EVENTS: [&str; 9] = [
    "check_run",
    "check_suite",
    "create",
    "delete",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "push",
    "status",
];
/// And of an organisation.
const REPOSITORY: &str = "repository";

/// Hooks looked at, and deliveries fetched, at the same time.
const AT_ONCE: usize = 4;
/// Missed deliveries that are looked at one by one; beyond, what is older than
/// these is only read again.
const MISSED: usize = 500;

/// Where the notes of hooks lie.
const FOLDER: &str = ".hooks";

/// What is to have a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub repos: BTreeSet<Repo>,
    pub accounts: BTreeSet<String>,
    /// Goes up when all are to be looked at again.
    pub round: u64,
}

/// What is noted of a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    id: u64,
    /// Tells one secret from another, and no more.
    key: String,
    /// The newest delivery that was looked at.
    seen: u64,
}

/// The hooks of a bridge.
pub struct Hooks {
    http: Arc<Http>,
    notes: Arc<Notes>,
    inbox: Arc<Inbox>,
    /// Ends with `/`.
    url: String,
    secret: String,
}

impl Hooks {
    /// `url` is where GitHub finds the listener, and `secret` what it is to
    /// sign deliveries with.
    pub fn new(
        http: Arc<Http>,
        notes: Arc<Notes>,
        inbox: Arc<Inbox>,
        url: &str,
        secret: String,
    ) -> Self {
        Self {
            http,
            notes,
            inbox,
            url: format!("{}/", url.trim_end_matches('/')),
            secret,
        }
    }

    /// Takes care of the hooks of `places`, which may change, for ever.
    pub async fn run(&self, mut places: watch::Receiver<Places>) {
        let mut done = Places::default();
        loop {
            let now = places.borrow_and_update().clone();
            if now.round != done.round {
                done = Places::default();
            }
            self.settle(&now, &done).await;
            done = now;
            if places.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks at the hooks of `now` that are not in `done`.
    async fn settle(&self, now: &Places, done: &Places) {
        let before = self.notes.pending().len();
        let mut covered = BTreeSet::new();
        for account in &now.accounts {
            let is_done = done.accounts.contains(account);
            if is_done || self.one(Of::Account(account)).await {
                covered.insert(account.as_str());
            }
        }
        let new = now.repos.difference(&done.repos);
        let alone = new.filter(|repo| !covered.contains(repo.user()));
        let all = alone.map(|repo| self.one(Of::Repo(repo)));
        futures_util::stream::iter(all)
            .buffer_unordered(AT_ONCE)
            .for_each(|_| std::future::ready(()))
            .await;
        if self.notes.pending().len() > before {
            self.inbox.ring();
        }
    }

    /// Looks at one hook. `false`: there is none, and will be none.
    async fn one(&self, of: Of<'_>) -> bool {
        let looked = async {
            let mut note = self.ensure(of).await?;
            self.missed(of, &mut note).await?;
            self.note(of, &note);
            Ok::<_, Error>(())
        };
        match looked.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(target: "bridge", "no webhook for {}: {error}", name(of));
                false
            }
        }
    }

    fn place(of: Of<'_>) -> String {
        format!("{}/{FOLDER}/hook", name(of))
    }

    fn note(&self, of: Of<'_>, note: &Note) {
        if let Ok(text) = serde_json::to_string(note) {
            self.notes.set(&Self::place(of), text);
        }
    }

    /// Makes sure that there is a hook as it should be, and one only.
    async fn ensure(&self, of: Of<'_>) -> Result<Note> {
        let noted = self.notes.get(&Self::place(of));
        let noted: Option<Note> = noted.and_then(|text| serde_json::from_str(&text).ok());
        let url = format!("{}{}", self.url, name(of));
        let key = hex(&Sha256::digest(format!("dk hook {}", self.secret))[..8]);
        let base = base(of);
        let mut events: BTreeSet<&str> = EVENTS.into();
        if matches!(of, Of::Account(_)) {
            events.insert(REPOSITORY);
        }
        let all: Vec<Hook> = self
            .http
            .list(of, FOLDER, &format!("{base}?{PAGE}"))
            .await?;
        let ours = all
            .into_iter()
            .filter(|hook| hook.config.url.as_deref() == Some(&*url));
        let ours: Vec<Hook> = ours.collect();
        let right = |hook: &Hook| {
            let told: BTreeSet<&str> = hook.events.iter().map(String::as_str).collect();
            let json = hook.config.content_type.as_deref() == Some("json");
            let known = noted
                .as_ref()
                .filter(|note| note.id == hook.id && note.key == key);
            (hook.active && json && told == events)
                .then_some(known)?
                .cloned()
        };
        let (keep, known) = match ours.iter().find_map(|hook| Some((hook, right(hook)?))) {
            Some((hook, note)) => (Some(hook), Some(note)),
            None => (ours.first(), None),
        };
        for hook in &ours {
            if keep.is_none_or(|keep| keep.id != hook.id) {
                let path = format!("{base}/{}", hook.id);
                match self.http.change(of, Method::DELETE, &path, None).await {
                    Ok(_) | Err(Error::Missing(_)) => (),
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(note) = known {
            return Ok(note);
        }
        let mut body = json!({
            "active": true,
            "events": events,
            "config": {
                "url": url,
                "content_type": "json",
                "secret": self.secret,
                "insecure_ssl": "0",
            },
        });
        let (method, path) = match keep {
            Some(hook) => (Method::PATCH, format!("{base}/{}", hook.id)),
            None => {
                body["name"] = json!("web");
                (Method::POST, base)
            }
        };
        let made = self.http.change(of, method, &path, Some(&body)).await?;
        let id = parse::<Numbered>(&path, &made)?.id;
        let seen = noted
            .filter(|note| note.id == id)
            .map_or(0, |note| note.seen);
        let note = Note { id, key, seen };
        self.note(of, &note);
        Ok(note)
    }

    /// Takes in the deliveries that did not arrive since it was looked last.
    async fn missed(&self, of: Of<'_>, note: &mut Note) -> Result<()> {
        let base = format!("{}/{}/deliveries", base(of), note.id);
        let (mut newest, mut arrived) = (note.seen, BTreeSet::new());
        let mut lost: Vec<Delivery> = Vec::new();
        let take = |page: Vec<Delivery>| {
            for delivery in page {
                if delivery.id <= note.seen {
                    return ControlFlow::Break(());
                }
                newest = newest.max(delivery.id);
                match (200..300).contains(&delivery.status_code) {
                    true => _ = arrived.insert(delivery.guid.clone()),
                    false => lost.push(delivery),
                }
            }
            match lost.len() < MISSED {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let listed = format!("{base}?{PAGE}");
        self.http.pages(of, FOLDER, &listed, take).await?;
        lost.retain(|delivery| !arrived.contains(&delivery.guid));
        // Each try of one delivery is in the list.
        let mut seen = BTreeSet::new();
        lost.retain(|delivery| seen.insert(delivery.guid.clone()));
        // Of most it is enough to know that they were.
        let told = |delivery: &&Delivery| {
            let more = matches!(&*delivery.event, "check_run" | "check_suite" | REPOSITORY);
            more || matches!(of, Of::Account(_))
        };
        let fetch = lost.iter().rev().filter(told).map(|delivery| {
            let path = format!("{base}/{}", delivery.id);
            async move {
                let whole: Delivered = self.http.get(of, "", &path).await?;
                Ok::<_, Error>((delivery, whole))
            }
        });
        let mut fetched = futures_util::stream::iter(fetch).buffered(AT_ONCE);
        while let Some(whole) = fetched.next().await {
            let (delivery, whole) = match whole {
                // They are kept for three days.
                Err(Error::Missing(_)) => continue,
                whole => whole?,
            };
            let payload = whole.request.payload.to_string();
            let events = webhook::parse(&delivery.event, payload.as_bytes()).unwrap_or_default();
            let events = events.into_iter().map(Event::belated).collect();
            self.inbox.add(Some(&delivery.guid), events);
        }
        if let Of::Repo(repo) = of
            && lost.iter().any(|delivery| !told(&delivery))
        {
            self.inbox.add(None, vec![Event::Again(repo.clone())]);
        }
        if !lost.is_empty() {
            let count = lost.len();
            tracing::info!(target: "bridge", "{}: {count} deliveries were missed", name(of));
        }
        note.seen = newest;
        Ok(())
    }
}

fn name(of: Of<'_>) -> String {
    match of {
        Of::Repo(repo) => repo.to_string(),
        Of::Account(account) => account.to_owned(),
    }
}

fn base(of: Of<'_>) -> String {
    match of {
        Of::Repo(repo) => format!("/repos/{repo}/hooks"),
        Of::Account(account) => format!("/orgs/{account}/hooks"),
    }
}

/// How long a secret is, in bytes.
const SECRET: usize = 20;

/// Makes a secret from so many random bytes.
pub fn secret(random: [u8; SECRET]) -> String {
    format!("datakit:{}", hex(&random))
}

/// How long GitHub waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
