//! Jobs on this machine: what they see, what becomes of what they make, and
//! that nothing of them is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datakit::ci::runner::{Machine, Options};
use datakit::ci::{Ended, Job, LogSink, Placed, Runner as _, Script, Secret, Stop, Stopper};
use datakit::client::local::Local;
use datakit::client::{At, Client, CommitOptions, Content, Edit, Edits, FileKind};
use datakit::model::{BranchName, HashKind, ObjectId, TreePath};
use futures_util::StreamExt as _;
use tokio::sync::Notify;

mod containers;
mod ending;
mod sandboxed;
mod secrets;
mod unprivileged;

/// A machine with a folder of its own, and a store.
pub struct World {
    pub folder: tempfile::TempDir,
    pub client: Arc<dyn Client>,
    pub options: Options,
}

/// A log in memory.
#[derive(Default)]
pub struct Log {
    text: Mutex<Vec<u8>>,
    grew: Notify,
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// Waits until the log holds a text.
    pub async fn says(&self, wanted: &str) {
        let seen = async {
            loop {
                let grew = self.grew.notified();
                if self.text().contains(wanted) {
                    return;
                }
                grew.await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
        assert!(
            seen.is_ok(),
            "{wanted:?} is not in the log:\n{}",
            self.text()
        );
    }
}

#[async_trait]
impl LogSink for Log {
    async fn write(&self, bytes: &[u8]) {
        self.text.lock().unwrap().extend_from_slice(bytes);
        self.grew.notify_waiters();
    }

    fn waits(&self, _: Option<&str>) {}

    async fn line(&self, text: &str) {
        self.write(format!("[time] {text}\n").as_bytes()).await;
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// One file of a tree: a target begins with `->`, an executable ends with `*`.
fn edits(files: &[(&str, &str)]) -> Edits {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), (*content).to_owned()))
        .collect();
    Edits::new(move |sink| {
        for (name, content) in &files {
            if let Some(target) = content.strip_prefix("->") {
                let target = target.as_bytes();
                sink.edit(Edit::Link {
                    path: path(name),
                    target,
                })?;
                continue;
            }
            let kind = match name.ends_with('*') {
                true => FileKind::Exec,
                false => FileKind::Normal,
            };
            sink.edit(Edit::Write {
                path: path(name.trim_end_matches('*')),
                kind,
                content: Content::Bytes(content.as_bytes()),
            })?;
        }
        Ok(())
    })
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let options = Options {
            scratch: folder.path().join("scratch"),
            supervisor: vec![
                env!("CARGO_BIN_EXE_dk").into(),
                "ci".into(),
                "supervise".into(),
            ],
            env: vec![("PATH".into(), path)],
            grace: Duration::from_millis(300),
        };
        Self {
            folder,
            client: Arc::new(Local::memory(HashKind::Sha1)),
            options,
        }
    }

