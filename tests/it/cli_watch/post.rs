//! `dk watch --post`: what is posted, and how often.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use super::Watch;
use crate::sandbox::Sandbox;

/// A receiver that answers as it is told, one request a connection.
struct Receiver(TcpListener);

/// What came with one request.
struct Came {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Came {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Receiver {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self) -> String {
        let at = self.0.local_addr().unwrap();
        format!("http://user:hidden@{at}/hook?key=hidden")
    }

    fn answer(&self, status: &str) -> Came {
        let (stream, _) = self.0.accept().unwrap();
        let came = read(&stream);
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        (&stream).write_all(answer.as_bytes()).unwrap();
        came
    }
}

fn read(stream: &TcpStream) -> Came {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut came = Came {
        head,
        body: Vec::new(),
    };
    let length = came.header("content-length").unwrap().parse().unwrap();
    came.body.resize(length, 0);
    stream.read_exact(&mut came.body).unwrap();
    came
}

#[test]
fn a_commit_is_posted_until_it_is_taken() {
    let sandbox = Sandbox::with_store();
    let one = sandbox.commit("master", "one", &[("a", "1\n")]);
    let two = sandbox.commit("master", "two", &[("b", "2\n")]);
    sandbox.write("key", "It's a Secret to Everybody\n");
    let receiver = Receiver::new();
    let url = receiver.url();
    let watch = Watch::start(
        &sandbox,
        &[
            "-n2",
            "--since",
            "0",
            "--cursor",
            ".seen",
            "--post",
            &url,
            "--post-secret",
            "key",
            "master",
        ],
    );
    let first = receiver.answer("503 Service Unavailable");
    let again = receiver.answer("204 No Content");
    assert_eq!(first.head[0], "POST /hook?key=hidden HTTP/1.1");
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("x-dk-event"), Some("commit"));
    assert_eq!(first.header("x-dk-delivery"), Some(one.trim_end()));
    assert_eq!(
        (first.body.clone(), first.header("x-dk-delivery")),
        (again.body.clone(), again.header("x-dk-delivery"))
    );
    let body = first.json();
    assert_eq!(body["branch"], "master");
    assert_eq!(body["id"], one.trim_end());
    assert_eq!(body["changes"][0]["path"], "a");
    // What any receiver of GitHub's webhooks would compute.
    let mut mac = Hmac::<Sha256>::new_from_slice(b"It's a Secret to Everybody").unwrap();
    mac.update(&first.body);
    let digits = mac.finalize().into_bytes();
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = format!("sha256={digits}");
    assert_eq!(first.header("x-hub-signature-256"), Some(&*signed));
    // Between the two: the first is done with.
    let second = receiver.answer("200 OK");
    assert_eq!(second.json()["id"], two.trim_end());
    let printed = watch.end(&sandbox);
    assert!(printed.contains("did not take commit"), "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
    assert_eq!(sandbox.read(".seen").trim_end(), two.trim_end());
}

#[test]
fn what_is_refused_ends_the_watch_and_is_not_lost() {
    let sandbox = Sandbox::with_store();
    let one = sandbox.commit("master", "one", &[("a", "1\n")]);
    sandbox.write(".seen", "0\n");
    let receiver = Receiver::new();
    let url = receiver.url();
    for status in ["410 Gone", "301 Moved Permanently"] {
        let watch = Watch::start(&sandbox, &["--cursor", ".seen", "--post", &url, "master"]);
        let came = receiver.answer(status);
        assert_eq!(came.json()["id"], one.trim_end());
        assert_eq!(came.header("x-hub-signature-256"), None);
        let printed = watch.end(&sandbox);
        assert!(
            printed.contains(&format!("refused commit {}: {status}", one.trim_end())),
            "{printed}"
        );
        assert!(
            printed.contains("exit status: 1") || printed.contains("status 1"),
            "{printed}"
        );
    }
    assert_eq!(sandbox.read(".seen").trim_end(), "0");
    for url in ["ftp://localhost/", "nonsense"] {
        let refused = sandbox.dk(["watch", "--post", url, "master"]);
        assert!(refused.contains("--post"), "{refused}");
    }
    sandbox.write("empty", "\n");
    let refused = sandbox.dk(["watch", "--post", &url, "--post-secret", "empty", "master"]);
    assert!(refused.contains("empty holds no secret"), "{refused}");
}
