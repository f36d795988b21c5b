//! `/maintenance`: fetching and pushing, collecting garbage, checking, and
//! dropping old transactions.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::Kind;
use crate::model::request::Progress;
use crate::model::text::{CollectTransactions, TaskLine, read_task_arguments, write_transaction};
use crate::store::{self, Store};

use super::branch::malformed;
use super::entry::{Dir, Folder};
use super::files::Command;
use super::node::{Call, Error, Node, Result, Shape};
use super::root::named;
use super::task::Task;
use super::{Connection, World, failure, who};

/// `/maintenance`.
pub struct All(pub Arc<Connection>);

#[async_trait::async_trait]
impl Folder for All {
    fn mtime(&self) -> i64 {
        self.0.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(&[
            (b"gc", Shape::File),
            (b"fsck", Shape::File),
            (b"fetch", Shape::File),
            (b"push", Shape::File),
            (b"tx", Shape::File),
        ]))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let world = &self.0.world;
        Ok(match name {
            b"gc" => at.file(name, Task::new(world, check_flag, Arc::new(gc))),
            b"fsck" => at.file(name, Task::new(world, check_flag, Arc::new(fsck))),
            b"fetch" => at.file(name, Task::new(world, check_remote, Arc::new(fetch))),
            b"push" => at.file(name, Task::new(world, check_remote, Arc::new(push))),
            b"tx" => {
                let command = self.0.collect.get_or_init(|| Arc::new(collect(world)));
                at.shared_file(name, command.clone())
            }
            _ => return Err(failure::no_name(name)),
        })
    }
}

/// Nothing, or `dry-run`.
fn check_flag(text: &[u8]) -> Result<()> {
    match text.trim_ascii() {
        b"" | b"dry-run" => Ok(()),
        other => Err(Error::new(
            Kind::Invalid,
            format!("{} is not \"dry-run\"", crate::model::text::quote(other)),
        )),
    }
}

fn check_remote(text: &[u8]) -> Result<()> {
    read_task_arguments(text).map(|_| ()).map_err(malformed)
}

fn remote(text: &[u8]) -> store::Result<(String, Vec<String>)> {
    read_task_arguments(text).map_err(|error| store::Error::Invalid(error.to_string()))
}

fn gc(store: &Arc<Store>, text: &[u8], progress: &dyn Progress) -> store::Result<Vec<TaskLine>> {
    let dry_run = text.trim_ascii() == b"dry-run";
    let collected = store.gc(dry_run, progress, &who(store)?)?;
    Ok(vec![TaskLine::Collected(collected)])
}

fn fsck(store: &Arc<Store>, _: &[u8], progress: &dyn Progress) -> store::Result<Vec<TaskLine>> {
    let faults = store.fsck(progress)?;
    Ok(faults.into_iter().map(TaskLine::Fault).collect())
}

fn fetch(store: &Arc<Store>, text: &[u8], progress: &dyn Progress) -> store::Result<Vec<TaskLine>> {
    let (remote, refspecs) = remote(text)?;
    let fetched = store.fetch(&remote, &refspecs, progress, &who(store)?)?;
    Ok(fetched.into_iter().map(TaskLine::Fetched).collect())
}

fn push(store: &Arc<Store>, text: &[u8], progress: &dyn Progress) -> store::Result<Vec<TaskLine>> {
    let (remote, refspecs) = remote(text)?;
    store.repository()?.push(&remote, &refspecs, progress)?;
    Ok(Vec::new())
}

/// Drops old transactions, and tells which.
fn collect(world: &Arc<World>) -> Command {
    let world = world.clone();
    Command::new(
        move |call: &Call, text: Vec<u8>| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (world, call) = (world.clone(), call.clone());
            Box::pin(async move {
                let asked = CollectTransactions::read(&text).map_err(malformed)?;
                let work = move |store: &Arc<Store>| {
                    let author = who(store)?;
                    let dropped = store.tx_collect(asked.older_than, asked.dry_run, &author)?;
                    let mut records = Vec::new();
                    for transaction in &dropped {
                        write_transaction(&mut records, transaction);
                    }
                    Ok(records)
                };
                world.change(&call, work).await
            })
        },
    )
}
