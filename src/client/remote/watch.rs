//! Following a branch of a server, over as many connections as it takes.
//!
//! The stream knows the commit it went past last, and asks for what came after
//! it; so nothing is lost and nothing told twice, whenever a connection ends.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use crate::client::*;
use crate::model::text::{DiffQuery, SinceQuery, percent_encode, take_change, take_event};
use crate::model::{HashKind, Kind};
use crate::ninep::client::{self as ninep, File};

use super::failure::{self, Context};
use super::link::{Core, Session};
use super::read;
use super::{Remote, WHOLE};

/// Bytes of events read at once.
const PIECE: u32 = 256 << 10;

pub(super) fn follow(core: Arc<Core>, query: WatchQuery) -> Records<Event> {
    let following = Following {
        core,
        since: query.since,
        query,
        file: None,
        at: 0,
        empty: 0,
        text: BytesMut::new(),
        deleted: None,
        told: false,
        done: false,
    };
    Box::pin(futures_util::stream::unfold(
        following,
        |mut following| async move {
            if following.done {
                return None;
            }
            let event = following.next().await;
            following.done = event.is_err();
            Some((event, following))
        },
    ))
}

struct Following {
    core: Arc<Core>,
    query: WatchQuery,
    /// Where to go on.
    since: Since,
    file: Option<File>,
    /// Up to where the file was read.
    at: u64,
    /// Empty reads since the last that was not: two in a row are an end.
    empty: u32,
    text: BytesMut,
    /// The deletion told last, if nothing was told since.
    deleted: Option<ObjectId>,
    /// An event was told.
    told: bool,
    done: bool,
}

impl Following {
    fn what(&self) -> Context {
        Context::file("branch", self.query.branch.as_bytes())
    }

    async fn next(&mut self) -> Result<Event> {
        if matches!(self.since, Since::Now | Since::Current)
            && let Some(event) = self.pin().await?
        {
            return Ok(event);
        }
        loop {
            while let Some(event) = self.event()? {
                match &event {
                    // The same deletion once more, after a new connection.
                    Event::Deleted { previous } if self.deleted == Some(*previous) => continue,
                    Event::Deleted { previous } => {
                        self.deleted = Some(*previous);
                        self.since = Since::Commit(*previous);
                    }
                    Event::Commit { commit, .. } => {
                        self.deleted = None;
                        self.since = Since::Commit(commit.id);
                    }
                }
                self.told = true;
                return Ok(event);
            }
            match self.more().await {
                Ok(()) => {}
                Err(error) if error.lost => {
                    self.file = None;
                    self.text.clear();
                }
                Err(error) if self.told && error.failure.kind == Kind::NotFound => {
                    if let Some(event) = self.left_behind().await? {
                        return Ok(event);
                    }
                }
                Err(error) => return Err(self.core.error(&self.what(), error)),
            }
        }
    }

    fn event(&mut self) -> Result<Option<Event>> {
        let mut rest = &self.text[..];
        let taken = take_event(&mut rest);
        let left = rest.len();
        match taken {
            Ok(Some(event)) => {
                self.text.advance(self.text.len() - left);
                Ok(Some(event))
            }
            Ok(None) if self.text.len() <= WHOLE => Ok(None),
            _ => Err(failure::nonsense("an event")),
        }
    }

    /// Fixes where the watch begins to a commit, so that it can be resumed even
    /// before its first event. Returns what is to be told of the present.
    async fn pin(&mut self) -> Result<Option<Event>> {
        let client = Remote {
            core: self.core.clone(),
            identity: None,
        };
        let head = client.head(&self.query.branch).await?;
        let current = self.since == Since::Current;
        self.since = head.map_or(Since::Beginning, Since::Commit);
        match head.filter(|_| current) {
            Some(head) => self.present(&client, &head, false).await,
            None => Ok(None),
        }
    }

    /// Tells a commit's whole tree as added.
    async fn present(
        &self,
        client: &Remote,
        head: &ObjectId,
        reset: bool,
    ) -> Result<Option<Event>> {
        let commit = client.commit(head).await?;
        let empty = match head.hash_kind() {
            HashKind::Sha1 => &b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"[..],
            HashKind::Sha256 => b"6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
        };
        let empty = ObjectId::from_hex(empty).expect("the empty tree of Git");
        let query = DiffQuery {
            from: At::Tree(empty),
            to: At::Tree(commit.tree),
            path: self.query.path.clone(),
        };
        let changes = read::records(self.core.clone(), "diff", query.write(), take_change, true);
        let changes: Vec<Change> = futures_util::TryStreamExt::try_collect(changes).await?;
        if changes.is_empty() && !reset && !self.query.unchanged {
            return Ok(None);
        }
        Ok(Some(Event::Commit {
            commit: Box::new(commit),
            previous: None,
            reset,
            changes,
        }))
    }

    /// Goes on after the commit that was told last is gone from the store: a
    /// collector took what a reset had left behind.
    async fn left_behind(&mut self) -> Result<Option<Event>> {
        let client = Remote {
            core: self.core.clone(),
            identity: None,
        };
        let head = client.head(&self.query.branch).await?;
        self.since = head.map_or(Since::Beginning, Since::Commit);
        match head {
            Some(head) => self.present(&client, &head, true).await,
            None => Ok(None),
        }
    }

    /// Reads on, and waits for more.
    async fn more(&mut self) -> ninep::Result<()> {
        if self.file.is_none() {
            let session = self.core.session_at_last().await.map_err(gone)?;
            self.file = Some(self.open(&session).await?);
            (self.at, self.empty) = (0, 0);
        }
        let file = self.file.as_mut().expect("set above");
        let count = PIECE.min(file.unit());
        let read = file.wait(self.at, count).await?;
        if let Err(error) = file.ready().await {
            read.ignore();
            self.file = None;
            return Err(error);
        }
        let data = read.data(count).await?;
        self.at += data.len() as u64;
        self.empty = if data.is_empty() { self.empty + 1 } else { 0 };
        if self.empty == 2 {
            // The server is about to end.
            self.file = None;
        }
        self.text.extend_from_slice(&data);
        Ok(())
    }

    async fn open(&self, session: &Session) -> ninep::Result<File> {
        let element = SinceQuery {
            since: self.since,
            path: self.query.path.clone(),
            latest: self.query.latest,
            unchanged: self.query.unchanged,
            events: true,
        };
        let name = percent_encode(self.query.branch.as_bytes(), b"");
        // An unborn branch is waited for, but has to be known.
        session
            .connection
            .mkdir(session.dir("branch")?, &name)
            .await?
            .ignore();
        let names = [&name[..], b"since", &element.write()];
        session.open("branch", &names, 0).await
    }
}

/// No connection will ever be had.
fn gone(error: Error) -> ninep::Error {
    let kind = match error.kind() {
        Kind::Io => Kind::Interrupted,
        kind => kind,
    };
    ninep::Error::here(kind, error.to_string())
}
