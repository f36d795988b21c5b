//! Connections that are cut, and servers that fall silent.
//!
//! The clock is a made up one: pauses take no time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datakit::client::local::Local;
use datakit::client::remote::{Options, Remote};
use datakit::client::*;
use datakit::model::*;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::client_contract::{branch, commit, edits, names, path, tx, write};
use crate::remote::proxy::Proxy;
use crate::remote::served::Served;

struct Scene {
    local: Arc<Local>,
    remote: Remote,
    proxy: Arc<Proxy>,
}

fn scene(test: impl AsyncFnOnce(Scene)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let served = Served::memory();
        let proxy = Proxy::new(&served, Duration::ZERO);
        let remote = proxy.remote(Options::default()).await;
        let local = Arc::new(served.local());
        let scene = Scene {
            local,
            remote,
            proxy,
        };
        test(scene).await;
    });
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }
}

fn number(number: usize) -> Edits {
    let text = number.to_string();
    Edits::new(move |sink| {
        sink.edit(Edit::Write {
            path: path("n"),
            kind: FileKind::Normal,
            content: Content::Bytes(text.as_bytes()),
        })
    })
}

/// One commit on `main`.
async fn change(dk: &dyn Client, edits: Edits) -> Result<ObjectId> {
    dk.edit(&branch("main"), edits, CommitOptions::default())
        .await
}

/// Commits one after the other, each with another content; returns them.
async fn commits(dk: &dyn Client, count: usize) -> Vec<ObjectId> {
    static NEXT: AtomicUsize = AtomicUsize::new(100);
    let mut heads = Vec::new();
    for _ in 0..count {
        let n = NEXT.fetch_add(1, Ordering::SeqCst);
        heads.push(change(dk, number(n)).await.unwrap());
    }
    heads
}

fn watch(dk: &dyn Client, since: Since) -> Records<Event> {
    dk.watch(WatchQuery {
        branch: branch("main"),
        path: TreePath::root(),
        since,
        latest: false,
        unchanged: false,
    })
}

/// Returns the next event, within an hour of the made up clock.
async fn next(events: &mut Records<Event>) -> Event {
    let hour = Duration::from_secs(3600);
    let event = tokio::time::timeout(hour, events.next()).await;
    event.expect("an event").expect("no end").unwrap()
}

fn told(event: &Event) -> ObjectId {
    match event {
        Event::Commit { commit, .. } => commit.id,
        Event::Deleted { previous } => panic!("deleted at {previous}"),
    }
}

#[test]
fn a_watch_loses_and_repeats_nothing_however_often_it_is_cut() {
    for seed in 0..10 {
        scene(async |scene| {
            let mut dice = Dice(seed);
            // A session alone takes about 1,500 bytes, an event 500.
            let budgets = (0..100).map(|_| dice.roll(8_000));
            scene.proxy.budgets.lock().unwrap().extend(budgets);
            let first = commits(&*scene.local, 1).await;
            let mut events = watch(&scene.remote, Since::Current);
            assert_eq!(told(&next(&mut events).await), first[0]);
            scene.proxy.cut();
            let local = scene.local.clone();
            let (seen, heads) = tokio::join!(
                async {
                    let mut seen = Vec::new();
                    while seen.len() < 60 {
                        seen.push(told(&next(&mut events).await));
                    }
                    seen
                },
                async {
                    let heads = commits(&*local, 40).await;
                    scene.proxy.cut();
                    [heads, commits(&*local, 20).await].concat()
                }
            );
            assert_eq!(seen, heads, "seed {seed}");
            assert!(scene.proxy.connections.load(Ordering::SeqCst) > 2);
        });
    }
}

