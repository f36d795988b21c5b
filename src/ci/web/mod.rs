//! The web page: what `view` shows, as HTML and JSON, and the few things one
//! may ask for there.
//!
//! ```text
//!   door -> mod (routes, roles) -> front, target, log, account, act, api
//!                                     \     |     /
//!             auth   ansi <- window, live  page (the frame)
//! ```
//!
//! What stays true:
//!
//! - a page is made on the server and works without a script;
//! - what comes from the store or a visitor is escaped by construction: only
//!   `ansi` makes HTML of text itself;
//! - every POST brings the token of its session, and every redirection leads
//!   to a path of this site (or to GitHub, to log in);
//! - whoever has not the role of a route learns nothing of what is there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::response::Response;

use crate::ci::Status;
use crate::ci::config::{Config, Web, Who};
use crate::ci::view::Keeper;
use crate::client::Client;
use crate::forge::Repo;
use crate::metrics::metrics;
use crate::model::BranchName;

mod account;
mod act;
pub mod ansi;
mod api;
pub mod auth;
mod door;
mod fixed;
mod front;
mod graph;
pub mod live;
mod log;
mod page;
mod target;
mod visit;
pub mod window;

pub use door::{Certificate, Door, Peer};
use visit::{Answer, Failure, Visit};

/// What the pages are to know beside the store.
#[derive(Clone, Debug)]
pub struct Settings {
    pub web: Web,
    /// The address users see, with a slash at its end.
    pub url: String,
    /// Branches on the front page.
    pub dashboards: BTreeMap<Repo, Vec<String>>,
    /// Where people see a repository, with paths as GitHub has them.
    pub browse: BTreeMap<Repo, String>,
    pub metadata: BranchName,
    /// Where passwords and the application at GitHub are kept.
    pub secrets: PathBuf,
    pub github: auth::Endpoints,
}

/// Why the pages cannot be served with these settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

impl Settings {
    /// Takes what the configuration says. `url`: `http://…` or `https://…`.
    pub fn new(config: &Config, url: &str, secrets: PathBuf) -> Result<Self, BadSettings> {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        let legal = |rest: &str| {
            !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', '@', ' '])
        };
        if !rest.is_some_and(legal) {
            return Err(BadSettings(format!(
                "{url:?} is not the address of a page: http://HOST/ or https://HOST/"
            )));
        }
        let projects = config.projects.iter();
        let browse = projects.clone().filter_map(|project| {
            let base = project.browse.clone()?;
            Some((project.repo.clone(), base))
        });
        Ok(Self {
            web: config.web.clone(),
            url: format!("{}/", url.trim_end_matches('/')),
            dashboards: projects
                .map(|project| (project.repo.clone(), project.dashboards.clone()))
                .collect(),
            browse: browse.collect(),
            metadata: config.metadata_branch.clone(),
            secrets,
            github: auth::Endpoints::default(),
        })
    }

    /// Returns the name and the address of the place where people see a
    /// repository, and there the path of something of it.
    fn elsewhere(&self, repo: &Repo, path: &str) -> Option<(&'static str, String)> {
        let base = self.browse.get(repo)?;
        let name = match base.starts_with("https://github.com/") {
            true => "GitHub",
            false => "The repository",
        };
        Some((name, format!("{base}{path}")))
    }

    fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// The repositories somebody's right depends on.
    fn asked_repos(&self) -> Vec<Repo> {
        let who = self.web.can_read.iter().chain(&self.web.can_build);
        let repo = |who: &Who| match who {
            Who::Readers(repo) => Some(repo.clone()),
            _ => None,
        };
        who.filter_map(repo).collect()
    }
}

/// The pages of one store.
pub struct App {
    client: Arc<dyn Client>,
    settings: Settings,
    keeper: Keeper,
    windows: window::Windows,
    tails: live::Tails,
    auth: auth::Auth,
    /// The engine in this process, if there is one.
    engine: Option<Arc<Status>>,
    /// Builds that have ended, by their commit.
    builds: quick_cache::sync::Cache<crate::model::ObjectId, Arc<crate::ci::view::Log>>,
}

impl App {
    /// Begins to follow the store.
    pub fn new(client: Arc<dyn Client>, settings: Settings, engine: Option<Arc<Status>>) -> Self {
        Self {
            keeper: Keeper::new(Arc::clone(&client), settings.metadata.clone()),
            windows: window::Windows::new(Arc::clone(&client)),
            tails: live::Tails::new(Arc::clone(&client)),
            auth: auth::Auth::new(&settings),
            builds: quick_cache::sync::Cache::new(10_000),
            engine,
            client,
            settings,
        }
    }

    /// Returns where the password of the administrator is chosen, until that
    /// was done: for the log, and for nobody else.
    pub fn introduction(&self) -> Option<String> {
        let token = self.auth.introduction()?;
        Some(format!("{}auth/intro/{token}", self.settings.url))
    }
}

/// Answers what comes through a door, until it is dropped.
pub async fn serve(app: Arc<App>, door: Door) -> std::io::Result<()> {
    let service = router(app).into_make_service_with_connect_info::<Peer>();
    axum::serve(door, service).await
}

/// Returns what answers requests.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(answer).with_state(app)
}

