//! The programs in `scripts/examples` do what they say, against a server.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::interop::{has, in_a_guest};
use crate::sandbox::Sandbox;
use crate::serving::Server;

fn example(name: &str) -> PathBuf {
    let root = std::env::current_dir().unwrap();
    root.join("scripts/examples").join(name)
}

fn run(sandbox: &Sandbox, name: &str, argument: &str) -> Output {
    sandbox.program(example(name), [argument]).output().unwrap()
}

#[test]
fn every_example_is_run() {
    let listed = include_str!("examples.rs");
    for entry in std::fs::read_dir("scripts/examples").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(listed.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn the_tree_from_python() {
    if !has("python3") {
        return;
    }
    let sandbox = Sandbox::with_store();
    let server = Server::ready(&sandbox, &[]);
    let mut before = "no commit".to_string();
    for _ in 0..2 {
        let shown = sandbox.shown(&run(&sandbox, "tree.py", &server.host()));
        let head = sandbox.git(["-C", "db.git", "rev-parse", "example"]);
        assert_eq!(
            shown,
            format!("before: {before}\nafter: {head}\nhead: {head}\nhello from Python\n")
        );
        before = head;
    }
    server.stop();
}

#[test]
fn a_store_elsewhere_from_a_shell() {
    let sandbox = Sandbox::with_store();
    let server = Server::ready(&sandbox, &[]);
    let output = run(&sandbox, "remote.sh", &server.address());
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.ends_with("\nhello\n+ now\n+ scripts/remote.sh\ngreeting\n"),
        "{shown}"
    );
    server.stop();
}

#[test]
fn the_tree_through_a_mount() {
    if !has("qemu-system-x86_64") {
        return;
    }
    let sandbox = Sandbox::with_store();
    let server = Server::ready(&sandbox, &[]);
    let text = std::fs::read_to_string(example("mounted.sh")).unwrap();
    let script = format!(
        "mount -t 9p -o trans=tcp,port=$PORT,version=9p2000.L $HOST /mnt || exit 1\n\
         cat >/tmp/example <<'END OF EXAMPLE'\n{text}\nEND OF EXAMPLE\n\
         sh /tmp/example /mnt && sh /tmp/example /mnt\n"
    );
    sandbox.write("script", script);
    let Some(output) = in_a_guest(&sandbox, &server, Path::new(&sandbox.join("script"))) else {
        return;
    };
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "{shown}");
    assert_eq!(
        shown.matches("the watch has seen it\n").count(),
        2,
        "{shown}"
    );
    assert!(
        shown.contains("* notes/dates\n") && shown.contains("\nnotes\n"),
        "{shown}"
    );
    let made = ["-C", "db.git", "log", "--format=%s", "example"];
    assert_eq!(sandbox.git(made), "a date\na date");
    server.stop();
}
