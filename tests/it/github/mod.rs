//! A GitHub of ours in this process: its REST API over HTTP with pages, ETags,
//! limits and errors, and its webhooks. What it is asked and what it answers is
//! checked against GitHub's own description.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use datakit::forge::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub mod answers;
mod calls;
mod hooks;
pub mod schema;

pub use calls::now;
pub use hooks::sign;

/// What is told, as a repository, an event and its payload.
pub mod events {
    pub use super::hooks::{comment, pull_request, push, repository, rerequested, status};
}

/// What goes wrong with a call, instead of its answer or after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A status, and what it says.
    Status(u16, &'static str),
    /// It is done, and the connection ends in the middle of the answer.
    Cut,
    /// A secondary limit, with or without a time.
    Secondary(Option<u64>),
}

/// One call as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub status: u16,
}

/// A webhook as it is registered.
#[derive(Clone, Debug, Default)]
pub struct Hook {
    /// `U/R`, or an organisation.
    pub of: String,
    pub url: String,
    pub secret: String,
    pub events: Vec<String>,
    pub active: bool,
    pub deliveries: Vec<Delivered>,
}

#[derive(Clone, Debug)]
pub struct Delivered {
    pub id: u64,
    pub guid: String,
    pub event: String,
    pub payload: Value,
    pub status: u16,
}

/// What an App is known by.
pub struct App {
    pub id: String,
    /// How long its tokens live.
    pub life: Duration,
    /// The account of each token that was given out.
    pub tokens: BTreeMap<String, String>,
}

/// Everything GitHub knows.
#[derive(Default)]
pub struct World {
    /// Pull requests with their comments: the first is the description.
    pub is: Snapshot,
    pub reviews: BTreeMap<(Repo, u64), Vec<(&'static str, &'static str)>>,
    /// What annotated tags, and other objects, lead to: kind and id.
    pub objects: BTreeMap<Sha, (&'static str, Sha)>,
    pub organisations: BTreeSet<String>,
    pub archived: BTreeSet<Repo>,
    pub renamed: BTreeMap<Repo, Repo>,
    /// Ancestors: what a ref may be moved to without force.
    pub forward: BTreeSet<(Sha, Sha)>,
    pub checks: BTreeMap<u64, Value>,
    pub hooks: BTreeMap<u64, Hook>,
    /// Repositories and accounts that answer nothing but this.
    pub broken: BTreeMap<String, (u16, &'static str)>,
    /// What becomes of the next calls.
    pub faults: VecDeque<Option<Fault>>,
    /// Deliveries that get lost on their way.
    pub lose: bool,
    /// Nobody may have hooks.
    pub unhooked: bool,
    /// The token that is asked for; `None`: any, or none.
    pub token: Option<String>,
    pub app: Option<App>,
    /// Calls that are left, and when there are more.
    pub left: u64,
    pub reset: u64,
    /// Elements of a page at most.
    pub page: usize,
    /// The calls that came in; those with status 304 cost nothing.
    pub asked: Vec<Asked>,
    /// What was not as GitHub describes it.
    pub wrong: Vec<String>,
    /// Checks every call against the description.
    pub strict: bool,
    last_id: u64,
    last_change: Option<std::time::Instant>,
    /// Changes that came sooner than so long after another.
    pub hasty: usize,
    pub spacing: Duration,
}

impl World {
    pub fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The calls that cost something, in short.
    pub fn paid(&self) -> usize {
        self.asked
            .iter()
            .filter(|asked| asked.status != 304)
            .count()
    }

    /// The changes that were asked for.
    pub fn changes(&self) -> Vec<String> {
        let changes = self.asked.iter().filter(|asked| asked.method != "GET");
        changes
            .map(|asked| format!("{} {} {}", asked.method, asked.path, asked.status))
            .collect()
    }

    fn number(&self, repo: &Repo) -> u64 {
        // A number that stays: any will do.
        let hash = Sha256::digest(repo.to_string());
        u64::from(u32::from_be_bytes(hash[..4].try_into().unwrap()))
    }
}

pub struct GitHub {
    pub url: String,
    world: Arc<Mutex<World>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer before it is sent.
struct Answer {
    status: u16,
    body: Value,
    /// All of a listing; it is cut into pages.
    list: Option<(Option<&'static str>, Vec<Value>)>,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            list: None,
            headers: Vec::new(),
        }
    }

    fn list(all: Vec<Value>) -> Self {
        Self {
            list: Some((None, all)),
            ..Self::new(200, Value::Null)
        }
    }

    /// A listing inside an object.
    fn within(body: Value, name: &'static str, all: Vec<Value>) -> Self {
        Self {
            list: Some((Some(name), all)),
            ..Self::new(200, body)
        }
    }

    fn error(status: u16, message: &str) -> Self {
        Self::new(
            status,
            json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }),
        )
    }
}

