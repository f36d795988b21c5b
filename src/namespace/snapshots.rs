//! What never changes: `snapshots`, `trees` and `commits`, and differences with
//! a commit.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::json;

use crate::model::{Change, Commit, Entry, HashKind, Mode, ObjectId};
use crate::store::engine::ObjectKind;
use crate::store::{self, Store, diff};

use super::World;
use super::entry::{Dir, Folder};
use super::export::Export;
use super::failure;
use super::files::{Computed, Fixed};
use super::node::{Call, Node, Result, Shape};
use super::root::named;
use super::view;

/// Reads a commit id that somebody typed.
pub fn parse_id(hash: HashKind, text: &[u8]) -> Result<ObjectId> {
    match ObjectId::from_hex(text) {
        Some(id) if id.hash_kind() == hash => Ok(id),
        _ => Err(failure::invalid_hash(text)),
    }
}

/// Finds the commit of this name.
pub async fn commit(world: &Arc<World>, name: &[u8]) -> Result<Commit> {
    let id = parse_id(world.store.engine.hash_kind(), name)?;
    world.run(move |store| store.objects.commit(&id)).await
}

/// `/snapshots`.
pub struct Snapshots(pub Arc<World>);

#[async_trait::async_trait]
impl Folder for Snapshots {
    fn mtime(&self) -> i64 {
        self.0.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let commit = Arc::new(commit(&self.0, name).await?);
        let world = self.0.clone();
        let typed = name.to_vec();
        let snapshot = Snapshot {
            world,
            commit,
            typed,
        };
        Ok(at.dir(name, snapshot))
    }
}

/// `/snapshots/COMMIT`.
struct Snapshot {
    world: Arc<World>,
    commit: Arc<Commit>,
    /// The id as it was asked for.
    typed: Vec<u8>,
}

#[async_trait::async_trait]
impl Folder for Snapshot {
    fn mtime(&self) -> i64 {
        self.commit.committer.time.seconds
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(&[
            (b"ro", Shape::Dir),
            (b"hash", Shape::File),
            (b"msg", Shape::File),
            (b"parents", Shape::File),
            (b"diff", Shape::Dir),
            (b"export.tar", Shape::File),
        ]))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let commit = &self.commit;
        Ok(match name {
            b"ro" => view::fixed(
                &self.world,
                at.place(name),
                view::dir(commit.tree),
                self.mtime(),
            ),
            b"hash" => at.file(name, Fixed::new(self.typed.clone())),
            b"msg" => {
                let text = [&commit.message[..], b"\n"].concat();
                at.file(name, Fixed::new(text))
            }
            b"parents" => {
                let (world, commit) = (self.world.clone(), commit.clone());
                let parents = move |_: &Call| -> BoxFuture<'static, _> {
                    let (world, commit) = (world.clone(), commit.clone());
                    Box::pin(async move { known(&world, &commit.parents).await })
                };
                at.file(name, Computed::new(parents))
            }
            b"diff" => {
                let tree = commit.tree;
                let tree = Arc::new(move |_: &Store| Ok(tree));
                at.dir(name, Diffs::new(&self.world, tree))
            }
            b"export.tar" => {
                let found = (commit.tree, self.mtime());
                let find = move || -> BoxFuture<'static, _> { Box::pin(async move { Ok(found) }) };
                at.file(name, Export::new(&self.world, find))
            }
            _ => return Err(failure::no_name(name)),
        })
    }
}

/// Lists the commits that are in the store.
async fn known(world: &Arc<World>, ids: &[ObjectId]) -> Result<Vec<u8>> {
    let ids = ids.to_vec();
    let work = move |store: &Arc<Store>| {
        let mut text = String::new();
        for id in ids {
            if store.engine.header(&id)?.is_some() {
                text.push_str(&format!("{id}\n"));
            }
        }
        Ok(text.into_bytes())
    };
    world.run(work).await
}

