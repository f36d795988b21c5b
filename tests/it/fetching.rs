//! Fetching, over every transport, with stock git at the other end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use datakit::model::request::Progress;
use datakit::model::{Kind, ObjectId};
use datakit::store::engine::{Advertised, Durability, Engine as _, Repository as _};
use datakit::store::git::Git;

use crate::stock::Repo;

pub fn open(repo: &Repo) -> Git {
    Git::open(repo.path(), Durability::Strict, false).unwrap()
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

pub fn id(repo: &Repo, rev: &str) -> ObjectId {
    repo.ids(&["rev-parse", "--verify", rev])[0]
}

/// Adds a commit to a branch.
pub fn commit(repo: &Repo, branch: &str, file: &str) -> ObjectId {
    let name = format!("refs/heads/{branch}");
    let from = match text(repo.git(&["for-each-ref", &name])) {
        born if !born.is_empty() => format!("from {name}^0\n"),
        _ => String::new(),
    };
    let stream = format!(
        "commit {name}\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\n{from}M 100644 inline {file}\n\
         data {}\n{file}\n",
        file.len()
    );
    repo.feed(&["fast-import", "--quiet"], stream.as_bytes());
    id(repo, &name)
}

pub fn fetch(git: &Git, remote: &str, specs: &[&str]) -> Vec<Advertised> {
    let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
    git.fetch(remote, &specs, &()).unwrap()
}

/// What was fetched, in short: `[+]REMOTE ID LOCAL`.
pub fn short(found: &[Advertised]) -> Vec<String> {
    let show = |one: &Advertised| {
        let local = one.local.as_ref().map_or("-".into(), ToString::to_string);
        let force = if one.force { "+" } else { "" };
        format!(
            "{force}{} {} {local}",
            String::from_utf8_lossy(&one.remote),
            one.id
        )
    };
    let mut shown: Vec<_> = found.iter().map(show).collect();
    shown.sort();
    shown
}

/// Keeps all that is told.
#[derive(Default)]
pub struct Told(Mutex<Vec<String>>);

impl Told {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Told {
    fn begin(&self, part: &str, total: Option<u64>, _: bool) {
        self.0.lock().unwrap().push(format!("[{part} {total:?}]"));
    }
    fn advance(&self, _: u64) {}
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

fn url(repo: &Repo) -> String {
    format!("file://{}", repo.path().display())
}

#[test]
fn objects_come_in_and_no_ref_moves() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    let one = commit(&theirs, "main", "a");
    theirs.git(&[
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@b",
        "tag",
        "-a",
        "-m",
        "t",
        "v1",
        &one.to_hex(),
    ]);
    let side = commit(&theirs, "side/x", "b");
    let git = open(&ours);
    let got = fetch(
        &git,
        &url(&theirs),
        &[
            "main",
            "main:copy",
            "refs/tags/v1",
            "+refs/heads/*:refs/remotes/o/*",
        ],
    );
    let tag = id(&theirs, "v1");
    let mut wanted = vec![
        format!("refs/heads/main {one} -"),
        format!("refs/heads/main {one} refs/heads/copy"),
        format!("+refs/heads/main {one} refs/remotes/o/main"),
        format!("+refs/heads/side/x {side} refs/remotes/o/side/x"),
        format!("refs/tags/v1 {tag} -"),
        format!("refs/tags/v1 {tag} refs/tags/v1"),
    ];
    wanted.sort();
    assert_eq!(short(&got), wanted);
    for id in [one, side, tag] {
        assert!(git.header(&id).unwrap().is_some());
    }
    assert_eq!(git.all_refs().unwrap(), []);
    let packs = || {
        let dir = fs::read_dir(ours.path().join("objects/pack")).unwrap();
        let mut names: Vec<_> = dir
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
            .iter()
            .map(|name| name.rsplit('.').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(packs(), ["idx", "pack"]);
    let left: Vec<_> = fs::read_dir(ours.path().join("objects"))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        !left
            .iter()
            .any(|it| it.file_name().to_string_lossy().starts_with("tmp_"))
    );

    // The same again brings nothing; one commit more brings only that.
    fetch(&git, &url(&theirs), &["main"]);
    assert_eq!(packs().len(), 2);
    ours.git(&["update-ref", "refs/heads/main", &one.to_hex()]);
    let two = commit(&theirs, "main", "c");
    // A path is as good as a URL, and an old form names a branch in it.
    let path = theirs.path().to_str().unwrap();
    let got = fetch(&git, &format!("{path}#main"), &[]);
    assert_eq!(short(&got), [format!("refs/heads/main {two} -")]);
    assert_eq!(packs().len(), 4);
    let count = ours.git(&["verify-pack", "-s", &newest_pack(&ours)]);
    assert!(
        text(count).contains("3 objects"),
        "commit, tree, blob and no more"
    );
    // With nothing said it is their HEAD.
    theirs.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    assert_eq!(short(&fetch(&git, path, &[])), [format!("HEAD {two} -")]);
    ours.git(&["fsck", "--strict"]);
}

fn newest_pack(repo: &Repo) -> String {
    let files = fs::read_dir(repo.path().join("objects/pack"))
        .unwrap()
        .flatten();
    let packs = files.filter(|it| it.path().extension().is_some_and(|end| end == "idx"));
    let newest = packs.max_by_key(|it| it.metadata().unwrap().modified().unwrap());
    newest.unwrap().path().to_str().unwrap().to_owned()
}

#[test]
fn what_cannot_be_fetched_is_named() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    commit(&theirs, "main", "a");
    let git = open(&ours);
    let path = theirs.path().to_str().unwrap().to_owned();
    let failed = |remote: &str, spec: &str| git.fetch(remote, &[spec.to_owned()], &()).unwrap_err();

    let error = failed(&path, "absent");
    assert_eq!(
        (error.kind(), error.to_string()),
        (Kind::NotFound, format!("absent at {path} does not exist"))
    );
    let error = failed(&path, "main:..");
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let error = failed("/nowhere/at/all", "main");
    assert_eq!(error.to_string(), "cannot reach /nowhere/at/all");
    assert!(std::error::Error::source(&error).is_some());
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = failed(&format!("git://{closed}/x"), "main");
    assert_eq!(error.to_string(), format!("cannot reach git://{closed}/x"));
    assert_eq!(error.kind(), Kind::Io);
    let other = Repo::new();
    fs::remove_dir_all(other.path()).unwrap();
    fs::create_dir(other.path()).unwrap();
    other.git(&["init", "-q", "--bare", "--object-format=sha256", "."]);
    let error = failed(other.path().to_str().unwrap(), "HEAD");
    assert!(
        matches!(error.kind(), Kind::Unsupported | Kind::NotFound),
        "{error}"
    );
    // A pattern may match nothing.
    assert_eq!(fetch(&git, &path, &["refs/none/*:refs/none/*"]).len(), 0);
}

#[test]
fn fetching_tells_how_far_it_is() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    for n in 0..30 {
        commit(&theirs, "main", &format!("file{n}"));
    }
    let told = Told::default();
    open(&ours)
        .fetch(&url(&theirs), &["main".into()], &told)
        .unwrap();
    let lines = told.lines();
    assert!(
        lines.contains(&"[receiving objects Some(90)]".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("[remote: ")),
        "{lines:?}"
    );
}

/// A server of the test's own, ended with it.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn wait_for(port: u16) {
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "no server came up");
        std::thread::yield_now();
    }
}

