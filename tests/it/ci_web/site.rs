//! A store with some builds in it, and its pages at an address of this machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datakit::ci::config::{self, Who};
use datakit::ci::layout::{self, Build, Logs, Outcome, Output, SavedLog};
use datakit::ci::web::{App, Door, Settings};
use datakit::ci::{Status, Target};
use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::{Pr, PrState, Repo, Snapshot};
use datakit::model::*;
use reqwest::Method;

/// Files of one commit: `None` goes.
pub type Files<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// A store.
#[derive(Clone)]
pub struct Shop {
    pub client: Arc<dyn Client>,
}

pub fn target(text: &str) -> Target {
    text.parse().unwrap()
}

pub fn branch(name: &str) -> BranchName {
    BranchName::new(name).unwrap()
}

/// The `n`th source commit.
pub fn sha(n: u64) -> String {
    format!("{n:040x}")
}

impl Shop {
    pub fn new() -> Self {
        Self {
            client: Arc::new(Local::memory(HashKind::Sha1)),
        }
    }

    /// Commits files to a branch, at a fixed moment.
    pub async fn put(&self, name: &str, message: &str, files: Files<'_>) -> ObjectId {
        let puts = files.iter().map(|(path, content)| Put {
            path: (*path).into(),
            content: content.map(<[u8]>::to_vec),
        });
        let who = Signature {
            name: b"ci".to_vec(),
            email: b"ci@example.org".to_vec(),
            time: Time {
                seconds: 1_700_000_000,
                offset: 0,
            },
        };
        let options = CommitOptions {
            message: Some(message.as_bytes().to_vec()),
            author: Some(who),
            ..CommitOptions::default()
        };
        let edits = change(puts.collect());
        self.client
            .edit(&branch(name), edits, options)
            .await
            .unwrap()
    }

    /// Says what the forge has.
    pub async fn forge(&self, fill: impl FnOnce(&mut Snapshot)) {
        let name = branch("github-metadata");
        let mut reader = Reader::default();
        if let Some(head) = self.client.head(&name).await.unwrap() {
            reader.advance(&*self.client, &head).await.unwrap();
        }
        let mut snapshot = reader.snapshot().clone();
        fill(&mut snapshot);
        let puts = reader.edits(&snapshot.since(reader.snapshot()));
        self.client
            .edit(&name, change(puts), CommitOptions::default())
            .await
            .unwrap();
    }

    /// Records what a target is now.
    pub async fn record(
        &self,
        of: &str,
        source: &str,
        message: &str,
        jobs: &[(&str, Output, &[&str])],
    ) -> ObjectId {
        let target = target(of);
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("source-commit".into(), source.into()),
            ("metadata-commit".into(), sha(99).into()),
        ];
        for (name, output, needs) in jobs {
            files.push((layout::output_path(name), output.to_json().into()));
            if !needs.is_empty() {
                files.push((format!("job/{name}/needs"), needs.join("\n").into()));
            }
        }
        let files: Vec<(&str, Option<&[u8]>)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), Some(content.as_slice())))
            .collect();
        let name = layout::status_branch(&target).unwrap().to_string();
        let made = self.put(&name, message, &files).await;
        let index = layout::index_path(&target.repo, source, Some(&target.place));
        let id = made.to_hex();
        self.put("commit-index", "Update", &[(&index, Some(id.as_bytes()))])
            .await;
        made
    }

    /// Saves a result; returns where its log is.
    pub async fn result(&self, of: &str, cell: &str, log: &[u8], failure: Option<&str>) -> Logs {
        let name = layout::result_branch(cell, &format!("{:040x}", log.len())).to_string();
        let build = build(of, cell, Some(1_700_000_075));
        let mut files: Vec<(&str, Option<&[u8]>)> =
            vec![("log", Some(log)), ("build", Some(&build))];
        if let Some(failure) = failure {
            files.push(("failure", Some(failure.as_bytes())));
        }
        let message = match failure {
            Some(failure) => format!("Cached failure: {failure}"),
            None => "Cached successful result".into(),
        };
        let commit = self.put(&name, &message, &files).await;
        Logs::Saved(SavedLog {
            title: format!("{cell} of {of}"),
            branch: name,
            commit: commit.to_hex(),
            failed: failure.is_some(),
        })
    }
}

