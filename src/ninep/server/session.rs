//! What a client does between a Tversion and the next: its fids, and what each
//! request does with them.
//!
//! A request goes through three steps. It is checked against the fids
//! ([`Session::begin`]); it asks the tree, which may wait and knows nothing of
//! fids ([`Step::Work`]); and what came of it is put among the fids
//! ([`Session::finish`]). Only the middle one can be cancelled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::fault::Fault;
use super::fid::{Directory, Fid, Fids, Opened};
use super::lock::Locks;
use super::order::{Claims, Use};
use crate::namespace::node::{self, Call, Handle, Id, Node, Open, Principal, Shape};
use crate::ninep::errno::*;
use crate::ninep::message::{Dialect, Reply, Request};
use crate::ninep::wire::Text;
use rs9p::{QId, QIdType};

/// Bytes of an Rread or Rreaddir that are not content.
pub const READ_HEADER: u32 = 11;

/// The state of one session.
pub struct Session {
    pub tree: Arc<dyn node::Session>,
    pub dialect: Dialect,
    pub msize: u32,
    pub fids: Fids,
    pub locks: Locks,
    /// The connection's number, which owns the locks.
    pub connection: u64,
    pub peer: Arc<str>,
    /// Calls that are about no fid yet.
    pub nobody: Arc<Principal>,
}

/// What a request has come to.
// It lives for a moment, and a box would cost more than the copy.
#[allow(clippy::large_enum_variant)]
pub enum Step {
    Done(Reply),
    Work(Work),
}

/// A request that asks the tree.
pub type Work = Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>>;

/// What a request's work came to.
pub enum Outcome {
    Reply(Reply),
    /// A fid is made, or replaced.
    Made(u32, Fid, Reply),
    /// A fid is open, perhaps on another node than before.
    Opened(u32, Option<Arc<dyn Node>>, Opened, Reply),
}

impl Step {
    pub fn work(future: impl Future<Output = Result<Outcome, Fault>> + Send + 'static) -> Self {
        Self::Work(Box::pin(future))
    }
}

impl Session {
    /// Returns who asks.
    pub fn caller(&self, claims: &Claims) -> &Arc<Principal> {
        claims[0]
            .and_then(|(fid, _)| self.fids.get(fid).ok())
            .map_or(&self.nobody, |fid| &fid.who)
    }

    /// Tells whether a read of this fid may wait for something to happen.
    pub fn waits(&self, fid: u32) -> bool {
        match self.fids.get(fid).ok().and_then(|fid| fid.opened.as_ref()) {
            Some(Opened::File(handle)) => handle.waits(),
            _ => false,
        }
    }

    /// Checks a request, and answers it if that needs nobody else.
    pub fn begin(&mut self, call: &Call, request: Request) -> Result<Step, Fault> {
        let call = call.clone();
        match request {
            Request::Auth { .. } => Err(match self.dialect.is_linux() {
                // What clients that could do without expect.
                true => Fault::new(ENOENT, rs9p::errstr::ENOENT),
                false => Fault::new(ENOSYS, rs9p::errstr::ENOSYS),
            }),
            Request::Attach {
                fid,
                uname,
                aname,
                n_uname,
                ..
            } => self.attach(fid, &uname, &aname, n_uname),
            Request::Walk { fid, newfid, names } => self.walk(call, fid, newfid, names),
            Request::Open { fid, mode } => self.open(call, fid, mode),
            Request::Create {
                fid,
                name,
                perm,
                mode,
                extension,
            } => self.create(call, fid, &name, perm, mode, extension),
            Request::Read { fid, offset, count } => self.read(call, fid, offset, count),
            Request::Write { fid, offset, data } => self.write(call, fid, offset, data.0),
            Request::Clunk { fid } => self.clunk(call, fid),
            Request::Remove { fid } => self.remove(call, fid),
            Request::Stat { fid } => self.stat(call, fid),
            Request::Wstat { fid, stat } => self.wstat(call, fid, stat),
            other => self.begin_linux(call, other),
        }
    }