#[test]
fn fetching_speaks_gits_own_protocol() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    let one = commit(&theirs, "main", "a");
    let port = free_port();
    let base = theirs.path().parent().unwrap();
    // In a process of its own, not a helper of git: so that it can be ended.
    let exec_path = PathBuf::from(text(theirs.git(&["--exec-path"])));
    let direct = exec_path.join("git-daemon");
    if !direct.exists() {
        println!("not shown: this git has no daemon");
        return;
    }
    let mut command = Command::new(direct);
    command
        .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", base.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let _server = Server(command.spawn().unwrap());
    wait_for(port);
    let name = theirs.path().file_name().unwrap().to_str().unwrap();
    let git = open(&ours);
    let url = format!("git://127.0.0.1:{port}/{name}");
    assert_eq!(
        short(&fetch(&git, &url, &["main"])),
        [format!("refs/heads/main {one} -")]
    );
    let two = commit(&theirs, "main", "b");
    assert_eq!(
        short(&fetch(&git, &url, &["main:m"])),
        [format!("refs/heads/main {two} refs/heads/m")]
    );
    ours.git(&["fsck", "--strict"]);
}

/// Serves repositories below a folder by git's own CGI program.
const HTTP_SERVER: &str = r#"
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def serve(self):
        path, _, query = self.path.partition('?')
        env = dict(os.environ, GIT_PROJECT_ROOT=sys.argv[1], GIT_HTTP_EXPORT_ALL='1', PATH_INFO=path,
                   QUERY_STRING=query, REQUEST_METHOD=self.command, REMOTE_ADDR='127.0.0.1',
                   CONTENT_TYPE=self.headers.get('Content-Type', ''),
                   GIT_PROTOCOL=self.headers.get('Git-Protocol', ''),
                   HTTP_CONTENT_ENCODING=self.headers.get('Content-Encoding', ''))
        if self.headers.get('Transfer-Encoding') == 'chunked':
            body = b''
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        out = subprocess.run(['git', 'http-backend'], input=body, stdout=subprocess.PIPE, env=env).stdout
        head, _, content = out.partition(b'\r\n\r\n')
        fields = dict(line.split(': ', 1) for line in head.decode().split('\r\n'))
        self.send_response(int(fields.pop('Status', '200').split()[0]))
        for field in fields.items():
            self.send_header(*field)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_POST = serve
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
#[cfg(feature = "https")]
fn fetching_speaks_http() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    let one = commit(&theirs, "main", "a");
    let base = theirs.path().parent().unwrap();
    let Some((_server, port)) = http_server(base) else {
        println!("not shown: there is no python3");
        return;
    };
    let name = theirs.path().file_name().unwrap().to_str().unwrap();
    let git = open(&ours);
    let url = format!("http://127.0.0.1:{port}/{name}");
    assert_eq!(
        short(&fetch(&git, &url, &["main"])),
        [format!("refs/heads/main {one} -")]
    );
    ours.git(&["update-ref", "refs/heads/main", &one.to_hex()]);
    let two = commit(&theirs, "main", "b");
    assert_eq!(
        short(&fetch(&git, &url, &["main:m"])),
        [format!("refs/heads/main {two} refs/heads/m")]
    );
    let error = git
        .fetch(&format!("{url}x"), &["main".into()], &())
        .unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach {url}x"));
    ours.git(&["fsck", "--strict"]);
}

