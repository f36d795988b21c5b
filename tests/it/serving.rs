//! A `dk serve` of its own for each test, and what a server owes to whoever
//! runs it: readiness, an end in good order, listeners that do not depend on
//! each other.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sandbox::{Sandbox, eventually};

/// A server that runs. Dropping it kills it.
pub struct Server {
    child: Child,
    /// What it said on stderr so far.
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `dk serve` with these arguments, and does not wait.
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(["serve"]);
        command.args(arguments);
        Self::of(&mut command)
    }

    /// Starts a command that becomes `dk serve`.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (into, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            said,
            reader: Some(reader),
        }
    }

    /// Serves a store at a port of its own, and waits until it is ready.
    pub fn ready(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut all = vec!["--listen", "tcp://127.0.0.1:0"];
        all.extend(arguments);
        let server = Self::start(sandbox, &all);
        server.address();
        server
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Waits for a line with this in it, and returns what comes after.
    pub fn says(&self, part: &str) -> String {
        let said = || {
            let said = self.said();
            let mut found = said.iter().filter_map(|line| line.split_once(part));
            found.next().map(|(_, rest)| rest.to_string())
        };
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(rest) = said() {
                return rest;
            }
            assert!(Instant::now() < limit, "no {part:?} in {:#?}", self.said());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The URL of its first TCP listener.
    pub fn address(&self) -> String {
        format!("tcp://{}", self.host())
    }

    /// `HOST:PORT` of that.
    pub fn host(&self) -> String {
        let line = "dk: serving ";
        eventually("a TCP listener", || {
            let said = self.said();
            let mut at = said.iter().filter_map(|said| said.strip_prefix(line));
            at.find_map(|at| at.split_once(" at tcp://").map(|(_, at)| at.to_string()))
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended; returns how, and what it said.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = eventually("its end", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        (status, self.said())
    }

    /// Tells it to stop, and expects it to in good order.
    pub fn stop(self) -> Vec<String> {
        self.signal("TERM");
        let began = Instant::now();
        let (status, said) = self.ended();
        assert!(status.success(), "{status}: {said:#?}");
        assert!(began.elapsed() < Duration::from_secs(6), "it ends in time");
        said
    }
}

/// Asks over HTTP; gives the status line, the headers and the body.
pub fn http(url: &str, path: &str) -> (String, String, String) {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let host = host.split('/').next().unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    (status.into(), headers.to_lowercase(), body.into())
}

/// Asks for the version, as the first message of a session; tells whether
/// there is an answer.
pub fn answers(mut stream: impl std::io::Read + std::io::Write) -> bool {
    let version = b"9P2000.L";
    let mut message = vec![21, 0, 0, 0, 100, 0xff, 0xff, 0, 0x20, 0, 0, 8, 0];
    message.extend(version);
    let mut answer = [0; 21];
    stream.write_all(&message).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer[4] == 101
        && answer.ends_with(version)
}

/// No answer takes longer.
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

fn tcp(address: &str) -> bool {
    TcpStream::connect(address).is_ok_and(|stream| {
        stream.set_read_timeout(LIMIT).unwrap();
        answers(stream)
    })
}

fn unix(path: &Path) -> bool {
    UnixStream::connect(path).is_ok_and(|stream| {
        stream.set_read_timeout(LIMIT).unwrap();
        answers(stream)
    })
}

#[test]
fn it_says_when_it_is_ready_and_ends_in_good_order() {
    let sandbox = Sandbox::new();
    for signal in ["TERM", "INT"] {
        let told = UnixDatagram::bind(sandbox.join("notify")).unwrap();
        told.set_read_timeout(LIMIT).unwrap();
        let mut command = sandbox.command([
            "serve",
            "db.git",
            "--listen",
            "tcp://127.0.0.1:0,unix://socket?mode=0660",
        ]);
        command.env("NOTIFY_SOCKET", sandbox.join("notify"));
        let server = Server::of(&mut command);
        server.says(" at unix://socket?mode=0660");
        assert!(tcp(&server.host()));
        assert!(unix(&sandbox.join("socket")));
        let mut word = [0; 100];
        let length = told.recv(&mut word).unwrap();
        assert!(word[..length].starts_with(b"READY=1"));
        // Somebody who is connected does not hold the end up.
        let stays = TcpStream::connect(server.host()).unwrap();
        server.signal(signal);
        let began = Instant::now();
        let (status, said) = server.ended();
        assert_eq!(status.code(), Some(0), "{said:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
        let length = told.recv(&mut word).unwrap();
        assert!(word[..length].starts_with(b"STOPPING=1"));
        assert!(!sandbox.join("socket").exists());
        let path = sandbox.join("db.git").display().to_string();
        assert_eq!(said.len(), 2, "a line for each listener: {said:?}");
        assert!(
            said.iter()
                .any(|line| line.starts_with(&format!("dk: serving {path} at tcp://127.0.0.1:")))
        );
        drop(stays);
        std::fs::remove_file(sandbox.join("notify")).unwrap();
    }
}

#[test]
fn a_listener_that_cannot_listen_touches_no_other_and_is_tried_again() {
    let sandbox = Sandbox::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = port.local_addr().unwrap().to_string();
    let live = UnixListener::bind(sandbox.join("live")).unwrap();
    drop(UnixListener::bind(sandbox.join("stale")).unwrap());
    sandbox.write("file", "not a socket");
    let listen = format!(
        "tcp://{busy},unix://live,unix://stale,unix://file,unix://no/folder,fd://99,tcp://127.0.0.1:0"
    );
    let server = Server::start(&sandbox, &["--memory", "--listen", &listen]);
    server.says("dk: serving memory at unix://stale");
    let said = server.said().join("\n");
    for part in [
        &format!("cannot listen at tcp://{busy}: "),
        "cannot listen at unix://live: another server listens there; trying again",
        "cannot listen at unix://file: something that is no socket is there; trying again",
        "cannot listen at unix://no/folder: ",
        "cannot listen at fd://99: nothing is open under that number\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(unix(&sandbox.join("stale")));
    assert!(tcp(&server.host()));
    // The live one is as it was.
    assert!(UnixStream::connect(sandbox.join("live")).is_ok());
    assert!(live.accept().is_ok());
    drop(port);
    server.says(&format!("dk: serving memory at tcp://{busy}"));
    assert!(tcp(&busy));
    server.stop();
    assert_eq!(sandbox.read("file"), "not a socket");
    assert!(sandbox.join("live").exists() && !sandbox.join("stale").exists());
}

#[test]
fn without_any_listener_it_fails() {
    let sandbox = Sandbox::new();
    let shown = sandbox.dk(["serve", "--memory", "--listen", "unix://no/folder/x"]);
    assert!(
        shown.contains("! dk: cannot listen at unix://no/folder/x\n"),
        "{shown}"
    );
    assert!(shown.contains("No such file or directory"), "{shown}");
    assert!(shown.ends_with("exit status 1\n"), "{shown}");
}

#[test]
fn a_socket_is_inherited_by_number_or_from_systemd() {
    let sandbox = Sandbox::new();
    for line in [
        "exec dk serve --memory --listen fd://3 3<&0",
        "LISTEN_PID=$$ LISTEN_FDS=1 exec dk serve --memory 3<&0",
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let mut command = sandbox.program("sh", ["-c", line]);
        command.stdin(std::os::fd::OwnedFd::from(socket));
        let server = Server::of(&mut command);
        server.says("serving memory at fd://3");
        assert!(tcp(&address));
        assert_eq!(server.stop().len(), 1, "it listens nowhere else");
    }
    let sandbox = Sandbox::new();
    let socket = UnixListener::bind(sandbox.join("s")).unwrap();
    let mut command = sandbox.command(["serve", "--memory", "--listen", "fd://0"]);
    command.stdin(std::os::fd::OwnedFd::from(socket));
    let server = Server::of(&mut command);
    server.says("serving memory at fd://0");
    assert!(unix(&sandbox.join("s")));
    server.stop();
    assert!(sandbox.join("s").exists(), "its file is somebody else's");
}

#[test]
fn too_many_open_files_pass() {
    let sandbox = Sandbox::new();
    let line = "ulimit -n 64; exec dk serve --memory --listen tcp://127.0.0.1:0,unix://s";
    let server = Server::of(&mut sandbox.program("sh", ["-c", line]));
    let address = server.host();
    let mut open: Vec<TcpStream> = (0..80)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    server.says("cannot accept connections at tcp://");
    // Nobody who was in is thrown out.
    assert!(answers(&mut open[0]));
    drop(open);
    assert!(tcp(&address));
    assert!(unix(&sandbox.join("s")));
    server.stop();
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let sandbox = Sandbox::new();
    let server = Server::ready(&sandbox, &["--memory", "--max-connections", "2"]);
    let address = server.host();
    let mut first = TcpStream::connect(&address).unwrap();
    let mut second = TcpStream::connect(&address).unwrap();
    assert!(answers(&mut first) && answers(&mut second));
    assert!(!tcp(&address));
    server.says("too many connections");
    drop(first);
    eventually("a place is free", || tcp(&address).then_some(()));
    server.stop();
}

#[test]
fn counts_and_health_are_told_over_http() {
    let sandbox = Sandbox::new();
    let server = Server::ready(&sandbox, &["--memory", "--metrics", "127.0.0.1:0"]);
    let url = server.says("metrics at ");
    assert!(tcp(&server.host()));
    let (status, headers, body) = http(&url, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        headers
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(body.ends_with("# EOF\n"));
    assert!(body.contains("\ndatakit_connected_total 1\n"), "{body}");
    let (status, _, body) = http(&url, "/healthz");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, format!("store: ok\n{}: ok\n", server.address()));
    assert_eq!(http(&url, "/").0, "HTTP/1.1 404 Not Found");
    // One who says nothing is in nobody's way.
    let _mute = TcpStream::connect(url.split('/').nth(2).unwrap()).unwrap();
    assert_eq!(http(&url, "/healthz").0, "HTTP/1.1 200 OK");
    // Gauges return to zero.
    eventually("the connection is forgotten", || {
        http(&url, "/metrics")
            .2
            .contains("\ndatakit_connections 0\n")
            .then_some(())
    });
    server.stop();
}

#[test]
fn metrics_that_cannot_be_served_do_not_keep_it_from_serving() {
    let sandbox = Sandbox::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = port.local_addr().unwrap().to_string();
    let server = Server::ready(&sandbox, &["--memory", "--metrics", &busy]);
    server.says(&format!("cannot listen at tcp://{busy}"));
    assert!(tcp(&server.host()));
    drop(port);
    server.says(&format!("metrics at http://{busy}"));
    assert_eq!(http(&busy, "/healthz").0, "HTTP/1.1 200 OK");
    server.stop();
}

#[test]
fn streams_and_transactions_do_not_hold_the_end_up() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("greeting", "hello\n")]);
    let server = Server::ready(&sandbox, &["--metrics", "127.0.0.1:0"]);
    let mut client = Client::new(&server.host());
    assert_eq!(client.mkdir("branch/master/transactions/t"), None);
    let live = client.walk("branch/master/head.live").unwrap();
    client.ask(112, &[&live[..], &[0]].concat()).unwrap();
    let read = |offset: u64| [&live[..], &offset.to_le_bytes(), &[0, 1, 0, 0]].concat();
    assert_eq!(client.ask(116, &read(0)).unwrap().len(), 4 + 41);
    // The next read waits, and another connection has gone without a word.
    client.send(116, &read(41));
    drop(Client::new(&server.host()));
    let url = server.says("metrics at ");
    eventually("a stream is open", || {
        http(&url, "/metrics")
            .2
            .contains("\ndatakit_streams 1\n")
            .then_some(())
    });
    server.stop();
}

#[test]
fn what_is_read_only_is_not_written() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("greeting", "hello\n")]);
    let before = sandbox.sh("cd db.git && find . -type f -exec sha256sum {} + | sort");
    let server = Server::ready(&sandbox, &["--read-only"]);
    let mut client = Client::new(&server.host());
    assert_eq!(client.read("branch/master/ro/greeting"), "hello\n");
    for change in [
        "branch/master/transactions/t",
        "branch/new",
        "remotes/origin",
    ] {
        let refused = client.mkdir(change);
        let known = refused.as_deref() == Some("Read-only file system");
        assert!(known || change == "branch/new", "{change}: {refused:?}");
    }
    server.stop();
    let after = sandbox.sh("cd db.git && find . -type f -exec sha256sum {} + | sort");
    assert_eq!(after, before);
}

