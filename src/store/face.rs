//! The store's asynchronous face: the one place where work that blocks leaves
//! the async threads.
//!
//! A piece of work runs on a thread where it may block. Streams are fed by such
//! a thread, or by a watch, through a bounded channel and end it when dropped.
//! A [`Looker`] owns the task that wakes watches.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::model::request::{Event, WatchQuery};

use super::{Error, Result, Store, watch};

/// A stream of results that ends itself when dropped.
pub type Records<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

fn shutting_down() -> Error {
    Error::Interrupted("the runtime is shutting down".into())
}

/// Runs a piece of work where it may block. A panic there goes on here.
/// Dropping the future does not stop work that has begun.
pub async fn run<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = store.clone();
    match spawn_blocking(move || work(&store)).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(shutting_down()),
        },
    }
}

/// Feeds a stream from a thread, many records at a time.
pub fn feed<B: Batch>(
    store: &Arc<Store>,
    work: impl FnOnce(&Arc<Store>, &mut Feed<B>) -> Result<()> + Send + 'static,
) -> Records<B::Item> {
    let store = store.clone();
    let (sender, receiver) = mpsc::channel(4);
    spawn_blocking(move || {
        let mut feed = Feed {
            sender,
            batch: B::default(),
            count: 0,
            size: 1,
        };
        let result = work(&store, &mut feed);
        feed.end(result);
    });
    Box::pin(Fed {
        receiver,
        batch: B::default().into_iter(),
    })
}

/// Follows a branch from a task that ends when nobody reads any more.
pub fn follow(store: &Arc<Store>, looker: &Looker, query: WatchQuery) -> Records<Event> {
    let looking = looker.start(store);
    let store = store.clone();
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let result = match looking {
            Ok(()) => send(store, query, &sender).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            // A reader that has gone needs no end.
            let _ = sender.send(Err(failure)).await;
        }
    });
    Box::pin(Fed {
        receiver,
        batch: Vec::default().into_iter(),
    })
}

/// Owns the task that wakes the watches of one store: started by the first,
/// stopped when this is dropped.
#[derive(Default)]
pub struct Looker(Mutex<Option<JoinHandle<()>>>);

impl Looker {
    /// Starts the task, once. It holds no store alive.
    pub fn start(&self, store: &Arc<Store>) -> Result<()> {
        let mut looker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looker.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let mut changes = store.engine.changes()?;
        let store = Arc::downgrade(store);
        *looker = Some(tokio::spawn(async move {
            loop {
                let Some(store) = store.upgrade() else { return };
                // What cannot be read now is looked at again with the next change.
                let _ = spawn_blocking(move || store.look()).await;
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        let looker = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = looker.take() {
            task.abort();
        }
    }
}

/// Records that go from thread to thread together.
pub trait Batch: Default + IntoIterator<IntoIter: Send + Unpin> + Send + 'static {}

impl<B: Default + IntoIterator<IntoIter: Send + Unpin> + Send + 'static> Batch for B {}

/// Takes the records of one stream.
pub struct Feed<B> {
    sender: mpsc::Sender<Result<B>>,
    batch: B,
    /// Records in the batch.
    count: usize,
    /// Records sent together: few at first, so that the first come at once.
    size: usize,
}

/// The reader of a stream has gone.
fn gone() -> Error {
    Error::Interrupted("nobody reads any more".into())
}

impl<T> Feed<Vec<T>> {
    pub fn push(&mut self, record: T) -> Result<()> {
        self.add(|batch| batch.push(record))
    }
}

impl<B: Default> Feed<B> {
    /// Takes a record by what puts it into the batch.
    pub fn add(&mut self, put: impl FnOnce(&mut B)) -> Result<()> {
        put(&mut self.batch);
        self.count += 1;
        if self.count < self.size {
            return Ok(());
        }
        self.count = 0;
        self.size = (self.size * 2).min(1024);
        let batch = std::mem::take(&mut self.batch);
        self.sender.blocking_send(Ok(batch)).map_err(|_| gone())
    }

    fn end(mut self, result: Result<()>) {
        let batch = std::mem::take(&mut self.batch);
        // A reader that has gone needs no end.
        let _ = self.sender.blocking_send(Ok(batch));
        if let Err(failure) = result {
            let _ = self.sender.blocking_send(Err(failure));
        }
    }
}

/// The reading end of a [`Feed`].
struct Fed<B: IntoIterator> {
    receiver: mpsc::Receiver<Result<B>>,
    batch: B::IntoIter,
}

impl<B: IntoIterator<IntoIter: Unpin>> Stream for Fed<B> {
    type Item = Result<B::Item>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.batch.next() {
                return Poll::Ready(Some(Ok(record)));
            }
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(Ok(batch))) => self.batch = batch.into_iter(),
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Sends a watch's events for as long as somebody reads.
async fn send(
    store: Arc<Store>,
    query: WatchQuery,
    sender: &mpsc::Sender<Result<Vec<Event>>>,
) -> Result<()> {
    let mut watch = run(&store, move |store| watch::Watch::new(store.clone(), query)).await?;
    let bell = watch.bell();
    // Events sent together: the first after a pause at once, by and by more.
    let mut most = 1;
    loop {
        let (back, batch, next) = run(&store, move |_| Ok(advance(watch, most))).await?;
        watch = back;
        if !batch.is_empty() && sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
        if next? {
            most = (most * 2).min(128);
            continue;
        }
        most = 1;
        tokio::select! {
            () = bell.notified() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Takes up to `most` events that are there already, and tells whether there
/// may be more.
pub fn advance(mut watch: watch::Watch, most: usize) -> (watch::Watch, Vec<Event>, Result<bool>) {
    let mut batch = Vec::new();
    loop {
        match watch.advance() {
            Ok(Some(event)) => batch.push(event),
            next => return (watch, batch, next.map(|_| false)),
        }
        if batch.len() == most {
            return (watch, batch, Ok(true));
        }
    }
}
