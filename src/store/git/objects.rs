//! Finds objects, loose and packed, here and in alternates, and keeps them alive.
//!
//! What stays true:
//!
//! - What packs hold is read by `unpack`; all else goes through gix's object
//!   database, by handles that never look for new packs by themselves. Both are
//!   kept in a pool; each belongs to a [`View`].
//! - A miss looks at the directories' times, and at their names where the times
//!   are too fresh to be trusted. Where they changed, a new view replaces the
//!   old one with all its handles, and the look-up is repeated. So a miss costs
//!   a few stat(2), and no handle or delta cache outlives the packs it was made
//!   for.
//! - Replacement refs are ignored: an id means its content.
//!
//! Locks: `state` is held for moments only, and never with `refreshing` wanted;
//! `refreshing` is held while directories are listed.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gix::objs::{Exists as _, FindHeader as _};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{Node, ObjectKind, ObjectStream, hash_object};
use crate::store::{Error, Result};

use super::stream;
use super::unpack::{Pack, Unpacker};
use super::view::View;

type Handle = gix::odb::HandleArc;

/// Blobs beyond this are streamed where they can be.
const STREAM_FROM: u64 = 8 << 20;
/// Handles kept for the next reader.
const IDLE_HANDLES: usize = 8;
/// Packs there is room for at least, and at most (gix's limit).
const ROOM: usize = 64;
const MOST: u16 = (1 << 15) - 1;

/// Which of Git's indexes are to be used.
#[derive(Clone, Copy)]
pub(super) struct Indexes {
    /// `core.multiPackIndex`
    pub multi_pack: bool,
    /// `core.commitGraph`
    pub commit_graph: bool,
}

pub(super) struct Objects {
    hash: HashKind,
    indexes: Indexes,
    /// Our own `objects`; alternates may change, this does not.
    dir: PathBuf,
    state: Mutex<State>,
    refreshing: Mutex<()>,
}

struct State {
    view: Arc<View>,
    /// Opened for the first that needs it: most never do.
    store: Option<Arc<gix::odb::Store>>,
    /// Packs that `store` has room for.
    room: usize,
    /// All of `view` and `store`.
    idle: Vec<Handle>,
    /// All of `view`.
    idle_unpackers: Vec<Unpacker>,
}