impl GitHub {
    pub async fn start() -> Self {
        datakit::tls::provide();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let world = Arc::new(Mutex::new(World {
            left: 5000,
            reset: now + 3600,
            page: 100,
            strict: true,
            last_id: 1000,
            ..World::default()
        }));
        let router = axum::Router::new()
            .fallback(answer)
            .with_state((world.clone(), url.clone()));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, world, task }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Nothing was asked or answered but as GitHub describes it.
    pub fn assert_faithful(&self) {
        let wrong = std::mem::take(&mut self.world().wrong);
        assert!(wrong.is_empty(), "not as described:\n{}", wrong.join("\n"));
    }
}

type Shared = (Arc<Mutex<World>>, String);

async fn answer(State((world, url)): State<Shared>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let method = parts.method.to_string();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let (response, told) = {
        let mut world = world.lock().unwrap();
        let call = calls::Call {
            method: &method,
            path: &path,
            query: &query,
            body: &body,
            headers: &parts.headers,
        };
        respond(&mut world, &url, &call)
    };
    // What was changed is told, as everything is.
    for (repo, event, payload) in told {
        let world = world.clone();
        tokio::spawn(async move { hooks::deliver(&world, &repo, event, payload).await });
    }
    response
}

type Told = (Repo, &'static str, Value);

fn respond(world: &mut World, url: &str, call: &calls::Call<'_>) -> (Response<Body>, Vec<Told>) {
    let fault = world.faults.pop_front().flatten();
    let mut told = Vec::new();
    let mut answer = match &fault {
        Some(Fault::Status(status, message)) => Answer::error(*status, message),
        Some(Fault::Secondary(after)) => {
            let text = "You have exceeded a secondary rate limit. Please wait a few minutes.";
            let mut answer = Answer::error(403, text);
            answer
                .headers
                .extend(after.map(|after| ("retry-after", after.to_string())));
            answer
        }
        Some(Fault::Cut) | None if world.left == 0 => Answer::error(403, "API rate limit exceeded"),
        Some(Fault::Cut) | None => {
            if call.method != "GET" {
                let last = world.last_change.replace(std::time::Instant::now());
                let hasty = last.is_some_and(|last| last.elapsed() < world.spacing);
                world.hasty += usize::from(hasty);
            }
            world.answer(call, &mut told)
        }
    };
    paginate(world, url, call, &mut answer);
    if world.strict && fault.is_none() {
        let wrong = examine(world, call, &answer);
        world.wrong.extend(wrong);
    }
    let text = match answer.body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut status = answer.status;
    let mut builder = Response::builder();
    let mut content = Body::from(text.clone());
    if call.method == "GET" && status == 200 {
        let who = call.header("authorization").unwrap_or_default();
        let hash = Sha256::digest(format!("{who}\0{text}"));
        let etag = format!(
            "W/\"{}\"",
            hash.iter().map(|b| format!("{b:02x}")).collect::<String>()
        );
        if call.header("if-none-match") == Some(&etag) {
            status = 304;
            content = Body::empty();
        }
        builder = builder.header("etag", etag);
    }
    if status != 304 && world.left > 0 {
        world.left -= 1;
    }
    if fault == Some(Fault::Cut) {
        status = 0;
        let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
        let parts = [Ok(half), Err(std::io::Error::other("cut"))];
        content = Body::from_stream(futures_util::stream::iter(parts));
    }
    world.asked.push(Asked {
        method: call.method.into(),
        path: call.whole(),
        status,
    });
    builder = builder
        .status(if status == 0 { 200 } else { status })
        .header("content-type", "application/json; charset=utf-8")
        .header("x-ratelimit-limit", "5000")
        .header("x-ratelimit-remaining", world.left.to_string())
        .header("x-ratelimit-reset", world.reset.to_string());
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    (builder.body(content).unwrap(), told)
}

/// Cuts a listing into pages, and names the others (RFC 8288).
fn paginate(world: &World, url: &str, call: &calls::Call<'_>, answer: &mut Answer) {
    let Some((name, all)) = answer.list.take() else {
        return;
    };
    let asked = |name: &str| {
        call.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    };
    let number = |name| asked(name).and_then(|value| value.parse::<usize>().ok());
    let most = if call.path.contains("/git/") {
        usize::MAX
    } else {
        world.page
    };
    let per_page = number("per_page").unwrap_or(30).min(most).max(1);
    let cursors = call.path.ends_with("/deliveries");
    let page = number(if cursors { "cursor" } else { "page" }).unwrap_or(1);
    let last = all.len().div_ceil(per_page).max(1);
    let shown: Vec<Value> = all
        .into_iter()
        .skip((page - 1) * per_page)
        .take(per_page)
        .collect();
    if !call.path.contains("/git/") && page < last {
        let kept = call
            .query
            .iter()
            .filter(|(name, _)| name != "page" && name != "cursor");
        let mut query: Vec<String> = kept
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        query.push(format!(
            "{}={}",
            if cursors { "cursor" } else { "page" },
            page + 1
        ));
        // As GitHub does it: by the repository's number.
        let path = match call.repo() {
            Some((repo, rest)) => format!("/repositories/{}{rest}", world.number(&repo)),
            None => call.path.to_owned(),
        };
        let mut link = format!("<{url}{path}?{}>; rel=\"next\"", query.join("&"));
        if !cursors {
            query.pop();
            query.push(format!("page={last}"));
            link += &format!(", <{url}{path}?{}>; rel=\"last\"", query.join("&"));
        }
        answer.headers.push(("link", link));
    }
    match name {
        Some(name) => answer.body[name] = json!(shown),
        None => answer.body = json!(shown),
    }
}

/// Says what is not as GitHub describes it.
fn examine(world: &World, call: &calls::Call<'_>, answer: &Answer) -> Vec<String> {
    let path = match call.numbered(world) {
        Some((repo, rest)) => format!("/repos/{repo}{rest}"),
        None => call.path.to_owned(),
    };
    let Some(operation) = schema::operation(call.method, &path) else {
        return vec![format!("{} {path} is no call", call.method)];
    };
    let mut wrong = schema::request(&operation, call.query, call.body);
    if (200..300).contains(&answer.status) {
        match schema::answer(&operation, answer.status) {
            Some(schema) => schema::check(schema, &answer.body, operation.path, &mut wrong),
            None if operation.of["responses"]
                .get(answer.status.to_string())
                .is_none() =>
            {
                wrong.push(format!("{path}: never answers {}", answer.status));
            }
            None => (),
        }
    }
    // It is null where a fork was deleted, whatever is said.
    wrong.retain(|wrong| !wrong.contains(".head.repo: is no"));
    if call.header("x-github-api-version").is_none()
        && !path.starts_with("/app")
        && !path.ends_with("/installation")
    {
        wrong.push(format!("{path}: names no version"));
    }
    wrong
}

/// Returns one header.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
