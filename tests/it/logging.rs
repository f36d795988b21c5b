//! The log of a server: what is in it, where it goes, and that it is never in
//! the way.

use crate::sandbox::{Sandbox, eventually};
use crate::serving::{Client, Server};

#[test]
fn a_log_is_lines_of_text_or_json() {
    let sandbox = Sandbox::new();
    let server = Server::ready(&sandbox, &["--memory", "--log-level", "info"]);
    let line = server.says("Z info serve: ");
    assert!(line.starts_with("serving at=tcp://127.0.0.1:") && line.ends_with(" store=memory"));
    server.stop();
    let server = Server::ready(
        &sandbox,
        &["--memory", "--log-level=info", "--log-format=json"],
    );
    let line = format!("{{{}", server.says("{"));
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["level"], "info");
    assert_eq!(record["target"], "serve");
    assert_eq!(record["message"], "serving");
    assert_eq!(record["store"], "memory");
    server.stop();
}

#[test]
fn the_log_is_quiet_unless_asked() {
    let sandbox = Sandbox::new();
    assert_eq!(Server::ready(&sandbox, &["--memory"]).stop().len(), 1);
}

#[test]
fn a_log_file_is_reopened_on_sighup() {
    let sandbox = Sandbox::new();
    let server = Server::ready(
        &sandbox,
        &["--memory", "--log-level=info", "--log-destination=file:log"],
    );
    let serving =
        |name: &str| sandbox.join(name).exists() && sandbox.read(name).contains("serving");
    eventually("the first line", || serving("log").then_some(()));
    std::fs::rename(sandbox.join("log"), sandbox.join("log.1")).unwrap();
    server.signal("HUP");
    eventually("a new file", || sandbox.join("log").exists().then_some(()));
    assert!(serving("log.1"));
    assert_eq!(server.stop().len(), 1);
}

#[test]
fn an_unwritable_log_does_not_keep_it_from_serving() {
    let sandbox = Sandbox::new();
    for at in ["no/folder", "/dev/full"] {
        let destination = format!("--log-destination=file:{at}");
        let server = Server::ready(&sandbox, &["--memory", "--log-level=info", &destination]);
        server.says(&format!("dk: cannot log to {at}: "));
        server.says("info serve: serving");
        let said = server.stop();
        let notices = said.iter().filter(|line| line.contains("cannot log"));
        assert_eq!(notices.count(), 1, "{said:#?}");
    }
    // Where there is no journal, stderr does.
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let server = Server::ready(&sandbox, &["--memory", "--log-destination=journald"]);
        server.says("dk: cannot log to journald: ");
        server.stop();
    }
}

#[test]
fn a_level_is_set_in_the_tree_while_it_runs() {
    let sandbox = Sandbox::new();
    let server = Server::ready(&sandbox, &["--memory"]);
    let mut client = Client::new(&server.host());
    let level = "debug/src/ninep/level";
    assert_eq!(client.read(level).trim_end(), "warning");
    client.write(level, "debug\n");
    assert_eq!(client.read(level).trim_end(), "debug");
    drop(Client::new(&server.host()));
    assert!(
        server
            .says("debug ninep: connected peer=")
            .starts_with("127.0.0.1:")
    );
    client.write(level, "quiet");
    assert_eq!(client.read("debug/src/serve/level").trim_end(), "warning");
    server.stop();
}