/// Finds the tree to compare with. Blocks.
pub type TreeNow = Arc<dyn Fn(&Store) -> store::Result<ObjectId> + Send + Sync>;

/// A `diff` directory: below a commit's id, what this tree has that is
/// different.
pub struct Diffs {
    world: Arc<World>,
    tree: TreeNow,
}

impl Diffs {
    pub fn new(world: &Arc<World>, tree: TreeNow) -> Self {
        Self {
            world: world.clone(),
            tree,
        }
    }
}

#[async_trait::async_trait]
impl Folder for Diffs {
    fn mtime(&self) -> i64 {
        self.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let old = commit(&self.world, name).await?.tree;
        let tree = self.tree.clone();
        let text = self
            .world
            .run(move |store| compare(store, &old, &tree(store)?))
            .await?;
        Ok(at.file(name, Fixed::new(text)))
    }

    async fn remove(&self, _: &Call, _: bool) -> Result<()> {
        Err(failure::read_only_file())
    }
}

/// Prints the leaves that differ. Blocks.
fn compare(store: &Store, old: &ObjectId, new: &ObjectId) -> store::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut print = |change: Change| {
        text.extend_from_slice(format!("{change}\n").as_bytes());
        Ok(())
    };
    let root = crate::model::TreePath::root();
    let (old, new) = (view::dir(*old), view::dir(*new));
    diff::diff(&store.objects, Some(&old), Some(&new), &root, &mut print)?;
    Ok(text)
}

/// `/trees`.
pub struct Trees(pub Arc<World>);

#[async_trait::async_trait]
impl Folder for Trees {
    fn mtime(&self) -> i64 {
        self.0.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let missing = || failure::no_name(name);
        let mode = match name.get(..2) {
            Some(b"F-") => Mode::FILE,
            Some(b"X-") => Mode::EXEC,
            Some(b"L-") => Mode::LINK,
            Some(b"D-") => Mode::DIR,
            _ => return Err(missing()),
        };
        let id = ObjectId::from_hex(&name[2..])
            .filter(|id| id.hash_kind() == self.0.store.engine.hash_kind())
            .ok_or_else(missing)?;
        let header = move |store: &Arc<Store>| match id == store.objects.empty_tree() {
            true => Ok(Some((ObjectKind::Tree, 0))),
            false => store.engine.header(&id),
        };
        let wanted = match mode {
            Mode::DIR => ObjectKind::Tree,
            _ => ObjectKind::Blob,
        };
        match self.0.run(header).await? {
            Some((kind, _)) if kind == wanted => {}
            _ => return Err(missing()),
        }
        let mut place = at.place(name);
        if mode.is_dir() {
            // So the ancestor calls it.
            place.name = b"ro".to_vec();
        }
        let entry = Entry { mode, id };
        Ok(view::fixed(&self.0, place, entry, self.0.started))
    }
}

/// `/commits`.
pub struct Commits(pub Arc<World>);

#[async_trait::async_trait]
impl Folder for Commits {
    fn mtime(&self) -> i64 {
        self.0.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let commit = commit(&self.0, name).await?;
        let full = commit.id.to_string();
        Ok(at.file(full.as_bytes(), Fixed::new(describe(&commit))))
    }
}

/// Prints a commit as the ancestor does: one line of JSON, in this order.
fn describe(commit: &Commit) -> String {
    let text = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes)).to_string();
    let parents: Vec<String> = commit
        .parents
        .iter()
        .map(|id| format!("\"{id}\""))
        .collect();
    format!(
        "{{\"hash\":\"{}\",\"value\":{{\"node\":\"{}\",\"parents\":[{}],\
         \"info\":{{\"date\":{},\"author\":{},\"message\":{}}}}}}}",
        commit.id,
        commit.tree,
        parents.join(","),
        commit.author.time.seconds,
        text(&commit.author.name),
        text(&commit.message),
    )
}
