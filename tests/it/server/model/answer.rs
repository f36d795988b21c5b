//! What the model answers to each request.

use std::collections::BTreeMap;

use datakit::ninep::errno::*;
use datakit::ninep::message::{Request, flags};
use rs9p::SetAttrMask;

use super::{Body, Expected, Fid, Model, Opened, ROOT, error, missing};

impl Model {
    pub(super) fn answer(
        &mut self,
        tag: u16,
        request: &Request,
    ) -> Result<Option<Expected>, Expected> {
        let answer = match request {
            Request::Read { fid, offset, count } => {
                return self.read(tag, *fid, *offset, *count);
            }
            Request::Attach { fid, aname, .. } => {
                self.vacant(*fid)?;
                let mut root = ROOT;
                for name in aname.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
                    let found = self.entry(root, name);
                    root = found.map_err(|_| missing())?;
                }
                let state = Fid {
                    node: root,
                    root,
                    opened: None,
                };
                self.fids.insert(*fid, state);
                Expected::Qids(vec![root])
            }
            Request::Walk { fid, newfid, names } => {
                let from = self.fid(*fid)?.clone();
                if newfid != fid {
                    self.vacant(*newfid)?;
                }
                let (mut node, mut qids) = (from.node, Vec::new());
                for name in names.iter() {
                    if name == b"." {
                        return Err(error(EINVAL, "'.' is not valid in 9p"));
                    }
                    if !self.is_dir(node) {
                        return Err(error(ENOTDIR, "Can't walk from a file"));
                    }
                    node = match name {
                        b".." if node == from.root => node,
                        b".." => self.above(node).unwrap_or(node),
                        name => self.entry(node, name)?,
                    };
                    qids.push(node);
                }
                let opened = None;
                self.fids.insert(
                    *newfid,
                    Fid {
                        node,
                        opened,
                        ..from
                    },
                );
                Expected::Qids(qids)
            }
            Request::Open { fid, mode } => {
                self.closed(*fid, "Already open")?;
                if mode & 0x0c != 0 {
                    return Err(error(EINVAL, "Invalid argument"));
                }
                self.opened(*fid, mode & 16 != 0, mode & 0x80 != 0)
            }
            Request::Lopen { fid, flags } => {
                let node = self.closed(*fid, "Already open")?;
                if flags & flags::DIRECTORY != 0 && !self.is_dir(node) {
                    return Err(error(ENOTDIR, ""));
                }
                let append = flags & flags::APPEND != 0;
                self.opened(*fid, flags & flags::TRUNC != 0, append)
            }
            Request::Create {
                fid,
                name,
                perm,
                mode,
                ..
            } => {
                let at = self.closed(*fid, "Can't create in an opened fid")?;
                if !self.is_dir(at) {
                    let name = self.nodes[at].name.escape_ascii();
                    return Err(error(ENOTDIR, format!("\"{name}\" is not a directory")));
                }
                let body = match perm & 0x8000_0000 {
                    0 => Body::File(Vec::new(), perm & 0o100 != 0),
                    _ => Body::Dir(BTreeMap::new()),
                };
                let node = self.create(at, name, body, false)?;
                self.replace(*fid, node);
                self.opened(*fid, mode & 16 != 0, mode & 0x80 != 0)
            }
            Request::Lcreate {
                fid,
                name,
                flags,
                mode,
                ..
            } => {
                let at = self.closed(*fid, "Can't create in an opened fid")?;
                let exclusive = flags & flags::EXCL != 0;
                let new = exclusive || flags & flags::TRUNC == 0;
                let body = Body::File(Vec::new(), mode & 0o100 != 0);
                let node = match self.create(at, name, body, new) {
                    Err(Expected::Error(EEXIST, _)) if !exclusive => self.entry(at, name)?,
                    created => created?,
                };
                self.replace(*fid, node);
                self.opened(*fid, false, flags & flags::APPEND != 0)
            }
            Request::Mkdir { dfid, name, .. } => {
                let at = self.fid(*dfid)?.node;
                let made = self.create(at, name, Body::Dir(BTreeMap::new()), true)?;
                Expected::Qids(vec![made])
            }
            Request::Symlink {
                fid, name, target, ..
            } => {
                let at = self.fid(*fid)?.node;
                let made = self.create(at, name, Body::Link(target.to_vec()), true)?;
                Expected::Qids(vec![made])
            }
            Request::Write { fid, offset, data } => {
                let state = self.fid(*fid)?.clone();
                match state.opened {
                    None => return Err(error(EBADF, "Can't write to unopened fid")),
                    Some(Opened::Dir { .. }) => {
                        return Err(error(EISDIR, "Can't write to directories"));
                    }
                    Some(Opened::Attributes) => return Err(error(EOPNOTSUPP, "")),
                    Some(Opened::File { append, .. }) => {
                        let content = match &mut self.nodes[state.node].body {
                            Body::File(content, _) => content,
                            Body::Command => return Ok(Some(Expected::Done)),
                            _ => return Err(error(EROFS, "Read-only file")),
                        };
                        let start = if append {
                            content.len()
                        } else {
                            *offset as usize
                        };
                        let end = start + data.len();
                        if content.len() < end {
                            content.resize(end, 0);
                        }
                        content[start..end].copy_from_slice(data);
                        Expected::Done
                    }
                }
            }
            Request::Clunk { fid } => {
                self.fid(*fid)?;
                self.fids.remove(fid);
                Expected::Done
            }
            Request::Remove { fid } => {
                let node = self.fid(*fid)?.node;
                self.fids.remove(fid);
                self.remove(node, true)?
            }
            Request::Stat { fid } | Request::Getattr { fid, .. } => self.attr(self.fid(*fid)?.node),
            Request::Wstat { fid, stat } => {
                let node = self.fid(*fid)?.node;
                if !stat.name.is_empty() {
                    let into = self.above(node);
                    let into = into.ok_or_else(|| error(EROFS, "Can't rename /"))?;
                    self.rename(node, into, &stat.name)?
                } else if stat.length != u64::MAX {
                    match (self.is_dir(node), stat.length) {
                        (true, 0) => Expected::Done,
                        (true, _) => {
                            return Err(error(EISDIR, "Can't set length of a directory"));
                        }
                        (false, length) => self.set(node, Some(length), None)?,
                    }
                } else {
                    Expected::Done
                }
            }
            Request::Setattr { fid, valid, attr } => {
                let node = self.fid(*fid)?.node;
                let size = valid.contains(SetAttrMask::SIZE).then_some(attr.size);
                if size.is_some() && self.is_dir(node) {
                    return Err(error(EISDIR, ""));
                }
                let file = !self.is_dir(node) && !matches!(self.nodes[node].body, Body::Link(_));
                let mode = valid.contains(SetAttrMask::MODE) && file;
                let exec = mode.then_some(attr.mode & 0o100 != 0);
                match (size, exec) {
                    (None, None) => Expected::Done,
                    _ => self.set(node, size, exec)?,
                }
            }
            Request::Rename { fid, dfid, name } => {
                let node = self.fid(*fid)?.node;
                let into = self.fid(*dfid)?.node;
                self.rename(node, into, name)?
            }
            Request::Renameat {
                olddir,
                oldname,
                newdir,
                newname,
            } => {
                let from = self.fid(*olddir)?.node;
                let into = self.fid(*newdir)?.node;
                let node = self.entry(from, oldname)?;
                self.rename(node, into, newname)?
            }
            Request::Unlinkat { dfid, name, flags } => {
                let at = self.fid(*dfid)?.node;
                let node = self.entry(at, name)?;
                match (self.is_dir(node), flags & flags::REMOVEDIR != 0) {
                    (true, false) => return Err(error(EISDIR, "")),
                    (false, true) => return Err(error(ENOTDIR, "")),
                    _ => self.remove(node, false)?,
                }
            }
            Request::Readlink { fid } => match &self.nodes[self.fid(*fid)?.node].body {
                Body::Link(target) => Expected::Content(target.clone()),
                _ => return Err(error(EINVAL, "")),
            },
            Request::Readdir { fid, offset, .. } => match &self.fid(*fid)?.opened {
                None => return Err(error(EBADF, "")),
                Some(Opened::Dir { .. }) => {
                    // Read from the start, it is listed anew, except the
                    // first time: then it is as it was opened.
                    assert_eq!(*offset, 0);
                    self.listing(*fid)
                }
                Some(_) => return Err(error(ENOTDIR, "")),
            },
            Request::Xattrwalk { fid, newfid, name } => {
                let state = self.fid(*fid)?.clone();
                if !name.is_empty() {
                    return Err(error(ENODATA, ""));
                }
                self.vacant(*newfid)?;
                let opened = Some(Opened::Attributes);
                self.fids.insert(*newfid, Fid { opened, ..state });
                Expected::Done
            }
            other => panic!("{other:?} is not in the model"),
        };
        Ok(Some(answer))
    }
}