    /// Lets programs be found only if they are among these, or are scripts
    /// given with their text.
    pub fn only(&mut self, programs: &[&str], scripts: &[(&str, &str)]) {
        use std::os::unix::fs::PermissionsExt as _;
        let bin = self.folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let folders = std::env::var_os("PATH").unwrap();
        for program in programs {
            let found = std::env::split_paths(&folders)
                .map(|folder| folder.join(program))
                .find(|found| found.exists())
                .unwrap_or_else(|| panic!("{program} is not on this machine"));
            std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
        }
        for (name, text) in scripts {
            std::fs::write(bin.join(name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join(name), mode).unwrap();
        }
        self.options.env = vec![("PATH".into(), bin.into())];
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn commit(&self, branch: &str, files: &[(&str, &str)]) -> ObjectId {
        let branch = BranchName::new(branch).unwrap();
        let options = CommitOptions::default();
        self.client
            .edit(&branch, edits(files), options)
            .await
            .unwrap()
    }

    /// A job over a tree of these files.
    pub async fn job(&self, script: &str, files: &[(&str, &str)]) -> Job {
        let commit = self.commit("tested", files).await;
        let walk = self
            .client
            .walk(&At::Commit(commit), &TreePath::root(), false);
        let inputs = walk.map(Result::unwrap).collect().await;
        Job {
            cell: "test".into(),
            script: Script::Shell(script.into()),
            env: BTreeMap::new(),
            image: None,
            timeout: Duration::from_secs(60),
            sandbox: false,
            secrets: Vec::new(),
            inputs,
            source: Arc::clone(&self.client),
            placed: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub fn machine(&self) -> Machine {
        Machine::new(self.options.clone())
    }

    /// Runs a job to its end.
    pub async fn run(&self, job: Job) -> (Ended, String) {
        let (_stopper, stop) = Stopper::new();
        let log = Arc::new(Log::default());
        let ended = self.run_with(job, &log, stop).await;
        (ended, log.text())
    }

    pub async fn run_with(&self, job: Job, log: &Arc<Log>, stop: Stop) -> Ended {
        let log: Arc<Log> = Arc::clone(log);
        self.machine().run(job, log, stop).await
    }

    /// Runs a job, which must succeed; returns what it made, as `mode path
    /// content` lines, and its log.
    pub async fn made(&self, job: Job) -> (Vec<String>, String) {
        let (ended, log) = self.run(job).await;
        let Ended::Success { outputs, .. } = ended else {
            panic!("{}\n{log}", shown(&ended));
        };
        let branch = BranchName::new("result").unwrap();
        let options = CommitOptions::default();
        let commit = self.client.edit(&branch, outputs(), options).await.unwrap();
        let at = At::Commit(commit);
        let mut walk = self.client.walk(&at, &TreePath::root(), false);
        let mut lines = Vec::new();
        while let Some(item) = walk.next().await {
            let item = item.unwrap();
            let mut content = String::new();
            let mut reader = self.client.open_blob(&item.entry.id).await.unwrap();
            std::io::Read::read_to_string(&mut reader, &mut content).unwrap();
            let kind = item.entry.mode.kind().name();
            lines.push(format!("{kind} {} {}", item.path, content.trim_end()));
        }
        (lines, log)
    }
}

/// How a job ended, as text.
pub fn shown(ended: &Ended) -> String {
    match ended {
        Ended::Success { text, .. } => format!("success: {text}"),
        Ended::Failure { text, exit } => format!("failure: {text} ({exit:?})"),
        Ended::TimedOut { text } => format!("timed out: {text}"),
        Ended::Cancelled => "cancelled".into(),
    }
}

/// Tells whether nobody holds the lock of a file.
pub fn is_free(lock: &Path) -> bool {
    let file = std::fs::File::open(lock).unwrap();
    let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&file, how).is_ok()
}

#[tokio::test]
async fn a_step_sees_its_inputs_and_nothing_of_the_engines() {
    let world = World::new();
    let script = "find . -not -type d | sort; ./src/tool.sh; env | cut -d= -f1 | sort; \
                  ls -l /proc/self/fd; cat; pwd";
    let mut job = world
        .job(
            script,
            &[
                (
                    "src/tool.sh*",
                    "#!/bin/sh\necho $GREETING, $(readlink src/link)\n",
                ),
                ("src/link", "->tool.sh"),
                ("data", "x"),
            ],
        )
        .await;
    job.inputs.retain(|item| item.path != path("data"));
    job.env.insert("GREETING".into(), "hello world".into());
    let (made, log) = world.made(job).await;
    assert!(made.is_empty());
    let scratch = world.options.scratch.display().to_string();
    let log: Vec<&str> = log.lines().collect();
    assert_eq!(
        log[..8],
        [
            &format!("[time] Running \"{script}\"...")[..],
            "./src/link",
            "./src/tool.sh",
            "hello world, tool.sh",
            "CI",
            "GREETING",
            "HOME",
            "PATH",
        ]
    );
    // Neither the socket of the supervisor nor the lock of the folder.
    let open = log.iter().filter(|line| line.contains(" -> "));
    for file in open {
        let ours = ["socket:", "/lock", "anon_inode"];
        assert!(!ours.iter().any(|ours| file.contains(ours)), "{file}");
    }
    assert!(log[log.len() - 1].starts_with(&scratch), "{log:?}");
    let left = std::fs::read_dir(&world.options.scratch).unwrap().count();
    assert_eq!(left, 0, "its folder is removed");
}

#[tokio::test]
async fn commands_are_logged_and_run_in_order() {
    let world = World::new();
    let mut job = world.job("", &[("src/a", "x"), ("b", "y")]).await;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    job.script = Script::Commands(vec![
        words(&["ls"]),
        words(&["sh", "-c", "echo a >&2; exit 7"]),
        words(&["echo", "never"]),
    ]);
    let (ended, log) = world.run(job).await;
    assert_eq!(
        log,
        "[time] Running \"ls\"...\nb\nsrc\n\
         [time] Running \"sh\" \"-c\" \"echo a >&2; exit 7\"...\na\n"
    );
    let text =
        "failure: Command \"sh\" \"-c\" \"echo a >&2; exit 7\" exited with status 7 (Some(7))";
    assert_eq!(shown(&ended), text);
}

#[tokio::test]
async fn failures_are_told_as_what_they_are() {
    let world = World::new();
    for (script, text) in [
        (
            "false\necho no",
            "failure: Command \"false\" and 1 more line exited with status 1 (Some(1))",
        ),
        (
            "kill -9 $$",
            "failure: Command \"kill -9 $$\" failed with signal 9 (None)",
        ),
    ] {
        let job = world.job(script, &[("a", "x")]).await;
        let (ended, log) = world.run(job).await;
        assert_eq!(shown(&ended), text);
        assert!(!log.contains("no\n"), "{log}");
    }
    let mut job = world.job("", &[("a", "x")]).await;
    job.script = Script::Commands(vec![vec!["no-such-program".into()]]);
    let (ended, _) = world.run(job).await;
    let text =
        "failure: cannot run \"no-such-program\": No such file or directory (os error 2) (None)";
    assert_eq!(shown(&ended), text);
}

#[tokio::test]
async fn outputs_are_files_links_and_folders_as_they_were_left() {
    let world = World::new();
    let script = "mkdir -p out/deep empty; echo 1 > out/deep/a; cp out/deep/a tool; chmod +x tool; \
                  ln -s deep/a out/link; echo in > b";
    let mut job = world.job(script, &[("b", "before"), ("c", "c")]).await;
    job.outputs = vec![path("out"), path("tool"), path("b"), path("empty")];
    let (made, _) = world.made(job).await;
    assert_eq!(
        made,
        [
            "file value/b in",
            "file value/out/deep/a 1",
            "link value/out/link deep/a",
            "exec value/tool 1",
        ]
    );
}

#[tokio::test]
async fn an_output_that_is_missing_or_leads_astray_is_a_failure() {
    let world = World::new();
    for (script, output, text) in [
        ("true", "out/app", "output out/app is missing"),
        (
            "true",
            "a",
            "output a is a symbolic link that leads out of the tree",
        ),
        (
            "mkdir o; ln -s /etc/passwd o/x",
            "o",
            "output o/x is a symbolic link that leads out of the tree",
        ),
        (
            "ln -s .. x",
            "x",
            "output x is a symbolic link that leads out of the tree",
        ),
        (
            "ln -s /etc out",
            "out/passwd",
            "output out/passwd lies behind a symbolic link",
        ),
        (
            "mkfifo p",
            "p",
            "output p is neither a file nor a folder nor a symbolic link",
        ),
        (
            "mkdir -p o/.git; echo > o/.git/config",
            "o",
            "output o/.git has a name that no tree can hold",
        ),
    ] {
        let script = format!("rm -f a; ln -s ../../etc/passwd a; {script}");
        let mut job = world.job(&script, &[("a", "x")]).await;
        job.outputs = vec![path(output)];
        let (ended, log) = world.run(job).await;
        assert_eq!(shown(&ended), format!("failure: {text} (None)"), "{log}");
    }
}

#[tokio::test]
async fn inputs_that_lead_out_of_the_tree_are_refused() {
    let world = World::new();
    for (target, refused) in [("/etc/passwd", true), ("../x", true), ("sub/../b", false)] {
        let job = world
            .job("true", &[("a", &format!("->{target}")), ("b", "")])
            .await;
        let (ended, _) = world.run(job).await;
        let text = "failure: the symbolic link a leads out of the tree (None)";
        assert_eq!(
            shown(&ended) == text,
            refused,
            "{target}: {}",
            shown(&ended)
        );
    }
}

#[tokio::test]
async fn needed_outputs_are_in_place_of_what_was_there() {
    let world = World::new();
    let built = world
        .commit(
            "built",
            &[
                ("value/out/app*", "#!/bin/sh\necho built\n"),
                ("value/one", "1"),
            ],
        )
        .await;
    let mut job = world
        .job(
            "./out/app; cat one; ls out",
            &[
                ("out/old", "x"),
                ("out/app", "->old"),
                ("one/file", "was a folder"),
            ],
        )
        .await;
    let placed = |from: &str, to: &str| Placed {
        client: Arc::clone(&world.client),
        at: At::Commit(built),
        from: path(from),
        to: path(to),
    };
    job.placed = vec![
        placed("value/out/app", "out/app"),
        placed("value/one", "one"),
        placed("value/nothing", "nothing"),
    ];
    let (_, log) = world.made(job).await;
    assert!(log.ends_with("built\n1app\nold\n"), "{log}");
}
