//! Many processes on one store: dk, and stock git beside it.
//!
//! Nothing that was acknowledged is lost, everything ends, `git fsck --strict`
//! is clean, and a watch sees every commit once.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::Instant;

use crate::aftermath::{duration, finish, history, is_whole, leftovers, seed};
use crate::sandbox::{Sandbox, eventually};
use crate::stock::Dice;

/// A branch that only pushes move.
const PUSHED: &str = "pushed";
/// Branches to which everybody only ever adds.
const BRANCHES: [&str; 2] = ["main", "deep/er"];

struct Race {
    sandbox: Sandbox,
    end: Instant,
    /// What was acknowledged, by branch.
    acknowledged: Mutex<BTreeMap<String, HashSet<String>>>,
    /// What was done how often, failures of git for a held lock included.
    counts: Mutex<BTreeMap<String, usize>>,
    /// Shared by whoever writes, held alone by what Git forbids beside writers.
    gate: RwLock<()>,
    number: AtomicUsize,
}

impl Race {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    /// Runs dk, which must succeed; returns what it printed.
    fn dk(&self, arguments: &[&str]) -> String {
        let output = finish(&mut self.sandbox.command(arguments));
        let shown = self.sandbox.shown(&output);
        assert!(output.status.success(), "dk {arguments:?}: {shown}");
        self.count(&format!("dk {}", arguments[0]));
        String::from_utf8(output.stdout).unwrap().trim_end().into()
    }

    /// Runs git; tells whether it succeeded. It gives up where a lock is held.
    fn git(&self, folder: &str, arguments: &[&str]) -> Option<String> {
        let all = ["-C", folder].into_iter().chain(arguments.iter().copied());
        let output = finish(&mut self.sandbox.program("git", all));
        let what = format!("git {}", arguments[0]);
        if !output.status.success() {
            let shown = self.sandbox.shown(&output);
            let bad = ["corrupt", "missing", "bad object", "broken", "invalid"];
            if bad.iter().any(|word| shown.contains(word)) {
                let refs = self.sandbox.sh("git -C db.git for-each-ref");
                panic!("{what}: {shown}\n{refs}");
            }
            self.count(&format!("{what} (refused)"));
            return None;
        }
        self.count(&what);
        Some(String::from_utf8(output.stdout).unwrap().trim_end().into())
    }

    fn acknowledge(&self, branch: &str, id: &str) {
        assert!(id.len() == 40, "{id:?}");
        let mut all = self.acknowledged.lock().unwrap();
        all.entry(branch.into()).or_default().insert(id.into());
    }

    /// `dk put`, to a file of its own or one that others write too.
    fn put(&self, dice: &mut Dice) {
        let (branch, number) = (*dice.pick(&BRANCHES), self.next());
        let path = match dice.roll(2) {
            0 => format!("{branch}:put/{number}"),
            _ => format!("{branch}:shared/{}", dice.roll(3)),
        };
        let file = format!("input.{number}");
        self.sandbox.write(&file, format!("{number}\n"));
        let id = self.dk(&["put", &path, &file]);
        self.acknowledge(branch, &id);
    }

    fn transaction(&self, dice: &mut Dice) {
        let (branch, number) = (*dice.pick(&BRANCHES), self.next());
        let tx = self.dk(&["tx", "begin", branch]);
        for part in 0..2 {
            let file = format!("input.{number}");
            self.sandbox.write(&file, format!("{number} {part}\n"));
            self.dk(&["tx", "write", &tx, &format!("tx/{number}/{part}"), &file]);
        }
        let id = self.dk(&["tx", "commit", &tx]);
        self.acknowledge(branch, &id);
        self.dk(&["tx", "abort", &tx]);
    }

    /// Merges a branch that never gets anything of the others.
    fn merge(&self, dice: &mut Dice) {
        let number = self.next();
        let file = format!("input.{number}");
        self.sandbox.write(&file, format!("{number}\n"));
        let side = self.dk(&["put", &format!("side:side/{number}"), &file]);
        self.acknowledge("side", &side);
        let branch = *dice.pick(&BRANCHES);
        let printed = self.dk(&["merge", branch, "side"]);
        let id = printed.split_whitespace().last().unwrap_or_default();
        self.acknowledge(branch, id);
    }

