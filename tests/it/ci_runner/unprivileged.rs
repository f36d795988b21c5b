//! All that holds of the end of a job and of its sandbox holds without root.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use super::*;

/// Somebody who may do nothing in particular.
const NOBODY: u32 = 65_534;

fn as_nobody(program: &Path, words: &[&str], folder: &Path) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TMPDIR", folder)
        .current_dir(folder)
        // This drops the other groups, too.
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
}

#[test]
fn all_of_it_holds_without_root() {
    if !rustix::process::geteuid().is_root() {
        // Then the tests themselves show it.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let dk = Path::new(env!("CARGO_BIN_EXE_dk"));
    if let Err(error) = as_nobody(dk, &["--version"], folder.path()) {
        println!("not shown: nobody cannot run {}: {error}", dk.display());
        return;
    }
    let words = ["--user", "--map-root-user", "--pid", "--fork", "true"];
    let namespaces = as_nobody(Path::new("unshare"), &words, folder.path());
    let namespaces = namespaces.is_ok_and(|output| output.status.success());
    let tests = [
        "ci_runner::ending::",
        "ci_runner::sandboxed::",
        "--show-output",
    ];
    let this = std::env::current_exe().unwrap();
    let output = as_nobody(&this, &tests, folder.path()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(
        said.contains("a_daemon_does_not_survive_its_supervisor"),
        "{said}"
    );
    assert!(
        said.contains("it_sees_its_checkout_and_the_systems_programs"),
        "{said}"
    );
    match namespaces {
        true => assert!(!said.contains("skipped:"), "{said}"),
        false => println!("not shown: this machine has no namespaces for users"),
    }
}
