//! `dk serve`: the file tree of a store, over 9P.
//!
//! Everything that goes on for long is a task owned by [`run`], which stops
//! them all and waits for them, in bounded time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::commands::daemon::{Signalled, Signals, start_log};
use crate::commands::{Global, hold_signals, open};
use crate::logging;
use crate::namespace::Namespace;
use crate::namespace::node::Tree;
use crate::ninep::server::{self, Server};
use crate::ninep::transport::{self, Endpoint, Listener};
use crate::ui::{Exit, Ui, Usage, signals};

mod health;
mod limits;
mod listen;
mod push;
mod source;

use listen::{Handler, Listeners, Report, Shared, stopped};

/// How long ending may take.
const GRACE: Duration = Duration::from_millis(4500);

/// Serve a store as a file tree over 9P
///
/// Whoever can connect has full authority over the store: 9P knows no
/// passwords. So the usual address is one of this machine only; tcp:// alone,
/// every interface, is for networks where everybody may write.
///
/// Clients are the kernel (mount -t 9p), dk itself (dk -C tcp://HOST), and any
/// other that speaks 9P2000, 9P2000.u or 9P2000.L. The tree is described in
/// dk-tree(5).
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The Git repository to serve, made if there is none; without it the one -C names
    #[arg(id = "named", value_name = "STORE", value_hint = clap::ValueHint::DirPath)]
    store: Option<PathBuf>,
    /// As STORE: DataKit's spelling
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "named")]
    git: Option<PathBuf>,
    /// Serve an empty store that is kept in memory and ends with the server
    #[arg(long, conflicts_with_all = ["named", "git"])]
    memory: bool,
    /// Where to listen: tcp://HOST:PORT, unix:///PATH or fd://N; may be given again
    ///
    /// Without it tcp://127.0.0.1:5640; 5640 is also the port where none is
    /// named, and tcp:// alone is every interface. A Unix socket is for its
    /// owner only, unless as in unix:///PATH?mode=0660 a mode is given. fd://N is
    /// a listening socket that was inherited; those systemd passes are taken by
    /// themselves.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        aliases = ["url", "listen-9p"]
    )]
    listen: Vec<Endpoint>,
    /// Answer /metrics and /healthz over HTTP at HOST:PORT
    #[arg(long, value_name = "ADDR", value_parser = health::address)]
    metrics: Option<Endpoint>,
    /// As --metrics, on every interface: DataKit's spelling
    #[arg(long, value_name = "PORT", hide = true, conflicts_with = "metrics")]
    listen_prometheus: Option<u16>,
    /// Push every branch that changes to this repository
    ///
    /// Changes are gathered for two seconds; deletions are pushed too, and
    /// nothing is pushed at the start. What fails is tried again. Runs the git
    /// program with --force.
    #[arg(long, value_name = "URL")]
    auto_push: Option<String>,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// How much to log: quiet, error, warning, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "warning", alias = "verbosity",
          env = "DATAKIT_VERBOSE", hide_env = true, hide_possible_values = true,
          value_parser = clap::builder::PossibleValuesParser::new(logging::LEVELS))]
    log_level: String,
    /// Log more: info; twice, debug
    #[arg(short, long, action = clap::ArgAction::Count, hide = true)]
    verbose: u8,
    /// How a record of the log looks: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    log_format: LogFormat,
    /// Where the log goes: stderr, journald or file:PATH
    #[arg(long, value_name = "DEST", default_value = "stderr")]
    log_destination: logging::Destination,
    #[command(flatten)]
    limits: limits::Limits,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

const AFTER: &str = "Running:
When it listens, a line 'dk: serving STORE at ADDRESS' for each address is on standard error, with the port that was chosen for port 0, and READY=1 is sent to systemd.
An address that cannot be used is tried again for ever and keeps no other from serving; only where none can be used at the start does the command fail.
A Unix socket that a server left behind is replaced, one that is in use is not.
Connections have no time limit; a peer that vanished is noticed after two minutes.

Signals:
  SIGTERM, SIGINT\taccept no more, finish what is being committed, push what was gathered, exit with status 0 within 5 seconds; a second one ends it at once
  SIGHUP\topen the log file anew

Log:
Records go by target: bridge, ci, namespace, ninep, serve, store. debug/src/TARGET/level in the tree shows and sets the level of one while the server runs.
A log that cannot be written is replaced by standard error, and what nobody takes is dropped and counted: logging never holds up the work.

