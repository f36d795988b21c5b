//! What every command has in common: exit statuses, pipes, signals, colours.

use std::io::Read as _;
use std::process::Stdio;

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, eventually};

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    let big = "a line of a large file\n".repeat(100_000);
    sandbox.commit("master", "first", &[("a", "1\n"), ("big", &big)]);
    sandbox
}

#[test]
fn wrong_usage_is_2() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["nonsense"]), @"
    ! dk: unrecognized subcommand 'nonsense'
    ! 
    ! Usage: dk [OPTIONS] <COMMAND>
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
    for arguments in [
        &["ls"][..],
        &["ls", "--nonsense", "master"],
        &["--author", "Ada", "ls", "master"],
        &["--durability", "some", "ls", "master"],
        &["ls", ":a"],
        &["ls", "~\u{1b}[31m"],
    ] {
        let shown = sandbox.dk(arguments);
        assert!(
            shown.starts_with("! dk: ") && shown.ends_with("exit status 2\n"),
            "{shown}"
        );
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
    let nothing: [&str; 0] = [];
    assert!(sandbox.dk(nothing).ends_with("exit status 2\n"));
}

#[test]
fn a_prefix_that_fits_several_commits_is_2() {
    let sandbox = Sandbox::with_store();
    let mut known: Vec<String> = Vec::new();
    // 65536 prefixes of four digits: a pair is near certain after 2000 commits.
    let mut stream = String::new();
    for number in 0..2000 {
        stream += &format!(
            "commit refs/heads/b{number}\ncommitter A <a> {number} +0000\ndata 1\nx\nM 100644 inline f\ndata 0\n\n"
        );
    }
    sandbox.write("stream", stream);
    sandbox.sh("git -C db.git fast-import --quiet < stream");
    known.extend(
        sandbox
            .git(["-C", "db.git", "rev-list", "--all"])
            .lines()
            .map(String::from),
    );
    known.sort();
    let pair = known
        .windows(2)
        .find(|pair| pair[0][..4] == pair[1][..4])
        .unwrap();
    let shown = sandbox.dk(["ls", &pair[0][..4]]);
    assert!(
        shown.contains(&pair[1]) && shown.ends_with("exit status 2\n"),
        "{shown}"
    );
    let shown = sandbox.dk(["ls", &pair[0][..12]]);
    assert_eq!(shown, "f\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = store();
    for line in [
        "dk cat master:big | head -c1 >/dev/null",
        "dk --json cat master:big | head -c1 >/dev/null",
        "for i in {1..5000}; do echo master:a; done | xargs -n5000 dk --json stat | head -1 >/dev/null",
        "dk log -p master | head -1 >/dev/null",
        "dk ls master | true",
        "dk man | head -1 >/dev/null",
        "dk completions bash | head -c1 >/dev/null",
        "dk --help | head -1 >/dev/null",
    ] {
        assert_eq!(sandbox.sh(line), "", "{line}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let sandbox = store();
    let shown = sandbox.sh("dk cat master:a > /dev/full");
    assert_snapshot!(shown, @"
    ! dk: No space left on device (os error 28)
    exit status 1
    ");
}

#[test]
fn signals_end_dk_as_they_end_anything() {
    let sandbox = store();
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let mut log = sandbox
            .command(["log", "-f", "--oneline", "master"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first record is out: it listens.
        let mut first = [0];
        log.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let kill = sandbox
            .program("kill", ["-s", name, &log.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let status = eventually("the end of dk", || log.try_wait().unwrap());
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(status.signal(), Some(number), "{status}");
        let mut said = String::new();
        log.stderr.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
}

#[test]
fn a_signal_ends_dk_while_nobody_reads() {
    let sandbox = store();
    // As much as a pipe takes goes into it at once, and no more.
    let half = "a line of half a pipe\n".repeat(2000);
    sandbox.commit("master", "second", &[("half", &half)]);
    for arguments in [
        &["cat", "master:big"][..],
        &["cat", "master:half", "master:half"],
        &["log", "-p", "master"],
    ] {
        let mut dk = sandbox
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = dk.stdout.take().unwrap();
        let waiting = || rustix::io::ioctl_fionread(&pipe).unwrap();
        eventually("a full pipe", || (waiting() >= 16 * 1024).then_some(()));
        let kill = sandbox.program("kill", [dk.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let status = eventually("the end of dk", || dk.try_wait().unwrap());
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(status.signal(), Some(15), "{arguments:?}: {status}");
    }
}

#[test]
fn colours_are_for_terminals() {
    let mut sandbox = store();
    let plain = sandbox.dk(["log", "master"]);
    assert!(!plain.contains('\u{1b}'));
    assert!(
        sandbox
            .dk(["log", "--color=always", "master"])
            .contains("\u{1b}[33mcommit")
    );
    sandbox.set("TERM", "xterm");
    let line = "script -qec 'dk log master' /dev/null";
    assert!(sandbox.sh(line).contains("\u{1b}[33mcommit"));
    sandbox.set("NO_COLOR", "1");
    assert!(!sandbox.sh(line).contains('\u{1b}'));
    assert!(
        sandbox
            .dk(["log", "--color=always", "master"])
            .contains('\u{1b}')
    );
}

#[test]
fn a_terminal_changes_looks_only() {
    let sandbox = store();
    for line in [
        "dk log -p master",
        "dk ls -rl master",
        "dk tree master",
        "dk branch -v",
    ] {
        let terminal = sandbox.sh(&format!("script -qec '{line}' /dev/null"));
        assert_eq!(terminal.replace("\r\n", "\n"), sandbox.sh(line), "{line}");
    }
}

#[test]
fn help_is_short_and_pages_are_long() {
    let sandbox = store();
    let short = sandbox.dk(["ls", "-h"]);
    assert!(
        short.contains("Examples:") && short.contains("--recursive"),
        "{short}"
    );
    assert_eq!(sandbox.dk(["help", "ls"]), sandbox.dk(["ls", "--help"]));
    assert!(
        sandbox
            .dk(["man", "branch", "reset"])
            .contains(".TH dk-branch-reset 1")
    );
    assert_snapshot!(sandbox.dk(["man", "nonsense"]), @"
    ! dk: there is no command nonsense
    ! hint: 'dk man --list' names all pages
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["-V"]), @"dk 0.1.0");
}
