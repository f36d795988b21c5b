//! GitHub's REST API, as far as the bridge needs it.
//!
//! - Every listing is read to its last page, or the call fails.
//! - What was read is kept with its ETag: asking again costs nothing where
//!   nothing changed, after a restart too ([`Http::kept`]).
//! - Limits are obeyed: an exhausted budget fails calls without sending them
//!   until it is filled again; changes are sent one at a time, spaced.
//!
//! Sources: docs.github.com/rest (pulls, issues, git, commits/statuses), and
//! its pages on pagination, conditional requests, rate limits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH, LINK, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Api, Error, Result};
use super::auth::Auth;
use super::plan::Push;
use super::wire;
use crate::forge::{Context, Pr, RefName, Repo, Sha, Status};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const LONGEST: usize = 32 << 20;
/// Pages of one listing; beyond, something is wrong.
const PAGES: usize = 1000;
/// Pull requests whose comments are asked for at the same time.
const AT_ONCE: usize = 4;

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

/// An answer, kept for when nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    pub etag: String,
    /// The next page, where there is one.
    pub next: Option<String>,
    pub body: String,
}

/// What is left of the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Budget {
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    /// Seconds since 1970 when it is filled again.
    pub reset: Option<u64>,
}

/// GitHub over HTTP.
pub struct Http {
    client: reqwest::Client,
    settings: Settings,
    auth: Auth,
    state: Mutex<State>,
    /// One change at a time, with a pause after each.
    turn: tokio::sync::Semaphore,
}

#[derive(Default)]
struct State {
    budget: Budget,
    /// Nothing is sent before.
    blocked: Option<Instant>,
    last_change: Option<Instant>,
    kept: BTreeMap<String, Kept>,
    /// Something was kept or forgotten since [`Http::kept`] was asked last.
    changed: bool,
}

/// One page of an answer.
struct Page {
    body: String,
    next: Option<String>,
}

