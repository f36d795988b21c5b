//! Writers of several branches at once, killed at random instants.
//!
//! What one of them printed before it was killed is in the branch, whatever
//! came of the rest. One kind of writer is this test binary itself, run again
//! as a program that uses the library.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use datakit::model::request::{CommitOptions, Content, Edit, Edits, FileKind};
use datakit::model::{BranchName, Signature, Time, TreePath};
use datakit::store::Store;
use datakit::store::engine::Durability;
use datakit::store::git::Git;

use crate::aftermath::{
    duration, finish, history, is_whole, leftovers, long, next_one_works, seed,
};
use crate::sandbox::Sandbox;
use crate::stock::Dice;

/// Set for the child that is a writer.
const WRITER: &str = "DK_TEST_WRITER";
const BRANCHES: [&str; 3] = ["one", "two", "deep/three"];

/// As a program that uses the library: commits to a branch for ever, and notes
/// each commit in a file once it was told of it.
#[test]
fn writer() {
    let Some(number) = std::env::var_os(WRITER) else {
        return;
    };
    let number = number.into_string().unwrap();
    let git = Git::open("db.git".as_ref(), Durability::Strict, false).unwrap();
    let store = Store::new(Arc::new(git));
    let mut noted = File::create(format!("noted.{number}")).unwrap();
    let who = Signature {
        name: b"Writer".to_vec(),
        email: b"writer@example.org".to_vec(),
        time: Time {
            seconds: 1_700_000_000,
            offset: 0,
        },
    };
    for turn in 0.. {
        let branch = BRANCHES[turn % BRANCHES.len()];
        let path = TreePath::new(format!("library/{number}/{}", turn % 5).as_bytes()).unwrap();
        let content = format!("{number} {turn}");
        let id = store
            .edit(
                &BranchName::new(branch.as_bytes()).unwrap(),
                Edits::new(move |sink| {
                    sink.edit(Edit::Write {
                        path,
                        kind: FileKind::Normal,
                        content: Content::Bytes(content.as_bytes()),
                    })
                }),
                &CommitOptions::default(),
                &who,
            )
            .unwrap();
        writeln!(noted, "{branch} {id}").unwrap();
    }
}

struct Kills {
    sandbox: Sandbox,
    end: Instant,
    killed: AtomicUsize,
    /// Branch and commit, as printed.
    printed: Mutex<Vec<(String, String)>>,
    number: AtomicUsize,
}

