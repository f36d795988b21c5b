//! The requests of 9P2000.L that the older dialects do not have.

use rs9p::{GetAttrMask, LockStatus, LockType, SetAttrMask, Stat, StatFs, Time};

use super::fault::Fault;
use super::fid::{Fid, Opened};
use super::lock::{Attempt, Held, Owner};
use super::session::{Outcome, Session, Step, open, qid};
use super::stat::permissions;
use super::walk::{EXEC, find};
use crate::model::Kind;
use crate::namespace::node::{Attr, Call, Create, Open, Set, Shape};
use crate::ninep::errno::*;
use crate::ninep::message::{Reply, Request, flags};
use crate::ninep::wire::Text;

/// The bits of a mode that say what a file is, and what they may say.
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// What statfs(2) gives for a 9P mount.
const MAGIC: u32 = 0x0102_1997;

impl Session {
    pub(super) fn begin_linux(&mut self, call: Call, request: Request) -> Result<Step, Fault> {
        match request {
            Request::Statfs { fid } => {
                self.fids.get(fid)?;
                let statfs = statfs();
                Ok(Step::Done(Reply::Statfs { statfs }))
            }
            Request::Lopen { fid, flags } => self.lopen(call, fid, flags),
            Request::Lcreate {
                fid,
                name,
                flags,
                mode,
                ..
            } => self.lcreate(call, fid, &name, flags, mode),
            Request::Symlink {
                fid, name, target, ..
            } => {
                let target = Some(target.to_vec());
                let what = Create::Link { target };
                self.make(call, fid, &name, what, |qid| Reply::Symlink { qid })
            }
            Request::Mkdir { dfid, name, .. } => {
                self.make(call, dfid, &name, Create::Dir, |qid| Reply::Mkdir { qid })
            }
            // Linux's client creates files so where it does not open them.
            Request::Mknod {
                dfid, name, mode, ..
            } => {
                if !matches!(mode & TYPE, 0 | REGULAR) {
                    self.fids.get(dfid)?;
                    return Err(Fault::unsupported());
                }
                let what = Create::File {
                    exec: mode & EXEC != 0,
                    exclusive: true,
                };
                self.make(call, dfid, &name, what, |qid| Reply::Mknod { qid })
            }
            Request::Link { dfid, fid, .. } => {
                self.fids.get(dfid)?;
                self.fids.get(fid)?;
                Err(Fault::unsupported())
            }
            Request::Rename { fid, dfid, name } => {
                let node = self.fids.get(fid)?.node.clone();
                let into = self.fids.get(dfid)?.node.clone();
                Ok(Step::work(async move {
                    node.rename(&call, &into, &name).await?;
                    Ok(Outcome::Reply(Reply::Rename {}))
                }))
            }
            Request::Renameat {
                olddir,
                oldname,
                newdir,
                newname,
            } => {
                let from = self.fids.get(olddir)?.node.clone();
                let into = self.fids.get(newdir)?.node.clone();
                Ok(Step::work(async move {
                    let node = find(&call, &from, &oldname, false).await?;
                    node.rename(&call, &into, &newname).await?;
                    Ok(Outcome::Reply(Reply::Renameat {}))
                }))
            }
            Request::Unlinkat { dfid, name, flags } => self.unlinkat(call, dfid, name, flags),
            Request::Readlink { fid } => {
                let node = self.fids.get(fid)?.node.clone();
                Ok(Step::work(async move {
                    let target = node.target(&call).await?.into();
                    Ok(Outcome::Reply(Reply::Readlink { target }))
                }))
            }
            Request::Getattr { fid, .. } => {
                let state = self.fids.get(fid)?;
                let node = state.node.clone();
                let owner = state.who.uid.unwrap_or(0);
                Ok(Step::work(async move {
                    let attr = node.attr(&call).await?;
                    Ok(Outcome::Reply(getattr(&attr, owner)))
                }))
            }
            Request::Setattr { fid, valid, attr } => {
                self.setattr(call, fid, valid, attr.mode, attr.size)
            }
            Request::Readdir { fid, offset, count } => self.readdir(call, fid, offset, count),
            Request::Fsync { fid, .. } => self.sync(call, fid, Reply::Fsync {}),
            Request::Xattrwalk { fid, newfid, name } => self.xattrwalk(fid, newfid, &name),
            Request::Xattrcreate { fid, .. } => {
                self.fids.get(fid)?;
                Err(Fault::unsupported())
            }
            Request::Lock {
                fid,
                kind,
                start,
                length,
                proc_id,
                client_id,
                ..
            } => self.lock(fid, kind, (start, length), proc_id, &client_id),
            Request::Getlock {
                fid,
                kind,
                start,
                length,
                proc_id,
                client_id,
            } => self.getlock(fid, kind, (start, length), proc_id, &client_id),
            _ => Err(Fault::new(ENOSYS, rs9p::errstr::ENOSYS)),
        }
    }

