//! Repositories made and questioned by stock git, to compare with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use datakit::model::{Commit, ObjectId};
use datakit::store::engine::Durability;
use datakit::store::git::Git;
use datakit::store::objects::Objects;

/// Numbers that look random and are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// A bare repository in a folder of its own.
pub struct Repo {
    dir: tempfile::TempDir,
}

impl Repo {
    pub fn new() -> Self {
        let repo = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        repo.git(&["init", "-q", "--bare", "."]);
        repo
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn objects(&self) -> Arc<Objects> {
        let git = Git::open(self.path(), Durability::None, false).unwrap();
        Arc::new(Objects::new(Arc::new(git)))
    }

    /// Runs git with nothing of the user's settings; returns what it printed.
    pub fn git(&self, args: &[&str]) -> Vec<u8> {
        self.feed(args, b"")
    }

    /// As [`Repo::git`], with something on stdin.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert!(output.status.success(), "git {args:?}");
        output.stdout
    }

    /// As [`Repo::feed`], whatever comes of it.
    pub fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut git = Command::new("git")
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = git.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            git.wait_with_output().unwrap()
        })
    }

    /// Runs git and reads ids, one a line.
    pub fn ids(&self, args: &[&str]) -> Vec<ObjectId> {
        let out = self.git(args);
        out.split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| ObjectId::from_hex(line).unwrap())
            .collect()
    }
}

/// How a made-up history is to be.
#[derive(Clone, Copy)]
pub struct Shape {
    pub commits: usize,
    /// Clocks that go wrong.
    pub skew: bool,
    /// One of so many commits is a merge.
    pub merges: usize,
    /// One of so many has no parent.
    pub roots: usize,
}

/// A history made up with dice: the commits, parents before children.
pub struct History {
    pub repo: Repo,
    pub commits: Vec<Commit>,
}

pub const PATHS: [&str; 5] = ["a", "b", "d/x", "d/y", "d/e/z"];

impl History {
    pub fn new(shape: Shape, dice: &mut Dice) -> Self {
        let repo = Repo::new();
        let mut stream = Vec::new();
        let mut clock = 1_000_000_000_i64;
        for mark in 1..=shape.commits {
            clock += dice.roll(3) as i64;
            let time = if shape.skew && dice.roll(4) == 0 {
                clock - dice.roll(30) as i64
            } else {
                clock
            };
            writeln!(stream, "commit refs/heads/c{mark}\nmark :{mark}").unwrap();
            writeln!(stream, "committer A <a@b> {time} +0000\ndata 0").unwrap();
            let mut parents = Vec::new();
            if mark > 1 && dice.roll(shape.roots) > 0 {
                let count = if dice.roll(shape.merges) == 0 {
                    2 + dice.roll(2)
                } else {
                    1
                };
                for _ in 0..count {
                    let parent = mark - 1 - dice.roll(8.min(mark - 1));
                    if !parents.contains(&parent) {
                        parents.push(parent);
                    }
                }
            }
            for (nth, parent) in parents.iter().enumerate() {
                let word = if nth == 0 { "from" } else { "merge" };
                writeln!(stream, "{word} :{parent}").unwrap();
            }
            for _ in 0..dice.roll(3) {
                let nth = dice.roll(PATHS.len());
                let path = PATHS[nth];
                match dice.roll(4) {
                    0 => writeln!(stream, "D {path}").unwrap(),
                    // No two files are alike: Git would see renames.
                    value => {
                        let content = format!("data 2\n{nth}{value}");
                        writeln!(stream, "M 100644 inline {path}\n{content}").unwrap();
                    }
                }
            }
            writeln!(stream).unwrap();
        }
        repo.feed(
            &["fast-import", "--quiet", "--force", "--export-marks=marks"],
            &stream,
        );
        let marks = std::fs::read_to_string(repo.path().join("marks")).unwrap();
        let mut ids: Vec<(usize, ObjectId)> = marks
            .lines()
            .map(|line| {
                let (mark, id) = line[1..].split_once(' ').unwrap();
                let id = ObjectId::from_hex(id.as_bytes()).unwrap();
                (mark.parse().unwrap(), id)
            })
            .collect();
        ids.sort_unstable();
        let objects = repo.objects();
        let mut commits: Vec<Commit> = Vec::new();
        for (_, id) in ids {
            // Two that say the same are one.
            if commits.iter().all(|commit| commit.id != id) {
                commits.push(objects.commit(&id).unwrap());
            }
        }
        Self { repo, commits }
    }

    /// Returns the commits that any of `from` reach, themselves included.
    pub fn reach(&self, from: &[ObjectId]) -> Vec<ObjectId> {
        let mut found = from.to_vec();
        let mut at = 0;
        while at < found.len() {
            let commit = self.commits.iter().find(|c| c.id == found[at]).unwrap();
            for parent in &commit.parents {
                if !found.contains(parent) {
                    found.push(*parent);
                }
            }
            at += 1;
        }
        found
    }

    /// Returns a commit, its first parent, that one's first parent, and so on.
    pub fn chain(&self, from: ObjectId) -> Vec<ObjectId> {
        let mut chain = vec![from];
        while let Some(parent) = self
            .commits
            .iter()
            .find(|commit| Some(&commit.id) == chain.last())
            .and_then(|commit| commit.parents.first())
        {
            chain.push(*parent);
        }
        chain
    }

    pub fn pick(&self, dice: &mut Dice) -> ObjectId {
        dice.pick(&self.commits).id
    }
}
