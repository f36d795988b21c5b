//! `dk tx shell`, on a pipe and on a terminal.

use std::ffi::OsStr;
use std::process::Stdio;

use insta::assert_snapshot;
use rexpect::session::{PtySession, spawn_command};

use crate::sandbox::Sandbox;

/// Runs `dk` on a terminal of its own.
pub fn terminal<I: IntoIterator<Item: AsRef<OsStr>>>(
    sandbox: &Sandbox,
    arguments: I,
) -> PtySession {
    let mut command = sandbox.command(arguments);
    // What the terminal is, not what the sandbox gives otherwise.
    command
        .stdin(Stdio::inherit())
        .env("TERM", "xterm")
        .env("NO_COLOR", "1");
    spawn_command(command, Some(30_000)).unwrap()
}

/// Waits for the end, which must have this status.
pub fn done(mut session: PtySession, status: i32) {
    let rest = session.exp_eof().unwrap();
    let ended = format!("{:?}", session.process().wait().unwrap());
    assert!(ended.ends_with(&format!(", {status})")), "{ended}: {rest}");
}

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1\n"), ("d/b", "2\n")]);
    sandbox
}

fn named(sandbox: &Sandbox) {
    sandbox.ok(["tx", "begin", "master", "--name", "t"]);
}

fn open(sandbox: &Sandbox) -> usize {
    sandbox.ok(["tx", "open"]).lines().count()
}

