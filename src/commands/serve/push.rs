//! Pushing every branch that changes, whoever changed it (`--auto-push`).
//!
//! One task, which nobody waits for. It remembers for each branch what the
//! other side was last given; where the store differs from that, there is
//! something to push, and so what failed is pushed again by itself. At the
//! start the two are taken for equal: nothing is pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::listen::{Stop, lock, stopped};
use crate::metrics::metrics;
use crate::model::request::Progress;
use crate::model::text::chain;
use crate::model::{BranchName, ObjectId};
use crate::store::{self, Store, face};

/// How long changes are gathered.
const PAUSE: Duration = Duration::from_secs(2);

/// How long after a failure the next try is, at most.
const LONGEST: Duration = Duration::from_secs(120);

/// How many branches go to one push: what a command line holds.
const MOST: usize = 500;

/// How long the last push may take at the end.
const LAST: Duration = Duration::from_secs(3);

/// The branches that have a head.
pub type Heads = BTreeMap<BranchName, ObjectId>;

/// What changed: the new head, or nothing for a branch that was deleted.
pub type Changes = BTreeMap<BranchName, Option<ObjectId>>;

/// The two sides of a push.
pub trait Sides: Send {
    /// Reads the branches as they are.
    fn heads(&self) -> impl Future<Output = Result<Heads, String>> + Send;

    /// Pushes changes; returns what was refused of them, and why.
    fn push(&self, changes: Changes) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// Why a push failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: String,
    /// The branches that were refused; none: nothing is known to have arrived.
    pub branches: BTreeSet<Vec<u8>>,
}

/// Pushes changes until the stop, and once more then if there are any.
pub async fn run(sides: impl Sides, mut changed: watch::Receiver<u64>, mut stop: Stop) {
    let there = loop {
        changed.mark_unchanged();
        match sides.heads().await {
            Ok(heads) => break heads,
            Err(error) => unreadable(&error),
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = sleep(PAUSE) => (),
        }
    };
    let mut pusher = Pusher {
        sides,
        there,
        refused: BTreeMap::new(),
        all: Wait::default(),
    };
    // When what is being gathered is pushed.
    let mut gathered = None;
    loop {
        let due = pusher.due(gathered);
        let idle = gathered.is_none() && pusher.all.until.is_none();
        tokio::select! {
            () = stopped(&mut stop) => break,
            told = changed.changed(), if idle => {
                if told.is_err() {
                    break;
                }
                gathered = Some(Instant::now() + PAUSE);
                continue;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => (),
        }
        gathered = None;
        changed.mark_unchanged();
        let pushed = tokio::select! {
            () = stopped(&mut stop) => break,
            pushed = pusher.push(Instant::now()) => pushed,
        };
        // What came during a push is pushed right after it.
        if pushed && changed.has_changed().unwrap_or(false) {
            gathered = Some(Instant::now());
        }
    }
    pusher.refused.clear();
    if timeout(LAST, pusher.push(Instant::now())).await.is_err() {
        tracing::warn!(target: "serve", "not all was pushed before the end");
    }
}

fn unreadable(error: &str) {
    tracing::error!(target: "serve", error, "cannot read the branches to push");
}

/// When the next try is.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    until: Option<Instant>,
    failures: u32,
}

impl Wait {
    fn longer(&mut self) {
        let wait = PAUSE.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + wait.min(LONGEST));
    }
}

struct Pusher<S> {
    sides: S,
    /// What the other side has, as far as it was given here.
    there: Heads,
    /// The branches it refused: each is tried again by itself.
    refused: BTreeMap<Vec<u8>, Wait>,
    /// It could not be reached.
    all: Wait,
}

impl<S: Sides> Pusher<S> {
    /// Returns when there is something to be done.
    fn due(&self, gathered: Option<Instant>) -> Option<Instant> {
        if self.all.until.is_some() {
            return self.all.until;
        }
        let refused = self.refused.values().filter_map(|wait| wait.until);
        refused.chain(gathered).min()
    }

