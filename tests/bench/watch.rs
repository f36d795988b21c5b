//! From a commit to those who wait for it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use datakit::client::local::Durability;
use datakit::client::{Client, Event, Records, Since, WatchQuery};
use datakit::model::TreePath;

use crate::commit::{Writer, master, put};
use crate::inputs::{history, tree};
use crate::place::{Place, output, run};
use crate::report::{Need, Report, Samples, duel};

async fn next(events: &mut Records<Event>) -> Event {
    let event = std::future::poll_fn(|context| events.as_mut().poll_next(context));
    event.await.unwrap().unwrap()
}

fn query(path: &str) -> WatchQuery {
    WatchQuery {
        branch: master(),
        path: TreePath::new(path).unwrap(),
        since: Since::Now,
        latest: false,
        unchanged: false,
    }
}

/// Own commits, until a watcher in the process has them: counted from the
/// acknowledgement, 0 where the watcher was first.
pub fn latency(place: &Place, report: &mut Report) {
    for (name, others) in [("watch", 0), ("watch-1000", 1000)] {
        let store = place.copy(&tree(place, 1000));
        let writer = Writer::open(store.path(), Durability::Strict);
        let client = writer.client.clone();
        let (told, heard) = mpsc::channel();
        let mut watcher = writer
            .runtime
            .block_on(async { client.watch(query("d03")) });
        let idle: Vec<_> = writer.runtime.block_on(async {
            (0..others)
                .map(|number| {
                    let mut events = client.watch(query(&format!("other/{number}")));
                    tokio::spawn(async move {
                        next(&mut events).await;
                    })
                })
                .collect()
        });
        let task = writer.runtime.spawn(async move {
            loop {
                next(&mut watcher).await;
                if told.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        let mut samples = Samples::new();
        let mut begun = false;
        for number in 0..place.choose(200, 1000) {
            let file = format!("d03/f{}", 300 + number % 100);
            writer.runtime.block_on(put(&*client, &file, number));
            let acknowledged = Instant::now();
            // The watches begin at their own pace.
            let limit = Duration::from_secs(if begun { 30 } else { 1 });
            match heard.recv_timeout(limit) {
                Ok(at) if begun => samples.add(at.saturating_duration_since(acknowledged)),
                Ok(_) => begun = true,
                Err(error) => assert!(!begun, "a commit was not told: {error}"),
            }
        }
        task.abort();
        idle.iter().for_each(|task| task.abort());
        report.times(name, samples.p50(), None, Need::Below(0.5));
        report.times(
            &format!("{name}-p99"),
            samples.quantile(0.99),
            None,
            Need::Nothing,
        );
    }
}

/// Commits of other processes, until `dk watch` has printed them.
pub fn foreign(place: &Place, report: &mut Report) {
    let store = place.copy(&tree(place, 1000));
    let mut watch = place.dk(
        store.path(),
        ["watch", "-f", "--commits", "--current", "master"],
    );
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    let (told, heard) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if told.send((line, Instant::now())).is_err() {
                return;
            }
        }
    });
    let limit = Duration::from_secs(30);
    heard.recv_timeout(limit).unwrap();
    let git = |args: &[&str]| output(&mut place.git(store.path(), args));
    let printed = |commit: &str| loop {
        let (line, at) = heard.recv_timeout(limit).unwrap();
        if line == commit {
            return at;
        }
    };
    let full = git(&["rev-parse", "master^{tree}"]);
    let part = git(&["rev-parse", "master:d01"]);
    let (mut by_git, mut by_dk) = (Samples::new(), Samples::new());
    for number in 0..place.choose(40, 200) {
        let tree = if number % 2 == 0 { &part } else { &full };
        let (head, message) = (git(&["rev-parse", "master"]), number.to_string());
        let commit = git(&["commit-tree", "-p", &head, "-m", &message, tree]);
        git(&["update-ref", "refs/heads/master", &commit]);
        let done = Instant::now();
        by_git.add(printed(&commit).saturating_duration_since(done));

        let args = ["put", "master:new", "-m", &message];
        let commit = output(&mut place.dk(store.path(), args));
        let done = Instant::now();
        by_dk.add(printed(&commit).saturating_duration_since(done));
    }
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    report.times("foreign", by_git.p50(), None, Need::Below(20.0));
    report.times("foreign-dk", by_dk.p50(), None, Need::Nothing);
}

/// All of a history through a watch, and through `git log`.
pub fn replay(place: &Place, report: &mut Report) {
    let count = place.choose(10_000, 100_000);
    let store = history(place, count);
    let number = count.to_string();
    let watch = || place.dk(&store, ["watch", "--since", "0", "-n", &number, "master"]);
    let args = ["log", "--reverse", "--name-only", "--format=", "master"];
    let peer = || place.git(&store, args);
    let (dk, git) = duel(
        place.choose(3, 5),
        || run(&mut watch()),
        || run(&mut peer()),
    );
    let against = Some(("git log --reverse --name-only", git.p50()));
    report.times("replay", dk.p50(), against, Need::AtMost(1.0));
}
