//! Writers killed at each system call that writes, and at random instants.
//!
//! strace(1) kills `dk` as it is about to make its Nth call of a kind, for
//! every N until it ends by itself; what it left is then looked at by git, and
//! the next writer has to work at once. The opening of a new file needs no kill
//! of its own: before it things are as after the call before, and after it as
//! before the call that writes to that file or locks it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use crate::aftermath::{
    finish, has_strace, head, history, is_whole, leftovers, long, next_one_works,
};
use crate::sandbox::Sandbox;

/// Every call by which dk changes what is on disk, gives locks, or tells of it.
const CALLS: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fchmod",
    "chmod",
    "flock",
];

/// A command that may have been killed.
struct Run {
    killed: bool,
    /// What it printed before, without the last newline.
    stdout: String,
    /// The calls seen, one a line; for messages.
    log: String,
}

impl Run {
    /// The id it printed, if it came to that.
    fn printed(&self) -> Option<&str> {
        Some(self.stdout.as_str()).filter(|stdout| !stdout.is_empty())
    }
}

/// Runs `dk`, with strace seeing `trace`, and ending it as `inject` says.
fn traced(sandbox: &Sandbox, trace: &str, inject: Option<String>, arguments: &[String]) -> Run {
    let (log, input) = (sandbox.join("strace.log"), sandbox.join("input"));
    let mut strace = sandbox.program("strace", ["-f", "-qq", "-o"]);
    strace.arg(&log).args(["-e", &format!("trace={trace}")]);
    if let Some(inject) = inject {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    strace.arg(env!("CARGO_BIN_EXE_dk")).args(arguments);
    strace.stdin(fs::File::open(input).map_or(Stdio::null(), Stdio::from));
    let output = finish(&mut strace);
    let log = fs::read_to_string(log).unwrap();
    let killed = log.contains("killed by SIGKILL");
    let shown = sandbox.shown(&output);
    let ended_well = output.status.success() || output.status.signal() == Some(9);
    assert!(ended_well, "dk {arguments:?}: {shown}\n{log}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    Run {
        killed,
        stdout: stdout.strip_suffix('\n').unwrap_or(&stdout).into(),
        log,
    }
}

/// Runs commands, each killed at another call, until each kind of call was
/// made to its end. `command` is given the number of the run and gives what to
/// run; `check` looks at what there is after it. Returns how many were killed.
fn at_each_call(
    sandbox: &Sandbox,
    mut command: impl FnMut(usize) -> Vec<String>,
    mut check: impl FnMut(usize, &Run),
) -> usize {
    let all: Vec<String> = CALLS.iter().map(|call| format!("?{call}")).collect();
    let whole = traced(sandbox, &all.join(","), None, &command(0));
    check(0, &whole);
    let made = |call: &&&str| whole.log.contains(&format!(" {call}("));
    let (mut number, mut kills) = (0, 0);
    for call in CALLS.iter().filter(made) {
        let mut nth = 1;
        loop {
            number += 1;
            let inject = format!("{call}:signal=SIGKILL:when={nth}");
            let run = traced(sandbox, call, Some(inject), &command(number));
            println!("{call} {nth}: killed: {}", run.killed);
            is_whole(sandbox);
            check(number, &run);
            if !run.killed {
                break;
            }
            kills += 1;
            next_one_works(sandbox);
            is_whole(sandbox);
            // The first ones one by one; of a long row of the same, a choice.
            nth += if nth < 12 || long() { 1 } else { nth / 2 };
        }
    }
    assert!(kills > 5, "{kills} kills");
    println!("{kills} kills");
    kills
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

#[test]
fn put_is_done_or_not() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    sandbox.ok_with("0", ["put", "master:dir/sub/f", "-"]);
    let before = std::cell::Cell::new(head(&sandbox, "master"));
    at_each_call(
        &sandbox,
        |number| {
            sandbox.write("input", format!("content {number}\n"));
            words([
                "put",
                "master:dir/sub/f",
                "-",
                "-m",
                &format!("put {number}"),
            ])
        },
        |number, run| {
            let (old, new) = (before.take().unwrap(), head(&sandbox, "master").unwrap());
            if new == old {
                assert!(run.killed && run.printed().is_none(), "{}", run.log);
            } else {
                assert_eq!(head(&sandbox, &format!("{new}^")), Some(old));
                let content = sandbox.git(["-C", "db.git", "show", &format!("{new}:dir/sub/f")]);
                assert_eq!(content, format!("content {number}"));
            }
            if let Some(id) = run.printed() {
                assert_eq!(id, new);
            }
            before.set(Some(new));
        },
    );
}

#[test]
fn the_first_commit_of_a_deep_branch_is_done_or_not() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    sandbox.write("input", "1\n");
    at_each_call(
        &sandbox,
        |number| words(["put", &format!("new/{number}/deep:f"), "-"]),
        |number, run| {
            let branch = format!("new/{number}/deep");
            let head = head(&sandbox, &format!("refs/heads/{branch}"));
            if let Some(id) = run.printed() {
                assert_eq!(head.as_deref(), Some(id));
            }
            // What it left does not stop anybody from trying again.
            sandbox.ok_with("2\n", ["put", &format!("{branch}:g"), "-"]);
            let commits = history(&sandbox, &format!("refs/heads/{branch}"));
            assert_eq!(commits.len(), 1 + usize::from(head.is_some()));
        },
    );
}

