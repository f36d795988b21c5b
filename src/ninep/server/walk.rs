//! Walking, and opening and creating as 9P2000 and 9P2000.u do it.

use std::sync::Arc;

use rs9p::p92000::{dm, om};

use super::fault::Fault;
use super::fid::Fid;
use super::session::{Outcome, Session, Step, meant, open, qid};
use crate::model::Kind;
use crate::namespace::node::{Call, Create, Node, Open, Shape};
use crate::ninep::errno::*;
use crate::ninep::message::Reply;
use crate::ninep::wire::{Names, Text};

/// Modes of 9P2000.u that rs9p does not name.
pub const SYMLINK: u32 = 0x0200_0000;
const LINK: u32 = 0x0100_0000;
const DEVICE: u32 = 0x0080_0000;
const NAMED_PIPE: u32 = 0x0020_0000;
const SOCKET: u32 = 0x0010_0000;
/// Of an open: what Linux sends for `O_APPEND`.
const APPEND: u8 = 0x80;
/// The bit of a mode that says a file can be run.
pub const EXEC: u32 = 0o100;

impl Session {
    /// Resolves all names, or fails naming the first failure: a walk that gets
    /// half-way makes nothing and tells nothing.
    pub(super) fn walk(
        &mut self,
        call: Call,
        fid: u32,
        newfid: u32,
        names: Names,
    ) -> Result<Step, Fault> {
        let from = self.fids.get(fid)?;
        if newfid != fid {
            self.fids.vacant(newfid)?;
        }
        let mut state = Fid {
            opened: None,
            ..from.clone()
        };
        if 9 + 13 * names.len() > self.msize as usize {
            return Err(Fault::too_long());
        }
        if names.is_empty() {
            let reply = Reply::Walk { qids: Vec::new() };
            return Ok(Step::Done(self.finish(Outcome::Made(newfid, state, reply))));
        }
        let text = !self.dialect.is_linux();
        Ok(Step::work(async move {
            let mut qids = Vec::with_capacity(names.len());
            for name in names.iter() {
                state.node = step(&call, &state, name, text).await?;
                qids.push(qid(state.node.id()));
            }
            Ok(Outcome::Made(newfid, state, Reply::Walk { qids }))
        }))
    }

    pub(super) fn open(&mut self, call: Call, fid: u32, mode: u8) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        if state.opened.is_some() {
            return Err(Fault::new(EBADF, "Already open"));
        }
        let how = how(mode)?;
        let (node, iounit) = (state.node.clone(), self.iounit());
        Ok(Step::work(async move {
            let opened = open(&call, &node, how).await?;
            let qid = qid(node.id());
            let reply = Reply::Open { qid, iounit };
            Ok(Outcome::Opened(fid, None, opened, reply))
        }))
    }

    pub(super) fn create(
        &mut self,
        call: Call,
        fid: u32,
        name: &Text,
        perm: u32,
        mode: u8,
        extension: Option<Text>,
    ) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        if state.opened.is_some() {
            return Err(Fault::new(EBADF, "Can't create in an opened fid"));
        }
        if state.node.id().shape != Shape::Dir {
            let text = format!(
                "\"{}\" is not a directory",
                state.node.name().escape_ascii()
            );
            return Err(Fault::new(ENOTDIR, text));
        }
        let how = how(mode)?;
        let what = match perm {
            _ if perm & dm::DIR != 0 => Create::Dir,
            _ if perm & SYMLINK != 0 => Create::Link {
                target: extension.map(|target| target.to_vec()),
            },
            _ if perm & (LINK | DEVICE | NAMED_PIPE | SOCKET) != 0 => {
                return Err(Fault::unsupported());
            }
            _ => Create::File {
                exec: perm & EXEC != 0,
                exclusive: false,
            },
        };
        let name = meant(name).unwrap_or_else(|| name.to_vec());
        let (directory, iounit) = (state.node.clone(), self.iounit());
        Ok(Step::work(async move {
            let node = directory.create(&call, &name, what).await?;
            let opened = open(&call, &node, how).await?;
            let qid = qid(node.id());
            let reply = Reply::Create { qid, iounit };
            Ok(Outcome::Opened(fid, Some(node), opened, reply))
        }))
    }
}

/// Follows one name.
async fn step(call: &Call, at: &Fid, name: &[u8], text: bool) -> Result<Arc<dyn Node>, Fault> {
    let node = &at.node;
    if name == b"." {
        return Err(Fault::new(EINVAL, "'.' is not valid in 9p"));
    }
    if node.id().shape != Shape::Dir {
        return Err(Fault::new(ENOTDIR, "Can't walk from a file"));
    }
    if name == b".." {
        let above = node.parent().filter(|_| node.id() != at.root.id());
        return Ok(above.unwrap_or_else(|| node.clone()));
    }
    find(call, node, name, text).await
}

/// Finds an entry, which in a dialect of text may be there under another
/// spelling.
pub async fn find(
    call: &Call,
    directory: &Arc<dyn Node>,
    name: &[u8],
    text: bool,
) -> Result<Arc<dyn Node>, Fault> {
    match directory.lookup(call, name).await {
        Err(error) if text && error.kind() == Kind::NotFound => match meant(name) {
            Some(name) => Ok(directory.lookup(call, &name).await?),
            None => Err(error.into()),
        },
        found => Ok(found?),
    }
}

/// Reads the mode of an open. Nobody is refused what it asks for here, but
/// emptying and appending are heeded.
fn how(mode: u8) -> Result<Open, Fault> {
    const KNOWN: u8 = om::EXEC | om::TRUNC | om::CEXEC | om::RCLOSE | APPEND;
    if mode & !KNOWN != 0 {
        return Err(Fault::new(EINVAL, rs9p::errstr::EINVAL));
    }
    let access = mode & 3;
    Ok(Open {
        read: access != om::WRITE,
        write: access == om::WRITE || access == om::RDWR,
        truncate: mode & om::TRUNC != 0,
        append: mode & APPEND != 0,
    })
}
