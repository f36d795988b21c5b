//! What transactions of a connection and durable ones have in common: the
//! words of `ctl`, the texts of their files, and what a merge leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::request::{CommitOptions, Empty, Expect};
use crate::model::text::read_signature;
use crate::model::{Conflict, Merge, ObjectId, Signature, Time};
use crate::store::{self, Store};

use super::entry::{Dir, key};
use super::files::Computed;
use super::import::Import;
use super::node::{Call, Error, Node, Result, Shape};
use super::root::named;
use super::rw::Space;
use super::snapshots::parse_id;
use super::{World, failure, view};

/// What the last merge was about.
#[derive(Clone)]
pub struct Sides {
    /// Tells one merge from the next.
    pub number: u64,
    pub merge: Merge,
}

impl Sides {
    /// The key of a tree that this merge left: another after the next merge.
    pub fn key(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let ours = matches!(name, b"base" | b"ours" | b"theirs");
        ours.then(|| key(key(parent, name), &self.number.to_le_bytes()))
    }
}

/// Reads parents: an id a line.
pub fn read_parents(world: &World, text: &[u8]) -> Result<Vec<ObjectId>> {
    let hash = world.store.engine.hash_kind();
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(|line| !line.is_empty())
        .map(|line| parse_id(hash, line))
        .collect()
}

/// Reads `NAME <MAIL> [SECONDS +ZONE]`; without a time it is `now`.
pub fn read_who(text: &[u8], now: Time) -> Signature {
    let text = text.trim_ascii();
    let signature = read_signature(text);
    let dated = text
        .rsplit(|b| *b == b'>')
        .next()
        .is_some_and(|rest| rest.iter().any(u8::is_ascii_digit) && rest.len() < text.len());
    match dated {
        true => signature,
        false => Signature {
            time: now,
            ..signature
        },
    }
}

/// What is written to `ctl`.
pub enum Ctl {
    Commit(CommitOptions),
    Close,
}

pub fn read_ctl(text: &[u8]) -> Result<Ctl> {
    let unknown = || failure::unknown_command(text);
    let mut words = text
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    match words.next() {
        Some(b"close") if words.next().is_none() => return Ok(Ctl::Close),
        Some(b"commit") => {}
        _ => return Err(unknown()),
    }
    let mut options = CommitOptions::default();
    for word in words {
        match word {
            b"ff-only" => options.ff_only = true,
            b"no-empty" => options.empty = Empty::Skip,
            word => {
                let id = word.strip_prefix(b"expect=").ok_or_else(unknown)?;
                options.expect = match id {
                    b"0" => Expect::Unborn,
                    hex => Expect::Head(
                        ObjectId::from_hex(hex).ok_or_else(|| failure::invalid_hash(hex))?,
                    ),
                };
            }
        }
    }
    Ok(Ctl::Commit(options))
}

/// Says in the tree's words that a head was elsewhere.
pub fn moved(error: store::Error) -> Error {
    match error {
        store::Error::NotFastForward { to, actual, .. } => failure::not_fast_forward(&to, actual),
        error => error.into(),
    }
}

/// Prints conflicts: a path a line.
pub fn write_conflicts(conflicts: &[Conflict]) -> Vec<u8> {
    let mut text = Vec::new();
    for conflict in conflicts {
        text.extend_from_slice(conflict.path.as_bytes());
        text.push(b'\n');
    }
    text
}

/// Finds one of the sides of a merge.
pub async fn side(
    world: &Arc<World>,
    at: &Dir,
    name: &[u8],
    sides: &Sides,
) -> Result<Arc<dyn Node>> {
    let id = match name {
        b"ours" => Some(sides.merge.ours),
        b"theirs" => Some(sides.merge.theirs),
        _ => sides.merge.base,
    };
    let tree = move |store: &Arc<Store>| match id {
        Some(id) => {
            let commit = store.objects.commit(&id)?;
            Ok((commit.tree, commit.committer.time.seconds))
        }
        None => Ok((store.objects.empty_tree(), 0)),
    };
    let (tree, since) = world.run(tree).await?;
    let mut place = at.place(name);
    place.key = sides.key(at.key(), name).unwrap_or(place.key);
    Ok(view::fixed(world, place, view::dir(tree), since))
}

/// The entries of every transaction.
const ENTRIES: &[(&[u8], Shape)] = &[
    (b"author", Shape::File),
    (b"base", Shape::File),
    (b"branch", Shape::File),
    (b"committer", Shape::File),
    (b"ctl", Shape::File),
    (b"diff", Shape::Dir),
    (b"import", Shape::File),
    (b"import.status", Shape::File),
    (b"merge", Shape::File),
    (b"msg", Shape::File),
    (b"origin", Shape::File),
    (b"owner", Shape::File),
    (b"parents", Shape::File),
    (b"rw", Shape::Dir),
    (b"state", Shape::File),
];

/// What a durable one has besides.
const DURABLE: &[(&[u8], Shape)] = &[(b"apply", Shape::File), (b"meta", Shape::File)];

/// What is there after a merge.
const MERGED: &[(&[u8], Shape)] = &[
    (b"base", Shape::Dir),
    (b"conflicts", Shape::File),
    (b"ours", Shape::Dir),
    (b"theirs", Shape::Dir),
];

/// Lists a transaction's entries by name.
pub fn list(durable: bool, merged: bool) -> Vec<(Vec<u8>, Shape)> {
    let mut all: BTreeMap<Vec<u8>, Shape> = named(ENTRIES).into_iter().collect();
    for (more, there) in [(DURABLE, durable), (MERGED, merged)] {
        if there {
            all.extend(named(more));
        }
    }
    all.into_iter().collect()
}

/// `import.status`.
pub fn status(import: &Arc<Import>) -> Computed {
    let import = import.clone();
    Computed::new(move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
        let status = import.status().into_bytes();
        Box::pin(async move { Ok(status) })
    })
}

/// `conflicts`.
pub fn conflicts(space: Arc<Space>) -> Computed {
    Computed::new(move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
        let conflicts = space.conflicts();
        Box::pin(async move { Ok(write_conflicts(&conflicts)) })
    })
}
