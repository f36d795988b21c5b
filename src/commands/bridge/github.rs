//! `dk bridge github`: GitHub's state in a branch, both ways.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;

use super::listen::{self, Door};
use super::state::{State, Status};
use crate::bridge::github::auth::{App, Auth};
use crate::bridge::github::capabilities::Capabilities;
use crate::bridge::github::hooks::Hooks;
use crate::bridge::github::http::{Http, Settings};
use crate::bridge::github::notes::Notes;
use crate::bridge::github::run::{Bridge, Told};
use crate::bridge::github::sync::{Options, Outcome, Sync};
use crate::bridge::github::{rest, webhook};
use crate::commands::daemon::start_log;
use crate::commands::watch::duration;
use crate::commands::{Session, completions};
use crate::forge::Repo;
use crate::logging;
use crate::metrics::metrics;
use crate::model::BranchName;
use crate::model::text::chain;
use crate::ui::{Exit, Ui, Usage};

/// Keep GitHub's pull requests, branches and statuses in a branch, both ways
///
/// What GitHub says of the repositories that are followed is in the branch as
/// plain files; what programs and people write there goes to GitHub, as far as
/// --capabilities allow: nothing unless that is given. Runs until it is ended.
/// Prints the id of every commit it makes to the branch.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct Args {
    /// Follow these: USER/REPO, or USER for all its repositories
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', value_parser = followed)]
    repositories: Vec<Followed>,
    /// The branch that tells of GitHub
    #[arg(short, long, default_value = "github-metadata", add = completions::branch())]
    branch: BranchName,
    /// What may be read from GitHub, written to it, and where the branch wins
    #[arg(short, long, value_name = "CAPS", default_value = "*:r")]
    capabilities: Capabilities,
    /// Where GitHub can reach this bridge: hooks are registered there (webhook:w)
    #[arg(long, value_name = "URL")]
    webhook: Option<reqwest::Url>,
    /// Where deliveries of webhooks come in: HOST:PORT; without it the port of --webhook
    #[arg(long, value_name = "ADDR", value_parser = listen::address)]
    listen: Option<String>,
    /// Listen over TLS, with this certificate and those that vouch for it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", value_hint = clap::ValueHint::FilePath)]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_hint = clap::ValueHint::FilePath)]
    tls_key: Option<PathBuf>,
    /// How often everything is read again
    #[arg(long, value_name = "D", default_value = "1h", value_parser = duration, conflicts_with = "no_resync")]
    resync_interval: Duration,
    /// Read everything at the start only
    #[arg(long)]
    no_resync: bool,
    /// How long pull requests stay in the branch after they were closed
    #[arg(long, value_name = "D", value_parser = duration)]
    keep_closed: Option<Duration>,
    /// Move GitHub's branches and tags even where that loses commits (needs ref:w)
    #[arg(long)]
    force_refs: bool,
    /// Remove more than 10 of GitHub's branches and tags in one go (needs ref:w)
    #[arg(long)]
    allow_deletes: bool,
    /// Read the token from this file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Be a GitHub App: its id, or its client id
    #[arg(
        long,
        value_name = "ID",
        requires = "app_key",
        conflicts_with = "token_file"
    )]
    app_id: Option<String>,
    /// The private key of the App (PEM)
    #[arg(long, value_name = "FILE", requires = "app_id", value_hint = clap::ValueHint::FilePath)]
    app_key: Option<PathBuf>,
    /// Be nobody: public repositories only, and 60 calls an hour
    #[arg(long, conflicts_with_all = ["token_file", "app_id"])]
    anonymous: bool,
    /// GitHub's API; of an enterprise server it is https://HOST/api/v3
    #[arg(long, value_name = "URL", default_value = "https://api.github.com")]
    api_url: reqwest::Url,
    /// Where secrets are kept that belong in no store
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
    /// Answer /metrics and /healthz over HTTP at HOST:PORT
    #[arg(long, value_name = "ADDR", value_parser = listen::address)]
    metrics: Option<String>,
    /// Print the calls that would change something at GitHub; change nothing anywhere, and end
    #[arg(long)]
    dry_run: bool,
    /// Bring both sides together once, and end: status 1 if something failed
    #[arg(long)]
    once: bool,
    /// How much to log: quiet, error, warning, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "warning", hide_possible_values = true,
          value_parser = clap::builder::PossibleValuesParser::new(logging::LEVELS))]
    log_level: String,
    /// Where the log goes: stderr, journald or file:PATH
    #[arg(long, value_name = "DEST", default_value = "stderr")]
    log_destination: logging::Destination,
    /// The pause between two changes, which GitHub asks for.
    #[arg(long, value_name = "D", default_value = "1s", value_parser = duration, hide = true)]
    spacing: Duration,
}

