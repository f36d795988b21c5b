//! Writes loose objects: a batch of small ones, or one blob from a stream.
//!
//! - A name shows under `objects` only after its content is durable, and a call
//!   returns only after the name is, unless it returns what is to be synced.
//! - A file that is not in place yet is called `tmp_obj_…`: `git gc` removes
//!   what a dead process left.
//! - The number of rounds of syncs does not grow with the number of objects.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{Object, ObjectHasher, ObjectKind, hash_object};
use crate::store::{Error, Result, content};
use gix::zlib::stream::deflate::{self, Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use zlib_rs::adler32::adler32;

use super::durable::{Keeping, Written};
use super::objects::loose_path;
use super::temp::Temp;

pub(super) const TEMP_PREFIX: &str = "tmp_obj_dk";
/// Content of unknown length is held in memory up to this.
pub(super) const SPOOL_FROM: usize = 1 << 20;

/// Where nothing else is asked for: what zlib-rs calls 2 is as fast and good as
/// zlib's 1, its own 1 saves a third of the time and half of the compression.
pub(super) fn fast() -> Compression {
    Compression::new(2).unwrap_or(Compression::BEST_SPEED)
}

/// What Git compresses loose objects with unless told.
const DEFAULT_LEVEL: Compression = Compression::BEST_SPEED;
/// So much of a disk any file takes. Compressing what fits into it gains nothing,
/// and takes longer than all else; a pack is compressed anew.
const BLOCK: usize = 4096;
/// What a zlib stream adds to a stored block: header, length twice, checksum.
const STORED_FRAME: usize = 2 + 5 + 4;

/// Where and how loose objects are written.
pub(super) struct Loose {
    /// `objects`
    pub dir: PathBuf,
    pub hash: HashKind,
    pub keeping: Keeping,
    /// `None`: nobody said.
    pub level: Option<Compression>,
}

/// Content that came as a stream.
pub(super) enum Received {
    Small(Object),
    /// Its length is known now; the file is at its beginning.
    Spooled(Temp, u64),
}

/// A blob that came as a stream and is not in place yet.
pub(super) enum Blob {
    Small(Object),
    /// It is complete in this file, not synced.
    Large(ObjectId, Temp),
}

impl Loose {
    /// Writes objects that are not there yet.
    pub fn write<'a>(&self, objects: impl IntoIterator<Item = &'a Object>) -> Result<()> {
        let dirs = self.write_content(objects, &[])?;
        self.keeping.sync_dirs(&dirs)
    }

    /// Writes objects that are not there yet, durably but for their names:
    /// returns the directories that are still to be synced. What else was
    /// `written` is synced in the same round.
    pub fn write_content<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Object>,
        written: &[&dyn Written],
    ) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut dirs = BTreeSet::new();
        let mut compressed = Vec::new();
        for object in objects {
            let header = object.kind.header(object.data.len() as u64);
            let parts = [header.as_bytes(), &object.data];
            match self.level {
                None if header.len() + object.data.len() + STORED_FRAME <= BLOCK => {
                    store(&parts, &mut compressed);
                }
                level => deflate(level.unwrap_or(DEFAULT_LEVEL), &parts, &mut compressed),
            }
            let path = loose_path(&self.dir, &object.id);
            let mut file = self.temp_beside(&path, &mut dirs)?;
            file.write_all(&compressed)
                .map_err(cannot_write(file.path()))?;
            files.push((file, path));
        }
        self.put_in_place(files, written, dirs)
    }

    /// Syncs complete files and moves them into place. `dirs` has directories
    /// that got new subdirectories; returns all that are to be synced.
    fn put_in_place(
        &self,
        files: Vec<(Temp, PathBuf)>,
        written: &[&dyn Written],
        mut dirs: BTreeSet<PathBuf>,
    ) -> Result<Vec<PathBuf>> {
        let mut all: Vec<&dyn Written> = Vec::with_capacity(files.len() + written.len());
        all.extend(files.iter().map(|(file, _)| file as &dyn Written));
        all.extend_from_slice(written);
        self.keeping.sync_files(&all)?;
        for (file, path) in files {
            dirs.insert(fan_out(&path).to_owned());
            self.keeping.place(file, &path)?;
        }
        Ok(Vec::from_iter(dirs))
    }

    /// Creates a temporary file in the directory where `path` will be, and that
    /// directory where it is missing: then ours is added to `dirs`.
    fn temp_beside(&self, path: &Path, dirs: &mut BTreeSet<PathBuf>) -> Result<Temp> {
        let dir = fan_out(path);
        let mut result = Temp::new(dir, TEMP_PREFIX);
        // A collector may remove an empty directory just before we use it.
        for _ in 0..3 {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_dir(dir, dirs)?;
                    result = Temp::new(dir, TEMP_PREFIX);
                }
                _ => break,
            }
        }
        result.map_err(Error::io(format!(
            "cannot create a file in {}",
            dir.display()
        )))
    }

    fn make_dir(&self, dir: &Path, dirs: &mut BTreeSet<PathBuf>) -> Result<()> {
        match fs::create_dir(dir) {
            Ok(()) => self.keeping.adjust(dir, true)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => {
                return Err(Error::io(format!("cannot create {}", dir.display()))(error));
            }
        }
        dirs.insert(self.dir.clone());
        Ok(())
    }

    /// Takes a blob from a reader in bounded memory.
    pub fn receive(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<Blob> {
        if let Some(size) = size.filter(|size| *size >= SPOOL_FROM as u64) {
            return self.large(reader, size);
        }
        match self.take_small(reader, size)? {
            Received::Small(object) => Ok(Blob::Small(object)),
            Received::Spooled(file, size) => self.large(&mut file.as_file(), size),
        }
    }

    /// Takes content into memory: what is announced, however much that is, or
    /// up to [`SPOOL_FROM`] where nothing is.
    pub fn take_small(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<Received> {
        let data = match size {
            Some(size) => content::take_all(reader, size)?,
            None => content::take_up_to(reader, SPOOL_FROM as u64)?,
        };
        if size.is_none() && data.len() >= SPOOL_FROM {
            let (file, size) = self.spool(&data, reader)?;
            return Ok(Received::Spooled(file, size));
        }
        Ok(Received::Small(Object {
            id: hash_object(self.hash, ObjectKind::Blob, &data)?,
            kind: ObjectKind::Blob,
            data,
        }))
    }

    /// Copies content whose length is unknown into a file; returns it, rewound,
    /// with the length.
    fn spool(&self, start: &[u8], rest: &mut dyn Read) -> Result<(Temp, u64)> {
        let mut file = self.temp()?;
        file.write_all(start).map_err(cannot_write(file.path()))?;
        let mut size = start.len() as u64;
        size += content::copy(rest, |chunk| {
            let result = file.write_all(chunk);
            result.map_err(cannot_write(file.path()))
        })?;
        file.as_file().rewind().map_err(cannot_write(file.path()))?;
        Ok((file, size))
    }

    /// Hashes and compresses a blob in one pass. One whose beginning does not
    /// get shorter is only framed, unless a level was asked for: to compress it
    /// would gain nothing, and reading it would cost several times as much.
    fn large(&self, reader: &mut dyn Read, size: u64) -> Result<Blob> {
        let file = self.temp()?;
        let mut hasher = ObjectHasher::new(self.hash, ObjectKind::Blob, size);
        let header = ObjectKind::Blob.header(size);
        let mut out: Option<Box<deflate::Write<&File>>> = None;
        content::copy_exactly(reader, size, |chunk| {
            hasher.update(chunk);
            let write = |out: &mut deflate::Write<&File>| out.write_all(chunk);
            match &mut out {
                Some(out) => write(out),
                None => {
                    let level = self.level.unwrap_or_else(|| worth(chunk));
                    let begun = Box::new(deflate::Write::new(file.as_file(), level));
                    let begun = out.insert(begun);
                    begun
                        .write_all(header.as_bytes())
                        .and_then(|()| write(begun))
                }
            }
            .map_err(cannot_write(file.path()))
        })?;
        if let Some(out) = &mut out {
            out.flush().map_err(cannot_write(file.path()))?;
        }
        drop(out);
        Ok(Blob::Large(hasher.finish()?, file))
    }

    /// Returns `objects/pack`, which is made where it is missing.
    pub fn pack_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("pack");
        if !dir.is_dir() {
            self.make_dir(&dir, &mut BTreeSet::new())?;
            self.keeping.sync_dirs(std::slice::from_ref(&self.dir))?;
        }
        Ok(dir)
    }

    fn temp(&self) -> Result<Temp> {
        Temp::new(&self.dir, TEMP_PREFIX).map_err(Error::io(format!(
            "cannot create a file in {}",
            self.dir.display()
        )))
    }

    /// Puts what [`Loose::receive`] made of a large blob where it belongs.
    pub fn place(&self, id: &ObjectId, file: Temp) -> Result<()> {
        let path = loose_path(&self.dir, id);
        let mut dirs = BTreeSet::new();
        if !fan_out(&path).is_dir() {
            self.make_dir(fan_out(&path), &mut dirs)?;
        }
        let dirs = self.put_in_place(vec![(file, path)], &[], dirs)?;
        self.keeping.sync_dirs(&dirs)
    }
}

