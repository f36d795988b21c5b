//! Listeners, each kept up by a task of its own: what one suffers does not
//! touch the others.
//!
//! An address that cannot be listened at is tried again for ever, each time
//! after a longer wait; a connection that cannot be accepted is left waiting
//! for a moment (the process may have too many files open). A task owns the
//! connections it accepted and ends after them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ninep::transport::{Endpoint, Error, Listener, Stream};

/// How long to wait before listening is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How long to wait after an accept that failed, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Whether it is time to end.
pub type Stop = watch::Receiver<bool>;

/// Waits until it is. Cancel-safe.
pub async fn stopped(stop: &mut Stop) {
    // Nobody there to say so any more: it is.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves one connection to its end, which is soon after the stop.
pub type Handler =
    Arc<dyn Fn(Stream, String, Stop) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What happened to a listener.
#[derive(Debug)]
pub enum Report {
    Listening(Endpoint),
    /// It is tried again, unless that is of no use.
    Failed(Error),
}

/// What a listener does now, for whoever asks after its health.
#[derive(Clone, Debug)]
pub struct State {
    pub asked: Endpoint,
    /// Where it listens, or why not; nothing before the first try.
    pub now: Option<Result<Endpoint, String>>,
}

/// What listeners share.
#[derive(Clone)]
pub struct Shared {
    pub handler: Handler,
    /// A permit for each connection there may be.
    pub places: Arc<Semaphore>,
    pub stop: Stop,
}

/// A set of listeners.
pub struct Listeners {
    tasks: JoinSet<()>,
    reports: mpsc::Receiver<Report>,
    states: Arc<Mutex<Vec<State>>>,
}

impl Listeners {
    /// Starts to listen at every address.
    pub fn start(addresses: Vec<Endpoint>, shared: &Shared) -> Self {
        let (sender, reports) = mpsc::channel(16);
        let state = |asked: &Endpoint| State {
            asked: asked.clone(),
            now: None,
        };
        let states = Arc::new(Mutex::new(addresses.iter().map(state).collect()));
        let mut tasks = JoinSet::new();
        for (number, endpoint) in addresses.into_iter().enumerate() {
            let keeper = Keeper {
                endpoint,
                number,
                shared: shared.clone(),
                reports: sender.clone(),
                states: Arc::clone(&states),
            };
            tasks.spawn(keeper.run());
        }
        Self {
            tasks,
            reports,
            states,
        }
    }

    /// Waits for the next thing that happens to a listener; for ever when no
    /// more can. Cancel-safe.
    pub async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Returns what each does, as it changes.
    pub fn states(&self) -> Arc<Mutex<Vec<State>>> {
        Arc::clone(&self.states)
    }

    /// Waits until all have ended after the stop, but not beyond `limit`; what
    /// is left then is dropped. Tells whether all have ended.
    pub async fn end(mut self, limit: Instant) -> bool {
        // Nobody takes reports any more.
        self.reports.close();
        while let Ok(Some(_)) = timeout_at(limit, self.tasks.join_next()).await {}
        self.tasks.is_empty()
    }
}

/// Returns what a mutex holds: no user of one here can leave it half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps one listener up.
struct Keeper {
    endpoint: Endpoint,
    number: usize,
    shared: Shared,
    reports: mpsc::Sender<Report>,
    states: Arc<Mutex<Vec<State>>>,
}

impl Keeper {
    async fn run(self) {
        let mut stop = self.shared.stop.clone();
        let mut wait = AGAIN.0;
        loop {
            match Listener::bind(&self.endpoint).await {
                Ok(listener) => {
                    self.tell(Ok(listener.endpoint().clone()));
                    let report = Report::Listening(listener.endpoint().clone());
                    let _ = self.reports.send(report).await;
                    return self.accept(listener).await;
                }
                Err(error) => {
                    let source = &error.source as &dyn std::error::Error;
                    tracing::error!(target: "serve", error = source, "{error}");
                    self.tell(Err(format!("{error}: {}", error.source)));
                    let lasting = !error.may_pass();
                    // Only the first is worth telling, or the reader may be gone.
                    let _ = self.reports.try_send(Report::Failed(error));
                    if lasting {
                        return;
                    }
                }
            }
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = sleep(wait) => (),
            }
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    fn tell(&self, now: Result<Endpoint, String>) {
        lock(&self.states)[self.number].now = Some(now);
    }

    async fn accept(&self, listener: Listener) {
        let mut stop = self.shared.stop.clone();
        let mut connections = JoinSet::new();
        let mut trouble = Trouble::default();
        loop {
            let accepted = tokio::select! {
                () = stopped(&mut stop) => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(target: "serve", error = &error as &dyn std::error::Error,
                            "a connection ended in a panic");
                    }
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => {
                    trouble.is_over(&self.endpoint);
                    accepted
                }
                Err(error) => {
                    let pause = trouble.begins(&self.endpoint, &error);
                    tokio::select! {
                        () = stopped(&mut stop) => break,
                        () = sleep(pause) => (),
                    }
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
                tracing::warn!(target: "serve", peer, "too many connections: one is refused");
                continue;
            };
            let served = (self.shared.handler)(stream, peer, stop.clone());
            connections.spawn(async move {
                served.await;
                drop(place);
            });
        }
        // First of all, nobody else gets in.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// A time in which accepting fails.
#[derive(Default)]
struct Trouble {
    failures: u64,
}

impl Trouble {
    /// Returns how long to wait. Only the first failure is told.
    fn begins(&mut self, at: &Endpoint, error: &io::Error) -> Duration {
        if self.failures == 0 {
            tracing::warn!(target: "serve", %error, "cannot accept connections at {at} now");
        }
        let pause = PAUSE.0 * 2u32.saturating_pow(u32::try_from(self.failures).unwrap_or(7).min(7));
        self.failures += 1;
        pause.min(PAUSE.1)
    }

    fn is_over(&mut self, at: &Endpoint) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::warn!(target: "serve", failures, "connections at {at} are accepted again");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use crate::ninep::transport::connect;

    use super::*;

    /// Sends back what it gets, until the stop.
    fn echo() -> Handler {
        Arc::new(|mut stream, _, mut stop| {
            Box::pin(async move {
                let mut byte = [0];
                loop {
                    tokio::select! {
                        () = stopped(&mut stop) => return,
                        read = stream.read_exact(&mut byte) => match read {
                            Ok(_) => stream.write_all(&byte).await.expect("writes"),
                            Err(_) => return,
                        }
                    }
                }
            })
        })
    }

    fn shared(places: usize) -> (watch::Sender<bool>, Shared) {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            handler: echo(),
            places: Arc::new(Semaphore::new(places)),
            stop: stopped,
        };
        (stop, shared)
    }

    async fn listening(listeners: &mut Listeners) -> Endpoint {
        loop {
            if let Report::Listening(at) = listeners.report().await {
                return at;
            }
        }
    }

    async fn answers(at: &Endpoint) -> io::Result<Stream> {
        let mut stream = connect(at).await.map_err(|error| error.source)?;
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        Ok(stream)
    }

    #[tokio::test]
    async fn a_port_in_use_is_taken_once_it_is_free_and_others_serve_meanwhile() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let busy = format!("tcp://{}", taken.local_addr().expect("an address"));
        let folder = tempfile::tempdir().expect("a folder");
        let other = format!("unix://{}/s", folder.path().display());
        let parsed = [&busy, &other].map(|text| text.parse().expect("an address"));
        let (stop, shared) = shared(8);
        let mut listeners = Listeners::start(parsed.to_vec(), &shared);
        let (mut failed, mut up) = (0, 0);
        while failed + up < 2 {
            match listeners.report().await {
                Report::Failed(error) => {
                    assert!(error.to_string().contains(&busy));
                    failed += 1;
                }
                Report::Listening(at) => {
                    assert_eq!(at, parsed[1]);
                    up += 1;
                }
            }
        }
        assert_eq!((failed, up), (1, 1));
        let open = answers(&parsed[1]).await.expect("the other serves");
        drop(taken);
        assert_eq!(listening(&mut listeners).await, parsed[0]);
        answers(&parsed[0]).await.expect("it serves at last");
        let states = listeners.states();
        let all_up = lock(&states)
            .iter()
            .all(|state| matches!(&state.now, Some(Ok(at)) if *at == state.asked));
        assert!(all_up);

        stop.send(true).expect("somebody listens");
        assert!(
            listeners
                .end(Instant::now() + Duration::from_secs(10))
                .await
        );
        assert!(connect(&parsed[0]).await.is_err() && !folder.path().join("s").exists());
        drop(open);
    }

    #[tokio::test]
    async fn what_is_one_too_many_is_refused_and_the_rest_goes_on() {
        let (_stop, shared) = shared(1);
        let at = "tcp://127.0.0.1:0".parse().expect("an address");
        let mut listeners = Listeners::start(vec![at], &shared);
        let at = listening(&mut listeners).await;
        let first = answers(&at).await.expect("one is served");
        assert!(answers(&at).await.is_err(), "the second is refused");
        drop(first);
        // The place is free once the server has noticed.
        let limit = Instant::now() + Duration::from_secs(10);
        while answers(&at).await.is_err() {
            assert!(Instant::now() < limit, "the place is never free");
        }
    }

    #[tokio::test]
    async fn what_can_never_work_is_not_tried_for_ever() {
        let (_stop, shared) = shared(1);
        let mut listeners = Listeners::start(vec![Endpoint::Fd(77_777)], &shared);
        assert!(matches!(listeners.report().await, Report::Failed(_)));
        assert!(
            listeners
                .end(Instant::now() + Duration::from_secs(10))
                .await
        );
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let at = Endpoint::Fd(3);
        let mut trouble = Trouble::default();
        let error = io::Error::other("too many open files");
        assert_eq!(trouble.begins(&at, &error), PAUSE.0);
        for _ in 0..100 {
            trouble.begins(&at, &error);
        }
        assert_eq!(trouble.begins(&at, &error), PAUSE.1);
        trouble.is_over(&at);
        assert_eq!(trouble.begins(&at, &error), PAUSE.0);
    }
}