    /// Pushes what differs, but for what was refused and is not due. Tells
    /// whether something was pushed and nothing failed.
    async fn push(&mut self, now: Instant) -> bool {
        let here = match self.sides.heads().await {
            Ok(here) => here,
            Err(error) => {
                unreadable(&error);
                self.all.longer();
                return false;
            }
        };
        let mut changes = differing(&here, &self.there);
        // What was refused and is as it was before is no concern any more.
        let still = |name: &Vec<u8>| changes.keys().any(|known| known.as_bytes() == name);
        self.refused.retain(|name, _| still(name));
        changes.retain(|name, _| {
            let wait = self.refused.get(name.as_bytes());
            wait.and_then(|wait| wait.until)
                .is_none_or(|until| until <= now)
        });
        let mut well = !changes.is_empty();
        for batch in batches(changes) {
            let began = Instant::now();
            let pushed = self.sides.push(batch.clone()).await;
            let counts = metrics();
            counts.pushes.inc();
            counts.push_seconds.inc_by(began.elapsed().as_secs_f64());
            let refused = match pushed {
                Ok(()) => BTreeSet::new(),
                Err(refused) => {
                    well = false;
                    counts.push_failures.inc();
                    let branches = names(&batch, &refused);
                    tracing::warn!(target: "serve", branches, error = refused.why, "cannot push");
                    if refused.branches.is_empty() {
                        // The next batch would hardly fare better.
                        self.all.longer();
                        return false;
                    }
                    refused.branches
                }
            };
            for (name, head) in batch {
                if refused.contains(name.as_bytes()) {
                    let wait = self.refused.entry(name.as_bytes().to_vec());
                    wait.or_default().longer();
                    continue;
                }
                tracing::info!(target: "serve", branch = %name, "pushed");
                self.refused.remove(name.as_bytes());
                match head {
                    Some(head) => self.there.insert(name, head),
                    None => self.there.remove(&name),
                };
            }
        }
        self.all = Wait::default();
        well
    }
}

/// Returns what must be done there for it to be as here.
fn differing(here: &Heads, there: &Heads) -> Changes {
    let new = here
        .iter()
        .filter(|(name, head)| there.get(*name) != Some(head))
        .map(|(name, head)| (name.clone(), Some(*head)));
    let gone = there
        .keys()
        .filter(|name| !here.contains_key(*name))
        .map(|name| (name.clone(), None));
    new.chain(gone).collect()
}

/// Deletions go first: a branch may stand where a folder of branches stood.
fn batches(changes: Changes) -> Vec<Changes> {
    let (new, gone): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, head)| head.is_some());
    let both = [gone, new];
    let pieces = both.iter().flat_map(|side| side.chunks(MOST));
    pieces
        .map(|piece| piece.iter().cloned().collect())
        .collect()
}

/// Names the branches a message is about.
fn names(batch: &Changes, refused: &Refused) -> String {
    const SHOWN: usize = 5;
    let meant: Vec<&BranchName> = batch
        .keys()
        .filter(|name| refused.branches.is_empty() || refused.branches.contains(name.as_bytes()))
        .collect();
    let mut shown: Vec<String> = meant.iter().take(SHOWN).map(ToString::to_string).collect();
    if meant.len() > SHOWN {
        shown.push(format!("and {} more", meant.len() - SHOWN));
    }
    shown.join(", ")
}

/// A store, and a repository somewhere that it is pushed to.
pub struct Mirror {
    pub store: Arc<Store>,
    pub url: String,
}

impl Sides for Mirror {
    async fn heads(&self) -> Result<Heads, String> {
        let read = face::run(&self.store, |store| store.branches());
        let branches = read.await.map_err(|error| chain(&error))?;
        let heads = branches
            .into_iter()
            .map(|branch| (branch.name, branch.head));
        Ok(heads.collect())
    }

    async fn push(&self, changes: Changes) -> Result<(), Refused> {
        let (specs, odd) = refspecs(&changes);
        let url = self.url.clone();
        let pushed = face::run(&self.store, move |store| {
            if specs.is_empty() {
                return Ok(Ok(()));
            }
            let lines = Lines::default();
            let pushed = match store.engine.repository() {
                Some(repository) => repository.push(&url, &specs, &lines),
                None => Err(store::Error::Unsupported(
                    "a store in memory cannot be pushed".into(),
                )),
            };
            let said = lines.0.into_inner().unwrap_or_default();
            Ok(pushed.map_err(|error| refusal(&chain(&error), &said)))
        });
        match pushed.await {
            Ok(Ok(())) if !odd.is_empty() => Err(Refused {
                why: "a name that is not UTF-8 cannot be pushed".into(),
                branches: odd,
            }),
            Ok(Err(mut refused)) => {
                if !refused.branches.is_empty() {
                    refused.branches.extend(odd);
                }
                Err(refused)
            }
            Ok(done) => done,
            Err(error) => Err(Refused {
                why: chain(&error),
                branches: BTreeSet::new(),
            }),
        }
    }
}