/// What is known of a build, as it lies in the store.
pub fn build(of: &str, cell: &str, finished: Option<i64>) -> Vec<u8> {
    let build = Build {
        target: of.into(),
        commit: sha(1),
        cell: cell.into(),
        title: format!("{cell} of {of}"),
        text: None,
        started: 1_700_000_000,
        finished,
    };
    serde_json::to_vec(&build).unwrap()
}

pub fn output(result: Outcome, logs: Logs) -> Output {
    Output { result, logs }
}

/// A store with a branch that passed, one that failed, a fork's pull request
/// that is being built, and a tag.
pub async fn stocked() -> Shop {
    let shop = Shop::new();
    let repo: Repo = "me/app".parse().unwrap();
    let mut pr = Pr::new(
        sha(3),
        PrState::Open,
        "Make it <b>faster</b>",
        "master",
        "ann",
    );
    pr.head_repo = Some("ann/app".into());
    shop.forge(|forge| {
        let name = |text: &str| TreePath::new(text).unwrap();
        forge.add_ref(&repo, &name("heads/master"), sha(1));
        forge.add_ref(&repo, &name("heads/feature/x"), sha(2));
        forge.add_ref(&repo, &name("tags/v1.0"), sha(1));
        forge.add_pr(&repo, 7, pr);
    })
    .await;
    let (master, feature) = ("me/app/heads/master", "me/app/heads/feature/x");
    let passed = |text: &str| Outcome::success(text);
    let built = shop
        .result(master, "build", b"\x1b[32mBuilt\x1b[m it <&>\n", None)
        .await;
    let tested = shop
        .result(master, "test,os=linux", b"12 passed\n", None)
        .await;
    let wait = Outcome::pending("Waiting for build");
    shop.record(
        master,
        &sha(1),
        "build -> queued",
        &[("build", output(wait, Logs::None), &[])],
    )
    .await;
    let jobs = [
        ("build", output(passed("Success"), built.clone()), &[][..]),
        (
            "test,os=linux",
            output(passed("12 passed"), tested.clone()),
            &["build"][..],
        ),
        (
            "deploy",
            output(passed("skipped: not a release"), Logs::None),
            &["test,os=linux"][..],
        ),
    ];
    shop.record(master, &sha(1), "3 updates (build -> Success, ...)", &jobs)
        .await;
    shop.record("me/app/tags/v1.0", &sha(1), "build -> Success", &jobs[..1])
        .await;
    let broken: String = (1..=300).map(|n| format!("line {n}\n")).collect();
    let broken = format!("{broken}\x1b[1;31merror\x1b[m: it does not work\n");
    let broken = shop
        .result(
            feature,
            "build",
            broken.as_bytes(),
            Some("exited with status 2"),
        )
        .await;
    let jobs = [
        (
            "build",
            output(Outcome::failure("exited with status 2"), broken),
            &[][..],
        ),
        (
            "test,os=linux",
            output(Outcome::failure("build failed"), Logs::None),
            &["build"][..],
        ),
    ];
    shop.record(
        feature,
        &sha(2),
        "2 updates (build -> exited with status 2, ...)",
        &jobs,
    )
    .await;
    let growing = layout::result_branch("build", &sha(42)).to_string();
    let of = "me/app/pr/7";
    let begun = build(of, "build", None);
    shop.put(
        &growing,
        "Begin",
        &[
            ("build", Some(&begun)),
            (&layout::log_part(0), Some(b"=== build\n")),
        ],
    )
    .await;
    let jobs = [
        (
            "build",
            output(Outcome::pending("Building"), Logs::Live { branch: growing }),
            &[][..],
        ),
        (
            "test,os=linux",
            output(Outcome::pending("Waiting for build"), Logs::None),
            &["build"][..],
        ),
    ];
    shop.record(of, &sha(3), "build -> Building", &jobs).await;
    shop
}

