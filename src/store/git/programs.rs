//! What is left to the git program: pushing, and collecting garbage.
//!
//! Its output is passed on as it comes; lines that count something become
//! progress.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::model::request::{Collected, Progress};
use crate::store::{Error, Result};

use super::{Git, remotes};

/// How old our temporary files must be for nobody to be writing them any more.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// Lines kept to tell why a program failed.
const KEPT_LINES: usize = 50;

/// Runs `git push`.
pub(super) fn push(
    git: &Git,
    remote: &str,
    refspecs: &[String],
    progress: &dyn Progress,
) -> Result<()> {
    let mut command = program(git);
    if remotes::is_name(git, remote)? {
        // Where its configuration has a relative path, that begins there.
        command.current_dir(&git.path);
    }
    command
        .args(["push", "--progress", "--", remote])
        .args(refspecs);
    run(command, "git push", progress)
}

/// Counts garbage, and unless `dry_run` has `git gc` collect it.
pub(super) fn gc(git: &Git, dry_run: bool, progress: &dyn Progress) -> Result<Collected> {
    let mut collected = count(git, progress)?;
    let forgotten = forgotten(&git.loose.dir);
    collected.leftovers = forgotten.len() as u64;
    if dry_run {
        collected.leftovers += git.refs.dead_owners();
        return Ok(collected);
    }
    git.refs.writable()?;
    // Before the program runs: it would stop at their locks.
    collected.leftovers += git.refs.clear_dead_owners()?;
    for path in forgotten {
        // Another collector may have been faster.
        let _ = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
    }
    let mut command = program(git);
    // By default it gives up where a ref is locked for a tenth of a second.
    for patient in [
        "core.filesRefLockTimeout=5000",
        "core.packedRefsTimeout=5000",
    ] {
        command.args(["-c", patient]);
    }
    command.arg("gc");
    progress.begin("git gc", None, false);
    run(command, "git gc", progress)?;
    git.objects.expect_change()?;
    Ok(collected)
}

/// Counts loose objects and packs.
fn count(git: &Git, progress: &dyn Progress) -> Result<Collected> {
    let mut collected = Collected::default();
    let objects = &git.loose.dir;
    progress.begin("counting objects", Some(256), false);
    for first in 0..=u8::MAX {
        for (name, size) in files(&objects.join(format!("{first:02x}")))? {
            if name.bytes().all(|b| b.is_ascii_hexdigit()) {
                collected.loose_objects += 1;
                collected.loose_bytes += size;
            }
        }
        progress.advance(1);
    }
    for (name, size) in files(&objects.join("pack"))? {
        if name.starts_with("pack-") && name.ends_with(".pack") {
            collected.packs += 1;
            collected.pack_bytes += size;
        }
    }
    Ok(collected)
}

/// Returns names and sizes of the files in a directory; none where there is none.
fn files(dir: &Path) -> Result<Vec<(String, u64)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("cannot list {}", dir.display()))(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(format!("cannot list {}", dir.display())))?;
        // Others may remove it meanwhile.
        if let (Ok(name), Ok(file)) = (entry.file_name().into_string(), entry.metadata())
            && file.is_file()
        {
            files.push((name, file.len()));
        }
    }
    Ok(files)
}

/// Returns temporary files of dk that nobody has written to for long.
fn forgotten(objects: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![objects.to_owned(), objects.join("pack")];
    dirs.extend((0..=u8::MAX).map(|first| objects.join(format!("{first:02x}"))));
    let mut found = Vec::new();
    for dir in dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.starts_with("tmp_") && name.contains("dk");
            let age = || {
                let changed = entry.metadata().ok()?.modified().ok()?;
                SystemTime::now().duration_since(changed).ok()
            };
            if ours && age().is_some_and(|age| age > FORGOTTEN) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Returns the git program, set to this repository and no other.
fn program(git: &Git) -> Command {
    let mut command = Command::new("git");
    for other in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_PREFIX",
    ] {
        command.env_remove(other);
    }
    let mut dir = std::ffi::OsString::from("--git-dir=");
    dir.push(&git.refs.git_dir);
    command.arg(dir).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a program to its end, passing on what it prints.
fn run(mut command: Command, what: &str, progress: &dyn Progress) -> Result<()> {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Unsupported(format!(
            "{what} cannot be run: the git program is not installed"
        )),
        _ => Error::io(format!("cannot run {what}"))(error),
    })?;
    let (lines, inbox) = mpsc::sync_channel(64);
    let mut kept = VecDeque::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let other = lines.clone();
        scope.spawn(move || stdout.map(|stdout| split(stdout, &other)));
        scope.spawn(move || stderr.map(|stderr| split(stderr, &lines)));
        let mut part = Part::default();
        for line in inbox {
            if !part.take(&line, progress) {
                progress.line(&line);
                kept.push_back(line);
                if kept.len() > KEPT_LINES {
                    kept.pop_front();
                }
            }
        }
    });
    let status = child
        .wait()
        .map_err(Error::io(format!("cannot wait for {what}")))?;
    if status.success() {
        return Ok(());
    }
    let why = reason(&kept);
    // The other side has what a fast-forward would lose, or not what was expected.
    if kept.iter().any(|line| line.starts_with(" ! [rejected]")) {
        return Err(Error::Rejected {
            what: format!("{what} was rejected"),
            why,
        });
    }
    Err(Error::Failed {
        what: format!("{what} {}", ending(status)),
        source: why.into(),
    })
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("failed with status {code}"),
        None => format!("was ended: {status}"),
    }
}

