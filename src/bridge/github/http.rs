//! GitHub's REST API as HTTP: pages, ETags, limits. What is asked for is in
//! [`super::rest`].
//!
//! - Every listing is read to its last page, or the call fails.
//! - What was read is noted with its ETag: asking again costs nothing where
//!   nothing changed, after a restart too.
//! - Limits are obeyed: an exhausted budget fails calls without sending them
//!   until it is filled again; changes are sent one at a time, spaced.
//!
//! Sources: docs.github.com/rest, its pages on pagination, on conditional
//! requests and on rate limits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH, LINK};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::api::{Error, Result};
use super::auth::Auth;
use super::notes::Notes;
use crate::forge::Repo;
use crate::metrics::{Call, metrics};
use crate::model::text::{chain, hex};

mod limits;

pub use limits::Budget;
use limits::Limits;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const LONGEST: usize = 32 << 20;
/// Pages of one listing; beyond, something is wrong.
const PAGES: usize = 1000;
/// Asks for pages as long as there are.
pub(super) const PAGE: &str = "per_page=100";
/// And so many are on one.
pub(super) const PER_PAGE: usize = 100;

/// How GitHub is talked to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://api.github.com`, or that of an enterprise server.
    pub url: String,
    /// Between two changes.
    pub spacing: Duration,
    /// Moves refs where that is no fast-forward.
    pub force_refs: bool,
}

/// What a call is about, which decides the token.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    Repo(&'a Repo),
    Account(&'a str),
}

impl Of<'_> {
    /// The user or organisation.
    pub fn account(&self) -> &str {
        match self {
            Self::Repo(repo) => repo.user(),
            Self::Account(account) => account,
        }
    }

    /// Where what it is about lies in the API, and in the notes.
    fn place(&self) -> String {
        match self {
            Self::Repo(repo) => repo.to_string(),
            Self::Account(account) => (*account).to_owned(),
        }
    }
}

/// GitHub over HTTP.
pub struct Http {
    pub(super) client: reqwest::Client,
    pub(super) settings: Settings,
    pub(super) auth: Auth,
    notes: Arc<Notes>,
    state: Mutex<State>,
    /// One change at a time, with a pause after each.
    turn: tokio::sync::Semaphore,
}

#[derive(Default)]
struct State {
    /// A budget each token: an App has one for each account.
    budgets: BTreeMap<String, Limits>,
    last_change: Option<Instant>,
    /// Notes that were asked for since their repository was begun.
    used: BTreeSet<String>,
}

/// An answer worth keeping: a line that says of what, then the answer.
#[derive(Serialize, Deserialize)]
struct Kept {
    url: String,
    etag: String,
    /// The next page, where there is one.
    next: Option<String>,
    /// The number of the last page, where it is told.
    #[serde(default)]
    last: Option<usize>,
}