#[test]
fn a_deletion_is_told_once() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 1).await;
        let mut events = watch(&scene.remote, Since::Beginning);
        assert_eq!(told(&next(&mut events).await), heads[0]);
        let main = branch("main");
        let deleted = scene.local.delete_branch(&main, MoveOptions::default());
        deleted.await.unwrap();
        let previous = heads[0];
        let event = next(&mut events).await;
        assert_eq!(event, Event::Deleted { previous });
        scene.proxy.cut();
        let nothing = tokio::time::timeout(Duration::from_secs(100), events.next());
        assert!(nothing.await.is_err());
        for _ in 0..2 {
            let again = commits(&*scene.local, 1).await;
            assert_eq!(told(&next(&mut events).await), again[0]);
        }
    });
}

#[test]
fn a_server_that_falls_silent_is_noticed_and_another_connection_made() {
    scene(async |scene| {
        let mut events = watch(&scene.remote, Since::Beginning);
        let first = commits(&*scene.local, 1).await;
        assert_eq!(told(&next(&mut events).await), first[0]);
        let begun = Instant::now();
        scene.proxy.stall(true);
        let second = commits(&*scene.local, 1).await;
        let minute = tokio::time::timeout(Duration::from_secs(60), events.next());
        assert!(minute.await.is_err());
        assert_eq!(scene.proxy.connections.load(Ordering::SeqCst), 2);
        scene.proxy.stall(false);
        assert_eq!(told(&next(&mut events).await), second[0]);
        assert!(begun.elapsed() < Duration::from_secs(150));
        // The first went silent, as did the second in the middle of a greeting.
        assert!(scene.proxy.connections.load(Ordering::SeqCst) <= 3);
    });
}

#[test]
fn reads_go_on_over_cuts() {
    scene(async |scene| {
        let list: Vec<Edits> = vec![Edits::new(|sink| {
            for n in 0..300 {
                sink.edit(Edit::Write {
                    path: path(&format!("d{}/{n}", n % 7)),
                    kind: FileKind::Normal,
                    content: Content::Bytes(format!("{n}").as_bytes()),
                })?;
            }
            sink.edit(Edit::Write {
                path: path("large"),
                kind: FileKind::Normal,
                content: Content::Bytes(&vec![b'x'; 100_000]),
            })
        })];
        for edits in list {
            let edit = change(&*scene.local, edits);
            edit.await.unwrap();
        }
        let rev = Rev::new("main").unwrap();
        let at = At::Commit(scene.local.resolve(&rev).await.unwrap());
        let root = TreePath::root();
        let here: Vec<Item> = scene
            .local
            .walk(&at, &root, true)
            .try_collect()
            .await
            .unwrap();
        for seed in 0..10 {
            let mut dice = Dice(seed);
            let budgets = (0..7).map(|_| dice.roll(30_000));
            *scene.proxy.budgets.lock().unwrap() = budgets.collect();
            scene.proxy.cut();
            let walk = scene.remote.walk(&at, &root, true);
            let there: Vec<Item> = walk.try_collect().await.unwrap();
            assert!(here == there, "seed {seed}");
        }
        for seed in 0..10 {
            let mut dice = Dice(seed);
            let budgets = (0..7).map(|_| dice.roll(60_000));
            *scene.proxy.budgets.lock().unwrap() = budgets.collect();
            scene.proxy.cut();
            let large = path("large");
            let mut reader = scene.remote.open(&at, &large).await.unwrap();
            let read = tokio::task::spawn_blocking(move || {
                std::io::copy(&mut reader, &mut std::io::sink()).unwrap()
            });
            assert_eq!(ticking(read).await, 100_000);
        }
    });
}

/// Lets the clock go on while a thread works, which it otherwise waits for.
pub async fn ticking<T>(work: tokio::task::JoinHandle<T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::time::advance(Duration::from_millis(1)).await;
        tokio::select! {
            biased;
            done = &mut work => return done.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    }
}

