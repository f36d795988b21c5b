//! The root, and directories whose entries are always the same.

use std::sync::Arc;

use super::Connection;
use super::entry::{Dir, Folder};
use super::node::{Call, Node, Result, Shape};
use super::{failure, query};

/// Makes the root of one connection.
pub fn root(connection: &Arc<Connection>) -> Dir {
    Dir::root(Arc::new(Root(connection.clone())))
}

struct Root(Arc<Connection>);

/// The entries of the root, those of the ancestor first.
const ENTRIES: &[(&[u8], Shape)] = &[
    (b"branch", Shape::Dir),
    (b"trees", Shape::Dir),
    (b"commits", Shape::Dir),
    (b"snapshots", Shape::Dir),
    (b"remotes", Shape::Dir),
    (b"debug", Shape::Dir),
    (b"tx", Shape::Dir),
    (b"resolve", Shape::Dir),
    (b"log", Shape::Dir),
    (b"ls", Shape::Dir),
    (b"diff", Shape::Dir),
    (b"refs", Shape::File),
    (b"maintenance", Shape::Dir),
];

/// Entries with fixed names, as a listing.
pub fn named(entries: &[(&[u8], Shape)]) -> Vec<(Vec<u8>, Shape)> {
    let owned = |(name, shape): &(&[u8], Shape)| (name.to_vec(), *shape);
    entries.iter().map(owned).collect()
}

#[async_trait::async_trait]
impl Folder for Root {
    fn mtime(&self) -> i64 {
        self.0.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(ENTRIES))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let (connection, world) = (&self.0, &self.0.world);
        Ok(match name {
            b"branch" => at.dir(name, super::branch::All(connection.clone())),
            b"trees" => at.dir(name, super::snapshots::Trees(world.clone())),
            b"commits" => at.dir(name, super::snapshots::Commits(world.clone())),
            b"snapshots" => at.dir(name, super::snapshots::Snapshots(world.clone())),
            b"remotes" => at.dir(name, super::remotes::All(connection.clone())),
            b"debug" => at.dir(name, super::debug::Debug(world.clone())),
            b"tx" => {
                let (connection, cell) = (connection.clone(), None);
                at.dir(name, super::durable::All { connection, cell })
            }
            b"resolve" => at.dir(name, query::Questions::new(world, query::resolve)),
            b"log" => at.dir(name, query::Questions::new(world, query::log)),
            b"ls" => at.dir(name, query::Questions::new(world, query::ls)),
            b"diff" => at.dir(name, query::Questions::new(world, query::diff)),
            b"refs" => at.file(name, query::refs(world)),
            b"maintenance" => at.dir(name, super::maintenance::All(connection.clone())),
            _ => return Err(failure::no_name(name)),
        })
    }
}
