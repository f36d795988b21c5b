//! The pages of the CI: how soon they come, and lines of a log that grows.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datakit::ci::config;
use datakit::ci::web::{App, Door, Settings};
use datakit::client::local::Durability;
use datakit::client::{Client, CommitOptions, Content, Edit, Edits, FileKind, Sink};
use datakit::model::{BranchName, TreePath};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::commit::Writer;
use crate::place::Place;
use crate::report::{Need, Report, Samples, Unit};

const JOBS: usize = 10;
const RESULT: &str = "dk-step-long-of-0";

/// A store of so many targets with ten builds each, and one long log.
fn store(place: &Place, targets: usize, log: usize) -> PathBuf {
    place.input(&format!("ci-{targets}-{log}"), |folder| {
        std::fs::create_dir(folder).unwrap();
        let mut init = place.git(folder, ["init", "--quiet", "--bare", "."]);
        assert!(init.status().unwrap().success());
        let mut import = place.git(folder, ["fast-import", "--quiet"]);
        let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = std::io::BufWriter::new(import.stdin.take().unwrap());
        let commit = |branch: &str, files: &[(String, String)]| {
            let mut text = format!("commit refs/heads/{branch}\ncommitter CI <ci@x> 1700000000 +0000\ndata 2\nx\n");
            for (path, content) in files {
                let _ = write!(text, "M 100644 inline {path}\ndata {}\n{content}\n", content.len());
            }
            text
        };
        let sha = |number: usize| format!("{number:040x}");
        let mut forge = vec![("me/app/.monitor".to_owned(), String::new())];
        for target in 0..targets {
            forge.push((format!("me/app/ref/heads/b{target}/head"), sha(target)));
            let mut files = vec![("source-commit".to_owned(), sha(target))];
            for job in 0..JOBS {
                let branch = format!("dk-step-job{job}-of-{:040x}", target * JOBS + job);
                let text = commit(&branch, &[("log".into(), format!("the log of {branch}\n"))]);
                pipe.write_all(text.as_bytes()).unwrap();
                let output = format!(
                    r#"{{"result":{{"status":"success","descr":"it took {job} minutes"}},"logs":{{"title":"job{job}","branch":"{branch}","commit":"{}","failed":false}}}}"#,
                    sha(job)
                );
                files.push((format!("job/job{job}/output"), output));
            }
            let text = commit(&format!("status-me-app-ref-heads-b{target}"), &files);
            pipe.write_all(text.as_bytes()).unwrap();
        }
        pipe.write_all(commit("github-metadata", &forge).as_bytes()).unwrap();
        let mut long = String::with_capacity(log + 100);
        let mut number = 0;
        while long.len() < log {
            number += 1;
            let _ = writeln!(long, "\x1b[32m{number}\x1b[m compiling something of which the name is {:x}", number * 7919);
        }
        pipe.write_all(commit(RESULT, &[("log".into(), long)]).as_bytes()).unwrap();
        drop(pipe);
        assert!(import.wait().unwrap().success());
        assert!(place.git(folder, ["pack-refs", "--all"]).status().unwrap().success());
    })
}

/// Pages at an address, in this process.
struct Site {
    writer: Writer,
    at: std::net::SocketAddr,
    _secrets: tempfile::TempDir,
}

impl Site {
    fn open(store: &Path) -> Self {
        let writer = Writer::open(store, Durability::Strict);
        let client: Arc<dyn Client> = writer.client.clone();
        let secrets = tempfile::tempdir().unwrap();
        let folder = secrets.path().to_owned();
        let at = writer.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let text = "[[project]]\nrepo = 'me/app'\nsource = '/x'\nsteps-from = '.dk-ci.toml'\ndashboards = ['b1', 'b2']\n";
            let config = config::engine(text).unwrap();
            let settings = Settings::new(&config, "http://127.0.0.1/", folder).unwrap();
            let app = Arc::new(App::new(client, settings, None));
            let door = Door::open(listener, None).unwrap();
            let at = door.address();
            tokio::spawn(datakit::ci::web::serve(app, door));
            at
        });
        Self {
            writer,
            at,
            _secrets: secrets,
        }
    }

    /// Asks for a page; returns how long it took, and how long it is.
    fn get(&self, path: &str) -> (Duration, usize) {
        self.writer.runtime.block_on(async {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await.unwrap();
            let took = begun.elapsed();
            let head = String::from_utf8_lossy(&text[..text.len().min(40)]);
            assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
            (took, text.len())
        })
    }

    fn median(&self, path: &str, rounds: usize) -> f64 {
        let mut samples = Samples::new();
        for _ in 0..rounds {
            samples.add(self.get(path).0);
        }
        samples.p50() * 1e3
    }
}

