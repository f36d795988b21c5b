//! Questions put as a name: `resolve`, `log`, `ls` and `diff` list nothing, and
//! a name that is a question finds a file with its answer. `refs` tells all
//! branches.
//!
//! An answer is made as it is read, piece by piece, so a long one needs neither
//! memory nor a thread of its own.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::request::At;
use crate::model::text::{
    DiffQuery, LogElement, LsQuery, LsShape, ResolveQuery, write_change, write_commit_record,
    write_item, write_ref, write_stat,
};
use crate::model::{Entry, Item, Rev, TreePath};
use crate::store::diff::Differences;
use crate::store::{self, Store, history, rev, walk};

use super::World;
use super::entry::{Dir, File, Folder};
use super::files::Fixed;
use super::node::{Call, Node, Result, Shape};
use super::stream::{Answer as Long, Records};

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

/// Makes a file of records. `begin` finds what opening it can fail for, and
/// returns what gives the records one by one.
fn records<N>(
    world: &Arc<World>,
    begin: impl Fn(&Store) -> store::Result<N> + Clone + Send + Sync + 'static,
) -> Records
where
    N: FnMut(&Store, &mut Vec<u8>) -> store::Result<bool> + Send + 'static,
{
    let asked = world.clone();
    Records::new(
        world,
        move |_: &Call| -> BoxFuture<'static, Result<Box<dyn Long>>> {
            let (world, begin) = (asked.clone(), begin.clone());
            Box::pin(async move {
                let next = world.run(move |store| begin(store)).await?;
                Ok(Box::new(OneByOne(next)) as Box<dyn Long>)
            })
        },
    )
}

/// Gives a record at each call; `false` when there are no more.
struct OneByOne<N>(N);

impl<N> Long for OneByOne<N>
where
    N: FnMut(&Store, &mut Vec<u8>) -> store::Result<bool> + Send + 'static,
{
    fn more(&mut self, store: &Store, text: &mut Vec<u8>, enough: usize) -> store::Result<bool> {
        while text.len() < enough {
            if !(self.0)(store, text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
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
        let begin = move |store: &Store| {
            let mut log = history::Log::new(store.objects.clone(), query.clone());
            Ok(move |_: &Store, text: &mut Vec<u8>| {
                let Some(commit) = log.next() else {
                    return Ok(false);
                };
                write_commit_record(text, &commit?);
                Ok(true)
            })
        };
        Ok(Arc::new(records(&world, begin)) as Arc<dyn File>)
    })
}

/// Below `ls`: what stands at a path, or below it.
pub fn ls(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let asked = LsQuery::read(&name)?;
        Ok(match asked.shape {
            LsShape::Own => Arc::new(records(&world, move |store| {
                // One record or none, ready when the file is open.
                let stat = store.stat_at(&asked.at, &asked.path)?;
                let (mut left, path) = (stat, asked.path.clone());
                Ok(move |_: &Store, text: &mut Vec<u8>| {
                    if let Some(stat) = left.take() {
                        write_stat(text, &stat, &path);
                    }
                    Ok(false)
                })
            })) as Arc<dyn File>,
            LsShape::Entries => Arc::new(records(&world, move |store| {
                let entry = store.entry_at(&asked.at, &asked.path)?;
                if !entry.mode.is_dir() {
                    return Err(store::Error::NotDirectory(asked.path.to_string()));
                }
                let (tree, mut index) = (store.objects.tree(&entry.id)?, 0);
                let sizes = asked.sizes;
                Ok(move |store: &Store, text: &mut Vec<u8>| {
                    if index == tree.len() {
                        return Ok(false);
                    }
                    let found = tree.nth(index);
                    index += 1;
                    write_item(text, &item(store, found.name, found.entry, sizes)?);
                    Ok(true)
                })
            })),
            LsShape::Leaves => Arc::new(records(&world, move |store| {
                let entry = store.entry_at(&asked.at, &asked.path)?;
                let mut leaves = walk::Leaves::new(&store.objects, &entry)?;
                let sizes = asked.sizes;
                Ok(move |store: &Store, text: &mut Vec<u8>| {
                    let Some((path, entry)) = leaves.next(&store.objects)? else {
                        return Ok(false);
                    };
                    write_item(text, &item(store, path, entry, sizes)?);
                    Ok(true)
                })
            })),
        })
    })
}

fn item(store: &Store, path: &[u8], entry: Entry, sized: bool) -> store::Result<Item> {
    let size = match sized && entry.mode.is_blob() {
        true => Some(store.objects.size(&entry.id)?),
        false => None,
    };
    let mut whole = TreePath::root();
    if !path.is_empty() {
        whole.push(path);
    }
    Ok(Item {
        path: whole,
        entry,
        size,
    })
}

/// Below `diff`: the leaves that differ.
pub fn diff(world: Arc<World>, name: Vec<u8>) -> BoxFuture<'static, Result<Arc<dyn File>>> {
    Box::pin(async move {
        let asked = DiffQuery::read(&name)?;
        let begin = move |store: &Store| {
            let side = |at: &At| {
                let root = store.root_at(at)?;
                store.objects.lookup(&root.id, &asked.path)
            };
            let (old, new) = (side(&asked.from)?, side(&asked.to)?);
            let mut differences =
                Differences::new(&store.objects, old.as_ref(), new.as_ref(), &asked.path)?;
            Ok(move |store: &Store, text: &mut Vec<u8>| {
                let Some(change) = differences.next(&store.objects)? else {
                    return Ok(false);
                };
                write_change(text, &change);
                Ok(true)
            })
        };
        Ok(Arc::new(records(&world, begin)) as Arc<dyn File>)
    })
}

/// `refs`: all branches, those of remotes included.
pub fn refs(world: &Arc<World>) -> Records {
    records(world, |store| {
        let mut branches = store.branches()?.into_iter();
        let mut fetched = store.fetched_branches()?.into_iter();
        Ok(move |_: &Store, text: &mut Vec<u8>| {
            if let Some(branch) = branches.next() {
                write_ref(text, &branch, false);
            } else if let Some(branch) = fetched.next() {
                write_ref(text, &branch, true);
            } else {
                return Ok(false);
            }
            Ok(true)
        })
    })
}
