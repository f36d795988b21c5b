//! The container, as far as that can be checked without an engine: its files
//! are in shape, and what it runs is run here.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sandbox::{Sandbox, eventually};
use crate::serving::Server;

/// The instructions of the Dockerfile, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("Dockerfile").unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        if open {
            let (_, rest) = found.last_mut().unwrap();
            rest.push_str(part);
        } else {
            let (name, rest) = part.split_once(' ').unwrap();
            found.push((name.into(), rest.into()));
        }
        open = more;
    }
    assert!(!open);
    found
}

fn all(name: &str) -> Vec<String> {
    let found = instructions().into_iter();
    found
        .filter(|(found, _)| found == name)
        .map(|(_, rest)| rest)
        .collect()
}

/// The words of a command in the form of a JSON list.
fn words(text: &str) -> Vec<String> {
    let start = text.find('[').unwrap();
    serde_json::from_str(&text[start..]).unwrap()
}

/// The lists called `command` in the compose file, by service.
fn commands() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string("scripts/docker/compose.yml").unwrap();
    let mut service = String::new();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(name) if !name.starts_with(' ') && name.ends_with(':') => {
                service = name.trim_end_matches(':').into();
            }
            Some(rest) if rest.starts_with("  command: ") => {
                found.insert(service.clone(), words(rest));
            }
            _ => (),
        }
    }
    found
}

#[test]
fn the_dockerfile_is_in_shape() {
    let from = all("FROM");
    assert_eq!(from.len(), 2, "{from:?}");
    assert!(from[0].ends_with(" AS build") && from[1] == "debian:bookworm-slim");
    assert_eq!(all("EXPOSE"), ["5640"]);
    assert_eq!(all("VOLUME"), ["/data"]);
    let last_user = all("USER").pop().unwrap();
    assert!(last_user != "root" && last_user != "0");
    for copied in all("COPY")
        .iter()
        .filter(|copied| !copied.starts_with("--from"))
    {
        let source = copied.split(' ').next().unwrap();
        assert!(std::path::Path::new(source).exists(), "{copied}");
    }
    assert_eq!(
        words(&all("CMD")[0]).join(" "),
        "dk serve /data --listen tcp://0.0.0.0:5640"
    );
    for line in all("RUN") {
        let mut shell = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell
            .stdin
            .take()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        assert!(shell.wait().unwrap().success(), "{line}");
        let lint = Command::new("shellcheck")
            .args(["--shell=sh", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut lint) = lint else {
            println!("left out: there is no shellcheck");
            continue;
        };
        lint.stdin
            .take()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let output = lint.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn what_the_containers_run_works() {
    let mut sandbox = Sandbox::new();
    // A volume is an empty folder.
    std::fs::create_dir(sandbox.join("data")).unwrap();
    let data = sandbox.join("data").display().to_string();
    let here = |words: Vec<String>, address: &str| -> Vec<String> {
        let fit = |word: String| match word.as_str() {
            "/data" => data.clone(),
            "0.0.0.0:9090" => "127.0.0.1:0".into(),
            _ => word
                .replace("tcp://0.0.0.0:5640", "tcp://127.0.0.1:0")
                .replace("tcp://127.0.0.1:5640", address),
        };
        words.into_iter().map(fit).collect()
    };
    let commands = commands();
    let images = words(&all("CMD")[0]);
    let healthy = words(&all("HEALTHCHECK")[0]);
    for command in [&images, &commands["db"]] {
        let command = here(command.clone(), "");
        let server = Server::of(&mut sandbox.program(&command[0], &command[1..]));
        let address = server.address();
        let check = here(healthy.clone(), &address);
        let check = |sandbox: &Sandbox| {
            let output = sandbox.program(&check[0], &check[1..]).output().unwrap();
            output.status.success()
        };
        assert!(check(&sandbox), "it is healthy");
        sandbox.set("DK_STORE", &address);
        let client = &commands["client"];
        let mut client = sandbox
            .program(&client[0], &client[1..])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = client.stdout.take().unwrap();
        let (sender, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        // It watches once it has committed.
        let mut number = 0;
        eventually("what the client watches for", || {
            number += 1;
            sandbox.ok_with(format!("{address} {number}"), ["put", "example:other"]);
            let line = seen.recv_timeout(Duration::from_millis(100)).ok()?;
            (line == "other").then_some(())
        });
        assert!(sandbox.dk(["ls", "example"]).contains("now"));
        client.kill().unwrap();
        client.wait().unwrap();
        sandbox.unset("DK_STORE");
        server.stop();
        assert!(!check(&sandbox), "it is not there any more");
    }
    assert_eq!(
        sandbox.git(["-C", "data", "fsck", "--strict", "--no-dangling"]),
        ""
    );
}

#[test]
fn a_repository_of_another_user_is_served_where_git_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can give a repository away");
        return;
    }
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1")]);
    sandbox
        .program("chown", ["-R", "12345:12345", "db.git"])
        .status()
        .unwrap();
    let shown = sandbox.dk(["serve", "db.git"]);
    assert!(
        shown.contains("safe.directory") && shown.ends_with("exit status 1\n"),
        "{shown}"
    );
    // As the image's /etc/gitconfig says of /data.
    let path = sandbox.join("db.git").canonicalize().unwrap();
    sandbox.write(
        "gitconfig",
        format!("[safe]\n\tdirectory = {}\n", path.display()),
    );
    sandbox.unset("GIT_CONFIG_NOSYSTEM");
    let mut command = sandbox.command(["serve", "db.git", "--listen", "tcp://127.0.0.1:0"]);
    command.env_remove("GIT_CONFIG_NOSYSTEM");
    command.env("GIT_CONFIG_SYSTEM", sandbox.join("gitconfig"));
    let server = Server::of(&mut command);
    server.address();
    server.stop();
}