/// Where an object is, or may be.
enum Place<'a> {
    /// In a pack of this number, from an offset on.
    Packed(&'a Pack, u32, u64),
    Loose(&'a Path),
}

impl Objects {
    pub fn new(dir: PathBuf, hash: HashKind, indexes: Indexes) -> Result<Self> {
        let view = Arc::new(View::now(&dir, 0)?);
        let room = room(view.indexes.len());
        Ok(Self {
            hash,
            indexes,
            state: Mutex::new(State {
                view,
                store: None,
                room,
                idle: Vec::new(),
                idle_unpackers: Vec::new(),
            }),
            dir,
            refreshing: Mutex::new(()),
        })
    }

    pub fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        if let Some(kind) = self.find_quickly(id, buffer)? {
            return Ok(Some(kind));
        }
        buffer.clear();
        let found = self.look_up(id, |handle, id| {
            let found = gix_pack::Find::try_find(handle, id, buffer)?;
            Ok(found.map(|(data, place)| (kind(data.kind), place.is_none())))
        })?;
        match found {
            // gix does not look at a loose file's checksum.
            Some((kind, true)) if hash_object(self.hash, kind, buffer)? != *id => {
                Err(Error::Corrupt {
                    id: id.to_string(),
                    why: "its content is another object's".into(),
                })
            }
            found => Ok(found.map(|(kind, _)| kind)),
        }
    }

    /// Reads an object from a pack, or a loose one: what can be read at all.
    fn find_quickly(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        self.quickly(id, |unpacker, place| match place {
            Place::Packed(pack, number, offset) => {
                unpacker.unpack(pack, number, offset, buffer).map(kind)
            }
            Place::Loose(path) => {
                let kind = unpacker.loose(path, buffer)?;
                let whole = hash_object(self.hash, kind, buffer).is_ok_and(|it| it == *id);
                whole.then_some(kind)
            }
        })
    }

    pub fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>> {
        let quick = self.quickly(id, |unpacker, place| match place {
            Place::Packed(pack, _, offset) => {
                let (found, size) = unpacker.header(pack, offset)?;
                Some((kind(found), size))
            }
            Place::Loose(path) => unpacker.loose_header(path),
        })?;
        if quick.is_some() {
            return Ok(quick);
        }
        self.look_up(id, |handle, id| {
            Ok(handle
                .try_header(id)?
                .map(|header| (kind(header.kind), header.size)))
        })
    }

    /// Reads where an object is, or may be.
    fn quickly<T>(
        &self,
        id: &ObjectId,
        mut read: impl FnMut(&mut Unpacker, Place<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        let found = self.as_last_seen(id, &mut read);
        // A collector may just have moved it from one place to another. gix,
        // asked for the first time, would find it there and the view stay old.
        if found.is_none() && self.refresh(None)? {
            return Ok(self.as_last_seen(id, &mut read));
        }
        Ok(found)
    }

    /// As [`Objects::quickly`], as the disk was last seen.
    fn as_last_seen<T>(
        &self,
        id: &ObjectId,
        read: &mut impl FnMut(&mut Unpacker, Place<'_>) -> Option<T>,
    ) -> Option<T> {
        if id.hash_kind() != self.hash {
            return None;
        }
        let (view, idle) = {
            let mut state = self.lock();
            (state.view.clone(), state.idle_unpackers.pop())
        };
        let mut unpacker = idle.unwrap_or_default();
        let found = match view.find(id, self.hash) {
            Some((number, offset)) => u32::try_from(number).ok().and_then(|number| {
                let pack = &view.packs(self.hash)[number as usize];
                read(&mut unpacker, Place::Packed(pack, number, offset))
            }),
            None => view.places.iter().find_map(|place| {
                let path = loose_path(place, id);
                read(&mut unpacker, Place::Loose(&path))
            }),
        };
        let mut state = self.lock();
        if state.view.number == view.number && state.idle_unpackers.len() < IDLE_HANDLES {
            state.idle_unpackers.push(unpacker);
        }
        found
    }

    pub fn open(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>> {
        let view = self.view();
        if id.hash_kind() == self.hash && view.find(id, self.hash).is_none() {
            for place in &view.places {
                let path = loose_path(place, id);
                return Ok(Some(match stream::loose(&path, *id)? {
                    None => continue,
                    Some((_, size, stream)) if size > STREAM_FROM => Box::new(stream),
                    // It is known to be whole before any of it is used.
                    Some((.., stream)) => Box::new(Cursor::new(stream.whole(&path)?)),
                }));
            }
        }
        match self.header(id)? {
            None => return Ok(None),
            Some((_, size)) if size > STREAM_FROM => {
                if let Some(stream) = self.open_stream(id)? {
                    return Ok(Some(stream));
                }
            }
            Some(_) => (),
        }
        let mut buffer = Vec::new();
        Ok(self
            .find(id, &mut buffer)?
            .map(|_| Box::new(Cursor::new(buffer)) as Box<dyn ObjectStream>))
    }

    /// Opens a large object, unless it is a delta or a collector is just moving it.
    fn open_stream(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>> {
        let view = self.view();
        for place in &view.places {
            if let Some((_, _, stream)) = stream::loose(&loose_path(place, id), *id)? {
                return Ok(Some(Box::new(stream)));
            }
        }
        for pack in view.packs(self.hash) {
            let Some(offset) = pack.offset(id) else {
                continue;
            };
            match stream::packed(&pack.path, offset, *id) {
                Ok(Some((_, _, stream))) => return Ok(Some(Box::new(stream))),
                Ok(None) => (),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Tells whether a commit's parents are not to be looked for.
    pub fn is_shallow(&self, id: &ObjectId) -> bool {
        self.lock().view.shallow.contains(id)
    }

    /// Returns what a commit-graph says of a commit.
    pub fn indexed(&self, id: &ObjectId) -> Option<Node> {
        if id.hash_kind() != self.hash || !self.indexes.commit_graph {
            return None;
        }
        self.view().indexed(id, self.hash)
    }

    pub fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>> {
        if hex.len() > self.hash.id_len() * 2 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        self.refresh(None)?;
        let what = || format!("cannot look for objects that begin with {hex}");
        let mut found = HashSet::new();
        if let Ok(prefix) = gix::hash::Prefix::from_hex(hex) {
            // gix pads the prefix to SHA-1's length unless told of a longer one.
            let padded = format!("{hex:0<width$}", width = self.hash.id_len() * 2);
            let id = gix::ObjectId::from_hex(padded.as_bytes()).map_err(Error::failed(what()))?;
            let prefix =
                gix::hash::Prefix::new(&id, prefix.hex_len()).map_err(Error::failed(what()))?;
            let (_, result) =
                self.with_handle(|handle| handle.lookup_prefix(prefix, Some(&mut found)))?;
            result.map_err(Error::failed(what()))?;
        } else {
            // Shorter than gix allows: look at all.
            let hex = hex.to_ascii_lowercase();
            for id in self.store()?.iter().map_err(Error::failed(what()))? {
                let id = id.map_err(Error::failed(what()))?;
                if id.to_string().starts_with(&hex) {
                    found.insert(id);
                    if found.len() >= limit {
                        break;
                    }
                }
            }
        }
        let mut ids: Vec<_> = found
            .iter()
            .filter_map(|id| ObjectId::from_bytes(id.as_slice()))
            .collect();
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// Says whether an object is here to stay, and makes a collector count its
    /// age anew. Does not look for packs that came since the last look.
    pub fn keep_alive(&self, id: &ObjectId) -> bool {
        let view = self.view();
        view.places
            .iter()
            .any(|place| touch(&loose_path(place, id)))
            || view
                .packs(self.hash)
                .iter()
                .any(|pack| pack.offset(id).is_some() && keep_pack_alive(pack))
    }

    /// As [`Objects::keep_alive`], with a look for new packs before it says no.
    pub fn keep_alive_thorough(&self, id: &ObjectId) -> Result<bool> {
        Ok(self.keep_alive(id) || (self.refresh(None)? && self.keep_alive(id)))
    }

    /// Notices packs that were just written.
    pub fn expect_change(&self) -> Result<()> {
        self.renew().map(|_| ())
    }

    fn view(&self) -> Arc<View> {
        self.lock().view.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up<T>(
        &self,
        id: &ObjectId,
        mut look: impl FnMut(&Handle, &gix::oid) -> gix::Result<Option<T>>,
    ) -> Result<Option<T>> {
        if id.hash_kind() != self.hash {
            return Ok(None);
        }
        let oid = gix::oid::from_bytes_unchecked(id.as_bytes());
        let (view, mut result) = self.with_handle(|handle| look(handle, oid))?;
        // A collector may just have moved it from one place to another.
        if !matches!(result, Ok(Some(_))) && self.refresh(Some(view))? {
            (_, result) = self.with_handle(|handle| look(handle, oid))?;
        }
        result.map_err(|error| unreadable(id, error))
    }

    /// Runs `work` with a handle of the pool; also returns the number of its view.
    fn with_handle<R>(&self, work: impl FnOnce(&Handle) -> R) -> Result<(u64, R)> {
        let (number, idle) = {
            let mut state = self.lock();
            (state.view.number, state.idle.pop())
        };
        let handle = match idle {
            Some(handle) => handle,
            None => new_handle(&self.store()?),
        };
        let result = work(&handle);
        let mut state = self.lock();
        if state.view.number == number && state.idle.len() < IDLE_HANDLES {
            state.idle.push(handle);
        }
        drop(state);
        Ok((number, result))
    }

    /// Returns gix's object database, opened if it is not yet.
    fn store(&self) -> Result<Arc<gix::odb::Store>> {
        let (store, room) = {
            let state = self.lock();
            (state.store.clone(), state.room)
        };
        if let Some(store) = store {
            return Ok(store);
        }
        let opened = open_store(&self.dir, self.hash, self.indexes, room)?;
        let mut state = self.lock();
        if state.room != room {
            // There are more packs by now: that of whoever saw them has room.
            return Ok(opened);
        }
        Ok(state.store.get_or_insert(opened).clone())
    }

    /// Makes a new view where the disk may differ from the one numbered `than`
    /// (by default the current one); says whether the current one is newer now.
    fn refresh(&self, than: Option<u64>) -> Result<bool> {
        let view = self.view();
        if than.is_some_and(|than| view.number > than) {
            return Ok(true);
        }
        match view.is_current() {
            true => Ok(false),
            false => self.renew(),
        }
    }

    fn renew(&self) -> Result<bool> {
        let before = self.view().number;
        let _one = self
            .refreshing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.view().number > before + 1 {
            // Another one began after we were asked.
            return Ok(true);
        }
        let view = View::now(&self.dir, self.view().number + 1)?;
        let (mut store, mut room) = {
            let state = self.lock();
            (state.store.clone(), state.room)
        };
        let packs = view.indexes.len();
        if packs > room / 4 * 3 && room < usize::from(MOST) {
            room = self::room(packs);
            store = None;
        } else if let Some(store) = &store {
            // A miss of a handle that may makes the shared store look at the disk.
            let handle = store.to_handle_arc();
            handle.exists(&gix::ObjectId::null(git_kind(self.hash)));
        }
        let old = {
            let mut state = self.lock();
            let next = State {
                view: Arc::new(view),
                store,
                room,
                idle: Vec::new(),
                idle_unpackers: Vec::new(),
            };
            std::mem::replace(&mut *state, next)
        };
        drop(old);
        Ok(true)
    }
}

/// Opens an object database with room for so many packs.
fn open_store(
    dir: &Path,
    hash: HashKind,
    indexes: Indexes,
    room: usize,
) -> Result<Arc<gix::odb::Store>> {
    let options = gix::odb::store::init::Options {
        slots: gix::odb::store::init::Slots::Given(u16::try_from(room).unwrap_or(MOST)),
        use_multi_pack_index: indexes.multi_pack,
        ..Default::default()
    };
    gix::odb::Store::at_opts(dir.to_owned(), git_kind(hash), &mut [].into_iter(), options)
        .map(Arc::new)
        .map_err(Error::io(format!("cannot open {}", dir.display())))
}

pub(super) fn git_kind(hash: HashKind) -> gix::hash::Kind {
    match hash {
        HashKind::Sha1 => gix::hash::Kind::Sha1,
        HashKind::Sha256 => gix::hash::Kind::Sha256,
    }
}

fn new_handle(store: &Arc<gix::odb::Store>) -> Handle {
    let mut handle = store.to_cache_arc();
    handle.refresh_never();
    handle.ignore_replacements = true;
    handle
}

/// Returns how many packs to make room for where there are so many: gix cannot
/// make more later, and each costs time when the store is opened and closed.
fn room(packs: usize) -> usize {
    (packs * 2).clamp(ROOM, usize::from(MOST))
}

/// Makes a collector count the age of what is in a pack anew. Cruft packs do not
/// count: they hold what nothing reaches, and git prunes it by times kept
/// beside. A pack may become one without a new name.
fn keep_pack_alive(pack: &Pack) -> bool {
    !pack.path.with_extension("mtimes").exists() && touch(&pack.path)
}

/// The path of a loose object below an object directory.
pub(super) fn loose_path(dir: &Path, id: &ObjectId) -> PathBuf {
    let hex = id.to_hex();
    let mut path = PathBuf::with_capacity(dir.as_os_str().len() + hex.len() + 2);
    path.push(dir);
    path.push(&hex[..2]);
    path.push(&hex[2..]);
    path
}

/// Sets a file's time to now; `false` where it is missing or not ours to change.
fn touch(path: &Path) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).is_ok()
}

fn kind(kind: gix::objs::Kind) -> ObjectKind {
    match kind {
        gix::objs::Kind::Blob => ObjectKind::Blob,
        gix::objs::Kind::Tree => ObjectKind::Tree,
        gix::objs::Kind::Commit => ObjectKind::Commit,
        gix::objs::Kind::Tag => ObjectKind::Tag,
    }
}

/// Tells damage from a disk or a memory that fails.
fn unreadable(id: &ObjectId, error: gix::Error) -> Error {
    if error.is_resource_exhausted() && !error.is_corrupted() {
        return Error::Failed {
            what: format!("cannot hold object {id} in memory"),
            source: error.into(),
        };
    }
    if let Some(io) = error.downcast_any_ref::<std::io::Error>()
        && io.raw_os_error().is_some()
    {
        let source = std::io::Error::from_raw_os_error(io.raw_os_error().unwrap_or_default());
        return Error::Io {
            what: format!("cannot read object {id}"),
            source,
        };
    }
    Error::Corrupt {
        id: id.to_string(),
        why: error.probable_cause().to_string(),
    }
}