/// The branch that grows in [`stocked`].
pub fn growing() -> String {
    layout::result_branch("build", &sha(42)).to_string()
}

/// Pages at an address. They end with it.
pub struct Site {
    pub url: String,
    pub app: Arc<App>,
    pub secrets: tempfile::TempDir,
    pub jar: std::sync::Mutex<BTreeMap<String, String>>,
    http: reqwest::Client,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a request was answered with.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Where it sends a browser.
    pub fn to(&self) -> (u16, &str) {
        (self.status, self.header("location"))
    }

    /// The text of the page's main part, without tags.
    pub fn shown(&self) -> String {
        let from = self.text.find("<main").map_or(0, |at| at);
        let to = self.text.find("<footer").unwrap_or(self.text.len());
        let mut out = String::new();
        let mut tag = false;
        for c in self.text[from..to].chars() {
            match c {
                '<' => tag = true,
                '>' if tag => {
                    tag = false;
                    out.push(' ');
                }
                c if !tag => out.push(c),
                _ => (),
            }
        }
        out.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The token that its forms bring.
    pub fn token(&self) -> String {
        let mark = "name=\"CSRFToken\" value=\"";
        let at = self.text.find(mark).expect("a form") + mark.len();
        self.text[at..].split('"').next().unwrap().into()
    }
}

pub fn settings(url: &str, secrets: &std::path::Path) -> Settings {
    let text = "[[project]]\nrepo = 'me/app'\nsource = 'https://github.com/me/app.git'\nsteps-from = '.dk-ci.toml'\n";
    let config = config::engine(text).unwrap();
    Settings::new(&config, url, secrets.into()).unwrap()
}

impl Site {
    pub async fn open(shop: &Shop) -> Self {
        Self::with(shop, |_| (), None).await
    }

    /// With other settings.
    pub async fn with(
        shop: &Shop,
        change: impl FnOnce(&mut Settings),
        engine: Option<Arc<Status>>,
    ) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut settings = settings(&url, secrets.path());
        change(&mut settings);
        let app = Arc::new(App::new(Arc::clone(&shop.client), settings, engine));
        let door = Door::open(listener, None).unwrap();
        let served = datakit::ci::web::serve(Arc::clone(&app), door);
        let task = tokio::spawn(async {
            served.await.unwrap();
        });
        datakit::tls::provide();
        Self {
            url,
            app,
            secrets,
            jar: std::sync::Mutex::default(),
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
            task,
        }
    }

    /// Begins a request, with the cookies that were given.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let jar = self.jar.lock().unwrap();
        let cookies: Vec<String> = jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = self.http.request(method, format!("{}{path}", self.url));
        match cookies.is_empty() {
            true => request,
            false => request.header("cookie", cookies.join("; ")),
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        for cookie in headers.get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.jar.lock().unwrap().insert(name.into(), value.into());
        }
        let text = answer.text().await.unwrap();
        Answer {
            status,
            headers,
            text,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends a form.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = Vec::new();
        for (name, value) in fields {
            form.push(format!("{}={}", encoded(name), encoded(value)));
        }
        let request = self
            .request(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.join("&"));
        self.send(request).await
    }

    /// Forgets who one was.
    pub fn forget(&self) {
        self.jar.lock().unwrap().clear();
    }

    /// Makes a user and logs in.
    pub async fn log_in(&self, name: &str) {
        let users =
            datakit::ci::web::auth::passwords::Passwords::within(&self.secrets.path().join("web"));
        users.set(name, "correct horse").unwrap();
        let token = self.get("/auth/login").await.token();
        let fields = [
            ("user", name),
            ("password", "correct horse"),
            ("CSRFToken", token.as_str()),
        ];
        let answer = self.post("/auth/login", &fields).await;
        assert_eq!(answer.status, 303, "{}", answer.shown());
    }
}

pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            b => format!("%{b:02X}"),
        })
        .collect()
}

pub fn admin_only() -> Vec<Who> {
    vec![Who::User("admin".into())]
}

/// Waits until something is so, for as long as a slow machine may need.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ready: impl FnMut() -> F,
) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = ready().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < limit, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