Health:
GET /healthz answers 200 while the store can be read and at least one address listens, else 503; a line for each says which.

Metrics:
GET /metrics answers in OpenMetrics' text format:
  datakit_connections\tconnections open now
  datakit_connected_total\tconnections accepted
  datakit_fids\tnodes of the tree that clients hold now
  datakit_streams\tstreams (watches, live files) open now
  datakit_transactions\ttransactions of connections open now
  datakit_requests_total{message}\trequests, by 9P message
  datakit_errors_total{message}\trequests that failed
  datakit_request_latency_seconds{message}\thistogram: from a request to its answer, waiting for events left out
  datakit_commits_total\ttimes a commit or a merge moved a branch
  datakit_merges_total\tmerges computed
  datakit_conflicts_total\tmerges that found conflicts
  datakit_fsyncs_total\tfiles and folders synced
  datakit_cache_hits_total\ttrees found in memory
  datakit_cache_misses_total\ttrees read from the store
  datakit_pushes_total\tpushes that ran (--auto-push)
  datakit_push_failures_total\tof these, failed
  datakit_push_seconds_total\ttime spent pushing

DataKit:
Its spellings are understood: --git PATH, --url and --listen-9p with addresses joined by commas, file:// for a Unix socket, --listen-prometheus PORT, -v and -vv.

Examples:
  dk serve db.git
  dk serve db.git --listen unix:///run/dk.sock?mode=0660 --listen tcp://127.0.0.1
  mount -t 9p -o trans=tcp,port=5640,version=9p2000.L 127.0.0.1 /mnt
  dk -C tcp://127.0.0.1 log master
  dk serve --memory --listen tcp://127.0.0.1:0";

pub(super) async fn run(ui: &Ui, global: &Global, args: Args) -> anyhow::Result<()> {
    if args.memory && args.auto_push.is_some() {
        let text = "a store in memory cannot be pushed: --auto-push needs a repository";
        return Err(Usage::new(text).into());
    }
    let held = hold_signals();
    let mut asked = Signals::new().context("cannot listen for signals")?;
    let log = log(ui, &args);
    raise_file_limit();
    let addresses = addresses(&args)?;

    let wanted = source::Wanted {
        memory: args.memory,
        named: args.store.clone().or(args.git.clone()),
        read_only: args.read_only,
    };
    let (store, shown) = source::open(global, wanted)?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Tasks::default();
    if let Some(url) = &args.auto_push {
        tasks.push = Some(tokio::spawn(push::run(
            push::Mirror {
                store: Arc::clone(&store),
                url: url.clone(),
            },
            store.engine.changes()?,
            stopped.clone(),
        )));
    }
    let tree = Namespace::new(Arc::clone(&store), args.limits.of_tree());
    let shared = Shared {
        handler: handler(Arc::new(tree), args.limits.of_server()),
        places: Arc::new(Semaphore::new(args.limits.max_connections as usize)),
        stop: stopped,
    };
    let count = addresses.len();
    let mut listeners = Listeners::start(addresses, &shared);
    let metrics = match (&args.metrics, args.listen_prometheus) {
        (Some(at), _) => Some(at.clone()),
        (None, Some(port)) => Some(Endpoint::Tcp {
            host: String::new(),
            port,
        }),
        (None, None) => None,
    };
    if let Some(at) = metrics {
        let subject = health::Subject {
            store: Arc::clone(&store),
            states: listeners.states(),
        };
        let told = {
            let ui = ui.clone();
            move |at: &Endpoint| {
                let at = at.to_string().replacen("tcp://", "http://", 1);
                ui.note(&format!("dk: metrics at {at}/metrics"));
            }
        };
        let first = Listener::bind(&at).await;
        match &first {
            Ok(listener) => told(listener.endpoint()),
            Err(error) => ui.warn(&format!("{error}: {}; trying again", error.source)),
        }
        tasks.other.spawn(health::serve(at, first, subject, told));
    }
    let serving = Serving {
        ui,
        shown: &shown,
        log: &log,
    };
    let result = serving.go_on(&mut listeners, count, &mut asked).await;

    let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    let limit = Instant::now() + GRACE;
    let _ = stop.send(true);
    let end = async { tokio::join!(listeners.end(limit), tasks.end(limit)).0 };
    let all = tokio::select! {
        all = end => all,
        () = asked.end() => false,
    };
    if !all {
        tracing::warn!(target: "serve", "not everything ended in good order");
        open::abandon();
    }
    drop(log);
    // They were heeded.
    signals::forget();
    drop(held);
    result
}

