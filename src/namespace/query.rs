//! Questions put as a name: `resolve`, `log`, `ls` and `diff` list nothing, and
//! a name that is a question finds a file with its answer. `refs` tells all
//! branches.
//!
//! An answer is made as it is read, by a thread that waits while nobody does,
//! so a long one needs no memory.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::request::At;
use crate::model::text::{
    DiffQuery, LogElement, LsQuery, LsShape, ResolveQuery, write_change, write_commit_record,
    write_item, write_ref, write_stat,
};
use crate::model::{Item, Rev};
use crate::store::face::{self, Feed};
use crate::store::{self, Store, history, rev, walk};

use super::World;
use super::entry::{Dir, File, Folder};
use super::files::Fixed;
use super::node::{Call, Node, Result, Shape};
use super::stream::{Answers, Records};

/// Makes the file that answers a question.
type Answer = fn(Arc<World>, Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>>;

/// A directory of questions.
pub struct Questions {
    world: Arc<World>,
    answer: Answer,
}

impl Questions {
    pub fn new(world: &Arc<World>, answer: Answer) -> Self {
        Self {
            world: world.clone(),
            answer,
        }
    }
}

#[async_trait::async_trait]
impl Folder for Questions {
    fn mtime(&self) -> i64 {
        self.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(Vec::new())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let file = (self.answer)(self.world.clone(), name.to_vec()).await?;
        Ok(at.shared_file(name, file))
    }
}

/// Below `resolve`: a commit's id, or best common ancestors.
pub fn resolve(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let query = ResolveQuery::read(&name)?;
        let answer = move |store: &Arc<Store>| {
            let find = |rev: &Rev| rev::resolve(&store.objects, rev);
            let ids = match &query {
                ResolveQuery::Rev(rev) => vec![find(rev)?],
                ResolveQuery::Bases(a, b) => {
                    history::merge_bases(&store.objects, &find(a)?, &find(b)?)?
                }
            };
            Ok(ids.iter().map(|id| format!("{id}\n")).collect::<String>())
        };
        let text = world.run(answer).await?;
        Ok(Arc::new(Fixed::new(text)) as Arc<dyn File>)
    })
}

/// Makes a file of records. `prepare` finds what opening it can fail for;
/// `give` gives the records.
fn records<P: Send + 'static>(
    world: Arc<World>,
    prepare: impl Fn(&Store) -> store::Result<P> + Clone + Send + Sync + 'static,
    give: impl Fn(&Arc<Store>, P, &mut Feed<Vec<u8>>) -> store::Result<()>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Records {
    Records::new(move |_: &Call| -> BoxFuture<'static, Result<Answers>> {
        let (world, prepare, give) = (world.clone(), prepare.clone(), give.clone());
        Box::pin(async move {
            let prepared = world.run(move |store| prepare(store)).await?;
            Ok(face::feed(&world.store, move |store, feed| {
                give(store, prepared, feed)
            }))
        })
    })
}

/// Prints one record.
fn record(print: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut text = Vec::new();
    print(&mut text);
    text
}

/// Below `log`: commits.
pub fn log(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let asked = LogElement::read(&name)?;
        let start = asked.start;
        let find = move |store: &Arc<Store>| rev::resolve(&store.objects, &start);
        let start = world.run(find).await?;
        let mut query = asked.query;
        query.from.insert(0, start);
        let prepare = move |_: &Store| Ok(query.clone());
        let give = |store: &Arc<Store>, query, feed: &mut Feed<Vec<u8>>| {
            for commit in history::Log::new(store.objects.clone(), query) {
                let commit = commit?;
                feed.push(record(|text| write_commit_record(text, &commit)))?;
            }
            Ok(())
        };
        Ok(Arc::new(records(world, prepare, give)) as Arc<dyn File>)
    })
}

/// Below `ls`: what stands at a path, or below it.
pub fn ls(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let asked = LsQuery::read(&name)?;
        let query = asked.clone();
        // The tree of a transaction is taken when the file is opened.
        let prepare = move |store: &Store| {
            let root = store.root_at(&query.at)?;
            let at = At::Tree(root.id);
            if query.shape != LsShape::Own {
                store.entry_at(&at, &query.path)?;
            }
            Ok(at)
        };
        let give = move |store: &Arc<Store>, at: At, feed: &mut Feed<Vec<u8>>| {
            let mut item = |item: Item| feed.push(record(|text| write_item(text, &item)));
            match asked.shape {
                LsShape::Own => match store.stat_at(&at, &asked.path)? {
                    Some(stat) => feed.push(record(|text| write_stat(text, &stat, &asked.path))),
                    None => Ok(()),
                },
                LsShape::Entries => store.list_at(&at, &asked.path, asked.sizes, &mut item),
                LsShape::Leaves => {
                    let entry = store.entry_at(&at, &asked.path)?;
                    walk::walk(&store.objects, &entry, asked.sizes, &mut item)
                }
            }
        };
        Ok(Arc::new(records(world, prepare, give)) as Arc<dyn File>)
    })
}

/// Below `diff`: the leaves that differ.
pub fn diff(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let asked = DiffQuery::read(&name)?;
        let query = asked.clone();
        let prepare = move |store: &Store| {
            let tree = |at: &At| Ok::<_, store::Error>(At::Tree(store.root_at(at)?.id));
            Ok((tree(&query.from)?, tree(&query.to)?))
        };
        let give = move |store: &Arc<Store>, (from, to), feed: &mut Feed<Vec<u8>>| {
            store.diff_at(&from, &to, &asked.path, &mut |change| {
                feed.push(record(|text| write_change(text, &change)))
            })
        };
        Ok(Arc::new(records(world, prepare, give)) as Arc<dyn File>)
    })
}

/// `refs`: all branches, those of remotes included.
pub fn refs(world: &Arc<World>) -> Records {
    let prepare = |store: &Store| Ok((store.branches()?, store.fetched_branches()?));
    let give = |_: &Arc<Store>, (branches, fetched), feed: &mut Feed<Vec<u8>>| {
        let (branches, fetched): (Vec<_>, Vec<_>) = (branches, fetched);
        for branch in &branches {
            feed.push(record(|text| write_ref(text, branch, false)))?;
        }
        for branch in &fetched {
            feed.push(record(|text| write_ref(text, branch, true)))?;
        }
        Ok(())
    };
    records(world.clone(), prepare, give)
}
