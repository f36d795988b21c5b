//! What a loss of power leaves, by the order of system calls.
//!
//! Whatever is visible by a name is on disk before the name is, and the name
//! before anything that relies on it: objects before the ref, the ref before
//! the answer on stdout. strace(1) shows the calls; the order of two is known
//! where one had returned before the other was made.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use crate::aftermath::{finish, has_strace};
use crate::sandbox::Sandbox;

const CALLS: &str = "?write,?pwrite64,?writev,?ftruncate,?fsync,?fdatasync,?rename,?renameat,\
                     ?renameat2,?link,?linkat,?unlink,?unlinkat,?mkdir,?mkdirat";

/// A call that succeeded.
#[derive(Debug)]
struct Call {
    name: String,
    /// The paths in its arguments: of descriptors, and of names.
    paths: Vec<String>,
    /// What was before the first path: `1<` for the descriptor 1.
    text: String,
    /// The lines of the log in which it was made, and returned.
    made: usize,
    returned: usize,
}

/// Reads what `strace -f -y` wrote.
fn calls(log: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(text) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, text.to_owned()));
            continue;
        }
        let (made, text) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (made, begun) = unfinished.remove(thread).expect("it was begun");
                let tail = resumed.split_once("resumed>").expect("it goes on").1;
                (made, begun + tail)
            }
            None => (number, rest.to_owned()),
        };
        let Some((call, result)) = text.rsplit_once(" = ") else {
            continue;
        };
        if result.starts_with('-') || result.starts_with('?') {
            continue;
        }
        let (name, arguments) = call.split_once('(').expect("a call");
        calls.push(Call {
            name: name.to_owned(),
            paths: paths(arguments),
            text: arguments.to_owned(),
            made,
            returned: number,
        });
    }
    calls
}

/// The absolute paths in `4</path>` and `"/path"`.
fn paths(arguments: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in arguments.match_indices('/') {
        let before = &arguments[..at];
        let end = match before.chars().last() {
            // The current folder, for names that would begin there.
            Some('<') if before.ends_with("AT_FDCWD<") => continue,
            Some('<') => '>',
            Some('"') => '"',
            _ => continue,
        };
        let path = arguments[at..].split(end).next().unwrap_or_default();
        found.push(path.to_owned());
    }
    found
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').expect("an absolute path").0
}

/// Checks the order of all calls on a store; returns how many names it saw
/// appear below `objects`, and how many elsewhere. In the folder `spared`, what
/// came last need not be durable when something is printed.
fn check(log: &str, store: &str, spared: Option<&str>) -> (usize, usize) {
    let calls = calls(log);
    let is_sync = |call: &Call| call.name == "fsync" || call.name == "fdatasync";
    // Synced after `from`, and before `to` was begun.
    let synced = |path: &str, from: usize, to: usize| {
        let done = |call: &Call| call.made > from && call.returned < to;
        calls
            .iter()
            .any(|call| is_sync(call) && call.paths[0] == path && done(call))
    };
    let (mut objects, mut others) = (0, 0);
    // Directories with a changed name, and when it changed.
    let mut changed: BTreeMap<String, usize> = BTreeMap::new();
    let all_synced = |changed: &BTreeMap<String, usize>, within: &str, before: usize| {
        for (dir, at) in changed.iter().filter(|(dir, _)| dir.starts_with(within)) {
            assert!(
                synced(dir, *at, before),
                "{dir} is not synced before call {before}\n{log}"
            );
        }
    };
    for call in &calls {
        if call.name == "write" && call.text.starts_with("1<") {
            if let Some(spared) = spared {
                changed.remove(&format!("{store}{spared}"));
            }
            all_synced(&changed, store, call.made);
        }
        let Some(last) = call.paths.last() else {
            continue;
        };
        let name = last.strip_prefix(store).unwrap_or(last);
        match call.name.as_str() {
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let source = &call.paths[0];
                // A lock is as durable as what becomes of it: looked at then.
                let lock = name.ends_with(".lock");
                let content = source.strip_suffix(".lock").map_or(source, |_| {
                    let link = calls.iter().rev().find(|link| {
                        link.name.starts_with("link")
                            && link.paths[1] == *source
                            && link.returned < call.made
                    });
                    &link.expect("the lock was linked").paths[0]
                });
                let written = calls.iter().filter(|write| {
                    write.name.contains("write") && write.paths.first() == Some(content)
                });
                let written = written.map(|write| write.returned).max();
                if let Some(written) = written {
                    assert!(
                        synced(content, written, call.made),
                        "{content} is not synced before {call:?}\n{log}"
                    );
                }
                if name.starts_with("/objects/") {
                    objects += 1;
                } else if !lock {
                    others += 1;
                    all_synced(&changed, &format!("{store}/objects"), call.made);
                }
                if !lock {
                    changed.insert(parent(last).to_owned(), call.returned);
                }
            }
            "mkdir" | "mkdirat" if last.starts_with(store) && !name.starts_with("/dk") => {
                changed.insert(parent(last).to_owned(), call.returned);
            }
            "unlink" | "unlinkat" if name.starts_with("/refs") && !name.ends_with(".lock") => {
                changed.insert(parent(last).to_owned(), call.returned);
            }
            _ => {}
        }
    }
    if let Some(spared) = spared {
        changed.remove(&format!("{store}{spared}"));
    }
    // What prints nothing says it is done by ending.
    all_synced(&changed, store, usize::MAX);
    (objects, others)
}

