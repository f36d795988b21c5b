//! A proxy that delays, cuts and stalls.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datakit::client::Error;
use datakit::client::remote::{Options, Remote};
use datakit::model::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::served::Served;

/// Between a client and a server.
pub struct Proxy {
    served: Arc<Served>,
    /// Each way.
    delay: Duration,
    /// Cuts all connections when it changes.
    cut: watch::Sender<u64>,
    /// Nothing passes while it is set.
    stalled: watch::Sender<bool>,
    /// Bytes that the next connections pass, either way, before they are cut;
    /// those after them live on.
    pub budgets: Mutex<VecDeque<u64>>,
    /// The next thing the server says is lost, and the connection with it.
    pub lose_answer: AtomicBool,
    /// What the server says goes nowhere.
    pub deaf: AtomicBool,
    /// No connection is to be had.
    pub down: AtomicBool,
    pub connections: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

type Pieces = mpsc::Sender<(Instant, Vec<u8>)>;

impl Proxy {
    pub fn new(served: &Arc<Served>, delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            served: served.clone(),
            delay,
            cut: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
            budgets: Mutex::default(),
            lose_answer: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            down: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            tasks: Mutex::default(),
        })
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Returns the client's end of a new connection.
    pub fn connect(self: &Arc<Self>) -> Result<DuplexStream, Error> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Io, "there is no way through"));
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        let server = self.served.connect();
        let (client_read, client_write) = tokio::io::split(theirs);
        let (server_read, server_write) = tokio::io::split(server);
        let proxy = self.clone();
        let mut cut = self.cut.subscribe();
        cut.mark_unchanged();
        let next = self.budgets.lock().unwrap().pop_front();
        let budget = AtomicI64::new(next.map_or(i64::MAX, |bytes| bytes as i64));
        self.tasks.lock().unwrap().spawn(async move {
            tokio::select! {
                _ = cut.changed() => {}
                _ = proxy.pump(client_read, server_write, &budget, false) => {}
                _ = proxy.pump(server_read, client_write, &budget, true) => {}
            }
        });
        Ok(ours)
    }

    /// Passes bytes on, one way, until one side ends or the budget does.
    async fn pump(
        &self,
        from: ReadHalf<DuplexStream>,
        to: WriteHalf<DuplexStream>,
        budget: &AtomicI64,
        answers: bool,
    ) -> io::Result<()> {
        let (pieces, waiting) = mpsc::channel(64);
        // Whoever takes ends first; what it took is passed on before the end.
        let took = self.take(from, pieces, budget, answers);
        tokio::try_join!(took, self.give(to, waiting)).map(|_| ())
    }

    async fn take(
        &self,
        mut from: ReadHalf<DuplexStream>,
        pieces: Pieces,
        budget: &AtomicI64,
        answers: bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 || answers && self.lose_answer.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            if answers && self.deaf.load(Ordering::SeqCst) {
                continue;
            }
            let left = budget.fetch_sub(count as i64, Ordering::SeqCst);
            let kept = count.min(usize::try_from(left).unwrap_or(0));
            let piece = (Instant::now() + self.delay, buffer[..kept].to_vec());
            if pieces.send(piece).await.is_err() || kept < count {
                return Ok(());
            }
        }
    }

    async fn give(
        &self,
        mut to: WriteHalf<DuplexStream>,
        mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut stalled = self.stalled.subscribe();
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if stalled.wait_for(|stalled| !stalled).await.is_err() {
                return Ok(());
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    }

    /// Returns a client through this proxy.
    pub async fn remote(self: &Arc<Self>, options: Options) -> Remote {
        let proxy = self.clone();
        let dial = move || {
            let stream = proxy.connect();
            async move { stream }
        };
        Remote::over("test:".into(), dial, options).await.unwrap()
    }
}
