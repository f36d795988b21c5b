//! An open file of the server: written in sequence, read ahead.

use std::collections::VecDeque;

use bytes::Bytes;
use rs9p::GetAttrMask;

use super::link::PATIENT;
use super::{Connection, Error, Fid, Result, Ticket};
use crate::model::Kind;
use crate::ninep::message::{Entry, Request};
use crate::ninep::wire::Data;

/// Bytes asked for at once.
const PIECE: u32 = 256 << 10;
/// Reads under way, at most.
const DEPTH: usize = 8;

/// A file being opened, or open.
pub struct File {
    connection: Connection,
    fid: Fid,
    /// The walk to it, and its opening, until they are answered.
    steps: Vec<Ticket>,
    opened: Option<Ticket>,
    /// Why it could not be opened.
    failed: Option<Error>,
    unit: u32,
}

impl File {
    pub(super) fn new(
        connection: Connection,
        fid: Fid,
        steps: Vec<Ticket>,
        opened: Ticket,
    ) -> Self {
        let unit = connection.unit();
        Self {
            connection,
            fid,
            steps,
            opened: Some(opened),
            failed: None,
            unit,
        }
    }

    /// Waits until it is open; says why it could not be opened.
    pub async fn ready(&mut self) -> Result<()> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let Some(opened) = self.opened.take() else {
            return Ok(());
        };
        let mut result = Ok(0);
        for step in std::mem::take(&mut self.steps) {
            if result.is_err() {
                step.ignore();
            } else {
                result = step.walked().await.map(|()| 0);
            }
        }
        match result {
            Ok(_) => match opened.opened().await {
                Ok(unit) => {
                    if unit > 0 {
                        self.unit = self.unit.min(unit);
                    }
                    Ok(())
                }
                Err(failed) => self.fail(failed),
            },
            Err(failed) => {
                opened.ignore();
                self.fail(failed)
            }
        }
    }

    fn fail(&mut self, failed: Error) -> Result<()> {
        self.failed = Some(failed.clone());
        Err(failed)
    }

    /// Returns how much one read or write may carry.
    pub fn unit(&self) -> u32 {
        self.unit
    }

    /// Sends a read.
    pub async fn read(&self, offset: u64, count: u32) -> Result<Ticket> {
        let request = Request::Read {
            fid: self.fid.number(),
            offset,
            count,
        };
        self.connection.start(request, count).await
    }

    /// Sends a read that may be answered in a long time.
    pub async fn wait(&self, offset: u64, count: u32) -> Result<Ticket> {
        let request = Request::Read {
            fid: self.fid.number(),
            offset,
            count,
        };
        self.connection.start(request, PATIENT).await
    }

    /// Sends a write; `data` must be no longer than [`File::unit`].
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<Ticket> {
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let request = Request::Write {
            fid: self.fid.number(),
            offset,
            data: Data(data),
        };
        self.connection.start(request, count).await
    }

    /// Reads the names in a directory.
    pub async fn names(mut self) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let count = self.unit.min(PIECE);
            let request = Request::Readdir {
                fid: self.fid.number(),
                offset,
                count,
            };
            let ticket = self.connection.start(request, count).await?;
            self.ready().await?;
            let data = ticket.data(count).await?;
            let entries = Entry::list(&Data(data)).map_err(|error| {
                Error::here(Kind::Io, format!("a listing cannot be read: {error}"))
            })?;
            let Some(last) = entries.last() else {
                return Ok(names);
            };
            offset = last.offset;
            let visible = entries.iter().map(|entry| entry.name.to_vec());
            names.extend(visible.filter(|name| name != b"." && name != b".."));
        }
    }

    /// Asks how long it is.
    pub async fn size(&self) -> Result<Ticket> {
        let request = Request::Getattr {
            fid: self.fid.number(),
            mask: GetAttrMask::SIZE,
        };
        self.connection.start(request, 0).await
    }

    /// Reads what stands at `offset` and behind it. A server of ours gives as
    /// much as is asked for, and less at the end only.
    pub async fn whole(mut self, offset: u64, most: usize) -> Result<Vec<u8>> {
        let count = self.unit.min(PIECE);
        let mut all = Vec::new();
        loop {
            let ticket = self.read(offset + all.len() as u64, count).await?;
            self.ready().await?;
            let data = ticket.data(count).await?;
            if all.len() + data.len() > most {
                return Err(too_long(most));
            }
            all.extend_from_slice(&data);
            let short = data.len() < count as usize && self.connection.is_ours();
            if short || data.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Reads it from a place on, with reads ahead of what is taken.
    pub fn pull(self, from: u64, size: Option<u64>) -> Pull {
        let mut pull = Pull {
            file: self,
            size,
            asked: from,
            taken: from,
            under_way: VecDeque::new(),
            depth: 1,
            ended: false,
        };
        pull.depth = pull.least();
        pull
    }
}

fn too_long(most: usize) -> Error {
    Error::here(
        Kind::NoSpace,
        format!("the answer is longer than {most} bytes"),
    )
}

/// Reads a file in sequence. Of a file that can be read at any place its size
/// is known; of a computed one it is not, and an empty read is its end. With a
/// server of ours that read goes ahead of the answer to the one before it: it
/// says where the file is at its end, and else that it was for the wrong place.
pub struct Pull {
    file: File,
    size: Option<u64>,
    /// Where the next read begins.
    asked: u64,
    /// What has been handed on.
    taken: u64,
    under_way: VecDeque<(u32, Ticket)>,
    /// How many reads may be under way: more as they come back full.
    depth: usize,
    ended: bool,
}

impl Pull {
    /// Returns how many reads are under way at first.
    fn least(&self) -> usize {
        match self.size {
            None if self.file.connection.is_ours() => 2,
            _ => 1,
        }
    }

    /// Sends the reads that may be under way.
    pub async fn ahead(&mut self) -> Result<()> {
        let strict = self.size.is_none() && !self.file.connection.is_ours();
        let depth = if strict { 1 } else { self.depth };
        while !self.ended && self.under_way.len() < depth {
            let most = self.file.unit.min(PIECE);
            let count = match self.size {
                None => most,
                Some(size) => match size.saturating_sub(self.asked) {
                    0 => break,
                    left => most.min(u32::try_from(left).unwrap_or(u32::MAX)),
                },
            };
            let ticket = self.file.read(self.asked, count).await?;
            self.asked += u64::from(count);
            self.under_way.push_back((count, ticket));
        }
        Ok(())
    }

    /// Returns the next bytes; nothing at the end. Called again after an error
    /// of a lost connection it fails again.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        self.ahead().await?;
        self.file.ready().await?;
        let Some((count, ticket)) = self.under_way.pop_front() else {
            self.ended = true;
            return Ok(None);
        };
        let data = ticket.data(count).await?;
        self.taken += data.len() as u64;
        if data.len() < count as usize {
            // The reads behind it were for places that do not follow.
            let mut behind = self.under_way.drain(..);
            let next = behind.next().filter(|_| self.size.is_none());
            behind.for_each(|(_, ticket)| ticket.ignore());
            if let Some((count, ticket)) = next {
                let told = ticket.data(count).await;
                self.ended = told.is_ok_and(|data| data.is_empty());
            }
            self.asked = self.taken;
            self.depth = self.least();
        } else {
            self.depth = (self.depth * 2).min(DEPTH);
        }
        if data.is_empty() {
            self.ended = true;
            return match self.size {
                Some(size) if self.taken < size => Err(Error::here(
                    Kind::Io,
                    format!("the file ends after {} of {size} bytes", self.taken),
                )),
                _ => Ok(None),
            };
        }
        self.ended |= self.size == Some(self.taken);
        self.ahead().await?;
        Ok(Some(data))
    }

    /// Returns up to where it was handed on.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Reads all that is left, but no more than `most` bytes.
    pub async fn rest(mut self, most: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(data) = self.next().await? {
            if all.len() + data.len() > most {
                return Err(too_long(most));
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}