/// The lines that say why, or else the last one.
fn reason(lines: &VecDeque<String>) -> String {
    let telling = [
        "fatal:",
        "error:",
        " ! ",
        "remote: error:",
        "remote: fatal:",
    ];
    let said: Vec<&str> = lines
        .iter()
        .filter(|line| telling.iter().any(|start| line.starts_with(start)))
        .map(|line| line.trim())
        .collect();
    match lines.back() {
        _ if !said.is_empty() => said.join("; "),
        Some(last) => last.clone(),
        None => "it did not say why".into(),
    }
}

/// Sends what is read as lines. A carriage return ends one too.
fn split(mut from: impl Read, lines: &mpsc::SyncSender<String>) {
    let mut chunk = [0; 4096];
    let mut line = Vec::new();
    let send = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        // Without a listener there is nothing left to do but to read on.
        if !text.is_empty() {
            let _ = lines.send(text);
        }
    };
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for byte in &chunk[..count] {
            match byte {
                b'\n' | b'\r' => send(&mut line),
                _ => line.push(*byte),
            }
        }
    }
    send(&mut line);
}

/// The part of the work a program counts at present.
#[derive(Default)]
struct Part {
    name: String,
    total: Option<u64>,
    done: u64,
}

impl Part {
    /// Tells `progress` what a line counts; returns whether it counts anything.
    fn take(&mut self, line: &str, progress: &dyn Progress) -> bool {
        let Some((name, done, total)) = counted(line) else {
            return false;
        };
        if self.name != name || self.total != total {
            progress.begin(name, total, false);
            *self = Self {
                name: name.to_owned(),
                total,
                done: 0,
            };
        }
        progress.advance(done.saturating_sub(self.done));
        self.done = done.max(self.done);
        true
    }
}

/// Reads `Writing objects:  50% (1/2), 3 KiB | 1 KiB/s` and `Enumerating
/// objects: 5, done.`: name, number, and how many there will be.
pub(super) fn counted(line: &str) -> Option<(&str, u64, Option<u64>)> {
    let (name, rest) = line.rsplit_once(": ")?;
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, rest) = rest.split_at(end);
    let number = number.parse().ok()?;
    match rest.strip_prefix("% (") {
        Some(fraction) => {
            let (fraction, _) = fraction.split_once(')')?;
            let (done, total) = fraction.split_once('/')?;
            Some((name, done.parse().ok()?, Some(total.parse().ok()?)))
        }
        None if rest.is_empty() || rest == ", done." => Some((name, number, None)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_lines_are_told_from_others() {
        assert_eq!(
            counted("Writing objects:  50% (1/2), 3.00 KiB | 1.00 KiB/s"),
            Some(("Writing objects", 1, Some(2)))
        );
        assert_eq!(
            counted("remote: Resolving deltas: 100% (3/3), done."),
            Some(("remote: Resolving deltas", 3, Some(3)))
        );
        assert_eq!(
            counted("Enumerating objects: 5, done."),
            Some(("Enumerating objects", 5, None))
        );
        for other in [
            "To ../b.git",
            "error: failed to push some refs to 'x: 5 y'",
            " * [new branch]      main -> main",
            "remote: 5 apples",
            "x: 99% (a/b)",
            "x: 99999999999999999999999",
            "",
        ] {
            assert_eq!(counted(other), None, "{other}");
        }
    }

    #[test]
    fn carriage_returns_end_lines_too() {
        let (sender, lines) = mpsc::sync_channel(9);
        split(&b"a: 1% (1/2)\ra: 100% (2/2)\nlast"[..], &sender);
        drop(sender);
        let lines: Vec<_> = lines.into_iter().collect();
        assert_eq!(lines, ["a: 1% (1/2)", "a: 100% (2/2)", "last"]);
    }
}