    /// Puts among the fids what a request came to.
    pub fn finish(&mut self, outcome: Outcome) -> Reply {
        match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Made(number, fid, reply) => {
                self.fids.insert(number, fid);
                reply
            }
            Outcome::Opened(number, node, opened, reply) => {
                if let Some(fid) = self.fids.get_mut(number) {
                    fid.node = node.unwrap_or_else(|| fid.node.clone());
                    fid.opened = Some(opened);
                }
                reply
            }
        }
    }

    fn attach(
        &mut self,
        fid: u32,
        uname: &[u8],
        aname: &[u8],
        n_uname: Option<u32>,
    ) -> Result<Step, Fault> {
        self.fids.vacant(fid)?;
        let named = || std::str::from_utf8(uname).ok()?.parse().ok();
        let who = Arc::new(Principal {
            uname: uname.to_vec(),
            uid: n_uname.filter(|uid| *uid != rs9p::NONUNAME).or_else(named),
            peer: self.peer.to_string(),
        });
        let (tree, call) = (self.tree.clone(), Call::new(who.clone()));
        let path = aname.to_vec();
        Ok(Step::work(async move {
            let root = tree.attach(&call, &path).await?;
            let qid = qid(root.id());
            let state = Fid {
                node: root.clone(),
                root,
                who,
                opened: None,
            };
            Ok(Outcome::Made(fid, state, Reply::Attach { qid }))
        }))
    }

    fn clunk(&mut self, call: Call, fid: u32) -> Result<Step, Fault> {
        let state = self.forget(fid)?;
        let handle = match state.opened {
            Some(Opened::File(handle)) => handle,
            Some(Opened::Directory(directory)) => directory.handle.clone(),
            Some(Opened::Attributes) | None => return Ok(Step::Done(Reply::Clunk {})),
        };
        // The fid is gone, whatever the client thinks of later.
        call.pass();
        Ok(Step::work(async move {
            handle.close(&call).await?;
            Ok(Outcome::Reply(Reply::Clunk {}))
        }))
    }

    fn remove(&mut self, call: Call, fid: u32) -> Result<Step, Fault> {
        let state = self.forget(fid)?;
        call.pass();
        Ok(Step::work(async move {
            state.node.remove(&call, true).await?;
            Ok(Outcome::Reply(Reply::Remove {}))
        }))
    }

    fn forget(&mut self, fid: u32) -> Result<Fid, Fault> {
        let state = self.fids.remove(fid)?;
        if self.dialect.is_linux() {
            self.locks
                .release(self.connection, state.node.id().path, fid);
        }
        Ok(state)
    }

    /// Bytes a read may answer at most.
    pub fn room(&self, count: u32) -> u32 {
        count.min(self.msize - READ_HEADER)
    }

    /// The largest read or write that fits.
    pub fn iounit(&self) -> u32 {
        self.msize - rs9p::IOHDRSZ
    }

    /// Refuses what could not be a place in a file.
    pub fn offset(&self, offset: u64) -> Result<(), Fault> {
        match offset.cast_signed() {
            0.. => Ok(()),
            negative => Err(Fault::new(EINVAL, format!("Negative offset {negative}"))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.dialect.is_linux() {
            self.locks.leave(self.connection);
        }
    }
}

/// Opens a node; of a directory the listing is taken.
pub async fn open(call: &Call, node: &Arc<dyn Node>, how: Open) -> Result<Opened, Fault> {
    if node.id().shape != Shape::Dir {
        return Ok(Opened::File(node.open(call, how).await?));
    }
    let how = Open {
        truncate: false,
        append: false,
        ..how
    };
    let handle: Arc<dyn Handle> = node.open(call, how).await?;
    let listing = handle.list(call).await?;
    Ok(Opened::Directory(Arc::new(Directory::new(handle, listing))))
}

/// Returns an identity as the wire has it.
pub fn qid(id: Id) -> QId {
    QId {
        typ: match id.shape {
            Shape::Dir => QIdType::DIR,
            Shape::File => QIdType::FILE,
            Shape::Link => QIdType::SYMLINK,
        },
        version: id.version,
        path: id.path,
    }
}

/// Returns the fids a request is about; the first is who asks.
pub fn claims(request: &Request) -> Claims {
    use Request as R;
    let (one, two) = match *request {
        R::Version { .. } | R::Auth { .. } | R::Flush { .. } => return [None, None],
        R::Walk { fid, newfid, .. } if fid == newfid => ((fid, Use::Own), None),
        R::Walk { fid, newfid, .. } | R::Xattrwalk { fid, newfid, .. } => {
            ((fid, Use::Look), Some((newfid, Use::Own)))
        }
        R::Attach { fid, .. }
        | R::Open { fid, .. }
        | R::Create { fid, .. }
        | R::Lopen { fid, .. }
        | R::Lcreate { fid, .. }
        | R::Xattrcreate { fid, .. }
        | R::Clunk { fid }
        | R::Remove { fid } => ((fid, Use::Own), None),
        R::Read { fid, .. } | R::Readdir { fid, .. } => ((fid, Use::Read), None),
        R::Write { fid, .. } | R::Wstat { fid, .. } | R::Setattr { fid, .. } => {
            ((fid, Use::Write), None)
        }
        R::Fsync { fid, .. } => ((fid, Use::Write), None),
        R::Rename { fid, dfid, .. } => ((fid, Use::Write), Some((dfid, Use::Look))),
        R::Stat { fid }
        | R::Statfs { fid }
        | R::Readlink { fid }
        | R::Getattr { fid, .. }
        | R::Symlink { fid, .. }
        | R::Lock { fid, .. }
        | R::Getlock { fid, .. } => ((fid, Use::Look), None),
        R::Mknod { dfid, .. } | R::Mkdir { dfid, .. } | R::Unlinkat { dfid, .. } => {
            ((dfid, Use::Look), None)
        }
        R::Link { dfid, fid, .. } => ((dfid, Use::Look), Some((fid, Use::Look))),
        R::Renameat { olddir, newdir, .. } => ((olddir, Use::Look), Some((newdir, Use::Look))),
    };
    [Some(one), two]
}

/// Returns a name for dialects whose strings are UTF-8: other bytes are
/// percent-encoded.
pub fn shown(name: &[u8]) -> Text {
    if std::str::from_utf8(name).is_ok() {
        return name.into();
    }
    let mut shown = Vec::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        shown.extend_from_slice(chunk.valid().as_bytes());
        for byte in chunk.invalid() {
            shown.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    shown.into()
}

/// Returns the name that [`shown`] made this of, if it can have.
pub fn meant(name: &[u8]) -> Option<Vec<u8>> {
    if !name.contains(&b'%') {
        return None;
    }
    let mut meant = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| *first == b'%');
        let byte = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|byte| *byte >= 0x80);
        match byte {
            Some(byte) => {
                meant.push(byte);
                rest = &tail[2..];
            }
            None => {
                meant.push(*first);
                rest = tail;
            }
        }
    }
    (*shown(&meant) == *name && meant != name).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_escaped_and_found_again() {
        for (name, text) in [
            (&b"plain"[..], "plain"),
            (b"100%", "100%"),
            ("\u{e9}".as_bytes(), "\u{e9}"),
            (b"a\xffb\xc3", "a%FFb%C3"),
        ] {
            assert_eq!(&*shown(name), text.as_bytes());
            let back = meant(text.as_bytes());
            assert_eq!(back.as_deref().unwrap_or(text.as_bytes()), name);
        }
        assert_eq!(meant(b"%41"), None, "that is a name of its own");
        assert_eq!(meant(b"%c3%a9"), None, "that would be shown as it is");
    }
}