#[test]
fn a_read_whose_answer_is_lost_is_asked_again() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 1).await;
        scene.proxy.lose_answer.store(true, Ordering::SeqCst);
        let head = scene.remote.head(&branch("main")).await.unwrap();
        assert_eq!(head, Some(heads[0]));
        assert_eq!(scene.proxy.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_change_whose_answer_is_lost_is_not_made_twice() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 1).await;
        let (main, other) = (branch("main"), branch("other"));
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (edit, made) = tokio::join!(
            change(&scene.remote, number(7)),
            cut_once_moved(&scene, &main, Some(heads[0]))
        );
        assert_eq!(edit.ok(), made, "the server is asked for the answer");
        let commit = scene.local.commit(&made.unwrap()).await.unwrap();
        assert_eq!(commit.parents, heads);
        scene.remote.branches().await.unwrap();
        let now = scene.local.head(&main).await.unwrap();
        assert_eq!(now, made, "not asked for again");

        // So is what went wrong with it, and what a merge came to.
        let merge = |expect| {
            let commit = CommitOptions {
                expect,
                ..CommitOptions::default()
            };
            let options = MergeOptions {
                commit,
                favour: None,
                dry_run: false,
            };
            scene.remote.merge(&other, &heads[0], options)
        };
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (merged, _) = tokio::join!(merge(Expect::Unborn), cut_once_moved(&scene, &other, None));
        assert_eq!(merged.unwrap().head, Some(heads[0]));
        let failed = loop {
            scene.proxy.lose_answer.store(true, Ordering::SeqCst);
            let failed = merge(Expect::Unborn).await.unwrap_err();
            // An answer lost before the request is complete is one to a request
            // that was never made, which says so.
            if failed.kind() != Kind::Io {
                break failed;
            }
            assert!(failed.to_string().ends_with("and nothing was changed"));
        };
        assert_eq!(failed.kind(), Kind::HeadMoved);
        let deleted = scene.local.delete_branch(&other, MoveOptions::default());
        deleted.await.unwrap();

        // Where it is seen afterwards, it was done.
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (moved, _) = tokio::join!(
            scene
                .remote
                .move_head(&other, &heads[0], MoveOptions::default()),
            cut_once_moved(&scene, &other, None)
        );
        moved.unwrap();
    });
}

#[test]
fn where_nobody_knows_the_error_says_how_to_find_out() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 1).await;
        let main = branch("main");
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (edit, _) = tokio::join!(change(&scene.remote, number(7)), async {
            let made = cut_once_moved(&scene, &main, Some(heads[0])).await;
            // The server is gone for good.
            scene.proxy.down.store(true, Ordering::SeqCst);
            made
        });
        let error = edit.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the connection to test: was lost, and whether main was changed is not known"
        );
        assert_eq!(
            error.hint(),
            Some("it may have been done: 'dk log -n 5 main' shows whether it was")
        );
    });
}

/// Cuts the connection that loses all answers, once a head has moved.
async fn cut_once_moved(
    scene: &Scene,
    name: &BranchName,
    from: Option<ObjectId>,
) -> Option<ObjectId> {
    let moved = async {
        loop {
            let head = scene.local.head(name).await.unwrap();
            if head != from {
                return head;
            }
            tokio::task::yield_now().await;
        }
    };
    let minute = Duration::from_secs(60);
    let head = tokio::time::timeout(minute, moved).await.unwrap();
    scene.proxy.cut();
    scene.proxy.deaf.store(false, Ordering::SeqCst);
    head
}

