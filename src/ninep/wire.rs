//! How values, strings and frames lie in bytes.
//!
//! What stays true: a length is checked against the frame once, in
//! [`Reader::take`], before anything of it is believed; decoding copies no
//! content (strings and data are slices of the frame), and encoding copies
//! none that is large. Nothing is reserved from a frame's length before the
//! length is known to be allowed.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Deref;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rs9p::{GetAttrMask, LockFlag, LockStatus, LockType, QIdType, SetAttrMask};
use rs9p::{QId, SetAttr, Stat, StatFs, Time};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::message::Dialect;

/// Bytes before a message's own: `size[4] type[1] tag[2]`.
pub const HEADER: usize = 7;

/// Data from this length on is sent from where it lies.
const LARGE: usize = 4096;

/// What is kept for reading into when nothing special is known.
const BUFFER: usize = 64 << 10;

/// What is read into when little is expected.
const IDLE: usize = 8 << 10;

/// More than this is not kept while nothing is to be written.
const KEPT: usize = 1 << 10;

/// Why bytes are not a message, or a message cannot be bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a frame of {size} bytes where 7 to {max} are allowed")]
    Frame { size: u32, max: u32 },
    #[error("a message of type {0}, which this dialect has not")]
    Type(u8),
    #[error("a message that ends in the middle")]
    Short,
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
    #[error("more than 65535 bytes in a string, or strings in a list")]
    Long,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A string: bytes, at most 65,535 of them on the wire.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(pub Bytes);

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<Vec<u8>> for Text {
    fn from(text: Vec<u8>) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(text))
    }
}

/// What is read or written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// The names of a walk, as they lie in the frame.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    count: usize,
    /// Each with its length before it.
    bytes: Bytes,
}

impl Names {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Send {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (name, tail) = tail.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = tail;
            Some(name)
        })
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Names {
    /// A name of more than 65,535 bytes makes a list that cannot be sent.
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let (mut count, mut bytes) = (0, BytesMut::new());
        for name in names {
            let name = name.as_ref();
            match u16::try_from(name.len()) {
                Ok(length) => {
                    bytes.put_u16_le(length);
                    bytes.put_slice(name);
                    count += 1;
                }
                Err(_) => count = usize::MAX / 2,
            }
        }
        Self {
            count,
            bytes: bytes.freeze(),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|name| name.escape_ascii().to_string());
        f.debug_list().entries(names).finish()
    }
}

/// A message being taken apart.
pub struct Reader {
    rest: Bytes,
    pub dialect: Dialect,
}

impl Reader {
    pub fn new(rest: Bytes, dialect: Dialect) -> Self {
        Self { rest, dialect }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `length` bytes: the only place where a length counts.
    pub fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.rest.len() {
            return Err(Error::Short);
        }
        Ok(self.rest.split_to(length))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (number, _) = self.rest.split_first_chunk::<N>().ok_or(Error::Short)?;
        let number = *number;
        self.rest.advance(N);
        Ok(number)
    }

    pub fn get<T: Field>(&mut self) -> Result<T> {
        T::get(self)
    }

    /// Everything has been taken.
    pub fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Error::Trailing(more)),
        }
    }
}

/// Messages on their way out, to be written with as few calls as can be: it is
/// a [`Buf`] of several chunks.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    /// Comes after the chunks.
    tail: BytesMut,
    length: usize,
}