/// What somebody must be allowed, to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Anyone,
    Reader,
    Builder,
    LoggedIn,
    Admin,
}

async fn answer(
    State(app): State<Arc<App>>,
    peer: Option<axum::extract::Extension<ConnectInfo<Peer>>>,
    request: Request<Body>,
) -> Response {
    let counts = metrics();
    let method = request.method().clone();
    counts.ci.web_requests.inc();
    let peer = peer
        .map(|extension| extension.0.0.to_string())
        .unwrap_or_default();
    let (mut visit, body) = Visit::new(app, peer, request);
    let answer = match visit.read_form(body).await {
        Ok(()) => dispatch(&mut visit, &method).await,
        Err(failure) => Err(failure),
    };
    let response = visit.finish(answer);
    if response.status().is_server_error() {
        counts.ci.web_errors.inc();
    }
    response
}

/// Finds out what is asked for, whether it may be, and answers.
async fn dispatch(visit: &mut Visit, method: &Method) -> Result<Answer, Failure> {
    let segments = visit.segments.clone();
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let get = matches!(*method, Method::GET | Method::HEAD);
    let post = *method == Method::POST;
    let (role, methods) = allowed(&path)?;
    if !(get && methods.contains(&"GET") || post && methods.contains(&"POST")) {
        return Err(Failure::method(methods));
    }
    if let Some(elsewhere) = visit.gate(role)? {
        return Ok(elsewhere);
    }
    if post {
        visit.check_token()?;
    }
    match (post, &path[..]) {
        (_, ["static", name]) => fixed::file(visit, name),
        (_, ["healthz"]) => api::health(visit).await,
        (_, ["metrics"]) => api::counts(visit),
        (_, ["auth", rest @ ..]) => account::auth(visit, post, rest).await,
        (_, ["user", "profile"]) => account::profile(visit),
        (_, ["error", id]) => account::explain(visit, id),
        (_, ["settings"]) => account::settings(visit),
        (_, ["settings", "github-auth"]) => account::github(visit, post),
        (_, []) => front::home(visit).await,
        (_, [kind @ ("pr" | "branch" | "tag")]) => front::list(visit, kind, None).await,
        (_, ["queue"]) => front::queue(visit),
        (_, ["events"]) => front::events(visit).await,
        (_, ["log", "live", branch]) => log::live(visit, branch).await,
        (_, ["log", "live", branch, "events"]) => log::events(visit, branch).await,
        (_, ["log", "saved", branch, commit]) => log::saved(visit, branch, commit).await,
        (_, ["log", "raw", branch, commit]) => log::raw(visit, branch, commit).await,
        (_, ["log", "rebuild", branch]) => act::rebuild_branch(visit, branch).await,
        (_, ["cancel", branch]) => act::cancel_branch(visit, branch).await,
        (_, ["act", what]) => act::target(visit, what).await,
        (_, ["badge", rest @ ..]) => api::badge(visit, rest).await,
        (_, ["api", "v1", rest @ ..]) => api::json(visit, rest).await,
        (_, ["history", user, repo, rest @ ..]) => target::history(visit, user, repo, rest).await,
        (_, [user, repo]) => front::project(visit, user, repo).await,
        (_, [user, repo, "commit", sha]) => target::commit(visit, user, repo, sha).await,
        (_, [user, repo, rest @ ..]) => target::show(visit, user, repo, rest).await,
        _ => Err(Failure::not_found("Not found")),
    }
}

/// Returns the role and the methods of a route.
fn allowed(path: &[&str]) -> Result<(Role, &'static [&'static str]), Failure> {
    const GET: &[&str] = &["GET"];
    const POST: &[&str] = &["POST"];
    const BOTH: &[&str] = &["GET", "POST"];
    Ok(match path {
        ["static", _] | ["healthz"] | ["metrics"] | ["error", _] => (Role::Anyone, GET),
        ["auth", "intro", _] | ["auth", "github-callback"] => (Role::Anyone, GET),
        ["auth", "setup"] => (Role::Admin, BOTH),
        ["auth", "login"] => (Role::Anyone, BOTH),
        ["auth", "logout"] => (Role::Anyone, POST),
        ["user", "profile"] => (Role::LoggedIn, GET),
        ["settings"] => (Role::Admin, GET),
        ["settings", "github-auth"] => (Role::Admin, BOTH),
        ["log", "rebuild", _] | ["cancel", _] | ["act", _] => (Role::Builder, POST),
        [] | ["pr" | "branch" | "tag" | "queue" | "events"] => (Role::Reader, GET),
        ["log", "live", _] | ["log", "live", _, "events"] => (Role::Reader, GET),
        ["log", "saved" | "raw", _, _] => (Role::Reader, GET),
        ["badge" | "history", _, _, _, ..] | ["api", "v1", ..] => (Role::Reader, GET),
        [
            "auth" | "user" | "settings" | "log" | "api" | "error" | "static",
            ..,
        ] => {
            return Err(Failure::not_found("Not found"));
        }
        [_, _] | [_, _, "pr", _] | [_, _, "ref", _, _, ..] | [_, _, "commit", _] => {
            (Role::Reader, GET)
        }
        _ => return Err(Failure::not_found("Not found")),
    })
}