/// Returns what git push is asked for: exact commits, so that a branch that
/// is deleted meanwhile fails nobody. Also the names it cannot be asked for.
fn refspecs(changes: &Changes) -> (Vec<String>, BTreeSet<Vec<u8>>) {
    let mut specs = Vec::new();
    let mut odd = BTreeSet::new();
    for (name, head) in changes {
        match (std::str::from_utf8(name.as_bytes()), head) {
            (Ok(name), Some(head)) => specs.push(format!("+{head}:refs/heads/{name}")),
            (Ok(name), None) => specs.push(format!(":refs/heads/{name}")),
            (Err(_), _) => {
                odd.insert(name.as_bytes().to_vec());
            }
        }
    }
    (specs, odd)
}

/// Reads which branches git push says were refused.
fn refusal(why: &str, said: &[String]) -> Refused {
    let refused = |line: &String| {
        // ` ! [rejected]  FROM -> NAME (why)`, without an arrow for a deletion.
        let (_, rest) = line.strip_prefix(" ! [")?.split_once(']')?;
        let rest = rest.trim_start();
        let name = rest.split_once(" -> ").map_or(rest, |(_, name)| name);
        let name = name.split_whitespace().next()?;
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        Some(name.as_bytes().to_vec())
    };
    Refused {
        why: why.into(),
        branches: said.iter().filter_map(refused).collect(),
    }
}