/// The front page and the longest list, of many targets.
pub fn pages(place: &Place, report: &mut Report) {
    let targets = place.choose(100, 1000);
    let site = Site::open(&store(place, targets, 1 << 20));
    let begun = site.get("/").0;
    report.row(
        "ci-page-first",
        Unit::Milliseconds,
        begun.as_secs_f64() * 1e3,
        None,
        Need::Nothing,
    );
    for (name, path) in [
        ("ci-page-front", "/"),
        ("ci-page-list", "/branch"),
        ("ci-page-target", "/me/app/ref/heads/b7"),
    ] {
        let figure = site.median(path, place.choose(20, 100));
        report.row(name, Unit::Milliseconds, figure, None, Need::Below(50.0));
    }
}

/// A long log: its page at once, its end, a line in the middle.
pub fn log(place: &Place, report: &mut Report) {
    let size = place.choose(10, 100) << 20;
    let path = store(place, 1, size);
    let site = Site::open(&path);
    let head = site.writer.runtime.block_on(async {
        let name = BranchName::new(RESULT).unwrap();
        site.writer.client.head(&name).await.unwrap().unwrap()
    });
    let page = format!("/log/saved/{RESULT}/{head}");
    site.get("/");
    let first = site.median(&page, 10);
    report.row(
        "ci-log-open",
        Unit::Milliseconds,
        first,
        None,
        Need::Below(100.0),
    );
    let end = site.get(&format!("{page}?line=end")).0.as_secs_f64() * 1e3;
    report.row(
        "ci-log-end-first",
        Unit::Milliseconds,
        end,
        None,
        Need::Below(2000.0),
    );
    let line = site.median(&format!("{page}?line=100000"), 10);
    report.row(
        "ci-log-line",
        Unit::Milliseconds,
        line,
        None,
        Need::Below(100.0),
    );
    let found = site.median(&format!("{page}?q=nowhere"), 3);
    report.row(
        "ci-log-search",
        Unit::Milliseconds,
        found,
        None,
        Need::Below(2000.0),
    );
}

/// From the commit of a line until each of so many readers has it.
pub fn live(place: &Place, report: &mut Report) {
    for readers in [1, 200] {
        let folder = place.folder();
        assert!(
            place
                .git(&folder, ["init", "--quiet", "--bare", "."])
                .status()
                .unwrap()
                .success()
        );
        let site = Site::open(&folder);
        let rounds = place.choose(20, 100);
        let samples = site.writer.runtime.block_on(follow(&site, readers, rounds));
        let name = format!("ci-live-{readers}");
        report.row(
            &name,
            Unit::Milliseconds,
            samples.p50() * 1e3,
            None,
            Need::Below(200.0),
        );
    }
}

async fn follow(site: &Site, readers: usize, rounds: usize) -> Samples {
    let client = site.writer.client.clone();
    let put = async |number: usize| {
        let path = TreePath::new(format!("log.d/{number:08}")).unwrap();
        let edits = Edits::new(move |sink: &mut dyn Sink| {
            let text = format!("line {number}\n");
            sink.edit(Edit::Write {
                path,
                kind: FileKind::Normal,
                content: Content::Bytes(text.as_bytes()),
            })
        });
        let branch = BranchName::new("dk-step-live-of-0").unwrap();
        client
            .edit(&branch, edits, CommitOptions::default())
            .await
            .unwrap();
    };
    put(0).await;
    let mut lines = Vec::new();
    for _ in 0..readers {
        let mut stream = TcpStream::connect(site.at).await.unwrap();
        let request = "GET /log/live/dk-step-live-of-0/events HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        lines.push(BufReader::new(stream).lines());
    }
    let wait = async |lines: &mut Vec<tokio::io::Lines<BufReader<TcpStream>>>, number: usize| {
        let wanted = format!("\"line {number}\"");
        for reader in lines {
            while !reader
                .next_line()
                .await
                .unwrap()
                .expect("more")
                .contains(&wanted)
            {}
        }
    };
    wait(&mut lines, 0).await;
    let mut samples = Samples::new();
    for number in 1..=rounds {
        let begun = Instant::now();
        put(number).await;
        wait(&mut lines, number).await;
        samples.add(begun.elapsed());
    }
    samples
}
