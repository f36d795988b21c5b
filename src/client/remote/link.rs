//! The connection of a remote store, and its replacement when it is lost.
//!
//! One task, the keeper, makes connections: one at a time, when somebody wants
//! one, with growing pauses while none can be made. It ends with the last user
//! of the store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Error, Result};
use crate::model::Kind;
use crate::model::failure::Failure;
use crate::model::text::{Identification, Taken};
use crate::ninep::client::{self as ninep, Connection, Fid, File, flags};

use super::TRIES;
use super::failure::{self, Context};

/// The pause after the first attempt that failed, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How many bytes of a command's result are read at once.
const RESULT: u32 = 64 << 10;

pub(super) type Dialing = Pin<Box<dyn Future<Output = Result<Session>> + Send>>;
pub(super) type Dial = Box<dyn Fn() -> Dialing + Send + Sync>;

/// What the calls of one store share.
pub(super) struct Core {
    pub url: String,
    retry: Duration,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    keeper: JoinHandle<()>,
}

#[derive(Clone)]
enum State {
    /// Nobody has asked yet, or the connection was lost.
    Idle,
    Up(Arc<Session>),
    /// So many attempts failed, the last for this.
    Down(u32, Arc<Error>),
}

impl Drop for Core {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Core {
    pub fn new(url: String, retry: Duration, dial: Dial) -> Arc<Self> {
        let (sender, state) = watch::channel(State::Idle);
        let wanted = Arc::new(Notify::new());
        let keeper = tokio::spawn(keep(dial, sender, wanted.clone()));
        Arc::new(Self {
            url,
            retry,
            state,
            wanted,
            keeper,
        })
    }

    /// Connects for the first time: one attempt.
    pub async fn first(&self) -> Result<Arc<Session>> {
        self.connected(|attempts, _| attempts > 0).await
    }

    /// Returns the connection, or a new one.
    pub async fn session(&self) -> Result<Arc<Session>> {
        let limit = self.retry;
        self.connected(|_, waited| waited >= limit).await
    }

    /// As [`Core::session`], however long it takes.
    pub async fn session_at_last(&self) -> Result<Arc<Session>> {
        self.connected(|_, _| false).await
    }

    async fn connected(&self, enough: impl Fn(u32, Duration) -> bool) -> Result<Arc<Session>> {
        let mut state = self.state.clone();
        let begun = Instant::now();
        let mut news = false;
        loop {
            match state.borrow_and_update().clone() {
                State::Up(session) if session.connection.ended().is_none() => return Ok(session),
                State::Down(attempts, why) if news && enough(attempts, begun.elapsed()) => {
                    return Err(copy(&why));
                }
                // What another dialect or another program says stays so.
                State::Down(_, why) if news && why.kind() != Kind::Io => return Err(copy(&why)),
                _ => {}
            }
            news = true;
            self.wanted.notify_one();
            if state.changed().await.is_err() {
                return Err(Error::new(Kind::Interrupted, "the store was closed"));
            }
        }
    }

    pub fn error(&self, what: &Context, error: ninep::Error) -> Error {
        failure::error(&self.url, what, error)
    }

    pub fn unknown(&self, what: &Context, error: &ninep::Error) -> Error {
        failure::unknown(&self.url, what, error)
    }

    /// See `Remote::ask`.
    pub async fn ask<T, F>(
        &self,
        what: Context,
        op: impl Fn(Arc<Session>) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = ninep::Result<T>> + Send,
    {
        let mut tries = 0;
        loop {
            let session = self.session().await?;
            match op(session).await {
                Err(error) if error.lost && tries < TRIES => tries += 1,
                result => return result.map_err(|error| self.error(&what, error)),
            }
        }
    }
}

/// Says a failure again.
fn copy(error: &Error) -> Error {
    let mut failure = Failure::new(error.kind(), error.to_string());
    failure.hint = error.hint().map(str::to_owned);
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        failure.causes.push(cause.to_string());
        next = cause.source();
    }
    failure.into()
}

/// Makes connections when they are wanted.
async fn keep(dial: Dial, state: watch::Sender<State>, wanted: Arc<Notify>) {
    let mut attempts = 0_u32;
    loop {
        wanted.notified().await;
        let up = matches!(&*state.borrow(), State::Up(session)
            if session.connection.ended().is_none());
        if up {
            // Whoever asks looked at an older state.
            state.send_modify(|_| ());
            continue;
        }
        match dial().await {
            Ok(session) => {
                attempts = 0;
                state.send_replace(State::Up(Arc::new(session)));
            }
            Err(error) => {
                attempts = attempts.saturating_add(1);
                state.send_replace(State::Down(attempts, Arc::new(error)));
                tokio::time::sleep(pause(attempts)).await;
            }
        }
    }
}

/// The pause before the next attempt: doubled each time, give or take a quarter
/// so that many clients do not come back together.
fn pause(attempts: u32) -> Duration {
    let (first, longest) = PAUSE;
    let doubled = first.saturating_mul(1 << (attempts - 1).min(10));
    let bits = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), attempts);
    doubled
        .min(longest)
        .mul_f64(0.75 + (bits % 512) as f64 / 1024.0)
}

/// The directories whose fids a session keeps.
const DIRS: [&str; 8] = [
    "branch",
    "trees",
    "tx",
    "resolve",
    "log",
    "ls",
    "diff",
    "maintenance",
];