const AFTER: &str = "Authority:
The token is what DK_GITHUB_TOKEN says, or is in --token-file, or in datakit-github-cookie (git-jar's) in $HOME/.github/jar or in /run/secrets.
It needs the scope repo, and admin:repo_hook for webhooks. With --app-id, dk is a GitHub App, which can also show statuses as check runs. Neither tokens nor secrets are ever printed, logged or kept in the store.

Capabilities:
A list of RESOURCE:OPS. Resources are pr, commit, ref, webhook, comment, check, repo or repo[USER/REPO], status or status[CONTEXT], and * for all that have no entry of their own; of several that fit the longest counts.
  r\tread from GitHub
  w\twrite to GitHub what was changed in the branch; where both sides changed, GitHub wins
  x\tboth, and the branch wins
Branches and tags are written only where ref has an entry of its own.
  *:r,status[ci/datakit]:x,webhook:rw\ta CI sets its statuses, GitHub tells what happens

The branch:
  U/R/.monitor\tthe repository is followed; U/.monitor: all of U are
  U/R/pr/N/\thead, head-repo, state, title, base, owner, draft, labels, merged, closed-at, review
  U/R/pr/N/comments/I/\tid, user, body; 0 is the description, which only GitHub changes. Another body is set there, and another NAME with a body alone is posted (comment:w); a comment that is removed here comes back
  U/R/ref/heads/NAME/head\tthe commit of a branch; tags/NAME of a tag
  U/R/commit/SHA/status/CONTEXT/\tstate, description, target_url; rebuild-requested after 'Re-run' at GitHub
  .dirty\tbeside .monitor or in pr/N or ref/…: read that again, please
  U/R/.error\twhy the repository cannot be read now; what was read of it stays
What both sides agreed on last, and what GitHub said with its ETags, is in the branch NAME.sync.

Webhooks:
--webhook registers a hook for each repository, or one for an account that is followed, at URL/USER/REPO, with a secret of its own (webhook:w). Deliveries missed while no bridge ran are asked for.
With --listen alone hooks are registered by hand, for any path, with the secret in the file webhook-secret of --state-dir.

Metrics:
  datakit_bridge_repositories\trepositories that are followed and can be read
  datakit_bridge_unread{repository}\t1 for each that cannot be read now
  datakit_bridge_syncs_total, datakit_bridge_sync_failures_total\tsyncs; those that failed as a whole
  datakit_bridge_pushes_total, datakit_bridge_refused_total\tchanges GitHub was told; those it did not take
  datakit_bridge_deliveries_total{result}\tdeliveries of webhooks: ok, refused, full
  datakit_github_calls_total{result}\tcalls: ok, unchanged (free), refused, failed
  datakit_github_budget\tcalls that are left until GitHub fills the budget again

Examples:
  dk -C db.git bridge github -r moby/datakit --once
  dk -C tcp://db bridge github -r moby -c '*:r,status[ci/datakit]:x,webhook:rw' --webhook https://ci.example.org/hooks --listen :8080
  dk -C db.git bridge github -c '*:r,pr:w' --dry-run

JSON:
  {\"commit\"}; with --dry-run {\"method\", \"path\", \"body\"}";

/// What is followed.
#[derive(Clone, Debug)]
enum Followed {
    Repo(Repo),
    Account(String),
}

fn followed(text: &str) -> Result<Followed, String> {
    match text.contains('/') {
        true => text
            .parse()
            .map(Followed::Repo)
            .map_err(|error: crate::forge::BadRepo| error.to_string()),
        // An account is named as the first half of a repository.
        false if Repo::new(text, "x").is_some() => Ok(Followed::Account(text.into())),
        false => Err("it should be USER/REPO or USER".into()),
    }
}

#[derive(serde::Serialize)]
struct Called {
    method: String,
    path: String,
    body: Option<serde_json::Value>,
}

/// How long a connection may last.
const DELIVERY: Duration = Duration::from_secs(60);
const QUESTION: Duration = Duration::from_secs(10);

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let ui = &session.ui;
    let format = logging::Format::Text;
    let _log = start_log(ui, &args.log_level, &args.log_destination, format);

    let state = State::at(session, args.state_dir.clone(), &args.branch).await?;
    let _held = (!args.dry_run).then(|| state.hold()).transpose()?;
    let settings = Settings {
        url: args.api_url.to_string(),
        spacing: args.spacing,
        force_refs: args.force_refs,
    };
    let notes = Arc::new(Notes::default());
    let http = Http::new(settings, authority(&args)?, notes.clone());
    let http = Arc::new(http.map_err(|error| Exit::with(1, error))?);
    let options = Options {
        dry_run: args.dry_run,
        allow_deletes: args.allow_deletes,
        keep_closed: args.keep_closed.unwrap_or_default(),
        ..Options::new(args.branch.clone(), args.capabilities.clone())
    };
    let mut sync = Sync::new(session.client.clone(), http.clone(), notes.clone(), options);
    let (mut repos, mut accounts) = (Vec::new(), Vec::new());
    for followed in &args.repositories {
        match followed {
            Followed::Repo(repo) => repos.push(repo.clone()),
            Followed::Account(account) => accounts.push(account.clone()),
        }
    }
    sync.follow(&repos, &accounts).await?;
    if args.dry_run || args.once {
        return once(ui, &mut sync, &args, &state, &http).await;
    }

    let inbox = Arc::new(webhook::Inbox::default());
    let mut doors = Vec::new();
    let mut hooks = None;
    if let Some(at) = listens(&args)? {
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(listen::tls(certificate, key)?),
            _ => None,
        };
        let door = Door::open(&at, DELIVERY, tls).await?;
        let secret = state.secret()?;
        ui.note(&format!("dk: webhooks come in at {}", door.address()?));
        doors.push((door, webhook::router(secret.clone(), inbox.clone())));
        hooks = args.webhook.as_ref().map(|url| {
            let (http, notes) = (http.clone(), notes.clone());
            Hooks::new(http, notes, inbox.clone(), url.as_str(), secret)
        });
    }
    let well = Arc::new(AtomicBool::new(false));
    if let Some(at) = &args.metrics {
        let door = Door::open(at, QUESTION, None).await?;
        ui.note(&format!(
            "dk: metrics at http://{}/metrics",
            door.address()?
        ));
        doors.push((door, counts(well.clone())));
    }
    let mut failed = None;
    let mut first = true;
    let told = |told: Told<'_>| {
        let mut status = state.told().unwrap_or_default();
        status.budget = http.budget();
        match told {
            Told::Synced(outcome) => {
                well.store(true, Ordering::Relaxed);
                status.synced = Some(jiff::Timestamp::now().as_second());
                status.failure = None;
                if let Err(error) = show(ui, outcome) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                if std::mem::take(&mut first) {
                    ui.note(&format!("dk: GitHub is on branch {}", args.branch));
                }
            }
            Told::Failed(error, pause) => {
                well.store(false, Ordering::Relaxed);
                let why = chain(error);
                let seconds = pause.as_secs_f32();
                ui.warn(&format!("{why}; trying again in {seconds} s"));
                status.failure = Some(why);
            }
        }
        if let Err(error) = state.tell(&status) {
            tracing::warn!(target: "bridge", "cannot say how it is: {error}");
        }
        ControlFlow::Continue(())
    };
    let bridge = Bridge {
        sync,
        inbox,
        hooks,
        resync: (!args.no_resync).then_some(args.resync_interval),
    };
    let served = doors.into_iter().map(|(door, router)| async {
        // It ends by being dropped.
        axum::serve(door, router).await
    });
    let served = async {
        futures_util::future::join_all(served).await;
        std::future::pending().await
    };
    tokio::select! {
        ended = bridge.run(told) => ended?,
        () = served => (),
    }
    failed.map_or(Ok(()), Err)
}

