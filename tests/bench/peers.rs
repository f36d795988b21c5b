//! Other programs that commit, each kept running or run anew as its users do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::inputs::path;
use crate::place::{Place, output};

/// libgit2, from Python.
pub struct Libgit2 {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Libgit2 {
    /// Returns it, or why it cannot be had.
    pub fn start(place: &Place, store: &Path, synced: bool) -> Result<Self, &'static str> {
        let missing = "no pygit2 (pip install pygit2)";
        let mut probe = place.program("python3");
        let found = probe.args(["-c", "import pygit2"]).stderr(Stdio::null());
        if !found.status().is_ok_and(|status| status.success()) {
            return Err(missing);
        }
        let mut child = place
            .program("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/bench/libgit2.py"
            ))
            .arg(store)
            .arg(if synced { "fsync" } else { "nofsync" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|_| missing)?;
        Ok(Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }

    /// Makes commits and returns how long each took.
    pub fn commits(&mut self, count: usize) -> Vec<Duration> {
        writeln!(self.input, "{count}").unwrap();
        let mut times = Vec::with_capacity(count);
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                assert_eq!(times.len(), count, "libgit2.py ended");
                return times;
            }
            times.push(Duration::from_secs_f64(line.trim().parse().unwrap()));
        }
    }
}

impl Drop for Libgit2 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `git fast-import`, fed one commit at a time.
pub struct FastImport {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    number: usize,
    synced: bool,
}

impl FastImport {
    /// With `synced` each commit is checkpointed, all of it synced.
    pub fn start(place: &Place, store: &Path, synced: bool) -> Self {
        let mut command = if synced {
            place.durable_git(store, ["fast-import", "--quiet", "--force"])
        } else {
            place.git(store, ["fast-import", "--quiet", "--force"])
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            number: 0,
            synced,
        }
    }

    /// Makes one commit, and hears that it is made.
    pub fn commit(&mut self) -> Duration {
        self.number += 1;
        let number = self.number;
        let content = format!("content {number} of fast-import\n");
        let from = if number == 1 {
            "from refs/heads/master^0\n"
        } else {
            ""
        };
        let checkpoint = if self.synced { "checkpoint\n" } else { "" };
        let text = format!(
            "commit refs/heads/master\ncommitter Bench <bench@example.org> 1700000000 +0000\n\
             data 6\nchange\n{from}M 100644 inline {}\ndata {}\n{content}\n{checkpoint}progress {number}\n",
            path(number * 7 % 1000, 1000),
            content.len(),
        );
        let began = Instant::now();
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let time = began.elapsed();
        assert_eq!(line.trim(), format!("progress {number}"));
        time
    }
}

impl Drop for FastImport {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A commit made of git's plumbing, as a script makes it.
pub struct Plumbing<'a> {
    place: &'a Place,
    store: PathBuf,
    index: PathBuf,
    number: usize,
    synced: bool,
}

impl<'a> Plumbing<'a> {
    pub fn new(place: &'a Place, store: &Path, synced: bool) -> Self {
        Self {
            place,
            store: store.to_owned(),
            index: store.join("bench-index"),
            number: 0,
            synced,
        }
    }

    pub fn commit(&mut self) -> Duration {
        let next = self.number + 1;
        self.commit_at(&path(next * 7 % 1000, 1000))
    }

    /// Writes one small file in one commit.
    pub fn commit_at(&mut self, file: &str) -> Duration {
        self.run(
            r#"set -e
            head=$(git rev-parse --verify refs/heads/master)
            blob=$(printf '%s' "$1" | git hash-object -w --stdin)
            git read-tree "$head"
            git update-index --add --cacheinfo "100644,$blob,$2"
            tree=$(git write-tree)
            commit=$(git commit-tree -m change -p "$head" "$tree")
            git update-ref refs/heads/master "$commit" "$head""#,
            file,
        )
    }

    /// The same in three steps, each of which outlives its processes: a ref is
    /// made, moved to a commit of what was written, and brought to the branch.
    pub fn transaction(&mut self) -> Duration {
        let next = self.number + 1;
        self.run(
            r#"set -e
            tx=refs/tx/$$
            git update-ref "$tx" refs/heads/master ''
            head=$(git rev-parse --verify "$tx")
            blob=$(printf '%s' "$1" | git hash-object -w --stdin)
            git read-tree "$head"
            git update-index --add --cacheinfo "100644,$blob,$2"
            tree=$(git write-tree)
            edited=$(git commit-tree -m edit -p "$head" "$tree")
            git update-ref "$tx" "$edited" "$head"
            tree=$(git rev-parse "$tx^{tree}")
            commit=$(git commit-tree -m change -p "$head" "$tree")
            git update-ref refs/heads/master "$commit" "$head"
            git update-ref -d "$tx" "$edited""#,
            &path(next * 7 % 1000, 1000),
        )
    }

    fn run(&mut self, script: &str, file: &str) -> Duration {
        self.number += 1;
        let number = self.number;
        let mut command = self.place.program("sh");
        command
            .args(["-c", script, "sh"])
            .arg(format!("content {number} of plumbing\n"))
            .arg(file)
            .env("GIT_DIR", &self.store)
            .env("GIT_INDEX_FILE", &self.index);
        if self.synced {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "core.fsync")
                .env("GIT_CONFIG_VALUE_0", "all");
        }
        let began = Instant::now();
        output(&mut command);
        began.elapsed()
    }
}
