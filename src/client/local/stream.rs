//! Streams of records: fed by a thread that may block, or by a watch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::{Event, Records, Result, Stream, WatchQuery};
use crate::store::{self, Store, watch};

use super::failure::error;

/// Feeds a stream from a thread, many records at a time.
pub fn feed<T: Send + Unpin + 'static>(
    store: Arc<Store>,
    work: impl FnOnce(&Arc<Store>, &mut Feed<T>) -> store::Result<()> + Send + 'static,
) -> Records<T> {
    let (sender, receiver) = mpsc::channel(8);
    spawn_blocking(move || {
        let mut feed = Feed {
            sender,
            batch: Vec::new(),
            size: 1,
        };
        let result = work(&store, &mut feed);
        feed.end(result);
    });
    Box::pin(Fed {
        receiver,
        batch: Vec::new().into_iter(),
    })
}

/// Follows a branch from a task that ends when nobody reads any more.
pub fn follow(store: Arc<Store>, looking: store::Result<()>, query: WatchQuery) -> Records<Event> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let result = match looking {
            Ok(()) => send(store, query, &sender).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            // A reader that has gone needs no end.
            let _ = sender.send(Err(error(failure))).await;
        }
    });
    Box::pin(Fed {
        receiver,
        batch: Vec::new().into_iter(),
    })
}

/// Takes the records of one stream.
pub struct Feed<T> {
    sender: mpsc::Sender<Result<Vec<T>>>,
    batch: Vec<T>,
    /// Records sent together: few at first, so that the first come at once.
    size: usize,
}

/// The reader of a stream has gone.
fn gone() -> store::Error {
    store::Error::Invalid("nobody reads any more".into())
}

impl<T> Feed<T> {
    pub fn push(&mut self, record: T) -> store::Result<()> {
        self.batch.push(record);
        if self.batch.len() < self.size {
            return Ok(());
        }
        self.size = (self.size * 2).min(512);
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(self.size));
        self.sender.blocking_send(Ok(batch)).map_err(|_| gone())
    }

    fn end(mut self, result: store::Result<()>) {
        let batch = std::mem::take(&mut self.batch);
        // A reader that has gone needs no end.
        let _ = self.sender.blocking_send(Ok(batch));
        if let Err(failure) = result {
            let _ = self.sender.blocking_send(Err(error(failure)));
        }
    }
}

/// The reading end of a [`Feed`].
struct Fed<T> {
    receiver: mpsc::Receiver<Result<Vec<T>>>,
    batch: std::vec::IntoIter<T>,
}

impl<T: Unpin> Stream for Fed<T> {
    type Item = Result<T>;

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
) -> store::Result<()> {
    let broken = || store::Error::Busy("the runtime is shutting down".into());
    let mut watch = spawn_blocking(move || watch::Watch::new(store, query))
        .await
        .map_err(|_| broken())??;
    let bell = watch.bell();
    // Events sent together: the first after a pause at once, by and by more.
    let mut most = 1;
    loop {
        let (back, batch, next) = spawn_blocking(move || {
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
        })
        .await
        .map_err(|_| broken())?;
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