#[test]
fn import_is_done_or_not() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    sandbox.ok_with("0", ["put", "master:f", "-"]);
    // As many as make a pack.
    for number in 0..260 {
        sandbox.write(format!("folder/{number}"), format!("{number}\n"));
    }
    at_each_call(
        &sandbox,
        |number| {
            for file in 0..250 {
                sandbox.write(format!("folder/{file}"), format!("{file} {number}\n"));
            }
            words(["import", &format!("master:{number}"), "folder"])
        },
        |number, run| {
            let done = head(&sandbox, &format!("master:{number}"));
            assert!(done.is_some() || run.killed);
            if let Some(id) = run.printed() {
                assert_eq!(head(&sandbox, "master").unwrap(), id);
                assert!(done.is_some());
            }
            if let Some(tree) = done {
                let names = sandbox.git(["-C", "db.git", "ls-tree", "--name-only", &tree]);
                assert_eq!(names.lines().count(), 260);
            }
        },
    );
}

#[test]
fn merge_is_done_or_not() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    let mut side = String::new();
    for number in 0..400 {
        side += &format!(
            "commit refs/heads/side\ncommitter Ada <ada@example.org> {number} +0000\n\
             data 1\nx\nM 100644 inline side/{number}\ndata 1\n1\n"
        );
    }
    sandbox.write("stream", side);
    sandbox.sh("git -C db.git fast-import --quiet < stream");
    let side = sandbox.git(["-C", "db.git", "rev-list", "--reverse", "side"]);
    let side: Vec<&str> = side.lines().collect();
    sandbox.ok_with("0", ["put", "master:f", "-"]);
    let before = std::cell::Cell::new(head(&sandbox, "master"));
    at_each_call(
        &sandbox,
        |number| words(["merge", "master", side[number]]),
        |number, run| {
            let (old, new) = (before.take().unwrap(), head(&sandbox, "master").unwrap());
            if new == old {
                assert!(run.killed && run.printed().is_none(), "{}", run.log);
            } else {
                let parents = sandbox.git(["-C", "db.git", "log", "-1", "--format=%P", &new]);
                assert_eq!(parents, format!("{old} {}", side[number]));
            }
            if let Some(printed) = run.printed() {
                assert!(printed.contains(&new), "{printed}");
            }
            before.set(Some(new));
        },
    );
}

#[test]
fn a_deleted_branch_is_gone_or_not() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    let id = sandbox.ok_with("0", ["put", "master:f", "-"]);
    at_each_call(
        &sandbox,
        |number| {
            let name = format!("refs/heads/doomed/{number}");
            sandbox.git(["-C", "db.git", "update-ref", &name, &id]);
            if number % 2 == 0 {
                sandbox.git(["-C", "db.git", "pack-refs", "--all"]);
            }
            words(["branch", "delete", &format!("doomed/{number}")])
        },
        |number, run| {
            let name = format!("refs/heads/doomed/{number}");
            let left = head(&sandbox, &name);
            assert!(left.as_ref() == Some(&id) || left.is_none());
            assert!(left.is_none() || run.killed, "{}", run.log);
            if run.printed().is_some() {
                assert_eq!(left, None);
            }
        },
    );
}

