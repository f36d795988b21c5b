//! Runs the command of `dk watch --exec`.
//!
//! The command leads a process group of its own, so that what it started can
//! be ended with it. Dropping a [`Running`] ends the group and waits for that:
//! however the watch ends, it leaves nothing behind that it has to answer for.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::model::text::quote;
use crate::model::{BranchName, Change, ObjectId, TreePath};
use crate::ui::Exit;

/// How long a command has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// What the command is to deal with: a commit, or several where `--restart`
/// ended the command before it was done with them.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub commit: ObjectId,
    /// What the paths differ from; `None`: the empty tree.
    pub previous: Option<ObjectId>,
    pub paths: BTreeSet<TreePath>,
}

impl Work {
    pub fn new(commit: ObjectId, previous: Option<ObjectId>, changes: Vec<Change>) -> Self {
        Self {
            commit,
            previous,
            paths: changes.into_iter().map(|change| change.path).collect(),
        }
    }

    /// Returns this with what came after it.
    pub fn and_then(mut self, later: Self) -> Self {
        self.paths.extend(later.paths);
        Self {
            commit: later.commit,
            previous: self.previous,
            paths: self.paths,
        }
    }
}

/// The command, and what is the same in every run of it.
pub(super) struct Exec {
    pub words: Vec<OsString>,
    pub branch: BranchName,
    pub store: OsString,
}

impl Exec {
    /// Starts the command. One that cannot be started ends the watch with the
    /// status a shell would give it.
    pub fn start(&self, work: Work) -> anyhow::Result<Running> {
        self.spawn(work).map_err(|error| {
            let status = match error.kind() {
                io::ErrorKind::NotFound => 127,
                _ => 126,
            };
            let cause = anyhow::Error::from(error).context(format!("cannot run {}", self.name()));
            Exit::with(status, cause).into()
        })
    }

    /// Refuses to go on after a command that failed.
    pub fn succeeded(&self, work: &Work, status: ExitStatus) -> Result<(), Exit> {
        if status.success() {
            return Ok(());
        }
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        let cause = anyhow::anyhow!("{} failed at commit {}: {status}", self.name(), work.commit);
        Err(Exit::with(code, cause))
    }

    fn name(&self) -> String {
        let name = self.words.first().map(|word| word.as_bytes());
        quote(name.unwrap_or_default()).to_string()
    }

    fn spawn(&self, work: Work) -> io::Result<Running> {
        let (program, args) = self
            .words
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let id = |id: &ObjectId| id.to_string();
        let mut child = Command::new(program)
            .args(args)
            .env("DK_BRANCH", OsStr::from_bytes(self.branch.as_bytes()))
            .env("DK_COMMIT", id(&work.commit))
            .env(
                "DK_PARENT",
                work.previous.as_ref().map(id).unwrap_or_default(),
            )
            .env("DK_STORE", &self.store)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it was asked to be a pipe");
        let mut input = Vec::new();
        for path in &work.paths {
            input.extend_from_slice(path.as_bytes());
            input.push(0);
        }
        // A command that does not read its input leaves this waiting, and
        // nothing else.
        let feeder = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("a child not waited for has an id");
        Ok(Running {
            work,
            child,
            feeder,
            group,
            over: false,
        })
    }
}

/// A command under way.
pub(super) struct Running {
    work: Work,
    child: Child,
    feeder: JoinHandle<()>,
    group: Pid,
    /// It ended by itself: what it left running is meant to run.
    over: bool,
}

impl Running {
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Returns how the command ended. Dropping this future loses nothing.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.over = true;
        Ok(status)
    }

    /// Ends the command and all of its process group; returns what it was
    /// dealing with.
    pub async fn end(mut self) -> Work {
        let _ = kill_process_group(self.group, Signal::TERM);
        let until = Instant::now() + GRACE;
        while !self.gone() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        self.kill();
        self.work.clone()
    }

    /// Tells whether no process of the group is left.
    fn gone(&mut self) -> bool {
        // The leader must be waited for first: until then it is a member.
        !matches!(self.child.try_wait(), Ok(None)) && !runs(self.group)
    }

    /// Kills what is left.
    fn kill(&mut self) {
        if !self.gone() {
            let _ = kill_process_group(self.group, Signal::KILL);
            while matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK);
            }
        }
        self.over = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.feeder.abort();
        if self.over {
            return;
        }
        let _ = kill_process_group(self.group, Signal::TERM);
        let until = Instant::now() + GRACE;
        while !self.gone() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        self.kill();
    }
}

/// Tells whether a process of the group has not ended yet.
fn runs(group: Pid) -> bool {
    if test_kill_process_group(group) == Err(Errno::SRCH) {
        return false;
    }
    // One that has ended stays a member until it is waited for: in a container
    // without an init, for ever. Where there is a /proc, it tells them apart.
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let mut told = false;
    for process in processes.flatten() {
        let Ok(stat) = fs::read(process.path().join("stat")) else {
            continue;
        };
        told = true;
        // proc_pid_stat(5): number, name in parentheses, state, parent, group.
        let Some(name_end) = stat.iter().rposition(|b| *b == b')') else {
            continue;
        };
        let rest = String::from_utf8_lossy(&stat[name_end + 1..]);
        let mut fields = rest.split_ascii_whitespace();
        let (state, number) = (fields.next(), fields.nth(1));
        if number.and_then(|number| number.parse().ok()) == Some(group.as_raw_nonzero().get())
            && !matches!(state, Some("Z" | "X"))
        {
            return true;
        }
    }
    !told
}