    /// `git commit-tree` and `git update-ref`, as scripts do.
    fn plumbing(&self, dice: &mut Dice) {
        let branch = format!("refs/heads/{}", dice.pick(&BRANCHES));
        let Some(old) = self.git("db.git", &["rev-parse", &branch]) else {
            return;
        };
        // A commit that changes nothing is none to a watch: this one does.
        let message = format!("plumbing {}", self.next());
        let (read, make) = ("git -C db.git ls-tree", "git -C db.git mktree");
        let line = "100644 blob e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let made = self.sandbox.sh(&format!(
            "{{ {read} {old} && printf '{line}\\t{message}\\n'; }} | {make}"
        ));
        let tree = made.trim_end();
        let commit = ["commit-tree", tree, "-p", &old, "-m", &message];
        let Some(new) = self.git("db.git", &commit) else {
            return;
        };
        if self
            .git("db.git", &["update-ref", &branch, &new, &old])
            .is_some()
        {
            self.acknowledge(branch.strip_prefix("refs/heads/").unwrap(), &new);
        }
    }

    /// A clone that pulls, commits and pushes.
    fn push(&self, dice: &mut Dice) {
        // On the others' branches somebody is usually faster; on its own it gets through.
        let branch = if dice.roll(2) == 0 {
            PUSHED
        } else {
            *dice.pick(&BRANCHES)
        };
        let onto = format!("origin/{branch}");
        let number = self.next();
        self.sandbox.write(format!("clone/push.{number}"), "");
        let steps: [&[&str]; 4] = [
            // Not the scratch branches: what git removes while git sends it is its own.
            &["fetch", "-q", "origin", "main", "deep/er", PUSHED],
            &["checkout", "-q", "-f", "--detach", &onto],
            &["add", &format!("push.{number}")],
            &["commit", "-q", "-m", &format!("push {number}")],
        ];
        if !steps.iter().all(|step| self.git("clone", step).is_some()) {
            return;
        }
        let id = self.git("clone", &["rev-parse", "HEAD"]).unwrap();
        let to = format!("HEAD:refs/heads/{branch}");
        if self.git("clone", &["push", "-q", "origin", &to]).is_some() {
            self.acknowledge(branch, &id);
        }
    }

    /// What administrators and hooks do, while everybody writes.
    fn upkeep(&self, dice: &mut Dice) {
        let steps: [&[&str]; 5] = [
            &["pack-refs", "--all"],
            &["gc", "-q"],
            &["repack", "-q", "-d"],
            &["repack", "-q", "-a", "-d"],
            &["pack-refs", "--all", "--prune"],
        ];
        self.git("db.git", dice.pick::<&[&str]>(&steps));
    }

    /// Branches that git deletes under the hands of dk.
    fn scratch(&self, dice: &mut Dice) {
        let branch = format!("scratch/{}", dice.roll(2));
        let file = format!("input.{}", self.next());
        self.sandbox.write(&file, &file);
        match dice.roll(3) {
            0 => drop(self.git("db.git", &["branch", "-q", "-D", &branch])),
            _ => drop(self.dk(&["put", &format!("{branch}:f"), &file])),
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_stock_git_beside() {
    let mut sandbox = Sandbox::with_store();
    sandbox.git([
        "-C",
        "db.git",
        "hash-object",
        "-w",
        "-t",
        "blob",
        "/dev/null",
    ]);
    // So that two commits at the same second differ all the same.
    sandbox.unset("GIT_COMMITTER_DATE");
    sandbox.git(["-C", "db.git", "config", "gc.auto", "20"]);
    sandbox.git(["-C", "db.git", "config", "gc.autoDetach", "false"]);
    let mut start = Vec::new();
    for branch in BRANCHES.iter().chain(&["side", PUSHED]) {
        let id = sandbox.ok_with(branch, ["put", &format!("{branch}:from/{branch}"), "-"]);
        start.push(id);
    }
    sandbox.git(["clone", "-q", "db.git", "clone"]);
    let time = duration(20);
    let race = Race {
        sandbox,
        end: Instant::now() + time,
        acknowledged: Mutex::default(),
        counts: Mutex::default(),
        gate: RwLock::new(()),
        number: AtomicUsize::new(0),
    };
    let seed = seed();
    let watch = [
        "watch",
        "-f",
        "--commits",
        "--since",
        &start[0],
        BRANCHES[0],
    ];
    let mut watching = race
        .sandbox
        .command(watch)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let seen = Mutex::new(Vec::new());
    let workers: [fn(&Race, &mut Dice); 7] = [
        Race::put,
        Race::put,
        Race::transaction,
        Race::merge,
        Race::plumbing,
        Race::push,
        Race::scratch,
    ];
    thread::scope(|scope| {
        let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        let (race, seen) = (&race, &seen);
        scope.spawn(move || {
            for line in lines {
                seen.lock().unwrap().push(line.unwrap());
            }
        });
        let mut all = Vec::new();
        for (number, worker) in workers.iter().enumerate() {
            all.push(scope.spawn(move || {
                let mut dice = Dice::new(seed ^ number as u64);
                while race.goes_on() {
                    let _shared = race.gate.read().unwrap();
                    worker(race, &mut dice);
                }
            }));
        }
        all.push(scope.spawn(move || {
            let mut dice = Dice::new(seed ^ 99);
            while race.goes_on() {
                for _ in 0..3 {
                    let _shared = race.gate.read().unwrap();
                    race.upkeep(&mut dice);
                }
                let _alone = race.gate.write().unwrap();
                race.git("db.git", &["gc", "-q", "--prune=now"]);
                is_whole(&race.sandbox);
            }
        }));
        for worker in all {
            worker.join().unwrap();
        }
        // The last one tells the watch that all is over.
        let last = race.dk(&["put", "main:last", "/dev/null"]);
        eventually("the last commit in the watch", || {
            (seen.lock().unwrap().last() == Some(&last)).then_some(())
        });
        watching.kill().unwrap();
        watching.wait().unwrap();
    });

    let counts = race.counts.lock().unwrap();
    println!("{time:?}: {counts:#?}");
    for (branch, ids) in &*race.acknowledged.lock().unwrap() {
        let reached = history(&race.sandbox, &format!("refs/heads/{branch}"));
        let lost: Vec<_> = ids.difference(&reached).collect();
        assert!(lost.is_empty(), "lost on {branch}: {lost:?}");
    }
    let range = format!("{}..main", start[0]);
    let log = [
        "-C",
        "db.git",
        "rev-list",
        "--first-parent",
        "--reverse",
        &range,
    ];
    let chain = race.sandbox.git(log);
    let chain: Vec<&str> = chain.lines().collect();
    assert_eq!(*seen.lock().unwrap(), chain, "what the watch saw");
    is_whole(&race.sandbox);
    assert_eq!(leftovers(&race.sandbox), Vec::<std::path::PathBuf>::new());
    for needed in ["dk put", "dk tx", "dk merge", "git update-ref", "git push"] {
        assert!(counts.contains_key(needed), "no {needed} in {time:?}");
    }
}
