//! What must hold of a store, whatever became of those who wrote to it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;

/// Longer than any command may take on a slow machine: beyond, it hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the tests that can go on for long shall (`DK_TEST_LONG`).
pub fn long() -> bool {
    std::env::var_os("DK_TEST_LONG").is_some()
}

/// How long a test that goes on at random does so.
pub fn duration(seconds: u64) -> Duration {
    let minutes = std::env::var("DK_TEST_LONG").map(|minutes| minutes.parse().unwrap_or(2));
    minutes.map_or(Duration::from_secs(seconds), |minutes: u64| {
        Duration::from_secs(60 * minutes)
    })
}

/// A seed for what is random, printed so that it can be set (`DK_TEST_SEED`).
pub fn seed() -> u64 {
    let set = std::env::var("DK_TEST_SEED").ok();
    let seed = set.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    });
    println!("DK_TEST_SEED={seed}");
    seed
}

/// Says whether strace(1) works here; where not, why.
pub fn has_strace() -> bool {
    let tried = Command::new("strace").args(["-qq", "true"]).output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: strace does not run here: {}", why.trim_end());
    false
}

/// Panics unless every object is right and everything that refs lead to is there.
pub fn is_whole(sandbox: &Sandbox) {
    is_whole_in(sandbox, "db.git");
}

pub fn is_whole_in(sandbox: &Sandbox, store: &str) {
    let mut fsck = sandbox.program("git", ["-C", store, "fsck", "--strict", "--no-dangling"]);
    let output = finish(fsck.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let shown = sandbox.shown(&output);
    // Progress and "notice:" lines are no findings.
    let bad = [
        "error", "warning", "missing", "broken", "corrupt", "invalid",
    ];
    let clean = output.status.success() && !bad.iter().any(|word| shown.contains(word));
    assert!(clean, "git fsck --strict:\n{shown}");
}

/// Every commit a revision reaches; none where it does not exist.
pub fn history(sandbox: &Sandbox, revision: &str) -> HashSet<String> {
    let arguments = ["-C", "db.git", "rev-list", revision, "--"];
    let output = sandbox.program("git", arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(String::from).collect()
}

/// Where a ref of `db.git` is, read by git; `None` where it does not exist.
pub fn head(sandbox: &Sandbox, reference: &str) -> Option<String> {
    let arguments = ["-C", "db.git", "rev-parse", "-q", "--verify", reference];
    let output = sandbox.program("git", arguments).output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| id.trim_end().to_owned())
}

/// Files of `db.git` that no living writer needs: locks, and what dk keeps beside them.
pub fn leftovers(sandbox: &Sandbox) -> Vec<PathBuf> {
    files(&sandbox.join("db.git"), &|path| {
        path.extension().is_some_and(|end| end == "lock")
            || path.parent().is_some_and(|dir| dir.ends_with("dk/locks"))
    })
}

/// Files of `db.git` that are to become an object or a pack and are not yet.
pub fn unfinished(sandbox: &Sandbox) -> Vec<PathBuf> {
    files(&sandbox.join("db.git/objects"), &|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("tmp_") || name.contains("tmp")
    })
}

/// Every file below a folder of which `wanted` is true.
pub fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A living writer or collector may take a folder away meanwhile.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The next writer works at once, and clears away what the dead ones left.
pub fn next_one_works(sandbox: &Sandbox) {
    sandbox.ok_with("tick", ["put", "next:tick", "-"]);
    assert_eq!(leftovers(sandbox), Vec::<PathBuf>::new());
}

/// Runs a command to its end, which must come.
pub fn finish(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    wait(child.spawn().unwrap(), &shown)
}

/// Waits for a process, which must end; its output must fit into a pipe, or be
/// read by somebody else.
pub fn wait(mut child: Child, shown: &str) -> Output {
    let end = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("it does not end: {shown}");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}
