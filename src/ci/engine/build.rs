//! One build, from its turn to its result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ci::cache::{self, Done, End, Found, Stand};
use crate::ci::config::Retry;
use crate::ci::engine::log::{self, Growing};
use crate::ci::engine::pool::Slot;
use crate::ci::engine::results::{Running, Shared, Why};
use crate::ci::key;
use crate::ci::layout::{Build, Outcome, SavedLog, State, Target};
use crate::ci::{Ended, Job, LogSink as _, Outputs, Placed, Script, Secret, Stop, Use};
use crate::client::{self, Client};
use crate::metrics::metrics;
use crate::model::text::chain;
use crate::model::{Item, Kind, TreePath};

/// Pauses before a change of the store is tried again: doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Times outputs are tried to be kept.
const TRIES: u32 = 5;

/// All that a build needs.
pub(super) struct Plan {
    pub target: Target,
    pub sha: String,
    pub cell: String,
    pub key: String,
    pub pool: Option<String>,
    pub retry: Option<Retry>,
    pub log_limit: Option<u64>,
    pub script: Script,
    pub env: BTreeMap<String, String>,
    pub image: Option<String>,
    pub timeout: Duration,
    pub sandbox: bool,
    /// Names.
    pub secrets: Vec<String>,
    pub source: Arc<dyn Client>,
    /// Folders and files.
    pub inputs: Vec<Item>,
    pub placed: Vec<Placed>,
    pub outputs: Vec<TreePath>,
}

impl Plan {
    pub(super) fn title(&self) -> String {
        format!("Running {}", self.cell)
    }
}

/// What a run came to.
struct Verdict {
    outcome: Outcome,
    cancelled: bool,
    outputs: Option<Outputs>,
}

/// Runs a build. Nothing: it came to nothing, and whoever wants it begins anew.
pub(super) async fn run(
    shared: &Arc<Shared>,
    running: &Arc<Running>,
    plan: Plan,
    stand: Stand,
    mut stop: Stop,
) -> Option<Done> {
    let user = Use {
        target: plan.target.clone(),
        cell: plan.cell.clone(),
        branch: running.branch.clone(),
        since: shared.clock.now(),
    };
    let slots = tokio::select! {
        slots = turn(shared, running, plan.pool.as_deref(), &user) => Some(slots),
        () = stop.wanted() => None,
    };
    if slots.is_none() && running.why() != Some(Why::Asked) {
        return None;
    }
    if running.waits(None) {
        shared.tell(&running.branch);
    }
    let mut build = Build {
        target: plan.target.to_string(),
        commit: plan.sha.clone(),
        cell: plan.cell.clone(),
        title: plan.title(),
        text: None,
        started: shared.clock.now().seconds,
        finished: None,
    };
    let first = format!(
        "=== {}\n{}",
        build.title,
        log::line(&*shared.clock, "Starting...")
    );
    match begin(shared, running, &plan, stand, &build, &first).await {
        Ok(None) => (),
        Ok(Some(done)) => return Some(done),
        Err(None) => return None,
        Err(Some(error)) => return Some(unwritten(&build, running, &chain(&error))),
    }
    metrics().ci.builds_started.inc();
    let limit = plan.log_limit;
    let waits = {
        let (shared, running) = (shared.clone(), running.clone());
        move |reason: Option<&str>| {
            if running.waits(reason) {
                shared.tell(&running.branch);
            }
        }
    };
    let (stopper, job_stop) = crate::ci::Stopper::new();
    let (stopper, full) = (Arc::new(stopper), Arc::new(AtomicBool::new(false)));
    let over = {
        let (stopper, full) = (stopper.clone(), full.clone());
        move || {
            full.store(true, Ordering::Relaxed);
            stopper.stop();
        }
    };
    let grown = Growing::new(
        shared.client.clone(),
        running.branch.clone(),
        &first,
        shared.clock.clone(),
        waits,
        limit,
        over,
    );
    let (mut growing, sink) = match grown {
        Ok(grown) => grown,
        Err(error) => {
            let why = format!("cannot keep the log: {error}");
            return Some(unwritten(&build, running, &why));
        }
    };
    let (end, ended) = oneshot::channel();
    let work = async {
        let verdict = tokio::select! {
            verdict = tries(shared, &plan, sink, job_stop) => verdict,
            // Told on, so that the job ends in good order.
            verdict = async {
                stop.wanted().await;
                stopper.stop();
                std::future::pending().await
            } => verdict,
        };
        // The log is at its end, whoever still holds the other one.
        let _ = end.send(());
        verdict
    };
    let (mut verdict, ()) = tokio::join!(work, growing.pump(ended));
    drop(slots);
    if verdict.cancelled {
        let (text, said) = match running.why() {
            // Left as it is: the next engine sees that it was interrupted.
            Some(Why::Closing) => return None,
            Some(Why::Asked) => ("Cancelled".to_owned(), "Cancelled at user's request"),
            Some(Why::Outdated) => ("Outdated".into(), "Cancelled: nobody wants it any more"),
            None if full.load(Ordering::Relaxed) => {
                verdict.cancelled = false;
                let limit = limit.unwrap_or_default();
                (format!("Log is longer than {limit} bytes"), "Cancelled")
            }
            None => (verdict.outcome.descr, "Cancelled"),
        };
        verdict.outcome = Outcome::failure(text);
        growing
            .append(log::line(&*shared.clock, said).into_bytes())
            .await;
    }
    let last = match verdict.outcome.state {
        State::Success => "Success".to_owned(),
        _ => format!("Failed: {}", verdict.outcome.descr),
    };
    growing
        .append(log::line(&*shared.clock, &last).into_bytes())
        .await;
    build.finished = Some(shared.clock.now().seconds);
    match verdict.outcome.state {
        State::Success => {
            build.text = Some(verdict.outcome.descr.clone());
            metrics().ci.builds_succeeded.inc();
        }
        _ => {
            metrics().ci.builds_failed.inc();
        }
    }
    finish(shared, running, build, growing, verdict).await
}

