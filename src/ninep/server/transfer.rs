//! Reading and writing: content, and directories in either form.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::fault::Fault;
use super::fid::{Directory, Fid, Opened};
use super::session::{Outcome, Session, Step, qid, shown};
use super::stat::{record, unknown};
use crate::namespace::node::{Call, Listing, Shape};
use crate::ninep::errno::*;
use crate::ninep::message::{Dialect, Entry, Reply};
use crate::ninep::wire::{Data, Output};

impl Session {
    pub(super) fn read(
        &mut self,
        call: Call,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        let count = self.room(count);
        match &state.opened {
            None => Err(Fault::new(EBADF, "Can't read from unopened fid")),
            Some(Opened::Attributes) => {
                let data = Data::default();
                Ok(Step::Done(Reply::Read { data }))
            }
            Some(Opened::Directory(_)) if self.dialect.is_linux() => {
                Err(Fault::new(EISDIR, rs9p::errstr::EISDIR))
            }
            Some(Opened::Directory(directory)) => {
                let (state, directory, dialect) = (state.clone(), directory.clone(), self.dialect);
                Ok(Step::work(async move {
                    let data = read_records(&call, &state, &directory, dialect, offset, count);
                    let data = Data(data.await?);
                    Ok(Outcome::Reply(Reply::Read { data }))
                }))
            }
            Some(Opened::File(handle)) => {
                self.offset(offset)?;
                let handle = handle.clone();
                Ok(Step::work(async move {
                    let mut data = handle.read(&call, offset, count).await?;
                    data.truncate(count as usize);
                    let data = Data(data);
                    Ok(Outcome::Reply(Reply::Read { data }))
                }))
            }
        }
    }

    pub(super) fn write(
        &mut self,
        call: Call,
        fid: u32,
        offset: u64,
        data: Bytes,
    ) -> Result<Step, Fault> {
        match &self.fids.get(fid)?.opened {
            None => Err(Fault::new(EBADF, "Can't write to unopened fid")),
            Some(Opened::Directory(_)) => Err(Fault::new(EISDIR, "Can't write to directories")),
            Some(Opened::Attributes) => Err(Fault::unsupported()),
            Some(Opened::File(handle)) => {
                self.offset(offset)?;
                let handle = handle.clone();
                Ok(Step::work(async move {
                    let count = data.len() as u32;
                    handle.write(&call, offset, data).await?;
                    Ok(Outcome::Reply(Reply::Write { count }))
                }))
            }
        }
    }

    pub(super) fn readdir(
        &mut self,
        call: Call,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<Step, Fault> {
        let count = self.room(count) as usize;
        match &self.fids.get(fid)?.opened {
            None => Err(Fault::new(EBADF, "Can't read from unopened fid")),
            Some(Opened::Directory(directory)) => {
                let directory = directory.clone();
                Ok(Step::work(async move {
                    let listing = begin(&call, &directory, offset == 0).await?;
                    let data = Data(entries(&*listing, offset, count)?);
                    Ok(Outcome::Reply(Reply::Readdir { data }))
                }))
            }
            Some(_) => Err(Fault::new(ENOTDIR, rs9p::errstr::ENOTDIR)),
        }
    }
}

/// Returns the listing to read; reading from the start again takes a new one.
async fn begin(call: &Call, directory: &Directory, start: bool) -> Result<Arc<dyn Listing>, Fault> {
    let current = {
        let mut place = directory.place();
        let as_it_is = !start || std::mem::replace(&mut place.fresh, false);
        as_it_is.then(|| place.listing.clone())
    };
    if let Some(listing) = current {
        return Ok(listing);
    }
    let listing = directory.handle.list(call).await?;
    let mut place = directory.place();
    place.listing = listing.clone();
    place.marks.clear();
    Ok(listing)
}

/// Returns as many entries as fit; an entry's offset is the next one's number.
fn entries(listing: &dyn Listing, offset: u64, count: usize) -> Result<Bytes, Fault> {
    let mut out = Output::default();
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    for index in first..listing.len() {
        let (name, id) = listing.entry(index);
        if out.len() + Entry::size(name.len()) > count {
            // Nothing at all would be the end of the directory.
            if out.is_empty() {
                return Err(Fault::new(EINVAL, rs9p::errstr::EINVAL));
            }
            break;
        }
        let entry = Entry {
            qid: qid(id),
            offset: index as u64 + 1,
            kind: match id.shape {
                Shape::Dir => Entry::DIR,
                Shape::File => Entry::FILE,
                Shape::Link => Entry::LINK,
            },
            name: name.into(),
        };
        entry.put(&mut out);
    }
    let length = out.len();
    Ok(out.copy_to_bytes(length))
}

/// Returns as many stat records as fit whole, none if none does. `offset` is
/// where an earlier read ended.
async fn read_records(
    call: &Call,
    fid: &Fid,
    directory: &Directory,
    dialect: Dialect,
    offset: u64,
    count: u32,
) -> Result<Bytes, Fault> {
    let listing = begin(call, directory, offset == 0).await?;
    let first = match offset {
        0 => 0,
        _ => {
            let place = directory.place();
            let found = place.marks.binary_search_by_key(&offset, |mark| mark.0);
            let found = found.map_err(|_| Fault::new(ESPIPE, "Can't seek in a directory"))?;
            place.marks[found].1
        }
    };
    let mut out = Output::default();
    let mut next = first;
    while next < listing.len() {
        let (name, id) = listing.entry(next);
        let mut record = match fid.node.lookup(call, &name).await {
            Ok(node) => record(call, &node, &fid.who, dialect).await.ok(),
            Err(_) => None,
        }
        // It was there when the listing was taken, and so it is listed.
        .unwrap_or_else(|| unknown(id));
        record.name = shown(&name);
        let size = record.entry_size(dialect).map_err(|_| Fault::too_long())?;
        if out.len() + size > count as usize {
            break;
        }
        record
            .put_entry(&mut out, dialect)
            .map_err(|_| Fault::too_long())?;
        next += 1;
    }
    let length = out.len();
    let mut place = directory.place();
    let end = offset + length as u64;
    if let Err(at) = place.marks.binary_search_by_key(&end, |mark| mark.0) {
        place.marks.insert(at, (end, next));
    }
    drop(place);
    Ok(out.copy_to_bytes(length))
}
