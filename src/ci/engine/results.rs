//! Results by their branches: what is in memory, and what is being built.
//!
//! Memory holds what some cell of some target wants now, and no more: the rest
//! is in the store. One branch is built once at a time, however many want it.
//! Locks are held for moments, never while something is waited for.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::ci::cache::{self, Done, Found, Store};
use crate::ci::engine::Secrets;
use crate::ci::engine::build::{self, Plan};
use crate::ci::engine::pool::Pools;
use crate::ci::engine::source::Fetches;
use crate::ci::layout::{Logs, Outcome, Output, State, Target};
use crate::ci::{Clock, Runner, Status, Stop, Stopper};
use crate::client::Result;
use crate::metrics::metrics;
use crate::model::{BranchName, ObjectId};

/// A cell of a target.
pub(super) type Want = (Target, String);

/// Why a build is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for it.
    Asked,
    /// Nobody wants it any more.
    Outdated,
    /// The engine ends: the build is to be begun again.
    Closing,
}

/// A build that waits for its turn, or runs.
pub(super) struct Running {
    pub title: String,
    pub branch: BranchName,
    /// It is not stopped for being outdated.
    pub lasting: bool,
    reason: Mutex<Option<String>>,
    why: Mutex<Option<Why>>,
    stopper: Stopper,
}

impl Running {
    /// Stops the build. The first reason counts.
    pub(super) fn stop(&self, why: Why) {
        lock(&self.why).get_or_insert(why);
        self.stopper.stop();
    }

    pub(super) fn why(&self) -> Option<Why> {
        *lock(&self.why)
    }

    /// Says what it waits for. Returns whether that is news.
    pub(super) fn waits(&self, reason: Option<&str>) -> bool {
        let reason = reason.map(str::to_owned);
        let mut now = lock(&self.reason);
        let news = *now != reason;
        *now = reason;
        news
    }

    fn output(&self) -> Output {
        let reason = lock(&self.reason).clone();
        Output {
            result: Outcome::pending(reason.unwrap_or_else(|| self.title.clone())),
            logs: Logs::Live {
                branch: self.branch.to_string(),
            },
        }
    }
}

enum Entry {
    Running(Arc<Running>),
    Done(Done),
}

#[derive(Default)]
struct Slot {
    /// Nothing: to be read from the store.
    entry: Option<Entry>,
    wanted: HashSet<Want>,
}

/// What a look-up comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub output: Output,
    /// The tree of the outputs, once there are some.
    pub value: Option<ObjectId>,
}