/// One sync, and what came of it.
async fn once(
    ui: &Ui,
    sync: &mut Sync,
    args: &Args,
    state: &State,
    http: &Http,
) -> anyhow::Result<()> {
    let outcome = sync.sync(false, &[]).await?;
    if args.dry_run {
        for push in &outcome.pushed {
            let call = rest::call(push, args.force_refs);
            let called = Called {
                method: call.method.to_string(),
                path: call.path,
                body: call.body,
            };
            ui.show(&called, |called, out| {
                write!(out, "{} {}", called.method, called.path)?;
                match &called.body {
                    Some(body) => writeln!(out, " {body}"),
                    None => writeln!(out),
                }
            })?;
        }
    } else {
        show(ui, &outcome)?;
        let status = Status {
            synced: Some(jiff::Timestamp::now().as_second()),
            failure: None,
            budget: http.budget(),
        };
        state.tell(&status).context("cannot say how it is")?;
    }
    for (repo, error) in &outcome.unread {
        ui.warn(&format!("{repo}: {error}"));
    }
    for (account, error) in &outcome.unlisted {
        ui.warn(&format!("{account}: {error}"));
    }
    for (push, error) in &outcome.failed {
        ui.warn(&format!("{}: {error}", push.id()));
    }
    for (id, error) in &outcome.unshown {
        ui.warn(&format!("check run of {id}: {error}"));
    }
    match outcome.errors().next() {
        Some(_) => Err(Exit::quiet(1).into()),
        None => Ok(()),
    }
}