#[cfg_attr(not(feature = "https"), allow(dead_code))]
pub fn http_server(base: &Path) -> Option<(Server, u16)> {
    let mut child = Command::new("python3")
        .args(["-c", HTTP_SERVER])
        .arg(base)
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?)
        .read_line(&mut line)
        .ok()?;
    Some((Server(child), line.trim().parse().ok()?))
}

#[test]
fn tags_of_what_is_fetched_come_along() {
    let (here, there) = (Repo::new(), Repo::new());
    commit(&there, "main", "a");
    there.git(&["tag", "light", "main"]);
    there.git(&[
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@b",
        "tag",
        "-m",
        "t",
        "noted",
        "main",
    ]);
    commit(&there, "other", "b");
    there.git(&["tag", "elsewhere", "other"]);
    let (git, url) = (open(&here), there.path().display().to_string());

    let only = fetch(&git, &url, &["main"]);
    assert_eq!(only.len(), 1, "nothing is kept, so no tag is: {only:?}");
    let found = fetch(&git, &url, &["refs/heads/main:refs/heads/copy"]);
    let named: Vec<_> = found.iter().map(|one| text(one.remote.clone())).collect();
    assert_eq!(
        named,
        ["refs/heads/main", "refs/tags/light", "refs/tags/noted"]
    );
    assert_eq!(found[2].id, id(&there, "refs/tags/noted"));

    // One that is here, wherever it points, is left alone.
    here.git(&["update-ref", "refs/tags/light", &found[2].id.to_string()]);
    commit(&there, "main", "c");
    let found = fetch(&git, &url, &["refs/heads/main:refs/heads/copy"]);
    let named: Vec<_> = found.iter().map(|one| text(one.remote.clone())).collect();
    assert_eq!(named, ["refs/heads/main", "refs/tags/noted"]);
}

/// Wants nothing any more.
struct Cancelled;

impl Progress for Cancelled {
    fn begin(&self, _: &str, _: Option<u64>, _: bool) {}
    fn advance(&self, _: u64) {}
    fn line(&self, _: &str) {}
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn what_nobody_waits_for_is_cancelled() {
    let (here, there) = (Repo::new(), Repo::new());
    commit(&there, "main", "a");
    let url = there.path().to_str().unwrap();
    let git = open(&here);
    let specs = ["refs/heads/main:refs/heads/main".to_owned()];
    let failed = git.fetch(url, &specs, &Cancelled).unwrap_err();
    assert_eq!(failed.kind(), Kind::Interrupted);
    assert_eq!(git.fetch(url, &specs, &()).unwrap().len(), 1);

    commit(&here, "main", "b");
    let store = datakit::store::Store::new(std::sync::Arc::new(git));
    let failed = store.fsck(&Cancelled).unwrap_err();
    assert_eq!(failed.kind(), Kind::Interrupted);
    assert_eq!(store.fsck(&()).unwrap(), []);
}
