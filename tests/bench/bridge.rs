//! The bridge to GitHub, beside the GitHub of the tests.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datakit::bridge::github::auth::Auth;
use datakit::bridge::github::http::{Http, Settings};
use datakit::bridge::github::notes::Notes;
use datakit::bridge::github::run::Bridge;
use datakit::bridge::github::sync::{Options, Sync};
use datakit::bridge::github::webhook::{Inbox, router};
use datakit::client::local::Durability;
use datakit::client::{Client, Event, Since, WatchQuery};
use datakit::forge::{Comment, Pr, PrState, Repo};
use datakit::model::{BranchName, TreePath};

use crate::commit::Writer;
use crate::github::{GitHub, events, sign};
use crate::place::Place;
use crate::report::{Need, Report, Samples, Unit};

fn branch(name: &str) -> BranchName {
    BranchName::new(name).unwrap()
}

fn repo(number: usize) -> Repo {
    format!("bench/r{number}").parse().unwrap()
}

/// A GitHub of so many repositories, each with ten pull requests and a branch.
async fn github(repos: usize) -> GitHub {
    let hub = GitHub::start().await;
    let mut world = hub.world();
    world.strict = false;
    world.left = u64::MAX;
    for number in 0..repos {
        let repo = repo(number);
        let master = TreePath::new("heads/master").unwrap();
        world.is.add_ref(&repo, &master, format!("{number:040x}"));
        for pr in 1..=10 {
            let head = format!("{pr:08x}{number:032x}");
            let mut opened = Pr::new(head, PrState::Open, "a title", "master", "somebody");
            opened.comments.push(Comment {
                id: 0,
                user: "somebody".into(),
                body: b"what it is for".into(),
            });
            world.is.add_pr(&repo, pr, opened);
        }
    }
    drop(world);
    hub
}

fn sync(client: &Arc<dyn Client>, hub: &GitHub) -> Sync {
    let notes = Arc::new(Notes::default());
    let settings = Settings {
        url: hub.url.clone(),
        spacing: Duration::from_secs(1),
        force_refs: false,
    };
    let http = Http::new(settings, Auth::Anonymous, notes.clone()).unwrap();
    let options = Options::new(branch("github-metadata"), "*:r".parse().unwrap());
    Sync::new(client.clone(), Arc::new(http), notes, options)
}

/// A first sync, and one after a restart with nothing new.
pub fn syncs(place: &Place, report: &mut Report) {
    let repos = place.choose(100, 1000);
    let store = place.store();
    let writer = Writer::open(store.path(), Durability::Strict);
    let client: Arc<dyn Client> = writer.client.clone();
    writer.runtime.block_on(async {
        let hub = github(repos).await;
        let mut first = sync(&client, &hub);
        let all: Vec<Repo> = (0..repos).map(repo).collect();
        first.follow(&all, &[]).await.unwrap();
        let began = Instant::now();
        let outcome = first.sync(false, &[]).await.unwrap();
        let time = began.elapsed().as_secs_f64();
        assert!(outcome.unread.is_empty());
        // A listing of pull requests, two of refs and one of comments; reviews
        // and statuses of each pull request, and the statuses of the branch.
        let least = (repos * (4 + 2 * 10 + 1)) as f64;
        let paid = hub.world().paid();
        report.row(
            "bridge-first-calls",
            Unit::Count,
            paid as f64,
            Some(("what it takes", least)),
            Need::AtMost(1.0),
        );
        report.row(
            "bridge-first",
            Unit::Milliseconds,
            time * 1e3,
            None,
            Need::Nothing,
        );
        let heads = async || {
            let metadata = client.head(&branch("github-metadata")).await.unwrap();
            (
                metadata,
                client.head(&branch("github-metadata.sync")).await.unwrap(),
            )
        };
        let before = heads().await;
        let mut again = sync(&client, &hub);
        let began = Instant::now();
        again.sync(true, &[]).await.unwrap();
        let time = began.elapsed().as_secs_f64();
        let cost = hub.world().paid() - paid;
        report.row(
            "bridge-idle-paid-calls",
            Unit::Count,
            cost as f64,
            None,
            Need::Below(0.0),
        );
        let commits = usize::from(heads().await != before);
        report.row(
            "bridge-idle-commits",
            Unit::Count,
            commits as f64,
            None,
            Need::Below(0.0),
        );
        report.row(
            "bridge-idle",
            Unit::Milliseconds,
            time * 1e3,
            None,
            Need::Nothing,
        );
    });
}

/// From a delivery that is posted to the commit that says so.
pub fn webhook(place: &Place, report: &mut Report) {
    let store = place.store();
    let writer = Writer::open(store.path(), Durability::Strict);
    let client: Arc<dyn Client> = writer.client.clone();
    let runtime = &writer.runtime;
    let repos = 10;
    let hub = runtime.block_on(github(repos));
    let mut sync = sync(&client, &hub);
    let all: Vec<Repo> = (0..repos).map(repo).collect();
    runtime.block_on(sync.follow(&all, &[])).unwrap();
    let inbox = Arc::new(Inbox::default());
    let url = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = router("secret".into(), inbox.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    });
    let bridge = Bridge {
        sync,
        inbox,
        hooks: None,
        resync: None,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut own = tokio::runtime::Builder::new_current_thread();
        own.enable_all().build().unwrap().block_on(async {
            let told = |_: datakit::bridge::github::run::Told<'_>| {
                let _ = ready.send(());
                ControlFlow::Continue(())
            };
            tokio::select! {
                ended = bridge.run(told) => ended.unwrap(),
                _ = stopped => (),
            }
        });
    });
    started.recv().unwrap();
    let mut samples = Samples::new();
    let rounds = place.choose(200, 1000);
    runtime.block_on(async {
        let mut commits = client.watch(WatchQuery {
            branch: branch("github-metadata"),
            path: TreePath::root(),
            since: Since::Now,
            latest: false,
            unchanged: false,
        });
        let http = reqwest::Client::new();
        let master = TreePath::new("heads/moves").unwrap();
        for round in 0..rounds {
            // Between commits that are known: the event says it all.
            let head = format!("{:08x}{:032x}", 1 + round % 10, 0);
            let (_, event, payload) = events::push(&repo(0), &master, Some(&head));
            let body = payload.to_string();
            let request = http
                .post(&url)
                .header("x-github-event", event)
                .header("x-hub-signature-256", sign("secret", body.as_bytes()))
                .body(body);
            let began = Instant::now();
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 204);
            loop {
                let next = std::future::poll_fn(|context| commits.as_mut().poll_next(context));
                if let Event::Commit { .. } = next.await.unwrap().unwrap() {
                    break;
                }
            }
            samples.add(began.elapsed());
        }
    });
    drop(stop);
    thread.join().unwrap();
    report.times("bridge-webhook-p50", samples.p50(), None, Need::Below(20.0));
    report.times(
        "bridge-webhook-p99",
        samples.quantile(0.99),
        None,
        Need::Nothing,
    );
}