/// Prints the commit a sync made.
fn show(ui: &Ui, outcome: &Outcome) -> anyhow::Result<()> {
    let made = outcome.commit.as_ref();
    made.map_or(Ok(()), |commit| super::show(ui, commit))
}

/// Who the bridge is to GitHub.
fn authority(args: &Args) -> anyhow::Result<Auth> {
    if args.anonymous {
        return Ok(Auth::Anonymous);
    }
    if let (Some(id), Some(path)) = (&args.app_id, &args.app_key) {
        let cannot = || format!("cannot use the App's key in {}", path.display());
        let pem = std::fs::read_to_string(path).with_context(cannot)?;
        let app = App::new(id, &pem).with_context(cannot)?;
        return Ok(Auth::App(Box::new(app)));
    }
    let variable = std::env::var("DK_GITHUB_TOKEN").ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let found = Auth::find(variable, args.token_file.as_deref(), home.as_deref());
    found.map_err(|error| {
        let hint = "make one at https://github.com/settings/tokens, or use --anonymous";
        Usage::new(error.to_string()).hint(hint).into()
    })
}

/// Returns where deliveries come in, if they do.
fn listens(args: &Args) -> anyhow::Result<Option<String>> {
    if args.listen.is_some() {
        return Ok(args.listen.clone());
    }
    let Some(url) = &args.webhook else {
        return match args.tls_cert {
            Some(_) => Err(Usage::new("--tls-cert needs --listen or --webhook").into()),
            None => Ok(None),
        };
    };
    if url.scheme() == "https" && args.tls_cert.is_none() {
        let text = format!("{url} is over TLS, which needs --tls-cert and --tls-key");
        let hint = "or --listen, where something in front speaks TLS";
        return Err(Usage::new(text).hint(hint).into());
    }
    match url.port_or_known_default() {
        Some(port) => Ok(Some(format!("0.0.0.0:{port}"))),
        None => Err(Usage::new(format!("{url} names no port")).into()),
    }
}

/// What other programs ask a bridge for.
fn counts(well: Arc<AtomicBool>) -> Router {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let health = move || async move {
        match well.load(Ordering::Relaxed) {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the last sync failed\n"),
        }
    };
    let text = || async { ([(header::CONTENT_TYPE, KIND)], metrics().text()) };
    Router::new()
        .route("/metrics", get(text))
        .route("/healthz", get(health))
}