impl Output {
    /// Bytes not written yet.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Makes room for a message of this size.
    pub(super) fn reserve(&mut self, size: usize) {
        let size = size.min(LARGE + HEADER + 32);
        if self.tail.capacity() - self.tail.len() < size {
            // What was sent is not moved along; a burst shares an allocation.
            let room = (self.tail.len() * 2).clamp(1024, BUFFER).max(size);
            if self.tail.len() >= BUFFER / 2 {
                self.chunks.push_back(self.tail.split().freeze());
            }
            self.tail.reserve(room);
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
        self.length += bytes.len();
    }

    fn put_data(&mut self, data: &Bytes) {
        if data.len() < LARGE {
            return self.put(data);
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.length += data.len();
        self.chunks.push_back(data.clone());
    }

    /// Forgets what is left, and gives memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives memory back, if there is nothing to be written.
    pub fn rest(&mut self) {
        if self.is_empty() && self.tail.capacity() > KEPT {
            self.clear();
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.chunks
            .front()
            .map_or(&self.tail[..], |front| &front[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.chunks.iter().map(|chunk| &chunk[..]);
        let all = chunks.chain(Some(&self.tail[..]).filter(|tail| !tail.is_empty()));
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                return front.advance(count);
            }
            count -= front.len();
            self.chunks.pop_front();
        }
        if count == self.tail.len() {
            // Keeps the room for the next messages.
            self.tail.clear();
        } else {
            self.tail.advance(count);
        }
    }
}

/// Bytes on their way in, cut into frames.
#[derive(Debug, Default)]
pub struct Input {
    buffer: BytesMut,
    /// Of the frame that has begun, as far as known; else 0.
    size: usize,
    /// Of the longest frame that came whole: so much is believed at once.
    longest: usize,
    /// The last read filled what there was: more is to be expected.
    burst: bool,
}

impl Input {
    /// Reads what is there. `false`: the other side has finished.
    ///
    /// Nothing is lost when its future is dropped. Call [`Input::frame`] until
    /// it has none before the next.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        let missing = self.size.saturating_sub(self.buffer.len());
        let spare = self.buffer.capacity() - self.buffer.len();
        if missing > spare {
            // Who only claims a long frame does not get the room for it.
            let believed = self.longest.max(self.buffer.len()).max(BUFFER);
            self.buffer.reserve(missing.min(believed));
        } else if missing == 0 {
            let room = if self.burst { BUFFER } else { IDLE };
            if spare < room / 4 {
                self.buffer.reserve(room);
            }
        }
        let count = stream.read_buf(&mut self.buffer).await?;
        self.burst = self.buffer.len() == self.buffer.capacity();
        Ok(count > 0)
    }

    /// Takes the next whole frame, its four bytes of size included. One that
    /// claims more than `max` is refused before anything is reserved for it.
    pub fn frame(&mut self, max: u32) -> Result<Option<Bytes>> {
        self.size = 0;
        let Some((size, _)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let size = u32::from_le_bytes(*size);
        if (size as usize) < HEADER || size > max {
            return Err(Error::Frame { size, max });
        }
        let length = size as usize;
        if self.buffer.len() < length {
            self.size = length;
            return Ok(None);
        }
        self.longest = self.longest.max(length);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Gives memory back, if no frame has begun: most connections are idle
    /// most of the time.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}

/// A value of a message.
pub trait Field: Sized {
    /// Returns its length in bytes.
    fn width(&self, dialect: Dialect) -> Result<usize>;
    fn put(&self, out: &mut Output, dialect: Dialect);
    fn get(from: &mut Reader) -> Result<Self>;
    /// Returns what is sent where the dialect wants one and there is none.
    fn absent() -> Self;

    fn absent_like(_: &Option<Self>) -> Self {
        Self::absent()
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn width(&self, _: Dialect) -> Result<usize> {
                Ok(size_of::<Self>())
            }
            fn put(&self, out: &mut Output, _: Dialect) {
                out.put(&self.to_le_bytes());
            }
            fn get(from: &mut Reader) -> Result<Self> {
                from.number().map(Self::from_le_bytes)
            }
            fn absent() -> Self {
                Self::MAX
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

macro_rules! flags {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn width(&self, dialect: Dialect) -> Result<usize> {
                self.bits().width(dialect)
            }
            fn put(&self, out: &mut Output, dialect: Dialect) {
                self.bits().put(out, dialect);
            }
            fn get(from: &mut Reader) -> Result<Self> {
                from.get().map(Self::from_bits_retain)
            }
            fn absent() -> Self {
                Self::empty()
            }
        }
    )*};
}
flags!(
    QIdType,
    GetAttrMask,
    SetAttrMask,
    LockType,
    LockFlag,
    LockStatus
);

/// Structures that lie as their fields, one after the other.
macro_rules! structures {
    ($($type:ident { $($field:ident: $kind:ty),* })*) => {$(
        impl Field for $type {
            fn width(&self, dialect: Dialect) -> Result<usize> {
                Ok(0 $(+ self.$field.width(dialect)?)*)
            }
            fn put(&self, out: &mut Output, dialect: Dialect) {
                $(self.$field.put(out, dialect);)*
            }
            fn get(from: &mut Reader) -> Result<Self> {
                Ok(Self { $($field: from.get()?),* })
            }
            fn absent() -> Self {
                Self { $($field: <$kind>::absent()),* }
            }
        }
    )*};
}
structures! {
    QId { typ: QIdType, version: u32, path: u64 }
    Time { sec: u64, nsec: u64 }
    Stat {
        mode: u32, uid: u32, gid: u32, nlink: u64, rdev: u64, size: u64, blksize: u64,
        blocks: u64, atime: Time, mtime: Time, ctime: Time
    }
    SetAttr { mode: u32, uid: u32, gid: u32, size: u64, atime: Time, mtime: Time }
    StatFs {
        typ: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        fsid: u64, namelen: u32
    }
}

impl Field for Text {
    fn width(&self, _: Dialect) -> Result<usize> {
        u16::try_from(self.len()).map_err(|_| Error::Long)?;
        Ok(2 + self.len())
    }

    fn put(&self, out: &mut Output, _: Dialect) {
        out.put(&(self.len() as u16).to_le_bytes());
        out.put(self);
    }

    fn get(from: &mut Reader) -> Result<Self> {
        let length = from.get::<u16>()?;
        from.take(length.into()).map(Self)
    }

    fn absent() -> Self {
        Self::default()
    }
}

impl Field for Data {
    fn width(&self, _: Dialect) -> Result<usize> {
        Ok(4 + self.len())
    }

    fn put(&self, out: &mut Output, _: Dialect) {
        out.put(&(self.len() as u32).to_le_bytes());
        out.put_data(&self.0);
    }

    fn get(from: &mut Reader) -> Result<Self> {
        let length = from.get::<u32>()?;
        from.take(length as usize).map(Self)
    }

    fn absent() -> Self {
        Self::default()
    }
}

impl Field for Names {
    fn width(&self, _: Dialect) -> Result<usize> {
        u16::try_from(self.count).map_err(|_| Error::Long)?;
        Ok(2 + self.bytes.len())
    }

    fn put(&self, out: &mut Output, _: Dialect) {
        out.put(&(self.count as u16).to_le_bytes());
        out.put(&self.bytes);
    }

    fn get(from: &mut Reader) -> Result<Self> {
        let count = from.get::<u16>()?.into();
        let mut bytes = from.rest.clone();
        for _ in 0..count {
            let length = from.get::<u16>()?;
            from.take(length.into())?;
        }
        bytes.truncate(bytes.len() - from.remaining());
        Ok(Self { count, bytes })
    }

    fn absent() -> Self {
        Self::default()
    }
}

impl Field for Vec<QId> {
    fn width(&self, _: Dialect) -> Result<usize> {
        u16::try_from(self.len()).map_err(|_| Error::Long)?;
        Ok(2 + 13 * self.len())
    }

    fn put(&self, out: &mut Output, dialect: Dialect) {
        out.put(&(self.len() as u16).to_le_bytes());
        for qid in self {
            qid.put(out, dialect);
        }
    }

    fn get(from: &mut Reader) -> Result<Self> {
        let count = usize::from(from.get::<u16>()?);
        if count * 13 > from.remaining() {
            return Err(Error::Short);
        }
        (0..count).map(|_| from.get()).collect()
    }

    fn absent() -> Self {
        Self::new()
    }
}
