//! Stat and wstat of 9P2000 and 9P2000.u.

use std::sync::Arc;

use rs9p::p92000::dm;

use super::fault::Fault;
use super::fid::Opened;
use super::session::{Outcome, Session, Step, meant, qid, shown};
use super::walk::{EXEC, SYMLINK};
use crate::namespace::node::{Attr, Call, Create, Id, Node, Principal, Set, Shape};
use crate::ninep::errno::*;
use crate::ninep::message::{Dialect, Record, Reply};
use crate::ninep::wire::Text;

impl Session {
    pub(super) fn stat(&mut self, call: Call, fid: u32) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        let (node, who, dialect) = (state.node.clone(), state.who.clone(), self.dialect);
        Ok(Step::work(async move {
            let stat = record(&call, &node, &who, dialect).await?;
            Ok(Outcome::Reply(Reply::Stat { stat }))
        }))
    }

    /// Heeds name, length and mode, one at a time; without any of them it
    /// makes durable what was written, whatever else is to be changed.
    pub(super) fn wstat(&mut self, call: Call, fid: u32, stat: Record) -> Result<Step, Fault> {
        let state = self.fids.get(fid)?;
        let node = state.node.clone();
        let name = Some(&stat.name).filter(|name| !name.is_empty());
        let length = Some(stat.length).filter(|length| *length != u64::MAX);
        let mode = Some(stat.mode).filter(|mode| *mode != u32::MAX);
        let directory = node.id().shape == Shape::Dir;
        let work = match (name, length, mode) {
            (None, None, None) => {
                let handle = match &state.opened {
                    Some(Opened::File(handle)) => Some(handle.clone()),
                    _ => None,
                };
                return Ok(Step::work(async move {
                    match handle {
                        Some(handle) => handle.sync(&call).await?,
                        None => node.sync(&call).await?,
                    }
                    Ok(Outcome::Reply(Reply::Wstat {}))
                }));
            }
            (Some(name), None, None) => {
                let into = node
                    .parent()
                    .ok_or_else(|| Fault::new(EROFS, "Can't rename /"))?;
                let name = meant(name).unwrap_or_else(|| name.to_vec());
                return Ok(Step::work(async move {
                    node.rename(&call, &into, &name).await?;
                    Ok(Outcome::Reply(Reply::Wstat {}))
                }));
            }
            (None, Some(0), None) if directory => return Ok(Step::Done(Reply::Wstat {})),
            (None, Some(_), None) if directory => {
                return Err(Fault::new(EISDIR, "Can't set length of a directory"));
            }
            (None, Some(length), None) => {
                self.offset(length)?;
                Set {
                    size: Some(length),
                    kind: None,
                }
            }
            (None, None, Some(mode)) => {
                if directory != (mode & dm::DIR != 0) {
                    let text = "Incorrect is_directory flag for chmod";
                    return Err(Fault::new(EINVAL, text));
                }
                if directory {
                    return Err(Fault::new(EPERM, rs9p::errstr::EPERM));
                }
                let kind = match mode & SYMLINK {
                    0 => Create::File {
                        exec: mode & EXEC != 0,
                        exclusive: false,
                    },
                    _ => Create::Link {
                        target: Some(stat.extension.to_vec()).filter(|to| !to.is_empty()),
                    },
                };
                Set {
                    size: None,
                    kind: Some(kind),
                }
            }
            _ => {
                let text = "Can't rename/truncate/chmod at the same time";
                return Err(Fault::new(EINVAL, text));
            }
        };
        Ok(Step::work(async move {
            node.set(&call, work).await?;
            Ok(Outcome::Reply(Reply::Wstat {}))
        }))
    }
}

/// Returns what stat tells of a node.
pub async fn record(
    call: &Call,
    node: &Arc<dyn Node>,
    who: &Principal,
    dialect: Dialect,
) -> Result<Record, Fault> {
    let attr = node.attr(call).await?;
    let extension = match attr.id.shape {
        Shape::Link if dialect == Dialect::Unix => node.target(call).await?.into(),
        _ => Text::default(),
    };
    let owner = who.uid.unwrap_or(0);
    Ok(Record {
        mode: mode(&attr),
        atime: time(attr.mtime),
        mtime: time(attr.mtime),
        length: attr.size,
        name: shown(&node.name()),
        extension,
        n_uid: owner,
        n_gid: owner,
        n_muid: owner,
        ..unknown(attr.id)
    })
}

/// Returns the record of a node of which nothing but its identity is known.
pub fn unknown(id: Id) -> Record {
    let attr = Attr {
        id,
        exec: false,
        writable: false,
        size: 0,
        mtime: 0,
    };
    Record {
        kind: 0,
        dev: 0,
        qid: qid(id),
        mode: mode(&attr),
        atime: 0,
        mtime: 0,
        length: 0,
        name: Text::default(),
        uid: "root".into(),
        gid: "root".into(),
        muid: "none".into(),
        extension: Text::default(),
        n_uid: 0,
        n_gid: 0,
        n_muid: 0,
    }
}

fn mode(attr: &Attr) -> u32 {
    permissions(attr)
        | match attr.id.shape {
            Shape::Dir => dm::DIR,
            Shape::File => 0,
            Shape::Link => SYMLINK,
        }
}

/// Returns the permission bits that say what can be done with a node; they
/// are never enforced.
pub fn permissions(attr: &Attr) -> u32 {
    let write = if attr.writable { 0o200 } else { 0 };
    match attr.id.shape {
        Shape::Link => 0o777,
        Shape::Dir => 0o555 | write,
        Shape::File if attr.exec => 0o555 | write,
        Shape::File => 0o444 | write,
    }
}

fn time(seconds: i64) -> u32 {
    seconds.clamp(0, u32::MAX.into()) as u32
}