    fn lopen(&mut self, call: Call, fid: u32, flags: u32) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        if state.opened.is_some() {
            return Err(Fault::new(EBADF, "Already open"));
        }
        let node = state.node.clone();
        if flags & flags::DIRECTORY != 0 && node.id().shape != Shape::Dir {
            return Err(Fault::new(ENOTDIR, rs9p::errstr::ENOTDIR));
        }
        let (how, iounit) = (how(flags), self.iounit());
        Ok(Step::work(async move {
            let opened = open(&call, &node, how).await?;
            let qid = qid(node.id());
            let reply = Reply::Lopen { qid, iounit };
            Ok(Outcome::Opened(fid, None, opened, reply))
        }))
    }

    /// Creates a file and opens it. One that is there is opened as it is,
    /// unless it is to be emptied, or was to be new.
    fn lcreate(
        &mut self,
        call: Call,
        fid: u32,
        name: &Text,
        flags: u32,
        mode: u32,
    ) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        if state.opened.is_some() {
            return Err(Fault::new(EBADF, "Can't create in an opened fid"));
        }
        let (directory, name) = (state.node.clone(), name.clone());
        let (mut how, iounit) = (how(flags), self.iounit());
        let exec = mode & EXEC != 0;
        let new = flags & flags::EXCL != 0;
        let exclusive = new || !std::mem::take(&mut how.truncate);
        Ok(Step::work(async move {
            let what = Create::File { exec, exclusive };
            let node = match directory.create(&call, &name, what).await {
                Err(error) if error.kind() == Kind::Exists && !new => {
                    directory.lookup(&call, &name).await?
                }
                created => created?,
            };
            if node.id().shape == Shape::Dir {
                return Err(Fault::new(EISDIR, rs9p::errstr::EISDIR));
            }
            let opened = open(&call, &node, how).await?;
            let qid = qid(node.id());
            let reply = Reply::Lcreate { qid, iounit };
            Ok(Outcome::Opened(fid, Some(node), opened, reply))
        }))
    }

    /// Creates an entry and leaves it closed.
    fn make(
        &mut self,
        call: Call,
        fid: u32,
        name: &Text,
        what: Create,
        reply: fn(rs9p::QId) -> Reply,
    ) -> Result<Step, Fault> {
        let (directory, name) = (self.fids.get(fid)?.node.clone(), name.clone());
        Ok(Step::work(async move {
            let node = directory.create(&call, &name, what).await?;
            Ok(Outcome::Reply(reply(qid(node.id()))))
        }))
    }

    fn unlinkat(&mut self, call: Call, fid: u32, name: Text, flags: u32) -> Result<Step, Fault> {
        let directory = self.fids.get(fid)?.node.clone();
        Ok(Step::work(async move {
            let node = find(&call, &directory, &name, false).await?;
            let (is, wanted) = (node.id().shape == Shape::Dir, flags & flags::REMOVEDIR != 0);
            match (is, wanted) {
                (true, false) => return Err(Fault::new(EISDIR, rs9p::errstr::EISDIR)),
                (false, true) => return Err(Fault::new(ENOTDIR, rs9p::errstr::ENOTDIR)),
                _ => node.remove(&call, false).await?,
            }
            Ok(Outcome::Reply(Reply::Unlinkat {}))
        }))
    }

    /// Heeds size and, of a file, whether it can be run; times and owners are
    /// taken and ignored, and so is the mode of anything else.
    fn setattr(
        &mut self,
        call: Call,
        fid: u32,
        valid: SetAttrMask,
        mode: u32,
        size: u64,
    ) -> Result<Step, Fault> {
        if valid.is_empty() {
            return self.sync(call, fid, Reply::Setattr {});
        }
        let node = self.fids.get(fid)?.node.clone();
        let mut set = Set::default();
        if valid.contains(SetAttrMask::SIZE) {
            if node.id().shape == Shape::Dir {
                return Err(Fault::new(EISDIR, rs9p::errstr::EISDIR));
            }
            self.offset(size)?;
            set.size = Some(size);
        }
        if valid.contains(SetAttrMask::MODE) && node.id().shape == Shape::File {
            set.kind = Some(Create::File {
                exec: mode & EXEC != 0,
                exclusive: false,
            });
        }
        if set == Set::default() {
            return Ok(Step::Done(Reply::Setattr {}));
        }
        Ok(Step::work(async move {
            node.set(&call, set).await?;
            Ok(Outcome::Reply(Reply::Setattr {}))
        }))
    }

    /// Makes what was written durable.
    fn sync(&mut self, call: Call, fid: u32, reply: Reply) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        let (node, opened) = (state.node.clone(), state.opened.clone());
        Ok(Step::work(async move {
            match opened {
                Some(Opened::File(handle)) => handle.sync(&call).await?,
                _ => node.sync(&call).await?,
            }
            Ok(Outcome::Reply(reply))
        }))
    }

    /// There are no extended attributes: the list of them is empty.
    fn xattrwalk(&mut self, fid: u32, newfid: u32, name: &[u8]) -> Result<Step, Fault> {
        let state = Fid {
            opened: Some(Opened::Attributes),
            ..self.fids.get(fid)?.clone()
        };
        if !name.is_empty() {
            return Err(Fault::new(ENODATA, rs9p::errstr::ENODATA));
        }
        self.fids.vacant(newfid)?;
        let made = Outcome::Made(newfid, state, Reply::Xattrwalk { size: 0 });
        Ok(Step::Done(self.finish(made)))
    }

    fn lock(
        &mut self,
        fid: u32,
        kind: LockType,
        (start, length): (u64, u64),
        process: u32,
        client: &[u8],
    ) -> Result<Step, Fault> {
        let file = self.fids.get(fid)?.node.id().path;
        let wanted = self.held(fid, kind, (start, length), process, client);
        let status = match kind {
            LockType::UNLOCK => {
                self.locks.give(file, &wanted);
                LockStatus::SUCCESS
            }
            LockType::RDLOCK | LockType::WRLOCK => match self.locks.take(file, wanted) {
                Attempt::Taken => LockStatus::SUCCESS,
                Attempt::Blocked => LockStatus::BLOCKED,
                Attempt::TooMany => LockStatus::ERROR,
            },
            _ => return Err(Fault::new(EINVAL, rs9p::errstr::EINVAL)),
        };
        Ok(Step::Done(Reply::Lock { status }))
    }

    fn getlock(
        &mut self,
        fid: u32,
        kind: LockType,
        (start, length): (u64, u64),
        process: u32,
        client: &[u8],
    ) -> Result<Step, Fault> {
        let file = self.fids.get(fid)?.node.id().path;
        let wanted = self.held(fid, kind, (start, length), process, client);
        let reply = match self.locks.conflict(file, &wanted) {
            None => Reply::Getlock {
                kind: LockType::UNLOCK,
                start,
                length,
                proc_id: process,
                client_id: client.into(),
            },
            Some(held) => Reply::Getlock {
                kind: match held.exclusive {
                    true => LockType::WRLOCK,
                    false => LockType::RDLOCK,
                },
                start: held.start,
                length: held.length(),
                proc_id: held.owner.process,
                client_id: held.owner.client.into(),
            },
        };
        Ok(Step::Done(reply))
    }

    fn held(
        &self,
        fid: u32,
        kind: LockType,
        (start, length): (u64, u64),
        process: u32,
        client: &[u8],
    ) -> Held {
        Held {
            owner: Owner {
                connection: self.connection,
                process,
                client: client.to_vec(),
            },
            fid,
            exclusive: kind == LockType::WRLOCK,
            start,
            last: Held::last(start, length),
        }
    }
}