impl Http {
    /// `kept` is what [`Http::kept`] gave before a restart.
    pub fn new(settings: Settings, auth: Auth, kept: BTreeMap<String, Kept>) -> Result<Self> {
        provide_tls();
        let client = reqwest::Client::builder()
            .user_agent(concat!("dk/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()
            .map_err(|error| Error::Unreachable(text(&error)))?;
        Ok(Self {
            client,
            settings,
            auth,
            state: Mutex::new(State {
                kept,
                ..State::default()
            }),
            turn: tokio::sync::Semaphore::new(1),
        })
    }

    pub fn budget(&self) -> Budget {
        self.state().budget
    }

    /// Returns the answers worth keeping, if they changed since this was asked.
    pub fn kept(&self) -> Option<BTreeMap<String, Kept>> {
        let state = &mut *self.state();
        std::mem::take(&mut state.changed).then(|| state.kept.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request and reads its whole answer.
    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        repo: &Repo,
    ) -> Result<(StatusCode, HeaderMap, String)> {
        if let Some(blocked) = self.state().blocked {
            let left = blocked.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(Error::Limited(left));
            }
        }
        let token = self
            .auth
            .token(&self.client, &self.settings.url, repo)
            .await?;
        let mut request = self
            .client
            .request(method, url)
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
        let unreachable = |error: reqwest::Error| Error::Unreachable(text(&error));
        let mut answer = request.send().await.map_err(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Error::Unreachable(format!("{url}: the answer is too long")));
            }
            body.extend_from_slice(&chunk);
        }
        self.account(status, &headers);
        let body = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::NOT_MODIFIED => Ok((status, headers, body)),
            status if status.is_success() => Ok((status, headers, body)),
            status => Err(self.failure(status, url, &body)),
        }
    }

    /// Notes what an answer says of the budget.
    fn account(&self, status: StatusCode, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let state = &mut *self.state();
        if let Some(remaining) = number("x-ratelimit-remaining") {
            state.budget = Budget {
                limit: number("x-ratelimit-limit"),
                remaining: Some(remaining),
                reset: number("x-ratelimit-reset"),
            };
        }
        let refused = matches!(
            status,
            StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        );
        let after = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
        let exhausted = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
            let reset = state.budget.reset?;
            (state.budget.remaining == Some(0))
                .then(|| Duration::from_secs(reset.saturating_sub(now) + 1))
        };
        let pause = match (refused, after) {
            (true, Some(after)) => Some(after),
            // A secondary limit that names no time: a minute, as is asked of clients.
            (true, None) if status == StatusCode::TOO_MANY_REQUESTS => {
                Some(exhausted().unwrap_or(Duration::from_secs(60)))
            }
            _ => exhausted(),
        };
        if let Some(pause) = pause {
            state.blocked = Some(Instant::now() + pause.min(Duration::from_secs(3700)));
        }
    }

    fn failure(&self, status: StatusCode, url: &str, body: &str) -> Error {
        let said = serde_json::from_str::<Value>(body)
            .ok()
            .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
            .unwrap_or_default();
        let path = url.strip_prefix(&self.settings.url).unwrap_or(url);
        let what = match said.is_empty() {
            true => format!("{path}: {status}"),
            false => format!("{path}: {status}: {said}"),
        };
        match status.as_u16() {
            404 | 410 | 451 => Error::Missing(what),
            401 => Error::Forbidden(what),
            403 | 429 => match self.state().blocked {
                Some(blocked) if blocked > Instant::now() => {
                    Error::Limited(blocked - Instant::now())
                }
                _ => Error::Forbidden(what),
            },
            400..=499 => Error::Rejected(what),
            _ => Error::Unreachable(what),
        }
    }

    /// Reads one page, from memory where it has not changed.
    async fn page(&self, repo: &Repo, url: &str) -> Result<Page> {
        let known = self.state().kept.get(url).cloned();
        let etag = known.as_ref().map(|kept| kept.etag.as_str());
        let (status, headers, body) = self.send(Method::GET, url, None, etag, repo).await?;
        if status == StatusCode::NOT_MODIFIED
            && let Some(kept) = known
        {
            return Ok(Page {
                body: kept.body,
                next: kept.next,
            });
        }
        let next = headers.get(LINK).and_then(|link| next(link.to_str().ok()?));
        // A token goes nowhere else, whatever an answer says.
        let next = next.filter(|next| next.starts_with(&self.settings.url));
        let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        let state = &mut *self.state();
        match etag {
            Some(etag) => {
                let kept = Kept {
                    etag: etag.into(),
                    next: next.clone(),
                    body: body.clone(),
                };
                state.kept.insert(url.into(), kept);
                state.changed = true;
            }
            None => state.changed |= state.kept.remove(url).is_some(),
        }
        Ok(Page { body, next })
    }

    async fn get<T: DeserializeOwned>(&self, repo: &Repo, path: &str) -> Result<T> {
        let url = format!("{}/repos/{repo}/{path}", self.settings.url);
        let page = self.page(repo, &url).await?;
        parse(&url, &page.body)
    }

    /// Reads all pages of a listing.
    async fn list<T: DeserializeOwned>(&self, repo: &Repo, path: &str) -> Result<Vec<T>> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut url = format!(
            "{}/repos/{repo}/{path}{sign}per_page=100",
            self.settings.url
        );
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let page = self.page(repo, &url).await?;
            found.extend(parse::<Vec<T>>(&url, &page.body)?);
            match page.next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(Error::Unreachable(format!(
            "{url}: the listing does not end"
        )))
    }

    /// Sends a change, in its turn.
    async fn change(
        &self,
        repo: &Repo,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<String> {
        let closed = |_| Error::Unreachable("the bridge is ending".into());
        let _turn = self.turn.acquire().await.map_err(closed)?;
        let last = self.state().last_change;
        if let Some(last) = last {
            tokio::time::sleep_until(last + self.settings.spacing).await;
        }
        let url = format!("{}/repos/{repo}/{path}", self.settings.url);
        let sent = self.send(method, &url, body.as_ref(), None, repo).await;
        self.state().last_change = Some(Instant::now());
        sent.map(|(_, _, body)| body)
    }

    /// Moves a ref, or makes it.
    async fn set_ref(&self, repo: &Repo, name: &RefName, sha: &str) -> Result<()> {
        let path = format!("git/refs/{}", segments(name));
        let body = json!({ "sha": sha, "force": self.settings.force_refs });
        match self.change(repo, Method::PATCH, &path, Some(body)).await {
            Err(Error::Missing(_)) => (),
            // What GitHub says where there is nothing to move.
            Err(Error::Rejected(why)) if why.contains("does not exist") => (),
            moved => return moved.map(drop),
        }
        let name = format!("refs/{}", String::from_utf8_lossy(name.as_bytes()));
        let body = json!({ "ref": name, "sha": sha });
        self.change(repo, Method::POST, "git/refs", Some(body))
            .await
            .map(drop)
    }
}