#[test]
fn transactions_survive_cuts_and_are_committed_once() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 1).await;
        let main = branch("main");
        let begun = scene.remote.begin(&main, None, None, None).await;
        let id = begun.unwrap().id;
        tx(&scene.remote, &id, vec![write("a", "1")]).await;
        scene.proxy.cut();
        // What is sent into a connection that is about to be found dead may or
        // may not arrive; this finds it.
        scene.remote.transaction(id.as_str()).await.unwrap();
        tx(&scene.remote, &id, vec![write("b", "2")]).await;
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (head, made) = tokio::join!(
            scene.remote.tx_commit(&id, CommitOptions::default()),
            cut_once_moved(&scene, &main, Some(heads[0]))
        );
        let head = head.unwrap();
        assert_eq!(Some(head), made, "the same answer");
        let commit = scene.local.commit(&head).await.unwrap();
        assert_eq!(commit.parents, heads);
        let now = scene.local.head(&main).await.unwrap();
        assert_eq!(now, Some(head), "once");
        let names = names(&*scene.local, &At::Commit(head), "").await;
        assert_eq!(names, ["a", "b", "n"]);

        let begun = scene.remote.begin(&main, None, None, None).await;
        let id = begun.unwrap().id;
        scene.proxy.deaf.store(true, Ordering::SeqCst);
        let (aborted, ()) = tokio::join!(scene.remote.tx_abort(&id), async {
            while scene.local.transaction(id.as_str()).await.is_ok() {
                tokio::task::yield_now().await;
            }
            scene.proxy.cut();
            scene.proxy.deaf.store(false, Ordering::SeqCst);
        });
        aborted.unwrap();
    });
}

#[test]
fn a_change_cut_in_the_middle_did_not_happen() {
    scene(async |scene| {
        commits(&scene.remote, 1).await;
        let before = scene.local.head(&branch("main")).await.unwrap();
        scene.proxy.budgets.lock().unwrap().push_back(3 << 20);
        scene.proxy.cut();
        // So that the connection is new.
        scene.remote.head(&branch("main")).await.unwrap();
        let large = Edits::new(|sink| {
            sink.edit(Edit::Write {
                path: path("large"),
                kind: FileKind::Normal,
                content: Content::Bytes(&vec![b'x'; 9 << 20]),
            })
        });
        let edit = change(&scene.remote, large);
        let error = edit.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the connection to test: was lost, and nothing was changed"
        );
        assert_eq!(scene.local.head(&branch("main")).await.unwrap(), before);
        commits(&scene.remote, 1).await;
    });
}

#[test]
fn a_server_that_is_gone_is_waited_for_but_not_for_ever() {
    scene(async |scene| {
        commits(&*scene.local, 1).await;
        scene.proxy.down.store(true, Ordering::SeqCst);
        scene.proxy.cut();
        let begun = Instant::now();
        let error = scene.remote.head(&branch("main")).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no way through");
        assert_eq!(error.kind(), Kind::Io);
        let waited = begun.elapsed().as_secs();
        assert!((15..25).contains(&waited), "{waited}");
        let main = branch("main");
        let (head, ()) = tokio::join!(scene.remote.head(&main), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            scene.proxy.down.store(false, Ordering::SeqCst);
        });
        assert!(head.unwrap().is_some());
        // Nobody tries while nobody asks.
        let before = scene.proxy.connections.load(Ordering::SeqCst);
        scene.proxy.cut();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(scene.proxy.connections.load(Ordering::SeqCst), before);
    });
}

#[test]
fn what_is_dropped_leaves_the_connection_in_order() {
    scene(async |scene| {
        let heads = commits(&*scene.local, 3).await;
        let (main, at) = (branch("main"), At::Commit(heads[2]));
        let root = TreePath::root();
        for wait in 0..40 {
            let limit = Duration::from_micros(wait);
            let _ = tokio::time::timeout(limit, scene.remote.stat(&at, &root)).await;
            let mut events = watch(&scene.remote, Since::Beginning);
            let _ = tokio::time::timeout(limit, events.next()).await;
            let _ = tokio::time::timeout(limit, scene.remote.walk(&at, &root, true).next()).await;
            let edit = scene.remote.edit(
                &main,
                edits(vec![write("x", "y")]),
                CommitOptions::default(),
            );
            let _ = tokio::time::timeout(limit, edit).await;
        }
        commit(&scene.remote, "main", vec![write("z", "z")]).await;
        assert_eq!(scene.proxy.connections.load(Ordering::SeqCst), 1);
    });
}