fn run(sandbox: &Sandbox, arguments: &[&str], spared: Option<&str>) -> (String, usize, usize) {
    let log = sandbox.join("strace.log");
    let mut strace = sandbox.program("strace", ["-f", "-y", "-qq", "-s", "0", "-o"]);
    strace
        .arg(&log)
        .args(["-e", &format!("trace={CALLS}")])
        .args(["-e", "signal=none", env!("CARGO_BIN_EXE_dk")])
        .args(arguments);
    let output = finish(&mut strace);
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "dk {arguments:?}: {shown}");
    let store = sandbox.join("db.git").canonicalize().unwrap();
    let log = fs::read_to_string(log).unwrap();
    let (objects, others) = check(&log, store.to_str().unwrap(), spared);
    let stdout = String::from_utf8(output.stdout).unwrap();
    (stdout.trim_end().into(), objects, others)
}

#[test]
fn all_is_on_disk_before_what_relies_on_it() {
    if !has_strace() {
        return;
    }
    let mut sandbox = Sandbox::with_store();
    // An absolute path, as it is in the calls.
    let store = sandbox.join("db.git").canonicalize().unwrap();
    sandbox.set("DK_STORE", store.to_str().unwrap());
    sandbox.write("f", "content\n");
    for number in 0..300 {
        sandbox.write(format!("folder/{number}"), format!("{number}\n"));
    }
    let large = vec![b'x'; 2 << 20];
    sandbox.write("large", large);
    let seen = |arguments: &[&str], objects: usize, others: usize| {
        // That a transaction is committed can be told from its record and
        // the branch, which are durable; its last move is not waited for.
        let spared = (arguments[..2] == ["tx", "commit"]).then_some("/refs/dk/tx");
        let (printed, new, moved) = run(&sandbox, arguments, spared);
        assert!(
            new >= objects && moved >= others,
            "{arguments:?}: {new} {moved}"
        );
        printed
    };
    // Blob, trees, commit; the ref.
    seen(&["put", "master:a/b", "f"], 4, 1);
    seen(&["put", "deep/er/branch:c", "f"], 1, 1);
    seen(&["put", "master:large", "large"], 3, 1);
    // Pack and index, trees or commit beside them.
    seen(&["import", "master:i", "folder"], 3, 1);
    let tx = seen(&["tx", "begin", "master"], 1, 1);
    // The tree and the commit: the blob is there.
    seen(&["tx", "write", &tx, "n", "folder/7"], 2, 1);
    // The transaction before and after, and the branch.
    seen(&["tx", "commit", &tx, "-m", "m"], 2, 3);
    seen(&["merge", "master", "deep/er/branch"], 1, 1);
    seen(&["branch", "create", "x/y", "--from", "master"], 0, 1);
    // The intent, and the new name; the old one is removed.
    seen(&["branch", "rename", "x/y", "z"], 0, 1);
    sandbox.git(["-C", "db.git", "pack-refs", "--all"]);
    let (_, _, moved) = run(&sandbox, &["branch", "delete", "z"], None);
    assert!(moved >= 1, "packed-refs was replaced");
}

#[test]
fn an_order_that_is_wrong_is_seen() {
    let good = "\
1 write(5</s/objects/t1>, \"\"..., 9) = 9
1 fsync(5</s/objects/t1> <unfinished ...>
2 write(6</s/dk/locks/1.0>, \"\"..., 9) = 9
1 <... fsync resumed>)        = 0
1 renameat(AT_FDCWD</x>, \"/s/objects/t1\", AT_FDCWD</x>, \"/s/objects/aa/11\") = 0
1 fsync(5</s/objects/aa>) = 0
2 fsync(6</s/dk/locks/1.0>) = 0
1 linkat(AT_FDCWD</x>, \"/s/dk/locks/1.0\", AT_FDCWD</x>, \"/s/refs/heads/m.lock\", 0) = 0
1 rename(\"/s/refs/heads/m.lock\", \"/s/refs/heads/m\") = 0
1 fsync(5</s/refs/heads>) = 0
1 write(1</dev/pts/0>, \"\"..., 41) = 41
";
    let lines: Vec<&str> = good.lines().collect();
    let without = |left_out: &[usize]| {
        let kept = (0..lines.len()).filter(|line| !left_out.contains(line));
        kept.map(|line| format!("{}\n", lines[line]))
            .collect::<String>()
    };
    let is_right = |log: String| std::panic::catch_unwind(|| check(&log, "/s", None)).is_ok();
    assert!(is_right(good.into()));
    for left_out in [&[1, 3][..], &[5], &[6], &[9], &[9, 10]] {
        assert!(!is_right(without(left_out)), "without {left_out:?}");
    }
    assert!(!is_right(
        good.replace("1</dev/pts/0>", "1<pipe:[7]>")
            .replace(lines[9], "")
    ));
}
