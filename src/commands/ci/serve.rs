//! `dk ci serve`: the engine, until it is ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use sd_notify::NotifyState;

use crate::ci::config::{self, Config};
use crate::ci::engine::{Engine, Options, Secrets, World};
use crate::ci::runner::{self, Machine};
use crate::ci::{Stopper, SystemClock, Target};
use crate::commands::ci::source::Repositories;
use crate::commands::ci::{check, health, life, page};
use crate::commands::daemon::{Signalled, Signals, start_log};
use crate::commands::{Session, hold_signals};
use crate::logging;
use crate::ui::{Usage, signals};

/// Keep the results of all targets up to date
///
/// Follows what a bridge writes into the store, runs the steps of every branch
/// and pull request whose inputs changed, and writes their statuses, logs and
/// results back, until it is ended. One engine serves a store at a time. An
/// engine that was killed goes on where it was: builds that were interrupted
/// begin again. dk-ci(5) describes the configuration.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: PathBuf,
    #[command(flatten)]
    page: page::Options,
    /// Test this target and no other; may be given again
    ///
    /// USER/REPO/heads/NAME, USER/REPO/tags/NAME or USER/REPO/pr/NUMBER. A
    /// project of which no target is named is not tested at all.
    #[arg(long, value_name = "TARGET")]
    canary: Vec<Target>,
    /// The folder that holds the values of secrets, a file each
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    secrets_dir: Option<PathBuf>,
    /// How many builds run at a time; without it as many as there are processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Where checkouts and mirrors of sources are kept; without it below the user's cache folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    cache_dir: Option<PathBuf>,
    /// Answer /metrics and /healthz over HTTP at HOST:PORT
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// How much to log: quiet, error, warning, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info", hide_possible_values = true,
          value_parser = clap::builder::PossibleValuesParser::new(logging::LEVELS))]
    log_level: String,
    /// Where the log goes: stderr, journald or file:PATH
    #[arg(long, value_name = "DEST", default_value = "stderr")]
    log_destination: logging::Destination,
}

const AFTER: &str = "Running:
When it follows the store, a line 'dk: testing N projects of STORE' is on standard error, and READY=1 is sent to systemd.
A store that cannot be reached is tried again for ever.

Steps:
Whatever a step starts ends with it, also where this process is killed. What holds for its supervisor, with and without root, is in dk-ci(5). What killed engines left (folders, processes, containers) is cleared away at the start.

Signals:
  SIGTERM, SIGINT\tstop all steps, to be begun again by the next engine, and exit with status 0; a second one ends it at once
  SIGHUP\topen the log file anew

Metrics:
  datakit_ci_targets{type}\ttargets that are tested: branch, tag, pr
  datakit_ci_evaluations_total\ttargets evaluated
  datakit_ci_status_updates_total\tstatuses written
  datakit_ci_failed_rounds_total\trounds that failed and were tried again
  datakit_ci_builds_started_total, datakit_ci_builds_succeeded_total, datakit_ci_builds_failed_total\tbuilds
  datakit_ci_builds_in_progress\tbuilds that run or wait for their turn
  datakit_ci_web_requests_total, datakit_ci_web_errors_total\trequests to the page, and those answered with 500 or more
  datakit_ci_web_logins_total, datakit_ci_web_logins_rejected_total\tlogins

Examples:
  dk -C db.git ci serve --config ci.toml
  dk -C db.git ci serve --config ci.toml --web :8080 --secrets-dir /etc/dk-ci
  dk -C tcp://db ci serve --config ci.toml --secrets-dir /run/secrets --jobs 8
  dk -C db.git ci serve --config ci.toml --canary me/app/heads/master";

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let held = hold_signals();
    let mut asked = Signals::new().context("cannot listen for signals")?;
    let ui = &session.ui;
    let log = start_log(
        ui,
        &args.log_level,
        &args.log_destination,
        logging::Format::Text,
    );
    let config = read(session, &args.config)?;
    let cache = cache_folder(args.cache_dir.as_deref())?;
    let world = world(session, &args, &config, &cache)?;
    let site = page::Site::bind(&args.page, args.secrets_dir.as_deref(), &config).await?;
    let options = Options {
        web_url: site.url().or(args.page.web_url.clone()),
        canaries: args.canary.clone(),
        jobs: jobs(args.jobs),
    };
    let count = config.projects.len();
    let mut engine = Engine::start(world, config, options).await?;
    let site = site.serve(session, engine.status());
    let health = match &args.metrics {
        Some(at) => Some(health::serve(ui, at, engine.status()).await?),
        None => None,
    };
    let noun = if count == 1 { "project" } else { "projects" };
    let store = session.store.display();
    ui.note(&format!("dk: testing {count} {noun} of {store}"));
    let _ = sd_notify::notify(false, &[NotifyState::Ready]);

    let (stopper, stop) = Stopper::new();
    let result = {
        let mut running = std::pin::pin!(engine.run(stop));
        loop {
            tokio::select! {
                result = &mut running => break result,
                signal = asked.next() => match signal {
                    Signalled::End => stopper.stop(),
                    Signalled::Reopen => log.reopen(),
                },
            }
        }
    };
    let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    drop((health, site));
    let closed = tokio::select! {
        closed = engine.close() => closed,
        // Another one ends it where it stands.
        () = asked.end() => Ok(()),
    };
    drop(log);
    // They were heeded.
    signals::forget();
    drop(held);
    result?;
    Ok(closed?)
}

/// Reads the configuration; every fault is printed.
fn read(session: &Session, file: &Path) -> anyhow::Result<Config> {
    let text = check::read(file)?;
    let config = config::engine(&text);
    let config = config.map_err(|invalid| check::refuse(&session.ui, file, &invalid))?;
    if config.projects.is_empty() {
        let why = format!("{} names no project", file.display());
        return Err(Usage::new(why).into());
    }
    Ok(config)
}

pub(super) fn jobs(asked: Option<u16>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.map_or_else(processors, usize::from)
}

/// Returns the folder of what can be made again.
pub(super) fn cache_folder(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(asked) = asked {
        return Ok(std::path::absolute(asked)?);
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set: say --cache-dir")?;
    Ok(base.join("dk/ci"))
}

fn world(session: &Session, args: &Args, config: &Config, cache: &Path) -> anyhow::Result<World> {
    let base = args.config.parent().unwrap_or(Path::new("."));
    let machine = Machine::new(runner::Options {
        scratch: cache.join("steps"),
        supervisor: runner::supervisor().context("cannot tell where dk is")?,
        env: environment(),
        grace: runner::GRACE,
    });
    Ok(World {
        client: session.client.clone(),
        sources: Arc::new(Repositories::open(config, base, cache)?),
        runner: Arc::new(machine),
        clock: Arc::new(SystemClock),
        secrets: secrets(args.secrets_dir.clone()),
        holder: life::holder(),
    })
}

/// Returns the variables every step has: what names places on this machine.
fn environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let kept = ["PATH", "LANG", "TZ"].into_iter();
    kept.filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

fn secrets(folder: Option<PathBuf>) -> Secrets {
    Arc::new(move |name: &str| {
        let Some(folder) = &folder else {
            return Err(format!("secret {name}: there is no --secrets-dir"));
        };
        // The configuration allows names of variables only.
        let value = std::fs::read(folder.join(name));
        let mut value = value.map_err(|error| format!("secret {name}: {error}"))?;
        if value.ends_with(b"\n") {
            value.pop();
        }
        Ok(value)
    })
}