/// As much of a 9P2000.u client as a test needs.
pub struct Client {
    stream: TcpStream,
    fids: u32,
}

impl Client {
    pub fn new(host: &str) -> Self {
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(LIMIT).unwrap();
        let mut client = Self { stream, fids: 0 };
        client
            .ask(
                100,
                &[&65536u32.to_le_bytes()[..], &text("9P2000.u")].concat(),
            )
            .unwrap();
        let attach = [
            &[0; 4][..],
            &[0xff; 4],
            &text("test"),
            &text(""),
            &[0xff; 4],
        ]
        .concat();
        client.ask(104, &attach).unwrap();
        client
    }

    /// Sends a message; returns the body of the answer, or the error's text.
    fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Vec<u8>, String> {
        self.send(kind, body);
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).unwrap();
        let length = u32::from_le_bytes(head[..4].try_into().unwrap());
        let mut body = vec![0; length as usize - 7];
        self.stream.read_exact(&mut body).unwrap();
        if head[4] == 107 {
            let length = usize::from(u16::from_le_bytes(body[..2].try_into().unwrap()));
            return Err(String::from_utf8_lossy(&body[2..2 + length]).into_owned());
        }
        assert_eq!(head[4], kind + 1);
        Ok(body)
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(7 + body.len()).unwrap().to_le_bytes();
        let tag = if kind == 100 { [0xff; 2] } else { [1, 0] };
        let message = [&length[..], &[kind], &tag, body].concat();
        self.stream.write_all(&message).unwrap();
    }

    fn walk(&mut self, path: &str) -> Result<[u8; 4], String> {
        self.fids += 1;
        let fid = self.fids.to_le_bytes();
        let names: Vec<Vec<u8>> = path.split('/').map(text).collect();
        let count = u16::try_from(names.len()).unwrap().to_le_bytes();
        let walk = [&[0; 4][..], &fid, &count, &names.concat()].concat();
        let found = self.ask(110, &walk)?;
        assert_eq!(found[..2], count, "{path} is there");
        Ok(fid)
    }

    pub fn read(&mut self, path: &str) -> String {
        let fid = self.walk(path).unwrap();
        self.ask(112, &[&fid[..], &[0]].concat()).unwrap();
        let read = [&fid[..], &[0; 8], &4096u32.to_le_bytes()].concat();
        let found = self.ask(116, &read).unwrap();
        String::from_utf8(found[4..].to_vec()).unwrap()
    }

    pub fn write(&mut self, path: &str, data: &str) {
        let fid = self.walk(path).unwrap();
        self.ask(112, &[&fid[..], &[0x11]].concat()).unwrap();
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        let write = [&fid[..], &[0; 8], &length, data.as_bytes()].concat();
        self.ask(118, &write).unwrap();
        self.ask(120, &fid).unwrap();
    }

    /// Returns why it could not be made.
    fn mkdir(&mut self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let fid = match self.walk(folder) {
            Ok(fid) => fid,
            Err(why) => return Some(why),
        };
        let mode = (0x8000_0000u32 | 0o755).to_le_bytes();
        let create = [&fid[..], &text(name), &mode, &[0], &text("")].concat();
        self.ask(114, &create).err()
    }
}

fn text(string: &str) -> Vec<u8> {
    let length = u16::try_from(string.len()).unwrap().to_le_bytes();
    [&length[..], string.as_bytes()].concat()
}
