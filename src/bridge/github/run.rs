//! A bridge to GitHub that goes on: what wakes it, and what it does when
//! something fails.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api;
use super::hooks::{Hooks, Places};
use super::sync::{Outcome, Sync};
use super::webhook::Inbox;
use crate::client::{Error, Result};
use crate::metrics::metrics;

/// Pauses after a failure: doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a bridge tells of its work.
pub enum Told<'a> {
    /// A sync went through.
    Synced(&'a Outcome),
    /// It will be tried again after that time.
    Failed(&'a Error, Duration),
}

/// A bridge that is ready to go.
pub struct Bridge {
    pub sync: Sync,
    pub inbox: Arc<Inbox>,
    /// Registers with GitHub, where that is wanted.
    pub hooks: Option<Hooks>,
    /// How often all is read again.
    pub resync: Option<Duration>,
}

impl Bridge {
    /// Keeps both sides in step for ever: at the start, when the branch or
    /// GitHub changes, and every `resync`. `told` hears of it, and may end it;
    /// a failure of the first sync is returned.
    pub async fn run(self, told: impl FnMut(Told<'_>) -> ControlFlow<()>) -> Result<()> {
        let (places, follow) = watch::channel(Places::default());
        let hooks = self.hooks;
        let hooked = async {
            match &hooks {
                Some(hooks) => hooks.run(follow).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = go_on(self.sync, self.inbox, self.resync, places, told) => ended,
            () = hooked => Ok(()),
        }
    }
}

async fn go_on(
    mut sync: Sync,
    inbox: Arc<Inbox>,
    resync: Option<Duration>,
    places: watch::Sender<Places>,
    mut told: impl FnMut(Told<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let (mut first, mut everything, mut pause) = (true, false, PAUSE);
    let mut due = resync.map(|interval| Instant::now() + interval);
    let mut round = 0;
    loop {
        let events = inbox.events();
        let again = match sync.sync(everything, &events).await {
            Ok(outcome) => {
                inbox.used(events.len());
                round += u64::from(everything);
                (first, everything) = (false, false);
                let now = Places {
                    repos: sync.hooked().cloned().collect(),
                    accounts: sync.accounts().cloned().collect(),
                    round,
                };
                places.send_if_modified(|places| {
                    let differ = *places != now;
                    *places = now;
                    differ
                });
                if told(Told::Synced(&outcome)).is_break() {
                    return Ok(());
                }
                match wait(&outcome) {
                    Some(limit) => Some(limit.unwrap_or(pause)),
                    None => {
                        pause = PAUSE;
                        None
                    }
                }
            }
            Err(error) if first => return Err(error),
            Err(error) => {
                metrics().bridge_sync_failures.inc();
                if told(Told::Failed(&error, pause)).is_break() {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        if again.is_some() {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let mut branch = sync.watch();
        tokio::select! {
            event = branch.next() => if let Some(Err(error)) = event {
                metrics().bridge_sync_failures.inc();
                if told(Told::Failed(&error, pause)).is_break() {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
            },
            () = inbox.filled() => (),
            () = until(due) => {
                everything = true;
                due = resync.map(|interval| Instant::now() + interval);
            }
            () = until(again.map(|pause| Instant::now() + pause)) => (),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Tells whether something is to be tried again without being asked, and if
/// GitHub said so after how long.
fn wait(outcome: &Outcome) -> Option<Option<Duration>> {
    let mut again = None;
    for error in outcome.errors() {
        match error {
            api::Error::Limited(pause) => return Some(Some(*pause)),
            api::Error::Unreachable(_) => again = Some(None),
            _ => (),
        }
    }
    again
}