#[async_trait::async_trait]
impl Api for Http {
    async fn pulls(&self, repo: &Repo) -> Result<BTreeMap<u64, Pr>> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let pulls: Vec<wire::Pull> = self.list(repo, "pulls?state=open").await?;
        let whole = pulls.into_iter().map(|pull| async move {
            let pr = self.complete(repo, pull.number, pull.read()).await?;
            Ok((pull.number, pr))
        });
        futures_util::stream::iter(whole)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn pull(&self, repo: &Repo, number: u64) -> Result<Option<Pr>> {
        match self
            .get::<wire::Pull>(repo, &format!("pulls/{number}"))
            .await
        {
            Ok(pull) => Ok(Some(self.complete(repo, number, pull.read()).await?)),
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn complete(&self, repo: &Repo, number: u64, pr: Pr) -> Result<Pr> {
        let comments = self
            .list(repo, &format!("issues/{number}/comments"))
            .await?;
        let reviews = self.list(repo, &format!("pulls/{number}/reviews")).await?;
        Ok(wire::complete(pr, comments, reviews))
    }

    async fn refs(&self, repo: &Repo) -> Result<BTreeMap<RefName, Sha>> {
        let mut found = BTreeMap::new();
        for kind in ["heads", "tags"] {
            let refs: Vec<wire::Reference> = self
                .list(repo, &format!("git/matching-refs/{kind}/"))
                .await?;
            for reference in refs {
                let Some(name) = reference.name() else {
                    tracing::warn!(target: "bridge", "{repo}: no tree can hold {:?}", reference.full);
                    continue;
                };
                if let Some(sha) = self.peel(repo, reference.object).await? {
                    found.insert(name, sha);
                }
            }
        }
        Ok(found)
    }

    async fn reference(&self, repo: &Repo, name: &RefName) -> Result<Option<Sha>> {
        match self
            .get::<wire::Reference>(repo, &format!("git/ref/{}", segments(name)))
            .await
        {
            Ok(reference) => self.peel(repo, reference.object).await,
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn statuses(&self, repo: &Repo, sha: &str) -> Result<BTreeMap<Context, Status>> {
        let mut url = format!(
            "{}/repos/{repo}/commits/{sha}/status?per_page=100",
            self.settings.url
        );
        let mut found = BTreeMap::new();
        for _ in 0..PAGES {
            let page = self.page(repo, &url).await?;
            let combined: wire::Combined = parse(&url, &page.body)?;
            found.extend(combined.statuses.into_iter().filter_map(wire::Status::read));
            match page.next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(Error::Unreachable(format!(
            "{url}: the listing does not end"
        )))
    }

    async fn push(&self, push: &Push) -> Result<Option<u64>> {
        match push {
            Push::Pr(repo, number, pr) => {
                let body = json!({ "title": pr.title, "state": pr.state.word(), "base": pr.base });
                self.change(repo, Method::PATCH, &format!("pulls/{number}"), Some(body))
                    .await?;
            }
            Push::Comment(repo, number, comment) => {
                let body = json!({ "body": String::from_utf8_lossy(&super::plan::marked(repo, *number, comment)) });
                let path = format!("issues/{number}/comments");
                let made = self.change(repo, Method::POST, &path, Some(body)).await?;
                return Ok(parse::<wire::Numbered>(&path, &made)
                    .ok()
                    .map(|made| made.id));
            }
            Push::Status(repo, sha, context, status) => {
                let body = wire::Status::write(context, status);
                self.change(repo, Method::POST, &format!("statuses/{sha}"), Some(body))
                    .await?;
            }
            Push::SetRef(repo, name, sha) => self.set_ref(repo, name, sha).await?,
            Push::RemoveRef(repo, name) => {
                let path = format!("git/refs/{}", segments(name));
                match self.change(repo, Method::DELETE, &path, None).await {
                    Ok(_) | Err(Error::Missing(_)) => (),
                    Err(Error::Rejected(why)) if why.contains("does not exist") => (),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }
}

impl Http {
    /// Returns the commit an object is, or a tag of it; nothing for others.
    async fn peel(&self, repo: &Repo, object: wire::Object) -> Result<Option<Sha>> {
        match object.kind.as_str() {
            "commit" => Ok(Some(object.sha)),
            "tag" => match self
                .get::<wire::Tag>(repo, &format!("git/tags/{}", object.sha))
                .await
            {
                Ok(tag) => Ok((tag.object.kind == "commit").then_some(tag.object.sha)),
                Err(Error::Missing(_)) => Ok(None),
                Err(error) => Err(error),
            },
            _ => Ok(None),
        }
    }
}

/// Says once which cryptography https is to use: without, no client can be made.
#[cfg(feature = "https")]
pub fn provide_tls() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Fails where somebody has said already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(not(feature = "https"))]
pub fn provide_tls() {}

fn parse<T: DeserializeOwned>(url: &str, body: &str) -> Result<T> {
    serde_json::from_str(body)
        .map_err(|error| Error::Unreachable(format!("{url}: not understood: {error}")))
}

/// Returns the URL of the next page (RFC 8288).
fn next(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (url, parameters) = part.split_once(';')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| parameter.trim() == "rel=\"next\"");
        let url = url.trim().strip_prefix('<')?.strip_suffix('>')?;
        is_next.then(|| url.to_owned())
    })
}

/// A ref's name as a part of a URL.
fn segments(name: &RefName) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.as_bytes().iter().map(escaped).collect()
}

/// An error with its causes, without the URL, which the caller names.
fn text(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages_are_found() {
        let link = r#"<https://x/a?page=1>; rel="prev", <https://x/a?page=3>; rel="next""#;
        assert_eq!(next(link).as_deref(), Some("https://x/a?page=3"));
        assert_eq!(next(r#"<https://x/a>; rel="last""#), None);
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn names_are_escaped() {
        let name = RefName::new("heads/fix#1+ü").expect("legal");
        assert_eq!(segments(&name), "heads/fix%231%2B%C3%BC");
    }
}
