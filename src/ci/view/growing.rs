//! A log while it grows: what was there, and every part as it comes.
//!
//! The store says when there is more; nothing is asked for again and again.
//! Bytes come in order, none twice and none missed, and the end is known from
//! the commit that joins the parts.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::{Log, blocking, log, open};
use crate::ci::layout;
use crate::client::{At, Client, Event, Records, Result, Since, WatchQuery};
use crate::model::{BranchName, ObjectId, TreePath};

/// Bytes handed over at a time.
const PIECE: usize = 256 << 10;

/// What came.
#[derive(Debug)]
pub enum Grown {
    Bytes(Vec<u8>),
    /// The build has ended with this commit.
    Ended(ObjectId, Box<Log>),
    /// Nobody writes it any more: the branch is gone or was made anew.
    Lost,
}

/// Follows the log of a result branch.
pub struct Growing {
    client: Arc<dyn Client>,
    events: Records<Event>,
    branch: BranchName,
    /// The first look at the branch has still to be taken.
    fresh: bool,
    /// Parts that were read.
    seen: BTreeSet<Vec<u8>>,
    /// Bytes that were handed over.
    read: u64,
    /// What is being handed over now.
    reader: Option<Box<dyn std::io::Read + Send>>,
    /// Parts to be handed over after that.
    waiting: std::collections::VecDeque<ObjectId>,
    /// How it ended.
    end: Option<(ObjectId, Box<Log>)>,
}

impl Growing {
    /// Begins at the beginning of the log. The branch may not be there yet.
    pub fn new(client: Arc<dyn Client>, branch: BranchName) -> Self {
        let query = WatchQuery {
            branch: branch.clone(),
            path: TreePath::root(),
            since: Since::Now,
            latest: true,
            unchanged: false,
        };
        Self {
            events: client.watch(query),
            client,
            branch,
            fresh: true,
            seen: BTreeSet::new(),
            read: 0,
            reader: None,
            waiting: std::collections::VecDeque::new(),
            end: None,
        }
    }

    /// Waits for more. After [`Grown::Ended`] and [`Grown::Lost`] nothing comes.
    pub async fn next(&mut self) -> Result<Grown> {
        loop {
            if let Some(bytes) = self.piece().await? {
                return Ok(Grown::Bytes(bytes));
            }
            if let Some((commit, log)) = self.end.take() {
                return Ok(Grown::Ended(commit, log));
            }
            if self.fresh {
                // The watch has begun when it was asked once; only then does a
                // look miss nothing.
                let first = self.poll_watch().await;
                self.fresh = false;
                if let Some(head) = self.client.head(&self.branch).await? {
                    self.look(&head).await?;
                }
                if let Some(event) = first
                    && let Some(lost) = self.take(event?).await?
                {
                    return Ok(lost);
                }
                continue;
            }
            match self.events.next().await {
                Some(event) => {
                    if let Some(lost) = self.take(event?).await? {
                        return Ok(lost);
                    }
                }
                None => return Ok(Grown::Lost),
            }
        }
    }

    /// Asks the watch once, without waiting.
    async fn poll_watch(&mut self) -> Option<Result<Event>> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match self.events.poll_next_unpin(context) {
                std::task::Poll::Ready(event) => event,
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    async fn take(&mut self, event: Event) -> Result<Option<Grown>> {
        match event {
            Event::Commit { commit, .. } => {
                self.look(&commit.id).await?;
                Ok(None)
            }
            Event::Deleted { .. } => Ok(Some(Grown::Lost)),
        }
    }

    /// Finds out what a commit adds.
    async fn look(&mut self, commit: &ObjectId) -> Result<()> {
        let found = log(&*self.client, commit).await?;
        if found.ended {
            // What is not known yet of the whole.
            let mut reader = open(&*self.client, &found).await?;
            let skip = self.read;
            if found.size() > skip {
                self.reader = Some(
                    blocking(move || {
                        std::io::copy(&mut reader.by_ref().take(skip), &mut std::io::sink())?;
                        Ok(reader)
                    })
                    .await?,
                );
            }
            self.waiting.clear();
            self.end = Some((*commit, Box::new(found)));
            return Ok(());
        }
        let folder = TreePath::new(layout::LOG_PARTS)?;
        if found.parts.is_empty() {
            return Ok(());
        }
        for item in self
            .client
            .list(&At::Commit(*commit), &folder, false)
            .await?
        {
            if self.seen.insert(item.path.as_bytes().to_vec()) {
                self.waiting.push_back(item.entry.id);
            }
        }
        Ok(())
    }

    /// Returns the next piece of what is there.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => match self.waiting.pop_front() {
                    Some(part) => self.client.open_blob(&part).await?,
                    None => return Ok(None),
                },
            };
            let (reader, piece) = blocking(move || {
                let mut piece = Vec::new();
                reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
                Ok((reader, piece))
            })
            .await?;
            if !piece.is_empty() {
                self.read += piece.len() as u64;
                self.reader = Some(reader);
                return Ok(Some(piece));
            }
        }
    }
}