/// Reads the flags of an open. Nobody is refused what it asks for here.
fn how(flags: u32) -> Open {
    let access = flags & flags::ACCESS;
    Open {
        read: access != flags::WRONLY,
        write: access == flags::WRONLY || access == flags::RDWR,
        truncate: flags & flags::TRUNC != 0,
        append: flags & flags::APPEND != 0,
    }
}

fn getattr(attr: &Attr, owner: u32) -> Reply {
    let time = Time {
        sec: u64::try_from(attr.mtime).unwrap_or(0),
        nsec: 0,
    };
    let shape = match attr.id.shape {
        Shape::Dir => DIRECTORY,
        Shape::File => REGULAR,
        Shape::Link => SYMLINK,
    };
    Reply::Getattr {
        valid: GetAttrMask::BASIC,
        qid: qid(attr.id),
        stat: Stat {
            mode: shape | permissions(attr),
            uid: owner,
            gid: owner,
            nlink: 1,
            rdev: 0,
            size: attr.size,
            blksize: 4096,
            blocks: attr.size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
        },
        btime: Time { sec: 0, nsec: 0 },
        generation: 0,
        data_version: 0,
    }
}

/// A tree has no size: like other file systems that are not on a disk it
/// counts no blocks.
fn statfs() -> StatFs {
    StatFs {
        typ: MAGIC,
        bsize: 4096,
        blocks: 0,
        bfree: 0,
        bavail: 0,
        files: 0,
        ffree: 0,
        fsid: 0,
        namelen: 255,
    }
}