/// What goes on beside the listeners.
#[derive(Default)]
struct Tasks {
    /// Ends by itself after the stop.
    push: Option<JoinHandle<()>>,
    /// Ends by being dropped.
    other: JoinSet<()>,
}

impl Tasks {
    async fn end(mut self, limit: Instant) {
        self.other.shutdown().await;
        if let Some(push) = self.push
            && timeout_at(limit, push).await.is_err()
        {
            tracing::warn!(target: "serve", "a push did not end in time");
        }
    }
}

/// A server while it serves.
struct Serving<'a> {
    ui: &'a Ui,
    /// What the store is called.
    shown: &'a str,
    log: &'a logging::Log,
}

impl Serving<'_> {
    /// Says where it listens and that it is ready, and goes on until a signal
    /// comes; fails if at the start no listener listens.
    async fn go_on(
        &self,
        listeners: &mut Listeners,
        mut unknown: usize,
        asked: &mut Signals,
    ) -> anyhow::Result<()> {
        let (mut listening, mut ready) = (0, false);
        let mut failed = Vec::new();
        let mut begun = Vec::new();
        loop {
            let report = tokio::select! {
                signal = asked.next() => match signal {
                    Signalled::End => return Ok(()),
                    Signalled::Reopen => {
                        self.log.reopen();
                        continue;
                    }
                },
                report = listeners.report() => report,
            };
            unknown = unknown.saturating_sub(1);
            match report {
                Report::Listening(at) => {
                    listening += 1;
                    begun.push(at);
                }
                Report::Failed(error) => failed.push(error),
            }
            if unknown > 0 {
                continue;
            }
            if listening == 0 && !failed.is_empty() {
                return Err(Exit::with(1, failed.remove(0)).into());
            }
            for error in failed.drain(..) {
                let again = match error.may_pass() {
                    true => "; trying again",
                    false => "",
                };
                self.ui.warn(&format!("{error}: {}{again}", error.source));
            }
            // Once each is known, and then for each that comes later.
            for at in begun.drain(..) {
                self.ui.note(&format!("dk: serving {} at {at}", self.shown));
                tracing::info!(target: "serve", store = self.shown, at = %at, "serving");
                if !std::mem::replace(&mut ready, true) {
                    let _ = sd_notify::notify(false, &[NotifyState::Ready]);
                }
            }
        }
    }
}

fn log(ui: &Ui, args: &Args) -> logging::Log {
    let level = match args.verbose {
        0 => args.log_level.as_str(),
        1 => "info",
        _ => "debug",
    };
    let format = match args.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    start_log(ui, level, &args.log_destination, format)
}

/// Returns where to listen: the sockets systemd passed, and those asked for;
/// without any of them, the usual one.
fn addresses(args: &Args) -> anyhow::Result<Vec<Endpoint>> {
    let passed = sd_notify::listen_fds_with_names(false).context("cannot take over sockets")?;
    let mut all: Vec<Endpoint> = passed.map(|(number, _)| Endpoint::Fd(number)).collect();
    for endpoint in &args.listen {
        if !all.contains(endpoint) {
            all.push(endpoint.clone());
        }
    }
    if all.is_empty() {
        all.push(Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port: transport::PORT,
        });
    }
    Ok(all)
}

/// Lets the process have as many files open as the system allows: a connection
/// is one, and many a stream.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // The usual limit does for most.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Returns what serves one connection.
fn handler(tree: Arc<dyn Tree>, limits: server::Limits) -> Handler {
    let server = Arc::new(Server::new(tree, limits));
    Arc::new(move |stream, peer, mut stop| {
        let server = Arc::clone(&server);
        Box::pin(async move {
            tracing::debug!(target: "ninep", peer, "connected");
            let stop = async move { stopped(&mut stop).await };
            match server.serve(stream, &peer, stop).await {
                Ok(()) => tracing::debug!(target: "ninep", peer, "disconnected"),
                // Clients go away in many ways.
                Err(server::Error::Io(error)) => {
                    tracing::info!(target: "ninep", peer, %error, "the connection is lost");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(target: "ninep", peer, error, "the connection is ended");
                }
            }
        })
    })
}