#[test]
fn a_renamed_branch_has_one_name_in_the_end_and_never_none() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    let id = sandbox.ok_with("0", ["put", "master:f", "-"]);
    at_each_call(
        &sandbox,
        |number| {
            let name = format!("refs/heads/old/{number}");
            sandbox.git(["-C", "db.git", "update-ref", &name, &id]);
            if number % 2 == 0 {
                sandbox.git(["-C", "db.git", "pack-refs", "--all"]);
            }
            words([
                "branch",
                "rename",
                &format!("old/{number}"),
                &format!("new/{number}"),
            ])
        },
        |number, run| {
            let names = ["old", "new"].map(|name| format!("refs/heads/{name}/{number}"));
            let heads = || names.each_ref().map(|name| head(&sandbox, name));
            let at_once = heads();
            assert!(at_once.iter().flatten().count() > 0, "{}", run.log);
            assert!(at_once.iter().flatten().all(|head| *head == id));
            next_one_works(&sandbox);
            let settled = heads();
            assert_eq!(settled.iter().flatten().count(), 1, "{}", run.log);
            if run.printed().is_some() || at_once[1].is_some() {
                assert_eq!(settled, [None, Some(id.clone())], "{}", run.log);
            }
        },
    );
}

#[test]
fn a_transaction_begins_or_not_and_keeps_what_was_acknowledged() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    sandbox.ok_with("0", ["put", "master:f", "-"]);
    let hidden = ["-C", "db.git", "config", "--get-all", "transfer.hideRefs"];
    at_each_call(
        &sandbox,
        |number| {
            // As if it were the first one of this store.
            let unset = ["-C", "db.git", "config", "--unset-all", "transfer.hideRefs"];
            if number > 0 {
                sandbox.git(unset);
            }
            words(["tx", "begin", "master", "--name", &format!("t{number}")])
        },
        |number, run| {
            let name = format!("t{number}");
            let there = head(&sandbox, &format!("refs/dk/tx/{name}")).is_some();
            assert!(there || run.printed().is_none(), "{}", run.log);
            let again = sandbox.dk(["tx", "begin", "master", "--name", &name]);
            if there {
                assert!(again.contains("exists already"), "{again}");
            } else {
                assert_eq!(again, format!("{name}\n"));
            }
            assert_eq!(sandbox.git(hidden), "refs/dk");
        },
    );
    sandbox.ok(["tx", "begin", "master", "--name", "kept"]);
    let mut acknowledged: Vec<usize> = Vec::new();
    at_each_call(
        &sandbox,
        |number| {
            sandbox.write("input", format!("{number}\n"));
            words(["tx", "write", "kept", &format!("n/{number}"), "-"])
        },
        |number, run| {
            if !run.killed {
                acknowledged.push(number);
            }
            let names = sandbox.ok(["tx", "ls", "-r", "kept"]);
            for number in &acknowledged {
                assert!(
                    names.lines().any(|name| name == format!("n/{number}")),
                    "{names}"
                );
            }
        },
    );
}

#[test]
fn a_transaction_is_committed_once_or_still_open() {
    if !has_strace() {
        return;
    }
    let sandbox = Sandbox::with_store();
    sandbox.ok_with("0", ["put", "master:f", "-"]);
    at_each_call(
        &sandbox,
        |number| {
            let name = format!("t{number}");
            sandbox.ok(["tx", "begin", "master", "--name", &name]);
            sandbox.ok_with(&name, ["tx", "write", &name, &format!("n/{name}"), "-"]);
            // Every other one finds that the head moved.
            if number % 2 == 0 {
                sandbox.ok_with(&name, ["put", "master:moved", "-"]);
            }
            words(["tx", "commit", &name, "-m", &format!("commit {name}.")])
        },
        |number, run| {
            let name = format!("t{number}");
            let done = head(&sandbox, &format!("master:n/{name}")).is_some();
            if let Some(id) = run.printed() {
                assert!(done && head(&sandbox, "master").as_deref() == Some(id));
            }
            // Whoever does not know how it ended asks again.
            let id = sandbox.ok(["tx", "commit", &name, "-m", &format!("commit {name}.")]);
            let grep = format!("--grep=commit {name}.");
            let log = ["-C", "db.git", "log", "-F", "--format=%H", &grep, "master"];
            let commits = sandbox.git(log);
            assert_eq!(commits.lines().count(), 1, "{}", run.log);
            assert_eq!(head(&sandbox, "master").unwrap(), id, "{}", run.log);
            assert_eq!(sandbox.ok(["cat", &format!("master:n/{name}")]), name);
            sandbox.ok(["tx", "abort", &name]);
        },
    );
    assert_eq!(leftovers(&sandbox), Vec::<std::path::PathBuf>::new());
}
