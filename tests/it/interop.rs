//! Clients of others against `dk serve`: the Linux kernel's, in a guest; diod's
//! tools; the Python package p9fs. One that is not on this machine is left out,
//! and why is printed.

use std::path::Path;
use std::process::{Command, Output};

use crate::sandbox::{Sandbox, eventually};
use crate::serving::{Server, http};

/// Tells whether a program can be run.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    });
    if !found {
        println!("left out: there is no {program} (see .ci/run)");
    }
    found
}

/// A store with a branch, served.
fn served(sandbox: &Sandbox) -> Server {
    sandbox.commit(
        "master",
        "first",
        &[("greeting", "hello\n"), ("a/b", "in a\n")],
    );
    Server::ready(sandbox, &["db.git", "--metrics", "127.0.0.1:0"])
}

/// Runs a script in a guest that mounts what `server` serves. Nothing: there is
/// no guest here.
pub fn in_a_guest(sandbox: &Sandbox, server: &Server, script: &Path) -> Option<Output> {
    // The sandbox's home is new each time.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("v9fs");
    let host = server.host();
    let port = host.rsplit(':').next().unwrap();
    let root = std::env::current_dir().unwrap();
    let output = sandbox
        .program(
            root.join("scripts/v9fs"),
            [port.as_ref(), script.as_os_str()],
        )
        .env("V9FS_CACHE", cache)
        .output()
        .unwrap();
    if output.status.code() == Some(125) {
        println!("left out: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(output)
}

/// Waits until nothing is left of the clients.
fn forgotten(server: &Server) {
    let url = server.says("metrics at ");
    for gauge in ["connections", "fids", "streams", "transactions"] {
        let line = format!("\ndatakit_{gauge} 0\n");
        eventually(&format!("no {gauge} are left"), || {
            http(&url, "/metrics").2.contains(&line).then_some(())
        });
    }
}

#[test]
fn linux_mounts_the_tree_in_every_dialect_and_cache_mode() {
    if !has("qemu-system-x86_64") {
        return;
    }
    let sandbox = Sandbox::with_store();
    let server = served(&sandbox);
    let script = std::env::current_dir()
        .unwrap()
        .join("tests/data/mounted.sh");
    let Some(output) = in_a_guest(&sandbox, &server, &script) else {
        return;
    };
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.matches("\nok ").count() > 100, "{shown}");
    forgotten(&server);
    server.stop();
    assert_eq!(
        sandbox.git(["-C", "db.git", "fsck", "--strict", "--no-dangling"]),
        ""
    );
}

#[test]
fn diods_tools_read_the_tree() {
    // Debian puts them where only root looks.
    let mut sandbox = Sandbox::with_store();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    sandbox.set("PATH", &path);
    if !Path::new("/usr/sbin/diodls").exists() && !has("diodls") {
        return;
    }
    let server = served(&sandbox);
    let host = server.host();
    let run = |program: &str, rest: &[&str]| {
        let mut all = vec!["-s", &host, "-a", "/"];
        all.extend(rest);
        let output = sandbox.program(program, all).output().unwrap();
        sandbox.shown(&output)
    };
    let root = run("diodls", &[]);
    for entry in [
        "branch",
        "trees",
        "commits",
        "snapshots",
        "remotes",
        "debug",
    ] {
        assert!(root.lines().any(|line| line == entry), "{root}");
    }
    assert!(run("diodls", &["-l", "branch/master/ro"]).contains("greeting"));
    assert_eq!(run("diodcat", &["branch/master/ro/greeting"]), "hello\n");
    let head = sandbox.git(["-C", "db.git", "rev-parse", "master"]);
    assert_eq!(run("diodcat", &["branch/master/head"]), format!("{head}\n"));
    assert!(run("diodcat", &["branch/master/ro/none"]).contains("No such file or directory"));
    forgotten(&server);
    server.stop();
}

/// What p9fs is made to do, in each dialect.
const P9FS: &str = r#"
import p9fs, sys
host, port = sys.argv[1].rsplit(":", 1)
for version in "9P2000.L", "9P2000.u", "9P2000":
    fs = p9fs.P9FileSystem(host, port=int(port), username="somebody", version=version)
    names = sorted(entry["name"].strip("/").split("/")[-1] for entry in fs.ls(""))
    assert {"branch", "snapshots", "trees"} <= set(names), names
    assert fs.cat_file("branch/master/ro/greeting") == b"hello\n"
    name = version.lower().replace(".", "-")
    tx = "branch/master/tx/" + name
    fs.mkdir(tx, create_parents=False)
    fs.mkdir(tx + "/rw/" + name, create_parents=False)
    data = bytes(range(256)) * 1000
    with fs.open(tx + "/rw/" + name + "/bytes", "wb") as file:
        file.write(data)
    assert fs.cat_file(tx + "/rw/" + name + "/bytes") == data
    try:
        fs.cat_file("branch/master/ro/none")
    except Exception as why:
        # Each dialect has its own kind.
        assert not isinstance(why, AssertionError), why
    else:
        sys.exit("it is there")
    print(version, "ok")
"#;

#[test]
fn p9fs_works_in_every_dialect() {
    let there = Command::new("python3").args(["-c", "import p9fs"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("left out: there is no p9fs (pip install p9fs)");
        return;
    }
    let sandbox = Sandbox::with_store();
    let server = served(&sandbox);
    let output = sandbox
        .program("python3", ["-c", P9FS, &server.host()])
        .output()
        .unwrap();
    assert_eq!(
        sandbox.shown(&output),
        "9P2000.L ok\n9P2000.u ok\n9P2000 ok\n"
    );
    // It cannot write what it did not create; the transactions are everybody's.
    let bytes: Vec<u8> = (0..=255).collect();
    for name in ["9p2000-l", "9p2000-u", "9p2000"] {
        sandbox.ok(["tx", "commit", name, "-m", name]);
        let output = sandbox
            .command(["cat", &format!("master:{name}/bytes")])
            .output();
        assert_eq!(output.unwrap().stdout, bytes.repeat(1000));
    }
    forgotten(&server);
    server.stop();
}
