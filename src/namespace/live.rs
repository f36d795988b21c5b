//! What tells of a branch as it moves: `head.live`, `watch/…/tree.live`,
//! `reflog` and `since`.
//!
//! All sit on the store's hub: a stream costs a bell there, and is woken only
//! when what it shows may have changed. A value's stream reads it again when
//! woken and tells what differs from what it told last, so it keeps no queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::model::request::{Event, WatchQuery};
use crate::model::text::{SinceQuery, write_event};
use crate::model::{BranchName, EntryKind, ObjectId, TreePath};
use crate::store::watch::{MoveLog, Seat, Watch};
use crate::store::{self, Store, face};

use super::World;
use super::branch::Cell;
use super::entry::{Dir, Folder};
use super::failure;
use super::files::lock;
use super::node::{Call, Node, Result, Shape};
use super::stream::{Source, Stream};

/// Reads a value as it is now, as text. Blocks.
type Render = dyn Fn(&Store) -> store::Result<Vec<u8>> + Send + Sync;

/// Tells a value whenever it is another.
struct Value {
    world: Arc<World>,
    _seat: Seat,
    bell: Arc<Notify>,
    render: Arc<Render>,
    /// What was told last.
    last: Option<Vec<u8>>,
}

#[async_trait::async_trait]
impl Source for Value {
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            let render = self.render.clone();
            let now = self.world.run(move |store| render(store)).await?;
            if self.last.as_ref() != Some(&now) && (self.last.is_some() || !now.is_empty()) {
                self.last = Some(now.clone());
                return Ok(now.into());
            }
            self.bell.notified().await;
        }
    }
}

/// Makes the stream of what a branch has at a path, or of all its moves.
fn value(
    world: &Arc<World>,
    cell: &Arc<Cell>,
    path: Option<TreePath>,
    render: impl Fn(&Store, &BranchName) -> store::Result<Vec<u8>> + Send + Sync + 'static,
) -> Stream {
    let (world, cell, render) = (world.clone(), cell.clone(), Arc::new(render));
    let streams = world.streams.clone();
    Stream::new(
        &streams,
        move |_: &Call| -> BoxFuture<'static, Result<Box<dyn Source>>> {
            let (world, branch) = (world.clone(), cell.name());
            let (path, render) = (path.clone(), render.clone());
            Box::pin(async move {
                world.looker.start(&world.store)?;
                let name = branch.clone();
                let seat = world
                    .run(move |store| Seat::take(store, &name, path))
                    .await?;
                Ok(Box::new(Value {
                    bell: seat.bell(),
                    _seat: seat,
                    world,
                    render: Arc::new(move |store: &Store| render(store, &branch)),
                    last: None,
                }) as Box<dyn Source>)
            })
        },
    )
}

/// A head as a line; a branch without one is an empty line.
pub fn head_line(head: Option<ObjectId>) -> Vec<u8> {
    let id = head.map_or_else(String::new, |id| id.to_string());
    (id + "\n").into_bytes()
}

/// `head.live`.
pub fn head(world: &Arc<World>, cell: &Arc<Cell>) -> Stream {
    value(world, cell, None, |store, branch| {
        Ok(head_line(store.head(branch)?))
    })
}

/// `tree.live` of a path.
fn tree(world: &Arc<World>, cell: &Arc<Cell>, path: &TreePath) -> Stream {
    let at = path.clone();
    value(world, cell, Some(path.clone()), move |store, branch| {
        let root = match store.head(branch)? {
            Some(head) => store.objects.commit(&head)?.tree,
            None => store.objects.empty_tree(),
        };
        let line = match store.objects.lookup(&root, &at)? {
            None => "\n".into(),
            Some(entry) => {
                let letter = match entry.mode.kind() {
                    EntryKind::Dir => 'D',
                    EntryKind::Exec => 'X',
                    EntryKind::Link => 'L',
                    EntryKind::Submodule => 'S',
                    EntryKind::File | EntryKind::Other => 'F',
                };
                format!("{letter}-{}\n", entry.id)
            }
        };
        Ok(line.into_bytes())
    })
}

/// `watch`, and what is below it: a `NAME.node` for each step of a path.
pub struct Watched {
    pub world: Arc<World>,
    pub cell: Arc<Cell>,
    pub path: TreePath,
}

#[async_trait::async_trait]
impl Folder for Watched {
    fn mtime(&self) -> i64 {
        self.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let (branch, path) = (self.cell.name(), self.path.clone());
        let names = move |store: &Arc<Store>| {
            let mut names = vec![(b"tree.live".to_vec(), Shape::File)];
            let Some(head) = store.head(&branch)? else {
                return Ok(names);
            };
            let root = store.objects.commit(&head)?.tree;
            if let Some(entry) = store.objects.lookup(&root, &path)?
                && entry.mode.is_dir()
            {
                let node = |name: &[u8]| [name, b".node"].concat();
                let tree = store.objects.tree(&entry.id)?;
                names.extend(tree.iter().map(|found| (node(found.name), Shape::Dir)));
            }
            Ok(names)
        };
        self.world.run(names).await
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        if name == b"tree.live" {
            return Ok(at.file(name, tree(&self.world, &self.cell, &self.path)));
        }
        match name.strip_suffix(b".node") {
            Some(step) if !step.is_empty() && !step.contains(&b'/') => {
                let path = self.path.join(step);
                let (world, cell) = (self.world.clone(), self.cell.clone());
                Ok(at.dir(name, Self { world, cell, path }))
            }
            _ => Err(failure::no_name(name)),
        }
    }
}