/// Keeps the lines a push prints.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Progress for Lines {
    fn begin(&self, _: &str, _: Option<u64>, _: bool) {}
    fn advance(&self, _: u64) {}
    fn line(&self, text: &str) {
        tracing::debug!(target: "serve", "git push: {text}");
        let mut lines = lock(&self.0);
        if lines.len() < 4 * MOST {
            lines.push(text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the fake is made to do, and has done.
    #[derive(Default)]
    struct World {
        here: Heads,
        pushed: Vec<(Duration, String)>,
        /// Refuses these branches, or with an empty name everything.
        bad: BTreeSet<Vec<u8>>,
    }

    struct Fake {
        world: Arc<Mutex<World>>,
        began: Instant,
        takes: Duration,
    }

    impl Sides for Fake {
        async fn heads(&self) -> Result<Heads, String> {
            Ok(lock(&self.world).here.clone())
        }

        async fn push(&self, changes: Changes) -> Result<(), Refused> {
            sleep(self.takes).await;
            let mut world = lock(&self.world);
            let (specs, _) = refspecs(&changes);
            let short = |spec: String| spec.replace(&"1".repeat(39), "").replace("refs/heads/", "");
            let specs: Vec<String> = specs.into_iter().map(short).collect();
            world.pushed.push((self.began.elapsed(), specs.join(" ")));
            let branches: BTreeSet<Vec<u8>> = changes
                .keys()
                .map(|name| name.as_bytes().to_vec())
                .filter(|name| world.bad.contains(name))
                .collect();
            match branches.is_empty() && !world.bad.contains(&Vec::new()) {
                true => Ok(()),
                false => Err(Refused {
                    why: "no".into(),
                    branches,
                }),
            }
        }
    }

    fn name(text: &str) -> BranchName {
        BranchName::new(text).expect("legal")
    }

    /// A short id is a digit of 40.
    fn id(digit: u8) -> ObjectId {
        let hex = format!("{digit}{}", "1".repeat(39));
        ObjectId::from_hex(hex.as_bytes()).expect("an id")
    }

    struct Run {
        world: Arc<Mutex<World>>,
        number: watch::Sender<u64>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Run {
        /// Starts with branch `old` at 1.
        async fn start(takes: u64) -> Self {
            let world = Arc::new(Mutex::new(World::default()));
            lock(&world).here.insert(name("old"), id(1));
            let fake = Fake {
                world: Arc::clone(&world),
                began: Instant::now(),
                takes: Duration::from_millis(takes),
            };
            let (number, changed) = watch::channel(0);
            let (stop, stopped) = watch::channel(false);
            let task = tokio::spawn(super::run(fake, changed, stopped));
            let run = Self {
                world,
                number,
                stop,
                task,
            };
            // So that the start is over.
            sleep(Duration::from_millis(1)).await;
            run
        }

        fn set(&self, branch: &str, head: Option<u8>) {
            let mut world = lock(&self.world);
            match head {
                Some(head) => world.here.insert(name(branch), id(head)),
                None => world.here.remove(&name(branch)),
            };
            self.number.send_modify(|number| *number += 1);
        }

        async fn pass(&self, seconds: f64) {
            sleep(Duration::from_secs_f64(seconds)).await;
        }

        /// What was pushed so far, with the second it was done.
        fn pushed(&self) -> Vec<String> {
            let world = lock(&self.world);
            let shown = world.pushed.iter();
            shown
                .map(|(at, specs)| format!("{:.1} {specs}", at.as_secs_f64()))
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_gathered_for_two_seconds() {
        let run = Run::start(0).await;
        run.pass(10.0).await;
        assert!(run.pushed().is_empty(), "nothing at the start");
        run.set("b", Some(2));
        run.pass(1.0).await;
        run.set("a", Some(3));
        run.set("old", None);
        run.set("brief", Some(4));
        run.set("brief", None);
        run.pass(0.9).await;
        assert!(run.pushed().is_empty());
        run.pass(5.0).await;
        assert_eq!(run.pushed(), ["12.0 :old", "12.0 +3:a +2:b"]);
        run.pass(100.0).await;
        assert_eq!(run.pushed().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_during_a_push_is_pushed_right_after_it() {
        let run = Run::start(1000).await;
        run.set("a", Some(2));
        run.pass(2.5).await;
        run.set("a", Some(3));
        run.pass(10.0).await;
        assert_eq!(run.pushed(), ["3.0 +2:a", "4.0 +3:a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_pushed_again_after_longer_and_longer_waits() {
        let run = Run::start(0).await;
        lock(&run.world).bad.insert(Vec::new());
        run.set("a", Some(2));
        run.pass(17.0).await;
        assert_eq!(
            run.pushed(),
            ["2.0 +2:a", "4.0 +2:a", "8.0 +2:a", "16.0 +2:a"]
        );
        lock(&run.world).bad.clear();
        run.set("b", Some(3));
        run.pass(100.0).await;
        assert_eq!(run.pushed()[4..], ["32.0 +2:a +3:b"]);
        run.set("b", Some(4));
        run.pass(3.0).await;
        assert_eq!(run.pushed().len(), 6, "the waits begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_branch_that_is_refused_holds_up_no_other() {
        let run = Run::start(0).await;
        lock(&run.world).bad.insert(b"bad".to_vec());
        run.set("bad", Some(2));
        run.set("good", Some(2));
        run.pass(4.5).await;
        run.set("good", Some(3));
        run.pass(2.3).await;
        assert_eq!(
            run.pushed(),
            ["2.0 +2:bad +2:good", "4.0 +2:bad", "6.5 +3:good"]
        );
        // What is as it was before is not pushed again.
        run.set("bad", None);
        run.pass(100.0).await;
        assert_eq!(run.pushed().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_lose_what_was_gathered() {
        let run = Run::start(0).await;
        run.set("a", Some(2));
        run.pass(0.5).await;
        run.stop.send(true).expect("it listens");
        run.task.await.expect("it ends");
        assert_eq!(lock(&run.world).pushed.len(), 1);
    }

    #[test]
    fn refusals_are_read_from_what_git_says() {
        let said = [
            "To ../there.git",
            "   0d2b8e9..52c8a1f  52c8a1f -> good",
            " ! [rejected]        0d2b8e9 -> a/b (non-fast-forward)",
            " ! [remote rejected] 0d2b8e9 -> hooked (pre-receive hook declined)",
            " ! [remote rejected] kept (deletion prohibited)",
            "error: failed to push some refs to '../there.git'",
        ];
        let refused = refusal("why", &said.map(String::from));
        let names: Vec<&[u8]> = refused.branches.iter().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"a/b"[..], b"hooked", b"kept"]);
    }
}
