//! The nodes of a tree that can be written, as they are served.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Kind, Mode, Time, TreePath};
use crate::namespace::entry::{no_listing, not_a_directory};
use crate::namespace::files::Turn;
use crate::namespace::node::{
    Attr, Call, Create, Error, Handle, Id, Listing, Node, Open, Result, Set, Shape,
};
use crate::namespace::{blob, failure};

use super::{Space, arena::Arena};

/// A node of a space. It follows its file wherever that is moved.
#[derive(Clone)]
struct Written {
    space: Arc<Space>,
    /// The directory that the tree's root is in.
    home: Arc<dyn Node>,
    at: u64,
}

/// Makes the root of a space, an entry of `home`.
pub fn root(space: &Arc<Space>, home: Arc<dyn Node>) -> Arc<dyn Node> {
    let at = space.arena().root;
    Arc::new(Written {
        space: space.clone(),
        home,
        at,
    })
}

/// Refuses what cannot be a name.
fn legal(name: &[u8]) -> Result<Vec<u8>> {
    let path = TreePath::new(name)?;
    if path.as_bytes() == name && !name.contains(&b'/') && !name.is_empty() {
        return Ok(name.to_vec());
    }
    let shown = crate::model::text::quote(name);
    Err(Error::new(
        Kind::Invalid,
        format!("{shown} is not the name of one file"),
    ))
}

fn now() -> i64 {
    Time::now().seconds
}

impl Written {
    fn other(&self, at: u64) -> Self {
        Self {
            space: self.space.clone(),
            home: self.home.clone(),
            at,
        }
    }

    /// Does something in one's turn.
    async fn turn<T>(
        &self,
        work: impl Fn(&mut Arena) -> super::arena::Result<T> + Send,
    ) -> Result<T> {
        let _held = self.space.take().await?;
        self.space.with(work).await
    }

    fn is_dir(&self) -> bool {
        self.space.arena().shape(self.at) == Shape::Dir
    }
}

#[async_trait::async_trait]
impl Node for Written {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn id(&self) -> Id {
        self.space.arena().id(self.at)
    }

    fn name(&self) -> Vec<u8> {
        self.space.arena().name(self.at)
    }

    fn parent(&self) -> Option<Arc<dyn Node>> {
        let parent = self.space.arena().parent(self.at);
        if parent == self.at {
            return Some(self.home.clone());
        }
        Some(Arc::new(self.other(parent)))
    }

    async fn attr(&self, _: &Call) -> Result<Attr> {
        let at = self.at;
        let about = self.turn(move |arena| arena.about(at)).await?;
        Ok(Attr {
            id: about.id,
            exec: about.mode == Mode::EXEC,
            writable: true,
            size: about.size,
            mtime: about.mtime,
        })
    }

    async fn lookup(&self, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let at = self.at;
        let found = self.turn(|arena| arena.lookup(at, name)).await?;
        Ok(Arc::new(self.other(found)))
    }

    async fn open(&self, _: &Call, how: Open) -> Result<Arc<dyn Handle>> {
        if how.truncate && !self.is_dir() {
            self.space.resize(self.at, 0).await?;
        }
        Ok(Arc::new(WrittenHandle {
            node: self.clone(),
            append: how.append,
            reader: Turn::new(blob::Reader::default()),
        }))
    }

    async fn create(&self, call: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>> {
        if !self.is_dir() {
            return Err(not_a_directory(&self.name()));
        }
        self.space.world.writable()?;
        let (at, name, now) = (self.at, legal(name)?, now());
        // A file is opened next; what was made of it is durable when it is closed.
        let settle = !matches!(what, Create::File { .. });
        let made = match what {
            Create::Dir => self.turn(|arena| arena.mkdir(at, &name, now)).await?,
            Create::File { exec, exclusive } => {
                self.turn(|arena| arena.create(at, &name, exec, exclusive, now))
                    .await?
            }
            Create::Link { target: None } => return Err(failure::missing_target()),
            Create::Link {
                target: Some(target),
            } => {
                legal_target(&target)?;
                self.turn(|arena| arena.symlink(at, &name, target.clone(), now))
                    .await?
            }
        };
        if settle {
            self.space.settle(call).await?;
        }
        Ok(Arc::new(self.other(made)))
    }

    async fn rename(&self, call: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()> {
        let into = into.as_any().downcast_ref::<Self>();
        let into = into.filter(|into| Arc::ptr_eq(&into.space, &self.space));
        let Some(into) = into else {
            return Err(failure::another_tree());
        };
        let (at, into, name, now) = (self.at, into.at, legal(name)?, now());
        self.turn(|arena| arena.rename(at, into, &name, now))
            .await?;
        self.space.settle(call).await
    }

    async fn remove(&self, call: &Call, recursive: bool) -> Result<()> {
        let (at, now) = (self.at, now());
        self.turn(|arena| arena.remove(at, recursive, now)).await?;
        self.space.settle(call).await
    }

    async fn set(&self, call: &Call, set: Set) -> Result<()> {
        let (at, now) = (self.at, now());
        if self.is_dir() {
            return crate::namespace::entry::set_directory(&set);
        }
        match set.kind {
            None => {}
            Some(Create::Dir) => return Err(failure::directory_flag()),
            Some(Create::File { exec, .. }) => {
                self.turn(move |arena| arena.chmod(at, exec, now)).await?;
            }
            Some(Create::Link { target: None }) => return Err(failure::missing_target()),
            Some(Create::Link {
                target: Some(target),
            }) => {
                legal_target(&target)?;
                self.turn(|arena| arena.relink(at, target.clone(), now))
                    .await?;
            }
        }
        if let Some(size) = set.size {
            self.space.resize(at, size).await?;
        }
        self.space.settle(call).await
    }

    async fn target(&self, call: &Call) -> Result<Vec<u8>> {
        if self.space.arena().shape(self.at) != Shape::Link {
            return Err(failure::not_a_link());
        }
        let size = self.attr(call).await?.size;
        let mut reader = blob::Reader::default();
        let count = u32::try_from(size).unwrap_or(u32::MAX);
        let target = self.space.read(self.at, &mut reader, 0, count).await?;
        Ok(target.to_vec())
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.space.sync(call).await
    }
}

fn legal_target(target: &[u8]) -> Result<()> {
    if target.is_empty() || target.contains(&0) || target.len() > 1 << 20 {
        return Err(Error::new(
            Kind::Invalid,
            "the target of a link is empty, too long or holds a NUL",
        ));
    }
    Ok(())
}

struct WrittenHandle {
    node: Written,
    append: bool,
    reader: Turn<blob::Reader>,
}

#[async_trait::async_trait]
impl Handle for WrittenHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        if self.node.is_dir() {
            return Err(failure::is_directory("the file to be read"));
        }
        let mut reader = self.reader.take().await;
        let (space, at) = (&self.node.space, self.node.at);
        space.read(at, &mut reader, offset, count).await
    }

    async fn write(&self, _: &Call, offset: u64, data: Bytes) -> Result<()> {
        if self.node.is_dir() {
            return Err(failure::is_directory("the file to be written"));
        }
        let offset = (!self.append).then_some(offset);
        self.node.space.write(self.node.at, offset, data).await
    }

    async fn list(&self, _: &Call) -> Result<Arc<dyn Listing>> {
        if !self.node.is_dir() {
            return Err(no_listing());
        }
        let at = self.node.at;
        Ok(Arc::new(self.node.turn(move |arena| arena.list(at)).await?))
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.node.space.sync(call).await
    }

    async fn close(&self, call: &Call) -> Result<()> {
        self.node.space.sync(call).await
    }
}