/// A connection, with the directories that are asked for all the time.
pub(super) struct Session {
    pub connection: Connection,
    dirs: Vec<(&'static str, ninep::Result<Fid>)>,
    /// What the server tells of its store.
    pub told: Option<Identification>,
}

impl Session {
    pub async fn begin(connection: Connection) -> ninep::Result<Self> {
        let find = |name: &'static str| {
            let connection = &connection;
            async move {
                (
                    name,
                    connection.find(connection.root(), name.as_bytes()).await,
                )
            }
        };
        let names = DIRS.into_iter().chain(["remotes"]);
        let finding = futures_util::future::join_all(names.map(find));
        let telling = async {
            let root = connection.root();
            let file = connection.open(root, &[b"debug", b"id"], 0).await?;
            file.whole(0, RESULT as usize).await
        };
        let (dirs, told) = futures_util::future::join(finding, telling).await;
        if let Some(error) = connection.ended() {
            return Err(error);
        }
        let told = told.ok().and_then(|text| Identification::read(&text));
        Ok(Self {
            connection,
            dirs,
            told,
        })
    }

    pub fn dir(&self, name: &str) -> ninep::Result<&Fid> {
        let found = self.dirs.iter().find(|(known, _)| *known == name);
        match found {
            Some((_, Ok(fid))) => Ok(fid),
            Some((_, Err(error))) => Err(error.clone()),
            None => Err(ninep::Error::here(
                Kind::NotFound,
                format!("{name} does not exist"),
            )),
        }
    }

    /// Opens a file below one of the directories at the root.
    pub async fn open(&self, dir: &str, names: &[&[u8]], flags: u32) -> ninep::Result<File> {
        self.connection.open(self.dir(dir)?, names, flags).await
    }

    pub async fn open_root(&self, names: &[&[u8]], flags: u32) -> ninep::Result<File> {
        self.connection
            .open(self.connection.root(), names, flags)
            .await
    }

    /// Reads the first record of a file; nothing where it is empty.
    pub async fn first<T>(
        &self,
        dir: &str,
        names: &[&[u8]],
        take: fn(&mut &[u8]) -> Taken<T>,
    ) -> ninep::Result<Option<T>> {
        let mut file = self.open(dir, names, 0).await?;
        let odd = || ninep::Error::here(Kind::Io, format!("the server's answer is not {dir}"));
        let mut text = Vec::new();
        loop {
            let read = file.read(text.len() as u64, RESULT).await?;
            if let Err(error) = file.ready().await {
                read.ignore();
                return Err(error);
            }
            let data = read.data(RESULT).await?;
            text.extend_from_slice(&data);
            match take(&mut &text[..]) {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) if text.is_empty() => return Ok(None),
                Ok(None) if !data.is_empty() && text.len() <= super::WHOLE => {}
                _ => return Err(odd()),
            }
        }
    }

    /// Opens `NAME/FILE` below `branch` or `tx`, with `make` after making a
    /// directory of that name, which does nothing where there is one.
    pub async fn open_in(
        &self,
        dir: &str,
        name: &[u8],
        make: bool,
        file: &str,
    ) -> ninep::Result<Made> {
        let made = match make {
            true => Some(self.connection.mkdir(self.dir(dir)?, name).await?),
            false => None,
        };
        let names = [name, file.as_bytes()];
        let file = self.open(dir, &names, flags::RDWR).await?;
        Ok(Made { made, file })
    }

    /// Writes a command to `DIR/NAME/FILE`; returns its result.
    pub async fn command(
        &self,
        dir: &str,
        name: &[u8],
        make: bool,
        file: &str,
        text: Vec<u8>,
    ) -> ninep::Result<Vec<u8>> {
        let opened = self.open_in(dir, name, make, file).await?;
        opened.command(text).await
    }

    /// As [`Session::command`] for a file that is there.
    pub async fn write_and_read(
        &self,
        dir: &str,
        names: &[&[u8]],
        text: Vec<u8>,
    ) -> ninep::Result<Vec<u8>> {
        let file = self.open(dir, names, flags::RDWR).await?;
        Made { made: None, file }.command(text).await
    }
}

/// A file below a directory that may have had to be made.
pub(super) struct Made {
    made: Option<ninep::Ticket>,
    pub file: File,
}

impl Made {
    /// Waits until the file is open. Where it is not there because its
    /// directory could not be made, the error says why that was.
    pub async fn ready(&mut self) -> ninep::Result<()> {
        let made = match self.made.take() {
            Some(made) => made.done().await,
            None => Ok(()),
        };
        match (self.file.ready().await, made) {
            (Err(error), Err(refused)) if error.failure.kind == Kind::NotFound => Err(refused),
            (result, _) => result,
        }
    }

    /// Writes a command in one piece, and reads what it came to.
    async fn command(mut self, text: Vec<u8>) -> ninep::Result<Vec<u8>> {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let written = self.file.write(0, text.into()).await?;
        let first = self.file.read(length.into(), RESULT).await?;
        if let Err(error) = self.ready().await {
            written.ignore();
            first.ignore();
            return Err(error);
        }
        if let Err(error) = written.written(length).await {
            first.ignore();
            return Err(error);
        }
        let mut data = first.data(RESULT).await?;
        let mut result = Vec::new();
        let mut at = u64::from(length);
        // Behind each piece that fills a read stands an empty read.
        let mut empty = 0;
        while empty < 2 {
            empty = if data.is_empty() { empty + 1 } else { 0 };
            at += data.len() as u64;
            result.extend_from_slice(&data);
            if data.len() < RESULT as usize && empty == 0 || result.len() > super::WHOLE {
                break;
            }
            data = self.file.read(at, RESULT).await?.data(RESULT).await?;
        }
        Ok(result)
    }
}
