//! Webhooks: registered, delivered, lost and found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datakit::bridge::github::hooks::Hooks;
use datakit::bridge::github::run::Bridge;
use datakit::bridge::github::webhook::{Inbox, router};
use datakit::forge::*;

use super::world::*;
use crate::bridge_github::world::{name, repo};
use crate::github::events;

/// A bridge that goes on, on a thread of its own, until this is dropped.
struct Running {
    listener: tokio::task::JoinHandle<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listener.abort();
        self.stop.take();
    }
}

impl Running {
    /// Ends it, with its listener.
    async fn stop(mut self) {
        self.listener.abort();
        let _ = (&mut self.listener).await;
        self.stop.take();
        let thread = self.thread.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || thread.join());
        ended.await.unwrap().unwrap();
    }
}

/// Runs a new bridge whose listener is at a port, and has `secret`.
async fn run(world: &mut World, port: u16, secret: &str) -> Running {
    world.restart();
    let inbox = Arc::new(Inbox::default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    let router = router(secret.into(), inbox.clone());
    let url = format!("http://127.0.0.1:{port}/hooks/");
    let hooks = Hooks::new(
        world.http.clone(),
        world.notes.clone(),
        inbox.clone(),
        &url,
        secret.into(),
    );
    let (dk, http, notes) = (world.dk.clone(), world.http.clone(), world.notes.clone());
    let sync = datakit::bridge::github::sync::Sync::new(dk, http, notes, world.options.clone());
    let bridge = Bridge {
        sync,
        inbox,
        hooks: Some(hooks),
        resync: None,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                ended = bridge.run(|_| std::ops::ControlFlow::Continue(())) => ended.unwrap(),
                _ = stopped => (),
            }
        });
    });
    Running {
        listener: tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
        stop: Some(stop),
        thread: Some(thread),
    }
}

fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until something is so.
async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is().await {
        assert!(Instant::now() < limit, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl World {
    /// Waits until a hook is there and noted.
    async fn noted(&self, place: &str) {
        let path = format!("{place}/.hooks/hook");
        until("the note of a hook", async || {
            let branch = self.dk.branches().await.unwrap();
            branch.len() == 2 && self.files(".sync").await.contains(&path)
        })
        .await;
    }

    async fn until_ref(&self, of: &Repo, ref_name: &str, head: &str) {
        let key = (of.clone(), name(ref_name));
        until("the ref in the branch", async || {
            self.says()
                .await
                .refs
                .get(&key)
                .is_some_and(|at| at == head)
        })
        .await;
    }

    fn hook_urls(&self) -> Vec<String> {
        self.hub
            .world()
            .hooks
            .values()
            .map(|hook| hook.url.clone())
            .collect()
    }

    /// Moves a ref there, and tells so.
    async fn moved(&self, of: &Repo, ref_name: &str, head: &str) {
        self.hub
            .world()
            .is
            .add_ref(of, &name(ref_name), head.into());
        self.hub
            .tell(events::push(of, &name(ref_name), Some(head)))
            .await;
    }
}

#[tokio::test]
async fn a_hook_is_registered_once_and_listened_to() {
    let mut world = World::new("*:r,webhook:rw").await;
    world.hub.world().is = both_described();
    world.follow(&["test/test"]).await;
    let port = port();
    let running = run(&mut world, port, "secret").await;
    world.noted("test/test").await;
    assert_eq!(
        world.hook_urls(),
        [format!("http://127.0.0.1:{port}/hooks/test/test")]
    );
    let before = world.hub.world().asked.len();
    world.moved(&repo(), "heads/new", "foo").await;
    world.until_ref(&repo(), "heads/new", "foo").await;
    let asked = world.hub.world().asked.len() - before;
    assert_eq!(asked, 0, "the event says it all: foo was known");
    running.stop().await;
    // A restart leaves it alone; another secret does not.
    for (secret, changed) in [("secret", 0), ("other", 1)] {
        let before = world.hub.world().changes().len();
        let running = run(&mut world, port, secret).await;
        let moved = format!("heads/after-{secret}");
        until("the hook", async || {
            world
                .hub
                .world()
                .hooks
                .values()
                .all(|hook| hook.secret == secret)
        })
        .await;
        world.moved(&repo(), &moved, "bar").await;
        world.until_ref(&repo(), &moved, "bar").await;
        assert_eq!(
            world.hub.world().changes().len() - before,
            changed,
            "{secret}"
        );
        running.stop().await;
    }
    assert_eq!(world.hook_urls().len(), 1);
    world.hub.assert_faithful();
    for path in world.files(".sync").await {
        let text = world.read_of(".sync", &path).await;
        assert!(
            !text.contains("\"secret\"") && !text.contains("other"),
            "{path}: {text}"
        );
    }
}

#[tokio::test]
async fn deliveries_missed_while_it_was_down_are_asked_for() {
    let mut world = World::new("*:r,webhook:rw").await;
    world.hub.world().is = both_described();
    world.follow(&["test/test"]).await;
    world
        .write(&[("test/test/commit/foo/status/ci/state", "failure")])
        .await;
    let at = context("ci").unwrap();
    let status = Status::new(StatusState::Failure, None, None);
    world.hub.world().is.add_status(&repo(), "foo", &at, status);
    let port = port();
    let running = run(&mut world, port, "secret").await;
    world.noted("test/test").await;
    running.stop().await;
    world.moved(&repo(), "heads/missed", "foo").await;
    world
        .hub
        .tell(events::rerequested(&repo(), "foo", "ci"))
        .await;
    let statuses: Vec<u16> = {
        let hub = world.hub.world();
        let hook = hub.hooks.values().next().unwrap();
        hook.deliveries
            .iter()
            .map(|delivery| delivery.status)
            .collect()
    };
    assert_eq!(statuses, [502, 502]);
    let mark = "test/test/commit/foo/status/ci/rebuild-requested".to_owned();
    let running = run(&mut world, port, "secret").await;
    world.until_ref(&repo(), "heads/missed", "foo").await;
    until("the request", async || {
        world.files("").await.contains(&mark)
    })
    .await;
    // Once seen they are not asked for again.
    let noted = world.read_of(".sync", "test/test/.hooks/hook").await;
    until("the note", async || {
        let now = world.read_of(".sync", "test/test/.hooks/hook").await;
        !now.contains("\"seen\":0")
    })
    .await;
    let _ = noted;
    running.stop().await;
    world.remove(&mark).await;
    let before = world.hub.world().asked.len();
    let running = run(&mut world, port, "secret").await;
    world.moved(&repo(), "heads/more", "foo").await;
    world.until_ref(&repo(), "heads/more", "foo").await;
    let again = {
        let hub = world.hub.world();
        let asked = hub.asked[before..].iter();
        asked
            .filter(|call| call.path.contains("/deliveries/"))
            .count()
    };
    assert_eq!(again, 0);
    assert!(!world.files("").await.contains(&mark));
    running.stop().await;
    world.hub.assert_faithful();
}

#[tokio::test]
async fn an_organisation_has_one_hook_for_all() {
    let mut world = World::new("*:r,webhook:rw").await;
    let more: Repo = "test/more".parse().unwrap();
    {
        let hub = &mut *world.hub.world();
        hub.is = both_described();
        hub.is.add_repo(&more);
        hub.organisations.insert("test".into());
        hub.archived.insert("test/old".parse().unwrap());
        hub.is.add_repo(&"test/old".parse().unwrap());
    }
    world.bridge.follow(&[], &["test".into()]).await.unwrap();
    let port = port();
    let running = run(&mut world, port, "secret").await;
    world.noted("test").await;
    assert_eq!(
        world.hook_urls(),
        [format!("http://127.0.0.1:{port}/hooks/test")]
    );
    assert_eq!(
        world.says().await.repos,
        [repo(), more.clone()].into(),
        "what is archived stays as it is"
    );
    world.moved(&more, "heads/x", "foo").await;
    world.until_ref(&more, "heads/x", "foo").await;
    // A new repository is followed as soon as it is told of.
    let new: Repo = "test/new".parse().unwrap();
    world.hub.world().is.add_repo(&new);
    world.hub.tell(events::repository(&new)).await;
    until("the repository", async || {
        world.says().await.repos.contains(&new)
    })
    .await;
    running.stop().await;
    assert_eq!(world.hook_urls().len(), 1);
    world.hub.assert_faithful();
}

#[tokio::test]
async fn where_a_hook_is_refused_the_rest_goes_on() {
    let mut world = World::new("*:r,webhook:rw").await;
    world.hub.world().is = both_described();
    world.hub.world().unhooked = true;
    world.follow(&["test/test"]).await;
    let running = run(&mut world, port(), "secret").await;
    until("the sync", async || {
        world.dk.branches().await.unwrap().len() == 2
    })
    .await;
    until("the try", async || {
        world
            .hub
            .world()
            .asked
            .iter()
            .any(|call| call.path.contains("/hooks"))
    })
    .await;
    world.write(&[("test/test/.dirty", "")]).await;
    until("another sync", async || {
        !world.files("").await.contains(&"test/test/.dirty".into())
    })
    .await;
    running.stop().await;
}