/// What all parts of an engine share.
pub(super) struct Shared {
    pub client: Store,
    pub fetches: Fetches,
    pub runner: Arc<dyn Runner>,
    pub clock: Arc<dyn Clock>,
    pub secrets: Secrets,
    pub pools: Pools,
    pub status: Arc<Status>,
    /// Notified when a round is needed.
    pub wake: Notify,
    slots: Mutex<HashMap<BranchName, Slot>>,
    /// Branches whose answer may have changed since the last round.
    changed: Mutex<BTreeSet<BranchName>>,
    /// Targets that waited for something else.
    ready: Mutex<BTreeSet<Target>>,
    tasks: Mutex<JoinSet<()>>,
    closing: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        client: Store,
        fetches: Fetches,
        runner: Arc<dyn Runner>,
        clock: Arc<dyn Clock>,
        secrets: Secrets,
        pools: Pools,
        status: Arc<Status>,
    ) -> Self {
        Self {
            client,
            fetches,
            runner,
            clock,
            secrets,
            pools,
            status,
            wake: Notify::new(),
            slots: Mutex::default(),
            changed: Mutex::default(),
            ready: Mutex::default(),
            tasks: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Returns the result of a branch, having its build begun where there is
    /// none. `kept` is what the cell had for the same commit.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        branch: &BranchName,
        plan: impl FnOnce() -> Plan,
        never: bool,
        kept: Option<&Output>,
    ) -> Result<Answer> {
        // What the same commit had of this branch: one that was cancelled stays
        // so, and a lost one is known.
        let name = branch.to_string();
        let had = |done: &Done| {
            kept.is_some_and(|output| {
                output.logs.branches().contains(&name.as_str()) || output.result == done.outcome
            })
        };
        let stays = |done: &Done| !done.cancelled || never || had(done);
        let saved = kept.filter(|output| match &output.logs {
            Logs::Saved(saved) => saved.branch == name,
            _ => false,
        });
        match lock(&self.slots)
            .get(branch)
            .and_then(|slot| slot.entry.as_ref())
        {
            Some(Entry::Running(running)) => return Ok(waiting(running)),
            Some(Entry::Done(done)) if stays(done) => return Ok(finished(done)),
            _ => (),
        }
        let stand = cache::load(&*self.client, branch).await?;
        match &stand.found {
            Found::Done(done) if stays(done) => {
                let mut slots = lock(&self.slots);
                let slot = slots.entry(branch.clone()).or_default();
                if let Some(Entry::Running(running)) = &slot.entry {
                    return Ok(waiting(running));
                }
                slot.entry = Some(Entry::Done(done.clone()));
                return Ok(finished(done));
            }
            Found::Absent if never => {
                if let Some(output) = saved.cloned() {
                    return Ok(Answer {
                        output,
                        value: None,
                    });
                }
            }
            Found::Interrupted if never => {
                return Ok(Answer {
                    output: lost(),
                    value: None,
                });
            }
            _ => (),
        }
        let plan = plan();
        let (stopper, stop) = Stopper::new();
        let running = Arc::new(Running {
            title: plan.title(),
            branch: branch.clone(),
            lasting: never,
            reason: Mutex::default(),
            why: Mutex::default(),
            stopper,
        });
        {
            let mut slots = lock(&self.slots);
            let slot = slots.entry(branch.clone()).or_default();
            if let Some(Entry::Running(running)) = &slot.entry {
                return Ok(waiting(running));
            }
            slot.entry = Some(Entry::Running(running.clone()));
        }
        if stand.found == Found::Interrupted && stand.is_cancel_requested() {
            // Asked for while no engine ran: it is closed as one that was.
            running.stop(Why::Asked);
        }
        let answer = waiting(&running);
        self.spawn(running, plan, stand, stop);
        Ok(answer)
    }

    fn spawn(self: &Arc<Self>, running: Arc<Running>, plan: Plan, stand: cache::Stand, stop: Stop) {
        let shared = self.clone();
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let branch = running.branch.clone();
            let mut unfinished = Unfinished(Some((shared.clone(), branch.clone())));
            metrics().ci.builds_running.inc();
            let done = build::run(&shared, &running, plan, stand, stop).await;
            metrics().ci.builds_running.dec();
            unfinished.0 = None;
            shared.end(&branch, done);
        });
    }

    /// Puts what a build came to in its place; nothing where it came to nothing.
    fn end(&self, branch: &BranchName, done: Option<Done>) {
        if let Place::Occupied(mut slot) = lock(&self.slots).entry(branch.clone()) {
            slot.get_mut().entry = done.map(Entry::Done);
            if slot.get().wanted.is_empty() {
                slot.remove();
            }
        }
        self.tell(branch);
    }

    /// Forgets what is known of a branch, unless it is being built. Returns
    /// whether it was known.
    pub(super) fn forget(&self, branch: &BranchName) -> bool {
        let mut slots = lock(&self.slots);
        match slots.get_mut(branch) {
            Some(slot) if !matches!(slot.entry, Some(Entry::Running(_))) => slot.entry = None,
            _ => return false,
        }
        drop(slots);
        self.tell(branch);
        true
    }

    /// Stops a build. Returns whether there was one.
    pub(super) fn stop(&self, branch: &BranchName, why: Why) -> bool {
        let slots = lock(&self.slots);
        match slots.get(branch).and_then(|slot| slot.entry.as_ref()) {
            Some(Entry::Running(running)) => {
                running.stop(why);
                true
            }
            _ => false,
        }
    }

    /// Says which branch a cell wants now, and which it wanted before. What
    /// nobody wants is forgotten, and its build stopped.
    pub(super) fn want(&self, want: &Want, old: Option<&BranchName>, new: Option<&BranchName>) {
        if old == new {
            return;
        }
        let mut slots = lock(&self.slots);
        if let Some(new) = new {
            let slot = slots.entry(new.clone()).or_default();
            slot.wanted.insert(want.clone());
        }
        let Some(Place::Occupied(mut slot)) = old.map(|old| slots.entry(old.clone())) else {
            return;
        };
        slot.get_mut().wanted.remove(want);
        if !slot.get().wanted.is_empty() {
            return;
        }
        match &slot.get().entry {
            Some(Entry::Running(running)) if !running.lasting => running.stop(Why::Outdated),
            Some(Entry::Running(_)) => (),
            _ => {
                slot.remove();
            }
        }
    }

    /// Notes that the answer of a branch may be another one.
    pub(super) fn tell(&self, branch: &BranchName) {
        lock(&self.changed).insert(branch.clone());
        self.wake.notify_one();
    }

    /// Notes that a target need not wait any longer.
    pub(super) fn tell_target(&self, target: &Target) {
        lock(&self.ready).insert(target.clone());
        self.wake.notify_one();
    }

    /// Returns the targets that something has changed for.
    pub(super) fn news(&self) -> BTreeSet<Target> {
        let changed = std::mem::take(&mut *lock(&self.changed));
        let mut targets = std::mem::take(&mut *lock(&self.ready));
        let slots = lock(&self.slots);
        for branch in changed {
            let wanted = slots.get(&branch).map(|slot| &slot.wanted);
            targets.extend(
                wanted
                    .into_iter()
                    .flatten()
                    .map(|(target, _)| target.clone()),
            );
        }
        targets
    }

    /// Returns the branches that somebody wants now.
    pub(super) fn wanted(&self) -> BTreeSet<BranchName> {
        lock(&self.slots).keys().cloned().collect()
    }

    pub(super) fn is_wanted(&self, branch: &BranchName) -> bool {
        lock(&self.slots).contains_key(branch)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends all builds where they stand.
    pub(super) fn abort(&self) {
        self.closing.store(true, Ordering::Relaxed);
        lock(&self.tasks).abort_all();
        self.fetches.abort();
    }

    /// Stops all builds, to be begun again by the next engine, and waits for
    /// them.
    pub(super) async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        for slot in lock(&self.slots).values() {
            if let Some(Entry::Running(running)) = &slot.entry {
                running.stop(Why::Closing);
            }
        }
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
    }
}

/// A build whose task died: others are to try again.
struct Unfinished(Option<(Arc<Shared>, BranchName)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((shared, branch)) = self.0.take() {
            shared.end(&branch, None);
        }
    }
}

fn waiting(running: &Running) -> Answer {
    Answer {
        output: running.output(),
        value: None,
    }
}

fn finished(done: &Done) -> Answer {
    // One that could not be written has no log.
    let logs = match done.log.commit.is_empty() {
        true => Logs::None,
        false => Logs::Saved(done.log.clone()),
    };
    Answer {
        output: Output {
            result: done.outcome.clone(),
            logs,
        },
        value: done.value.filter(|_| done.outcome.state == State::Success),
    }
}

fn lost() -> Output {
    Output {
        result: Outcome::failure("Interrupted, and not run again by itself"),
        logs: Logs::None,
    }
}
