//! What goes wrong outside of dk: a full disk, a read-only store, a signal, a
//! reader that goes away.
//!
//! Each time: a clear error that names the thing, the right status, the store
//! as it was, and nothing left behind.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::aftermath::{files, head, is_whole, leftovers, unfinished, wait};
use crate::sandbox::{Sandbox, eventually, feed};

const NOTHING: [PathBuf; 0] = [];

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A folder on something mounted there, until dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where one may not: who does not is told.
    fn new(folder: PathBuf, arguments: &[&str]) -> Option<Self> {
        if !is_root() {
            println!("skipped in part: only root mounts");
            return None;
        }
        fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        let output = mount.args(arguments).arg(&folder).output().unwrap();
        if output.status.success() {
            return Some(Self(folder));
        }
        let why = String::from_utf8_lossy(&output.stderr);
        println!("skipped in part: cannot mount: {why}");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Commands that write, with something on stdin for those that read it.
fn writes(tx: &str) -> Vec<(Vec<String>, Vec<u8>)> {
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    let large = noise(3 << 20);
    vec![
        (words("put master:large large"), Vec::new()),
        (words("put master:large -"), large.clone()),
        (words("put master:small small"), Vec::new()),
        (words("import master:in folder"), Vec::new()),
        (words(&format!("tx write {tx} large large")), Vec::new()),
        (words(&format!("tx append {tx} large -")), large),
        (words(&format!("tx import {tx} folder")), Vec::new()),
    ]
}

fn fill(sandbox: &Sandbox) {
    sandbox.write("large", noise(3 << 20));
    sandbox.write("small", "small\n");
    for number in 0..300 {
        sandbox.write(format!("folder/{number}"), noise(9000 + number));
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let sandbox = Sandbox::with_store();
    let mount = ["-t", "tmpfs", "-o", "size=1m", "none"];
    fs::remove_dir_all(sandbox.join("db.git")).unwrap();
    let Some(_disk) = Mounted::new(sandbox.join("db.git"), &mount) else {
        return;
    };
    sandbox.git(["init", "--quiet", "--bare", "-b", "master", "db.git"]);
    fill(&sandbox);
    let first = sandbox.ok_with("kept", ["put", "master:kept", "-"]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    let open = head(&sandbox, &format!("refs/dk/tx/{tx}"));
    let refused = |arguments: &[String], input: &[u8]| {
        let output = feed(&mut sandbox.command(arguments), input);
        let shown = sandbox.shown(&output);
        let named = shown.contains("$DIR/db.git/") && shown.contains("No space left on device");
        assert!(
            named && shown.ends_with("exit status 1\n"),
            "{arguments:?}: {shown}"
        );
        assert_eq!(unfinished(&sandbox), NOTHING, "{arguments:?}");
        assert_eq!(leftovers(&sandbox), NOTHING, "{arguments:?}");
        assert_eq!(head(&sandbox, "master").as_deref(), Some(&*first));
        assert_eq!(head(&sandbox, &format!("refs/dk/tx/{tx}")), open);
    };
    for (arguments, input) in writes(&tx) {
        if !arguments.contains(&"small".to_owned()) {
            refused(&arguments, &input);
        }
    }
    // Not even a byte more.
    let mut rest = fs::File::create(sandbox.join("db.git/rest")).unwrap();
    for size in [4096, 1] {
        while rest.write_all(&vec![b'x'; size]).is_ok() {}
    }
    refused(
        &["branch", "create", "other", "--from", "master"].map(String::from),
        b"",
    );
    for (arguments, input) in writes(&tx) {
        refused(&arguments, &input);
    }
    refused(&["tx", "commit", &tx, "-m", "m"].map(String::from), b"");
    assert_eq!(sandbox.ok(["cat", "master:kept"]), "kept");
    is_whole(&sandbox);
    drop(rest);
    fs::remove_file(sandbox.join("db.git/rest")).unwrap();
    sandbox.ok(["tx", "write", &tx, "small", "small"]);
    sandbox.ok(["tx", "commit", &tx, "-m", "m"]);
    assert_eq!(sandbox.ok(["ls", "master"]), "kept\nsmall");
    is_whole(&sandbox);
}

#[test]
fn a_file_that_may_not_grow_is_as_a_full_disk() {
    let sandbox = Sandbox::with_store();
    fill(&sandbox);
    let first = sandbox.ok_with("kept", ["put", "master:kept", "-"]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    for (arguments, input) in writes(&tx) {
        // In blocks of 1024 bytes; the signal that goes with it is ignored.
        let line = "trap '' XFSZ; ulimit -f 500; exec dk \"$@\"";
        let mut limited = sandbox.program("bash", ["-c", line, "dk"]);
        let output = feed(limited.args(&arguments), &input);
        let shown = sandbox.shown(&output);
        if arguments.contains(&"small".to_owned()) {
            assert!(output.status.success(), "{shown}");
            sandbox.git(["-C", "db.git", "update-ref", "refs/heads/master", &first]);
            continue;
        }
        let named = shown.contains("$DIR/db.git/objects/") && shown.contains("File too large");
        assert!(
            named && shown.ends_with("exit status 1\n"),
            "{arguments:?}: {shown}"
        );
        assert_eq!(unfinished(&sandbox), NOTHING, "{arguments:?}");
        assert_eq!(leftovers(&sandbox), NOTHING, "{arguments:?}");
        assert_eq!(head(&sandbox, "master").as_deref(), Some(&*first));
    }
    assert_eq!(sandbox.ok(["tx", "ls", &tx]), "kept");
    is_whole(&sandbox);
}

#[test]
fn a_read_only_store_is_read_and_not_written() {
    let sandbox = Sandbox::with_store();
    fill(&sandbox);
    let first = sandbox.ok_with("kept", ["put", "master:kept", "-"]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    let store = sandbox.join("db.git");
    let bind = ["--bind", store.to_str().unwrap()];
    let mounted = if is_root() {
        // To root only a mount is read-only.
        let Some(mounted) = Mounted::new(store.clone(), &bind) else {
            return;
        };
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,ro,bind"]).arg(&store);
        assert!(remount.status().unwrap().success());
        Some(mounted)
    } else {
        for folder in files_and_folders(&store) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        }
        None
    };
    for line in [
        "ls master",
        "cat master:kept",
        "stat master:kept",
        "tree master",
        "log master",
        "show master",
        "export master -",
        "branch -v",
        "fsck",
        "gc --dry-run",
        "tx open",
        "watch --current master",
    ] {
        let output = sandbox.command(line.split(' ')).output().unwrap();
        let shown = sandbox.shown(&output);
        assert!(output.status.success(), "{line}: {shown}");
        assert!(
            !output.stdout.is_empty() || line == "fsck",
            "{line}: {shown}"
        );
    }
    for line in [&format!("tx status {tx}"), &format!("tx ls {tx}")] {
        sandbox.ok(line.split(' '));
    }
    let mut refused: Vec<_> = writes(&tx).into_iter().map(|(line, _)| line).collect();
    for line in [
        "rm master:kept",
        "mv master:kept other",
        "merge master master~",
        "branch create other --from master",
        "branch delete master",
        "branch rename master other",
        "tx begin master",
        "gc",
    ] {
        refused.push(line.split(' ').map(String::from).collect());
    }
    for line in refused {
        let shown = sandbox.dk(&line);
        let clear = shown.contains("is read-only") || shown.contains("does not exist");
        assert!(clear, "{line:?}: {shown}");
        let status = if line[0] == "merge" { 4 } else { 1 };
        assert!(
            shown.ends_with(&format!("exit status {status}\n")),
            "{line:?}: {shown}"
        );
    }
    assert_eq!(head(&sandbox, "master"), Some(first));
    if mounted.is_none() {
        for folder in files_and_folders(&store) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

fn files_and_folders(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for path in files(dir, &|_| true) {
        all.extend(
            path.ancestors()
                .take_while(|it| *it != dir)
                .map(Path::to_owned),
        );
    }
    all.sort();
    all.dedup();
    all.retain(|path| path.is_dir());
    all
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let sandbox = Sandbox::with_store();
    let first = sandbox.ok_with("kept", ["put", "master:kept", "-"]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    let open = head(&sandbox, &format!("refs/dk/tx/{tx}"));
    let content = noise(6 << 20);
    let mut header = tar_header("large", content.len());
    header.extend_from_slice(&content);
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        for (arguments, input) in [
            (&["put", "master:slow", "-"][..], &content[..3 << 20]),
            (&["put", "master:slow", "-"], &content[..10]),
            (&["import", "master", "-"], &header[..5 << 20]),
            (&["tx", "write", &tx, "slow", "-"], &content[..3 << 20]),
        ] {
            let mut child = sandbox.spawn(arguments);
            // What does not fit into the pipe was read.
            child.stdin.as_mut().unwrap().write_all(input).unwrap();
            if input.len() > 1 << 20 {
                eventually("a temporary file", || unfinished(&sandbox).pop());
            }
            let kill = ["-s", name, &child.id().to_string()];
            assert!(sandbox.program("kill", kill).status().unwrap().success());
            let stdin = child.stdin.take();
            let output = wait(child, &format!("{arguments:?}"));
            drop(stdin);
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(output.status.signal(), Some(number), "{arguments:?}");
            assert_eq!(
                sandbox.shown(&output),
                format!("ended by signal {number}\n")
            );
            assert_eq!(unfinished(&sandbox), NOTHING, "{arguments:?}");
            assert_eq!(leftovers(&sandbox), NOTHING, "{arguments:?}");
        }
    }
    assert_eq!(head(&sandbox, "master"), Some(first));
    assert_eq!(head(&sandbox, &format!("refs/dk/tx/{tx}")), open);
    is_whole(&sandbox);
}

/// The first block of a tar archive with one file.
fn tar_header(name: &str, size: usize) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_closed_pipe_is_no_failure_of_any_command() {
    let sandbox = Sandbox::with_store();
    let mut stream = String::new();
    for number in 0..3000 {
        stream += &format!(
            "commit refs/heads/master\ncommitter Ada <ada@example.org> {number} +0000\n\
             data 6\nx\ny\nz\n\nM 100644 inline dir/a-name-that-takes-room-in-a-pipe-{number}\n\
             data 2\n1\n\n"
        );
    }
    for number in 0..3000 {
        stream += &format!(
            "reset refs/heads/b/a-name-that-takes-room-{number}\nfrom refs/heads/master\n"
        );
    }
    sandbox.write("stream", stream);
    assert_eq!(sandbox.sh("git -C db.git fast-import --quiet < stream"), "");
    let tx = sandbox.ok(["tx", "begin", "master"]);
    sandbox.write("big", noise(1 << 20));
    sandbox.ok(["tx", "write", &tx, "big", "big"]);
    for line in [
        "branch".into(),
        "branch -v".into(),
        "ls -r master".into(),
        "ls -rl master".into(),
        "tree master".into(),
        "log master".into(),
        "log -p --reverse master".into(),
        "show master".into(),
        "diff master~2000 master".into(),
        "diff --patch master~2000 master".into(),
        "diff --stat master~2000 master".into(),
        "export master -".into(),
        "watch --current master".into(),
        "watch -f --commits --since master~2500 master".into(),
        format!("tx ls -r {tx}"),
        format!("tx cat {tx} big"),
        format!("tx diff {tx}"),
        "man log".into(),
        "completions bash".into(),
        "help log".into(),
    ] {
        for json in ["", "--json "] {
            if json.is_empty()
                || !["man", "comp", "help"]
                    .iter()
                    .any(|it| line.starts_with(it))
            {
                let line = format!("dk {json}{line} | head -c1 >/dev/null");
                assert_eq!(sandbox.sh(&line), "", "{line}");
            }
        }
    }
}