/// Returns the level for content that begins so.
fn worth(start: &[u8]) -> Compression {
    const SAMPLE: usize = 32 << 10;
    let start = &start[..start.len().min(SAMPLE)];
    let mut compressed = Vec::new();
    deflate(DEFAULT_LEVEL, &[start], &mut compressed);
    match compressed.len() > start.len() - start.len() / 32 {
        true => Compression::NONE,
        false => DEFAULT_LEVEL,
    }
}

fn fan_out(path: &Path) -> &Path {
    path.parent().expect("an object's path has a directory")
}

pub(super) fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()))
}

/// Frames `parts`, one after the other and less than 64 KiB, as one stream that
/// is not compressed (RFC 1950 and 1951, 3.2.4) into `out`.
fn store(parts: &[&[u8]], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len() as u16).sum::<u16>();
    out.clear();
    out.extend_from_slice(&[0x78, 0x01, 1]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    let mut sum = 1;
    for part in parts {
        out.extend_from_slice(part);
        sum = adler32(sum, part);
    }
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Compresses `parts`, one after the other, as one stream into `out`.
pub(super) fn deflate(level: Compression, parts: &[&[u8]], out: &mut Vec<u8>) {
    thread_local! {
        /// Making one costs more than compressing a small object.
        static STATE: RefCell<Option<(Compression, Compress)>> = const { RefCell::new(None) };
    }
    STATE.with_borrow_mut(|state| {
        let (_, state) = match state {
            Some(state) if state.0 == level => state,
            _ => state.insert((level, Compress::new(level))),
        };
        state.reset();
        out.clear();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // Enough for what does not compress: stored blocks and the frame.
        out.resize(length + length / 1000 + 64, 0);
        let mut feed = |input: &[u8], flush| {
            let end = state.total_in() + input.len() as u64;
            loop {
                let rest = (end - state.total_in()) as usize;
                let status = state
                    .compress(
                        &input[input.len() - rest..],
                        &mut out[state.total_out() as usize..],
                        flush,
                    )
                    .expect("compressing fails only for a state that is misused");
                let made = state.total_out() as usize;
                if status == Status::StreamEnd {
                    out.truncate(made);
                    return;
                }
                if out.len() - made < 32 {
                    out.resize(out.len() * 2, 0);
                } else if flush != FlushCompress::Finish && state.total_in() == end {
                    return;
                }
            }
        };
        for part in parts {
            feed(part, FlushCompress::None);
        }
        feed(&[], FlushCompress::Finish);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_inflates_to_the_same() {
        for data in [&b""[..], b"a", &[0xff; BLOCK - STORED_FRAME - 4]] {
            let mut out = Vec::new();
            store(&[b"head", data], &mut out);
            assert_eq!(out.len(), data.len() + 4 + STORED_FRAME);
            let mut back = vec![0; data.len() + 5];
            let (status, used, made) = gix::zlib::Inflate::default().once(&out, &mut back).unwrap();
            assert_eq!((status, used), (Status::StreamEnd, out.len()));
            assert_eq!(back[..made], [b"head", data].concat());
        }
    }

    #[test]
    fn what_is_deflated_inflates_to_the_same() {
        let mut noise = 1_u64;
        let mut random = || {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        };
        let incompressible: Vec<u8> = (0..500_000).map(|_| random()).collect();
        for data in [&b""[..], b"a", &[b'x'; 100_000], &incompressible] {
            for level in [0, 1, 6, 9] {
                let level = Compression::new(level).unwrap();
                let mut out = Vec::new();
                deflate(level, &[b"head", data, b"", b"tail"], &mut out);
                let mut back = vec![0; data.len() + 9];
                let (status, used, made) =
                    gix::zlib::Inflate::default().once(&out, &mut back).unwrap();
                assert_eq!((status, used), (Status::StreamEnd, out.len()));
                assert_eq!(back[..made], [b"head", data, b"tail"].concat());
            }
        }
    }
}
