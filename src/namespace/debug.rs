//! `/debug`: what the server is and holds now, and how much it logs.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::logging::{LEVELS, TARGETS, level, set_level};
use crate::model::Kind;
use crate::model::text::Identification;
use crate::store::Store;
use crate::store::engine::Repository;

use super::World;
use super::entry::{Dir, File, Folder};
use super::failure;
use super::files::{Computed, Fixed, Memory, Text, lock};
use super::node::{Call, Create, Error, Handle, Node, Open, Result, Shape};
use super::root::named;

/// `/debug`.
pub struct Debug(pub Arc<World>);

/// Tells one thing about what is held now.
type Tell = fn(&World) -> String;

const COUNTS: &[(&[u8], Tell)] = &[
    (b"connections", connections),
    (b"watches", watches),
    (b"transactions", transactions),
    (b"caches", caches),
];

#[async_trait::async_trait]
impl Folder for Debug {
    fn mtime(&self) -> i64 {
        self.0.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let mut names = named(&[(b"src", Shape::Dir), (b"id", Shape::File)]);
        let file = |(name, _): &(&[u8], Tell)| (name.to_vec(), Shape::File);
        names.extend(COUNTS.iter().map(file));
        Ok(names)
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let world = self.0.clone();
        match name {
            b"src" => return Ok(at.dir(name, Sources(world))),
            b"id" => return Ok(at.file(name, id(world))),
            _ => {}
        }
        let found = COUNTS.iter().find(|(known, _)| *known == name);
        let (_, tell) = found.ok_or_else(|| failure::no_name(name))?;
        let told = move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
            let text = tell(&world).into_bytes();
            Box::pin(async move { Ok(text) })
        };
        Ok(at.file(name, Computed::new(told)))
    }
}

/// What serves, and what store it serves.
fn id(world: Arc<World>) -> Computed {
    Computed::new(move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
        let (asked, version) = (world.clone(), world.options.version.clone());
        let text = move |store: &Arc<Store>| {
            let id = Identification {
                version,
                hash: store.engine.hash_kind(),
                read_only: store.engine.is_read_only(),
                identity: store.identity()?,
                id: store.engine.repository().map(Repository::id).transpose()?,
            };
            Ok(id.write().into_bytes())
        };
        Box::pin(async move { asked.run(text).await })
    })
}

/// A line for each connection: its number, its peer, its open transactions.
fn connections(world: &World) -> String {
    let open: Vec<_> = lock(&world.connections).values().cloned().collect();
    let mut text = String::new();
    for connection in open.iter().filter_map(std::sync::Weak::upgrade) {
        let transactions = connection.open_transactions();
        let peer = crate::model::text::quote(connection.peer.as_bytes()).to_string();
        text.push_str(&format!("{} {peer} {transactions}\n", connection.number));
    }
    text
}

fn watches(world: &World) -> String {
    let (streams, readers) = (world.streams.open(), world.store.readers());
    format!("streams {streams}\nreaders {readers}\n")
}

fn transactions(world: &World) -> String {
    let open: Vec<_> = lock(&world.connections).values().cloned().collect();
    let connections = open.iter().filter_map(std::sync::Weak::upgrade);
    let volatile: usize = connections.map(|open| open.open_transactions()).sum();
    format!("volatile {volatile}\ndurable {}\n", world.durable.len())
}

fn caches(world: &World) -> String {
    let (trees, tree_bytes) = world.store.objects.cached();
    let (blobs, blob_bytes) = world.blobs.cached();
    let readers = world.blobs.streams();
    format!("trees {trees} {tree_bytes}\nblobs {blobs} {blob_bytes}\nreaders {readers}\n")
}

/// `/debug/src`.
struct Sources(Arc<World>);

#[async_trait::async_trait]
impl Folder for Sources {
    fn mtime(&self) -> i64 {
        self.0.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let dir = |target: &crate::logging::Target| (target.name.into(), Shape::Dir);
        Ok(TARGETS.iter().map(dir).collect())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let found = TARGETS.iter().find(|target| target.name.as_bytes() == name);
        let target = found.ok_or_else(|| failure::no_name(name))?;
        let started = self.0.started;
        Ok(at.dir(name, Source { target, started }))
    }
}

/// `/debug/src/TARGET`.
struct Source {
    target: &'static crate::logging::Target,
    started: i64,
}

#[async_trait::async_trait]
impl Folder for Source {
    fn mtime(&self) -> i64 {
        self.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(&[(b"doc", Shape::File), (b"level", Shape::File)]))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        Ok(match name {
            b"doc" => at.file(name, Fixed::new(format!("{}\n", self.target.doc))),
            b"level" => at.file(name, LevelFile(level_file(self.target.name))),
            _ => return Err(failure::no_name(name)),
        })
    }
}

/// A target's level as text. Emptied, it reads as empty until a word is
/// written, for everybody.
struct Level(&'static str);

/// The targets whose level file was emptied.
static EMPTIED: std::sync::Mutex<Vec<&'static str>> = std::sync::Mutex::new(Vec::new());

#[async_trait::async_trait]
impl Text for Level {
    async fn load(&self, _: &Call) -> Result<Vec<u8>> {
        if lock(&EMPTIED).contains(&self.0) {
            return Ok(Vec::new());
        }
        Ok(format!("{}\n", level(self.0)).into_bytes())
    }

    async fn save(&self, _: &Call, text: Vec<u8>) -> Result<()> {
        let word = text.trim_ascii();
        if word.is_empty() {
            let mut emptied = lock(&EMPTIED);
            if !emptied.contains(&self.0) {
                emptied.push(self.0);
            }
            return Ok(());
        }
        let known = LEVELS.iter().find(|level| level.as_bytes() == word);
        if known.is_none_or(|word| !set_level(self.0, word)) {
            let word = String::from_utf8_lossy(word);
            let message = format!("{word:?}: unknown log level");
            return Err(Error::text(Kind::Invalid, message));
        }
        lock(&EMPTIED).retain(|target| *target != self.0);
        Ok(())
    }
}

fn level_file(target: &'static str) -> Arc<Memory> {
    Arc::new(Memory::new(Arc::new(Level(target))))
}

/// A level's file: as one in memory, but nobody may change its kind or remove
/// it.
struct LevelFile(Arc<Memory>);

#[async_trait::async_trait]
impl File for LevelFile {
    async fn size(&self, call: &Call) -> Result<u64> {
        self.0.size(call).await
    }

    fn writable(&self) -> bool {
        true
    }

    async fn open(self: Arc<Self>, call: &Call, how: Open) -> Result<Arc<dyn Handle>> {
        self.0.clone().open(call, how).await
    }

    async fn resize(&self, call: &Call, size: u64) -> Result<()> {
        self.0.resize(call, size).await
    }

    async fn chmod(&self, _: &Call, _: Create) -> Result<()> {
        Err(failure::not_permitted())
    }

    async fn remove(&self, _: &Call) -> Result<()> {
        Err(failure::not_permitted())
    }
}