/// Waits for a slot of the step's pool, and then for one of all.
async fn turn(
    shared: &Arc<Shared>,
    running: &Running,
    pool: Option<&str>,
    user: &Use,
) -> Vec<Slot> {
    let waits = |reason: &str| {
        if running.waits(Some(reason)) {
            shared.tell(&running.branch);
        }
    };
    let mut slots = Vec::new();
    for pool in pool.into_iter().chain([""]) {
        slots.extend(shared.pools.enter(pool, user, waits).await);
    }
    slots
}

/// Opens the branch. `Ok(Some)`: somebody else has made the result meanwhile;
/// `Err(None)`: it was stopped while the store did not answer.
async fn begin(
    shared: &Shared,
    running: &Running,
    plan: &Plan,
    mut stand: Stand,
    build: &Build,
    first: &str,
) -> Result<Option<Done>, Option<client::Error>> {
    let (client, branch) = (&*shared.client, &running.branch);
    let mut pause = PAUSE;
    loop {
        let begun = cache::begin(client, branch, &stand, &plan.key, build, first.as_bytes()).await;
        let error = match begun {
            Ok(_) => return Ok(None),
            Err(error) => error,
        };
        if !matches!(
            error.kind(),
            Kind::HeadMoved | Kind::Io | Kind::Busy | Kind::Interrupted
        ) {
            return Err(Some(error));
        }
        if error.kind() != Kind::HeadMoved {
            if shared.is_closing() || running.why().is_some() {
                return Err(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        match cache::load(client, branch).await {
            Ok(now) => match now.found {
                Found::Done(done) if !done.cancelled => return Ok(Some(done)),
                _ => stand = now,
            },
            Err(_) if !shared.is_closing() => (),
            Err(_) => return Err(None),
        }
    }
}

/// Runs the job, again where it failed as it may.
async fn tries(shared: &Arc<Shared>, plan: &Plan, sink: Arc<log::Sink>, stop: Stop) -> Verdict {
    let mut left = plan.retry.as_ref().map_or(0, |retry| retry.times);
    loop {
        let job = match job(shared, plan).await {
            Ok(job) => job,
            // Nothing is known of the step itself.
            Err(why) => {
                return Verdict {
                    outcome: Outcome::failure(why),
                    cancelled: true,
                    outputs: None,
                };
            }
        };
        let ended = shared.runner.run(job, sink.clone(), stop.clone()).await;
        let (text, exit, late) = match ended {
            Ended::Success { text, outputs } => {
                return Verdict {
                    outcome: Outcome::success(text),
                    cancelled: false,
                    outputs: Some(outputs),
                };
            }
            Ended::Cancelled => {
                return Verdict {
                    outcome: Outcome::failure("Cancelled"),
                    cancelled: true,
                    outputs: None,
                };
            }
            Ended::Failure { text, exit } => (text, exit, false),
            Ended::TimedOut { text } => (text, None, true),
        };
        let again = |retry: &Retry| left > 0 && !stop.is_wanted() && retry.is_for(exit, late);
        if !plan.retry.as_ref().is_some_and(again) {
            return Verdict {
                outcome: Outcome::failure(text),
                cancelled: false,
                outputs: None,
            };
        }
        left -= 1;
        sink.waits(None);
        sink.line(&format!("{text}: trying again, {left} more to go"))
            .await;
    }
}

async fn job(shared: &Shared, plan: &Plan) -> Result<Job, String> {
    let mut secrets = Vec::with_capacity(plan.secrets.len());
    for name in &plan.secrets {
        let value = (shared.secrets)(name)?;
        secrets.push(Secret {
            name: name.clone(),
            value,
        });
    }
    let inputs = key::files(&*plan.source, &plan.inputs).await;
    Ok(Job {
        cell: plan.cell.clone(),
        script: plan.script.clone(),
        env: plan.env.clone(),
        image: plan.image.clone(),
        timeout: plan.timeout,
        sandbox: plan.sandbox,
        secrets,
        inputs: inputs.map_err(|error| format!("cannot read {}: {}", plan.sha, chain(&error)))?,
        source: plan.source.clone(),
        placed: plan.placed.clone(),
        outputs: plan.outputs.clone(),
    })
}

/// Writes the result, for as long as that takes.
async fn finish(
    shared: &Shared,
    running: &Running,
    build: Build,
    growing: Growing,
    mut verdict: Verdict,
) -> Option<Done> {
    let (mut pause, mut tries) = (PAUSE, 0);
    loop {
        let end = End {
            build: &build,
            outcome: &verdict.outcome,
            cancelled: verdict.cancelled,
            log: growing.file(),
            outputs: verdict.outputs.as_ref(),
        };
        let error = match cache::finish(&*shared.client, &running.branch, end).await {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        tries += 1;
        tracing::warn!(target: "ci", "result {}: {}", running.branch, chain(&error));
        let passing = matches!(error.kind(), Kind::Io | Kind::Busy | Kind::Interrupted);
        if verdict.outputs.is_some() && (!passing || tries >= TRIES) {
            let text = format!("cannot keep the outputs: {}", chain(&error));
            verdict.outcome = Outcome::failure(text);
            verdict.outputs = None;
            continue;
        }
        if !passing {
            return Some(unwritten(&build, running, &chain(&error)));
        }
        if shared.is_closing() {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A failure that the store does not hold.
fn unwritten(build: &Build, running: &Running, why: &str) -> Done {
    Done {
        outcome: Outcome::failure(why),
        log: SavedLog {
            title: build.title.clone(),
            branch: running.branch.to_string(),
            commit: String::new(),
            failed: true,
        },
        value: None,
        cancelled: true,
    }
}
