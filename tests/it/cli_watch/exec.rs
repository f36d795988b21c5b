//! `dk watch --exec`: what the command is given, and how it ends.

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, test_kill_process};

use super::{Watch, commit_odd, head, one_commit};
use crate::sandbox::{Sandbox, eventually, ids};

#[test]
fn a_command_is_run_for_each_commit() {
    let (sandbox, one) = one_commit();
    sandbox.commit("master", "two", &[("a b", "2\n"), ("c", "2\n")]);
    sandbox.commit("master", "three", &[("c", "3\n")]);
    let script = r#"echo "$DK_BRANCH $DK_PARENT $DK_COMMIT $DK_STORE"; tr '\0' '|'; echo"#;
    let seen = sandbox.dk([
        "watch", "-n2", "--since", &one, "--cursor", ".seen", "master", "--exec", "sh", "-c",
        script,
    ]);
    assert_snapshot!(ids(&seen), @r"
    master ID1 ID2 $DIR/db.git
    a b|c|
    master ID2 ID3 $DIR/db.git
    c|
    ");
    assert_eq!(sandbox.read(".seen"), head(&sandbox) + "\n");
    // The branch may come last.
    let seen = sandbox.dk([
        "watch",
        "-n1",
        "--since",
        "0",
        "--exec",
        "sh",
        "-c",
        "echo $DK_PARENT.",
        "master:src",
    ]);
    assert_eq!(seen, ".\n");
}

#[test]
fn a_command_that_fails_ends_it_and_is_repeated() {
    let (sandbox, one) = one_commit();
    sandbox.write(".seen", &one);
    sandbox.commit("master", "two", &[("b", "2\n")]);
    let two = head(&sandbox);
    sandbox.commit("master", "three", &[("c", "3\n")]);
    let script = "tr '\\0' '\\n'; test $DK_COMMIT = $0 || exit 7";
    let run = || {
        sandbox.dk([
            "watch", "--cursor", ".seen", "master", "--exec", "sh", "-c", script, &two,
        ])
    };
    assert_snapshot!(ids(&run()), @r"
    b
    c
    ! dk: sh failed at commit ID1: exit status: 7
    exit status 7
    ");
    assert_eq!(sandbox.read(".seen"), format!("{two}\n"), "one succeeded");
    assert_snapshot!(ids(&run()), @r"
    c
    ! dk: sh failed at commit ID1: exit status: 7
    exit status 7
    ");
    assert_eq!(
        sandbox
            .dk([
                "watch",
                "--since",
                &one,
                "master",
                "--exec",
                "sh",
                "-c",
                "kill -9 $$"
            ])
            .lines()
            .last(),
        Some("exit status 137")
    );
    assert_snapshot!(sandbox.dk(["watch", "--since", &one, "master", "--exec", "./missing"]), @r"
    ! dk: cannot run ./missing
    ! caused by: No such file or directory (os error 2)
    exit status 127
    ");
}

#[test]
fn a_command_need_not_read_its_input() {
    let (sandbox, one) = one_commit();
    let names: Vec<String> = (0..3000).map(|n| format!("{n:0>60}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    commit_odd(&sandbox, &names);
    assert_eq!(
        sandbox.dk(["watch", "-n1", "--since", &one, "master", "--exec", "true"]),
        ""
    );
    // Split at 100 kB (61 bytes a path, and one is the $0 of sh), so that xargs takes each line whole.
    assert_eq!(
        sandbox.sh(&format!(
            "dk watch --batch --since {one} master | xargs -L1 sh -c 'echo $#'"
        )),
        "1638\n1360\n"
    );
}

/// Whether a process whose id a command left in a file still runs.
fn runs(sandbox: &Sandbox, file: &str) -> bool {
    let pid = sandbox.read(file).trim().parse().unwrap();
    // One that ended may stay until somebody asks for its status.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
        && !stat.is_ok_and(|stat| stat.contains(") Z "))
}

/// A command that leaves a process of its own behind it and waits.
const WAITS: &str = r#"
    sleep 1000 & echo $! > sleeper
    tr '\0' '\n' > paths; echo $$ > shell.new; mv shell.new shell
    wait"#;

#[test]
fn restart_ends_the_command_and_all_it_started() {
    let (sandbox, one) = one_commit();
    let watch = Watch::begin(
        &sandbox,
        &["--restart", "master", "--exec", "sh", "-c", WAITS],
    );
    sandbox.commit("master", "two", &[("b", "2\n")]);
    eventually("the command runs", || {
        std::fs::metadata(sandbox.join("shell")).ok()
    });
    let (first, sleeper) = (sandbox.read("shell"), sandbox.read("sleeper"));
    sandbox.commit("master", "three", &[("c", "3\n")]);
    eventually("it is run again", || {
        (sandbox.read("shell") != first).then_some(())
    });
    assert_eq!(
        sandbox.read("paths"),
        "b\nc\n",
        "what was interrupted is to be done again"
    );
    sandbox.write("first", first);
    sandbox.write("sleeper1", sleeper);
    eventually("the first is gone", || {
        (!runs(&sandbox, "first")).then_some(())
    });
    eventually("its child is gone", || {
        (!runs(&sandbox, "sleeper1")).then_some(())
    });
    watch.signal(Signal::TERM);
    assert_eq!(watch.end(&sandbox), "ended by signal 15\n");
    assert!(!runs(&sandbox, "shell"), "nothing stays behind");
    assert_eq!(sandbox.read(".seen"), one + "\n", "no command was done");
    eventually("its child is gone", || {
        (!runs(&sandbox, "sleeper")).then_some(())
    });
}

#[test]
fn a_command_that_ignores_sigterm_is_killed() {
    let (sandbox, _) = one_commit();
    let script =
        "trap '' TERM; echo $$ > shell.new; mv shell.new shell; while :; do sleep 1000; done";
    let watch = Watch::begin(&sandbox, &["master", "--exec", "sh", "-c", script]);
    sandbox.commit("master", "two", &[("b", "2\n")]);
    eventually("the command runs", || {
        std::fs::metadata(sandbox.join("shell")).ok()
    });
    watch.signal(Signal::INT);
    assert_eq!(watch.end(&sandbox), "ended by signal 2\n");
    assert!(!runs(&sandbox, "shell"));
}