/// Tells every move.
struct Log(MoveLog);

#[async_trait::async_trait]
impl Source for Log {
    async fn next(&mut self) -> Result<Bytes> {
        let bell = self.0.bell();
        loop {
            if let Some(head) = self.0.take()? {
                return Ok(head_line(head).into());
            }
            bell.notified().await;
        }
    }
}

/// `reflog`.
pub fn reflog(world: &Arc<World>, cell: &Arc<Cell>) -> Stream {
    let (world, cell) = (world.clone(), cell.clone());
    let streams = world.streams.clone();
    Stream::new(
        &streams,
        move |_: &Call| -> BoxFuture<'static, Result<Box<dyn Source>>> {
            let (world, branch) = (world.clone(), cell.name());
            Box::pin(async move {
                world.looker.start(&world.store)?;
                let log = world.run(move |store| MoveLog::new(store, &branch)).await?;
                Ok(Box::new(Log(log)) as Box<dyn Source>)
            })
        },
    )
}

/// Bytes of lines that are made ready together.
const BATCH: usize = 32 << 10;

/// Tells every commit of a branch, from some point on.
struct Since {
    world: Arc<World>,
    bell: Arc<Notify>,
    events: bool,
    shared: Arc<Shared>,
}

/// What a thread works on. What it finds stays here should nobody wait for it
/// any more.
struct Shared {
    /// Held by a thread for as long as it reads history.
    watch: Mutex<Watch>,
    ready: Mutex<VecDeque<Result<Bytes, store::Error>>>,
}

impl Shared {
    /// Reads what there is up to now, or enough of it.
    fn fill(&self, events: bool) {
        let mut watch = lock(&self.watch);
        let mut text = Vec::new();
        let failed = loop {
            match watch.advance() {
                Ok(Some(event)) if events => write_event(&mut text, &event),
                Ok(Some(event)) => write_line(&mut text, &event),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            if text.len() >= BATCH {
                break None;
            }
        };
        let mut ready = lock(&self.ready);
        if !text.is_empty() {
            ready.push_back(Ok(text.into()));
        }
        ready.extend(failed.map(Err));
    }
}

/// Prints `COMMIT PARENT…`, or where the head went when it left that history.
fn write_line(text: &mut Vec<u8>, event: &Event) {
    let line = match event {
        Event::Deleted { .. } => "! 0".into(),
        Event::Commit { commit, reset, .. } if *reset => format!("! {}", commit.id),
        Event::Commit { commit, .. } => {
            let mut line = commit.id.to_string();
            for parent in &commit.parents {
                line.push_str(&format!(" {parent}"));
            }
            line
        }
    };
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
}

#[async_trait::async_trait]
impl Source for Since {
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some(ready) = lock(&self.shared.ready).pop_front() {
                return Ok(ready?);
            }
            let (shared, events) = (self.shared.clone(), self.events);
            let fill = move |_: &Arc<Store>| {
                shared.fill(events);
                Ok(())
            };
            face::run(&self.world.store, fill).await?;
            if lock(&self.shared.ready).is_empty() {
                self.bell.notified().await;
            }
        }
    }
}

/// `since`: below it, a stream for each point one asks for.
pub struct SinceAll {
    pub world: Arc<World>,
    pub cell: Arc<Cell>,
}

#[async_trait::async_trait]
impl Folder for SinceAll {
    fn mtime(&self) -> i64 {
        self.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let asked = SinceQuery::read(name)?;
        if let crate::model::request::Since::Commit(id) = asked.since {
            self.world
                .run(move |store| store.objects.commit(&id).map(|_| ()))
                .await?;
        }
        let (world, cell) = (self.world.clone(), self.cell.clone());
        let streams = world.streams.clone();
        let begin = move |_: &Call| -> BoxFuture<'static, Result<Box<dyn Source>>> {
            let (world, asked) = (world.clone(), asked.clone());
            let query = WatchQuery {
                branch: cell.name(),
                since: asked.since,
                latest: asked.latest,
                // Lines of the whole tree tell every commit.
                unchanged: asked.unchanged || (!asked.events && asked.path.is_root()),
                path: asked.path,
            };
            Box::pin(async move {
                world.looker.start(&world.store)?;
                let watch = world
                    .run(move |store| Watch::new(store.clone(), query).map(Watch::pinned))
                    .await?;
                Ok(Box::new(Since {
                    bell: watch.bell(),
                    world,
                    events: asked.events,
                    shared: Arc::new(Shared {
                        watch: Mutex::new(watch),
                        ready: Mutex::default(),
                    }),
                }) as Box<dyn Source>)
            })
        };
        Ok(at.file(name, Stream::new(&streams, begin)))
    }
}