/// A part of a listing.
struct Page<T> {
    value: T,
    next: Option<String>,
    last: Option<usize>,
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Http {
    /// `notes` has what was noted before a restart.
    pub fn new(mut settings: Settings, auth: Auth, notes: Arc<Notes>) -> Result<Self> {
        crate::tls::provide();
        settings
            .url
            .truncate(settings.url.trim_end_matches('/').len());
        let client = reqwest::Client::builder()
            .user_agent(concat!("dk/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()
            .map_err(|error| Error::Unreachable(chain(&error)))?;
        Ok(Self {
            client,
            settings,
            auth,
            notes,
            state: Mutex::default(),
            turn: tokio::sync::Semaphore::new(1),
        })
    }

    /// Returns the budget of which least is left.
    pub fn budget(&self) -> Budget {
        let state = self.state();
        let known = state.budgets.values().map(|limits| limits.budget);
        let known = known.filter(|budget| budget.remaining.is_some());
        known
            .min_by_key(|budget| budget.remaining)
            .unwrap_or_default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose budget a call uses.
    fn payer(&self, of: Of<'_>) -> String {
        match self.auth {
            Auth::App(_) => of.account().to_ascii_lowercase(),
            Auth::Anonymous | Auth::Token(_) => String::new(),
        }
    }

    pub(super) fn begin_reading(&self, repo: &Repo) {
        let (from, to) = (format!("{repo}/.http/"), format!("{repo}/.http0"));
        let range = (Bound::Included(from), Bound::Excluded(to));
        let used = &mut self.state().used;
        let old: Vec<String> = used.range::<String, _>(range).cloned().collect();
        old.iter().for_each(|path| _ = used.remove(path));
    }

    pub(super) fn finish_reading(&self, repo: &Repo) {
        for (path, _) in self.notes.below(&format!("{repo}/.http")) {
            if !self.state().used.contains(&path) {
                self.notes.remove(&path);
            }
        }
    }

    /// Sends one request and reads its whole answer.
    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        of: Of<'_>,
    ) -> Result<Answer> {
        let payer = self.payer(of);
        if let Some(left) = self.wait(&payer) {
            return Err(Error::Limited(left));
        }
        let answer = self.send_as(&method, url, body, etag, of).await?;
        let answer = match answer.status {
            // An App's token may have been taken back before its time.
            StatusCode::UNAUTHORIZED if self.auth.forget(of) => {
                self.send_as(&method, url, body, etag, of).await?
            }
            _ => answer,
        };
        self.account(&payer, &answer);
        match answer.status {
            StatusCode::NOT_MODIFIED => Ok(answer),
            status if status.is_success() => Ok(answer),
            _ => Err(self.failure(&payer, url, &answer)),
        }
    }

    async fn send_as(
        &self,
        method: &Method,
        url: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        of: Of<'_>,
    ) -> Result<Answer> {
        let token = self
            .auth
            .token(&self.client, &self.settings.url, of)
            .await?;
        let mut request = self
            .client
            .request(method.clone(), url)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(body) = body {
            let body = body.to_string();
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let failed = |error: reqwest::Error| {
            count("failed");
            Error::Unreachable(chain(&error.without_url()))
        };
        let mut answer = request.send().await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Error::Unreachable("an answer is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        count(match status {
            StatusCode::NOT_MODIFIED => "unchanged",
            status if status.is_success() => "ok",
            status if status.is_server_error() => "failed",
            _ => "refused",
        });
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Returns how long a token may do nothing, if so.
    fn wait(&self, payer: &str) -> Option<Duration> {
        self.state().budgets.get(payer)?.wait()
    }

    /// Notes what an answer says of the budget.
    fn account(&self, payer: &str, answer: &Answer) {
        let state = &mut *self.state();
        let limits = state.budgets.entry(payer.into()).or_default();
        limits.note(answer.status, &answer.headers, &answer.body);
        if let Some(left) = limits.budget.remaining {
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            metrics().github_budget.set(left);
        }
    }

    fn failure(&self, payer: &str, url: &str, answer: &Answer) -> Error {
        let status = answer.status;
        let path = url.strip_prefix(&self.settings.url).unwrap_or(url);
        let what = match message(&answer.body) {
            said if said.is_empty() => format!("{path}: {status}"),
            said => format!("{path}: {status}: {said}"),
        };
        match status.as_u16() {
            404 | 410 | 451 => Error::Missing(what),
            401 => Error::Forbidden(what),
            403 | 429 => match self.wait(payer) {
                Some(left) => Error::Limited(left),
                None => Error::Forbidden(what),
            },
            408 => Error::Unreachable(what),
            400..=499 => Error::Rejected(what),
            _ => Error::Unreachable(what),
        }
    }

    /// Reads one page, from the notes where it has not changed. `folder` is
    /// where it is noted; the empty one, nowhere.
    async fn page<T: Serialize + DeserializeOwned>(
        &self,
        of: Of<'_>,
        folder: &str,
        url: &str,
    ) -> Result<Page<T>> {
        let name = hex(&Sha256::digest(url)[..16]);
        let note = format!("{}/{folder}/{name}", of.place());
        self.state().used.insert(note.clone());
        let known = self.notes.get(&note).and_then(|text| {
            let (head, body) = text.split_once('\n')?;
            let kept: Kept = serde_json::from_str(head).ok()?;
            let value: T = serde_json::from_str(body).ok()?;
            (kept.url == url).then_some((kept, value))
        });
        let etag = known.as_ref().map(|(kept, _)| kept.etag.as_str());
        let answer = self.send(Method::GET, url, None, etag, of).await?;
        if answer.status == StatusCode::NOT_MODIFIED
            && let Some((kept, value)) = known
        {
            let Kept { next, last, .. } = kept;
            return Ok(Page { value, next, last });
        }
        let header = |name| answer.headers.get(name)?.to_str().ok();
        // A token goes nowhere else, whatever an answer says.
        let here = |next: &String| next.starts_with(&format!("{}/", self.settings.url));
        let next = header(LINK).and_then(|link| linked(link, "next"));
        let next = next.filter(here);
        let last = header(LINK).and_then(|link| linked(link, "last"));
        let last = last.as_deref().and_then(page_number);
        let value: T = parse(url, &answer.body)?;
        let kept = header(ETAG).map(|etag| Kept {
            url: url.into(),
            etag: etag.into(),
            next: next.clone(),
            last,
        });
        let text = kept.and_then(|kept| {
            let head = serde_json::to_string(&kept).ok()?;
            let body = serde_json::to_string(&value).ok()?;
            Some(format!("{head}\n{body}"))
        });
        match text {
            // A page at a cursor is not asked for again.
            Some(text) if !folder.is_empty() && !url.contains("cursor=") => {
                self.notes.set(&note, text);
            }
            _ => self.notes.remove(&note),
        }
        Ok(Page { value, next, last })
    }

    /// `path` begins with `/`.
    pub(super) async fn get<T: Serialize + DeserializeOwned>(
        &self,
        of: Of<'_>,
        folder: &str,
        path: &str,
    ) -> Result<T> {
        let url = format!("{}{path}", self.settings.url);
        self.page(of, folder, &url).await.map(|page| page.value)
    }

    /// Reads all pages, of [`PAGE`] where `path` says so, and gives each to
    /// `take`, which may have had enough.
    pub(super) async fn pages<T: Serialize + DeserializeOwned>(
        &self,
        of: Of<'_>,
        folder: &str,
        path: &str,
        mut take: impl FnMut(T) -> std::ops::ControlFlow<()>,
    ) -> Result<()> {
        let mut url = format!("{}{path}", self.settings.url);
        for _ in 0..PAGES {
            let page = self.page(of, folder, &url).await?;
            if take(page.value).is_break() {
                return Ok(());
            }
            match page.next {
                Some(next) => url = next,
                None => return Ok(()),
            }
        }
        Err(Error::Unreachable(format!(
            "{path}: the listing does not end"
        )))
    }

    /// Reads all pages of a listing.
    pub(super) async fn list<T: Serialize + DeserializeOwned>(
        &self,
        of: Of<'_>,
        folder: &str,
        path: &str,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let take = |page: Vec<T>| {
            found.extend(page);
            std::ops::ControlFlow::Continue(())
        };
        self.pages(of, folder, path, take).await?;
        Ok(found)
    }

    /// Reads all pages of a listing that has at most so many, which its first
    /// page tells; nothing where it has more.
    pub(super) async fn list_short<T: Serialize + DeserializeOwned>(
        &self,
        of: Of<'_>,
        folder: &str,
        path: &str,
        most: usize,
    ) -> Result<Option<Vec<T>>> {
        let mut url = format!("{}{path}", self.settings.url);
        let mut found = Vec::new();
        for _ in 0..most {
            let page: Page<Vec<T>> = self.page(of, folder, &url).await?;
            if page.last.is_some_and(|last| last > most) {
                return Ok(None);
            }
            found.extend(page.value);
            match page.next {
                Some(next) => url = next,
                None => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// Sends a change, in its turn. Returns the body of the answer.
    pub(super) async fn change(
        &self,
        of: Of<'_>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String> {
        let closed = |_| Error::Unreachable("the bridge is ending".into());
        let _turn = self.turn.acquire().await.map_err(closed)?;
        let last = self.state().last_change;
        if let Some(last) = last {
            tokio::time::sleep_until(last + self.settings.spacing).await;
        }
        let url = format!("{}{path}", self.settings.url);
        let sent = self.send(method, &url, body, None, of).await;
        self.state().last_change = Some(Instant::now());
        sent.map(|answer| answer.body)
    }
}

fn count(result: &'static str) {
    metrics().github_calls.get_or_create(&Call { result }).inc();
}

/// Returns what GitHub says of a failure, with the reasons it names.
fn message(body: &str) -> String {
    #[derive(Default, Deserialize)]
    struct Said {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: Value,
    }
    let said: Said = serde_json::from_str(body).unwrap_or_default();
    let mut text = said.message;
    for error in said.errors.as_array().into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str);
        let why = match (
            error.as_str().or(part("message")),
            part("field"),
            part("code"),
        ) {
            (Some(why), ..) => why.to_owned(),
            (None, Some(field), Some(code)) => format!("{field} {code}"),
            _ => continue,
        };
        if !text.contains(&why) {
            text += &format!(": {why}");
        }
    }
    text
}

pub(super) fn parse<T: DeserializeOwned>(url: &str, body: &str) -> Result<T> {
    serde_json::from_str(body)
        .map_err(|error| Error::Unreachable(format!("{url}: not understood: {error}")))
}

/// Returns the URL of the `next` page, or the `last` (RFC 8288).
fn linked(link: &str, rel: &str) -> Option<String> {
    let wanted = format!("rel=\"{rel}\"");
    link.split(',').find_map(|part| {
        let (url, parameters) = part.split_once(';')?;
        let mut parameters = parameters.split(';');
        let is_it = parameters.any(|parameter| parameter.trim() == wanted);
        let url = url.trim().strip_prefix('<')?.strip_suffix('>')?;
        is_it.then(|| url.to_owned())
    })
}

/// Returns the number of a page, where its URL has one.
fn page_number(url: &str) -> Option<usize> {
    let (_, query) = url.split_once('?')?;
    let mut parts = query.split('&');
    parts.find_map(|part| part.strip_prefix("page=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages_are_found() {
        let link = r#"<https://x/a?page=1>; rel="prev", <https://x/a?page=3>; rel="next""#;
        assert_eq!(linked(link, "next").as_deref(), Some("https://x/a?page=3"));
        let last = r#"<https://x/a?per_page=100&page=7>; rel="last""#;
        assert_eq!(linked(last, "next"), None);
        assert_eq!(
            linked(last, "last").as_deref().and_then(page_number),
            Some(7)
        );
        assert_eq!(linked("nonsense", "next"), None);
    }

    #[test]
    fn reasons_are_told() {
        let body =
            r#"{"message":"Validation Failed","errors":[{"message":"no"},"why",{"code":1}]}"#;
        assert_eq!(message(body), "Validation Failed: no: why");
        assert_eq!(message("<html>"), "");
    }
}