impl Kills {
    fn goes_on(&self) -> bool {
        let enough = !long() && self.killed.load(Ordering::Relaxed) >= 400;
        Instant::now() < self.end && !enough
    }

    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a command and kills it after a while, unless it ends before.
    /// Returns what it printed, and whether it ended well.
    fn kill(&self, command: &mut Command, dice: &mut Dice, most: u64) -> (String, bool) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_micros(dice.roll(most as usize * 1000) as u64);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            thread::park_timeout(Duration::from_micros(500).min(end - Instant::now()));
        }
        if child.try_wait().unwrap().is_none() {
            self.killed.fetch_add(1, Ordering::Relaxed);
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        let shown = self.sandbox.shown(&output);
        assert!(
            output.status.success() || output.status.signal() == Some(9),
            "{shown}"
        );
        let stdout = String::from_utf8(output.stdout).unwrap();
        (stdout.trim_end().into(), output.status.success())
    }

    fn note(&self, branch: &str, id: &str) {
        if !id.is_empty() {
            let pair = (branch.to_owned(), id.to_owned());
            self.printed.lock().unwrap().push(pair);
        }
    }

    fn put(&self, dice: &mut Dice, most: u64) {
        let (branch, number) = (*dice.pick(&BRANCHES), self.next());
        let file = format!("input.{number}");
        self.sandbox.write(&file, &file);
        let path = format!("{branch}:put/{}", number % 7);
        let (id, _) = self.kill(&mut self.sandbox.command(["put", &path, &file]), dice, most);
        self.note(branch, &id);
    }

    /// A transaction of which every step may be killed, and is tried once more.
    fn transaction(&self, dice: &mut Dice, most: u64) {
        let (branch, number) = (*dice.pick(&BRANCHES), self.next());
        let name = format!("t{number}");
        let mut begin = self
            .sandbox
            .command(["tx", "begin", branch, "--name", &name]);
        if !self.kill(&mut begin, dice, most).1 {
            let _ = finish(
                &mut self
                    .sandbox
                    .command(["tx", "begin", branch, "--name", &name]),
            );
        }
        let mut written = Vec::new();
        for part in 0..3 {
            let (file, path) = (format!("input.{number}"), format!("{name}/{part}"));
            self.sandbox.write(&file, &path);
            let mut write = self.sandbox.command(["tx", "write", &name, &path, &file]);
            if self.kill(&mut write, dice, most).1 {
                written.push(path);
            }
        }
        let commit = ["tx", "commit", &name, "-m", &name, "--allow-empty"];
        let (id, _) = self.kill(&mut self.sandbox.command(commit), dice, most);
        self.note(branch, &id);
        let id = self.sandbox.ok(commit);
        self.note(branch, &id);
        for path in written {
            assert_eq!(self.sandbox.ok(["cat", &format!("{id}:{path}")]), path);
        }
        let grep = format!("--grep=^{name}$");
        let log = ["-C", "db.git", "log", "--format=%H", &grep, &id];
        assert_eq!(
            self.sandbox.git(log).lines().count(),
            1,
            "commits of {name}"
        );
    }

    fn library(&self, dice: &mut Dice, most: u64) {
        let number = self.next();
        let this = std::env::current_exe().unwrap();
        let mut child = self
            .sandbox
            .program(this, ["--exact", "killed_at_random::writer"]);
        child.env(WRITER, number.to_string());
        self.kill(&mut child, dice, most * 2);
        let noted = fs::read_to_string(self.sandbox.join(format!("noted.{number}")));
        // The last line may be half written.
        for line in noted.unwrap_or_default().split_inclusive('\n') {
            if let Some((branch, id)) = line.strip_suffix('\n').and_then(|l| l.split_once(' ')) {
                self.note(branch, id);
            }
        }
    }
}

#[test]
fn what_a_killed_writer_printed_is_there() {
    let sandbox = Sandbox::with_store();
    let began = Instant::now();
    sandbox.ok_with("0", ["put", "one:f", "-"]);
    // Twice what one takes alone: half of them are killed, on a machine that is busy.
    let most = (began.elapsed().as_millis() as u64 * 2).clamp(20, 2000);
    let kills = Kills {
        sandbox,
        end: began + duration(15),
        killed: AtomicUsize::new(0),
        printed: Mutex::default(),
        number: AtomicUsize::new(0),
    };
    let seed = seed();
    let workers: [fn(&Kills, &mut Dice, u64); 4] =
        [Kills::put, Kills::put, Kills::transaction, Kills::library];
    thread::scope(|scope| {
        for (number, worker) in workers.iter().enumerate() {
            let kills = &kills;
            scope.spawn(move || {
                let mut dice = Dice::new(seed ^ number as u64);
                while kills.goes_on() {
                    worker(kills, &mut dice, most);
                }
            });
        }
    });
    is_whole(&kills.sandbox);
    next_one_works(&kills.sandbox);
    let printed = kills.printed.lock().unwrap();
    println!(
        "{} kills, {} commits printed",
        kills.killed.into_inner(),
        printed.len()
    );
    assert!(!printed.is_empty());
    for branch in BRANCHES {
        let reached = history(&kills.sandbox, &format!("refs/heads/{branch}"));
        for (_, id) in printed.iter().filter(|(on, _)| on == branch) {
            assert!(reached.contains(id), "{id} is not on {branch}");
        }
        kills
            .sandbox
            .ok(["put", &format!("{branch}:last"), "/dev/null"]);
    }
    assert_eq!(leftovers(&kills.sandbox), Vec::<std::path::PathBuf>::new());
}