#[test]
fn commands_come_on_a_pipe() {
    let sandbox = store();
    named(&sandbox);
    let script =
        "# what is there\nls -r\n\nmkdir 'a b'\nmv d/b \"a b/c\"\nrm a\ndiff\ncommit -m done\n";
    let said = sandbox.dk_with(script, ["tx", "shell", "t"]);
    let head = sandbox.ok(["branch", "head", "master"]);
    assert_snapshot!(said.replace(&head, "HEAD"), @"
    a
    d/b
    - a
    + a b/c
    - d/b
    HEAD
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a b/c");
}

#[test]
fn a_command_on_a_pipe_may_read_the_rest() {
    let sandbox = store();
    named(&sandbox);
    let script = "write new\nls\nquit\n";
    assert_snapshot!(sandbox.dk_with(script, ["tx", "shell", "t"]), @"! t stays open: go on with 'dk tx shell t'");
    assert_snapshot!(sandbox.dk(["tx", "cat", "t", "new"]), @"
    ls
    quit
    ");
    sandbox.write("script", "append new\nmore\n");
    sandbox.sh("dk tx shell t < script");
    assert_snapshot!(sandbox.dk(["tx", "cat", "t", "new"]), @"
    ls
    quit
    more
    ");
}

#[test]
fn the_first_failure_ends_a_script() {
    let sandbox = store();
    named(&sandbox);
    assert_snapshot!(sandbox.dk_with("rm a\nrm nope\nrm d\n", ["tx", "shell", "t"]), @"
    ! t stays open: go on with 'dk tx shell t'
    ! dk: line 2 failed
    ! caused by: cannot remove
    ! caused by: nope does not exist
    exit status 4
    ");
    assert_eq!(
        sandbox.ok(["tx", "ls", "-r", "t"]),
        "d/b",
        "what went before stands"
    );
    assert_snapshot!(sandbox.dk_with("fly away\n", ["tx", "shell", "t"]), @"
    ! t stays open: go on with 'dk tx shell t'
    ! dk: line 1 failed
    ! caused by: unrecognized subcommand 'fly'
    ! hint: 'help' lists the commands
    exit status 2
    ");
    assert_snapshot!(sandbox.dk_with("ls 'a\n", ["tx", "shell", "t"]), @"
    ! t stays open: go on with 'dk tx shell t'
    ! dk: line 1 failed
    ! caused by: a quote is not closed
    exit status 2
    ");
    assert_snapshot!(sandbox.dk_with("resolve\nmerge nope", ["tx", "shell", "t"]), @r#"
    ! t: nothing is in conflict
    ! t stays open: go on with 'dk tx shell t'
    ! dk: line 2 failed
    ! caused by: branch or commit "nope" does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk_with("", ["tx", "shell", "t", "u"]).lines().next().unwrap(), @"! dk: unexpected argument 'u' found");
}

#[test]
fn only_what_holds_nothing_goes_with_the_session() {
    let sandbox = store();
    let said = sandbox.dk_with("ls\nquit\nrm a\n", ["tx", "shell", "master"]);
    assert!(said.starts_with("a\nd\n! began "), "{said}");
    assert_eq!(open(&sandbox), 0);
    let said = sandbox.dk_with("rm a\n", ["tx", "shell", "master"]);
    assert!(
        said.contains("stays open: go on with 'dk tx shell "),
        "{said}"
    );
    assert_eq!(open(&sandbox), 1);
    let tx = sandbox.ok(["tx", "open"]);
    let tx = tx.split('\t').next().unwrap();
    sandbox.dk_with(
        "commit -m 1\nrm d\ncommit -m 2\nabort\n",
        ["tx", "shell", tx],
    );
    assert_eq!(
        sandbox.git(["-C", "db.git", "log", "--format=%s", "master"]),
        "2\n1\nfirst"
    );
    assert_eq!(open(&sandbox), 0);
    assert_snapshot!(sandbox.dk_with("commit\n", ["tx", "shell", "master"]), @"
    ! dk: line 1 failed
    ! caused by: there is nothing to commit
    exit status 2
    ");
    assert_snapshot!(sandbox.dk_with("quit\n", ["tx", "shell", "unborn"]), @"! unborn is neither a branch nor a transaction: a commit will make it a branch");
    assert_snapshot!(sandbox.dk_with("quit\n", ["tx", "shell", "no such"]), @r#"
    ! dk: "no such" is not a legal branch name: it holds a blank, a control character or one of ~^:?*[\
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk_with("quit\n", ["tx", "shell", tx]).replace(tx, "TX"), @"
    ! dk: the transaction TX is committed already
    exit status 2
    ");
}

#[test]
fn help_is_there() {
    let sandbox = store();
    let help = sandbox.ok_with("help\n", ["tx", "shell", "master"]);
    for command in ["write", "resolve", "commit", "abort", "quit"] {
        assert!(
            help.contains(&format!("\n  {command} ")) || help.starts_with("  write"),
            "{help}"
        );
    }
    let help = sandbox.ok_with("help chmod\n", ["tx", "shell", "master"]);
    assert!(help.contains("Usage: chmod <MODE> <PATH>..."), "{help}");
    assert_eq!(open(&sandbox), 0);
}

#[test]
fn a_session_on_a_terminal() {
    let sandbox = store();
    let mut shell = terminal(&sandbox, ["tx", "shell", "master"]);
    shell.exp_string("master> ").unwrap();
    shell.send_line("write x").unwrap();
    shell.exp_string("began ").unwrap();
    shell.exp_string("end with Ctrl-D").unwrap();
    shell.send_line("typed").unwrap();
    shell.send_control('d').unwrap();
    shell.exp_string("master +1> ").unwrap();
    // A failure is no end.
    shell.send_line("rm nope").unwrap();
    shell.exp_string("caused by: nope does not exist").unwrap();
    shell.exp_string("master +1> ").unwrap();
    shell.send_line("dance").unwrap();
    shell.exp_string("unrecognized subcommand 'dance'").unwrap();
    shell.exp_string("master +1> ").unwrap();
    // Paths and commands are completed.
    shell.send("ca\td/\t\r").unwrap();
    shell.flush().unwrap();
    shell.exp_string("2\r\n").unwrap();
    shell.exp_string("master +1> ").unwrap();
    // Ctrl-C takes the line back, no more.
    shell.send("rm a").unwrap();
    shell.send_control('c').unwrap();
    shell.exp_string("master +1> ").unwrap();
    // Somebody else makes the commit conflict.
    sandbox.commit("master", "theirs", &[("x", "theirs\n")]);
    shell.send_line("commit -m mine").unwrap();
    shell.exp_string("hint: settle them with").unwrap();
    shell.exp_string("master +2 !1> ").unwrap();
    shell.send_line("resolve --ours").unwrap();
    shell.exp_string("master +3> ").unwrap();
    shell.send_line("commit").unwrap();
    shell.exp_string("master> ").unwrap();
    shell.send_line("quit").unwrap();
    done(shell, 0);
    assert_eq!(sandbox.ok(["cat", "master:x"]), "typed");
    assert!(
        sandbox
            .read(".local/state/dk/history")
            .contains("resolve --ours")
    );
}

/// Starts a session with one edit, and ends it.
fn left(sandbox: &Sandbox) -> PtySession {
    let mut shell = terminal(sandbox, ["tx", "shell", "master"]);
    shell.exp_string("master> ").unwrap();
    shell.send_line("rm a").unwrap();
    shell.exp_string("master +1> ").unwrap();
    shell.send_control('d').unwrap();
    shell.exp_string("1 edit not committed").unwrap();
    shell.exp_string("abort ").unwrap();
    shell
}

#[test]
fn leaving_asks_before_work_is_lost() {
    let sandbox = store();
    let mut shell = left(&sandbox);
    shell.send("\r").unwrap();
    shell.flush().unwrap();
    shell
        .exp_string("stays open: go on with 'dk tx shell ")
        .unwrap();
    done(shell, 0);
    assert_eq!(open(&sandbox), 1, "kept by default");
    let tx = sandbox.ok(["tx", "open"]);
    sandbox.ok(["tx", "abort", tx.split('\t').next().unwrap()]);
    let mut shell = left(&sandbox);
    shell.send("\x1b[A\r").unwrap();
    shell.flush().unwrap();
    done(shell, 0);
    assert_eq!(open(&sandbox), 0);
    assert_eq!(sandbox.ok(["ls", "master"]), "a\nd");
    let mut shell = left(&sandbox);
    shell.send("\x1b[B\r").unwrap();
    shell.flush().unwrap();
    done(shell, 0);
    assert_eq!(sandbox.ok(["ls", "master"]), "d");
}

#[test]
fn abort_asks_on_a_terminal() {
    let sandbox = store();
    named(&sandbox);
    sandbox.ok(["tx", "rm", "t", "a"]);
    let mut shell = terminal(&sandbox, ["tx", "shell", "t"]);
    shell.exp_string("master +1> ").unwrap();
    shell.send_line("abort").unwrap();
    shell.exp_string("Throw 1 edit away?").unwrap();
    shell.send("n").unwrap();
    shell.flush().unwrap();
    shell.exp_string("master +1> ").unwrap();
    shell.send_line("abort --yes").unwrap();
    shell.exp_string("master> ").unwrap();
    shell.send_line("quit").unwrap();
    done(shell, 0);
    assert_eq!(open(&sandbox), 0);
}
