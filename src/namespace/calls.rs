//! What the call files of branches and durable transactions do.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::request::{CommitOptions, Edits, MergeOptions};
use crate::model::text::apply::{Finish, Head};
use crate::model::text::{write_merged, write_transaction};
use crate::model::{BranchName, Kind, Signature, Time, Transaction, TransactionId};
use crate::store::{self, Store};

use super::branch::Cell;
use super::call::{CallFile, Request};
use super::node::{Call, Error, Result};
use super::{World, who};

/// What a complete request does. Blocks.
type Act = fn(&Store, &BranchName, Request) -> Result<Vec<u8>>;

/// Makes a call file of a branch.
pub fn of_branch(world: &Arc<World>, cell: &Arc<Cell>, act: Act) -> CallFile {
    let (asked, cell) = (world.clone(), cell.clone());
    CallFile::new(
        world,
        move |call: &Call, request: Request| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (world, call, branch) = (asked.clone(), call.clone(), cell.name());
            Box::pin(async move {
                let work = move |store: &Arc<Store>| act(store, &branch, request);
                world.change(&call, work).await
            })
        },
    )
}

/// Makes the call file of a transaction.
pub fn of_transaction(world: &Arc<World>, id: &TransactionId) -> CallFile {
    let (asked, id) = (world.clone(), id.clone());
    CallFile::new(
        world,
        move |call: &Call, request: Request| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (world, call, id) = (asked.clone(), call.clone(), id.clone());
            Box::pin(async move {
                let work = move |store: &Arc<Store>| transact(store, &id, request);
                world.change(&call, work).await
            })
        },
    )
}

fn author(store: &Store, options: &CommitOptions) -> store::Result<Signature> {
    match &options.author {
        Some(author) => Ok(author.clone()),
        None => who(store),
    }
}

fn wanted(finish: Finish, right: Finish, word: &str) -> Result<()> {
    match finish == right {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Invalid,
            format!("such a request ends with \"{word}\""),
        )),
    }
}

/// `branch/B/apply`.
pub fn edit(store: &Store, branch: &BranchName, request: Request) -> Result<Vec<u8>> {
    wanted(request.finish, Finish::Commit, "commit")?;
    let options = request.head.options;
    let edits = request.edits.unwrap_or_else(|| Edits::at_hand(|_| Ok(())));
    let head = store.edit(branch, edits, &options, &author(store, &options)?)?;
    Ok(format!("{head}\n").into_bytes())
}

/// `branch/B/merge`.
pub fn merge(store: &Store, branch: &BranchName, request: Request) -> Result<Vec<u8>> {
    wanted(request.finish, Finish::Done, "done")?;
    let head = no_edits(request)?;
    let missing = || Error::new(Kind::Invalid, "\"theirs\" is missing");
    let theirs = head.theirs.ok_or_else(missing)?;
    let options = MergeOptions {
        commit: head.options,
        favour: head.favour,
        dry_run: head.dry_run,
    };
    let author = author(store, &options.commit)?;
    let merged = store.merge(branch, &theirs, &options, &author)?;
    Ok(write_merged(&merged))
}

/// `branch/B/begin`.
pub fn begin(store: &Store, branch: &BranchName, request: Request) -> Result<Vec<u8>> {
    wanted(request.finish, Finish::Done, "done")?;
    let head = no_edits(request)?;
    let author = author(store, &head.options)?;
    let begun = store.begin(branch, head.from.as_ref(), head.name.as_ref(), &author)?;
    Ok(record(&begun))
}

fn no_edits(request: Request) -> Result<Head> {
    match request.edits {
        None => Ok(request.head),
        Some(_) => Err(Error::new(Kind::Invalid, "such a request has no edits")),
    }
}

/// Prints a transaction as a record.
pub fn record(transaction: &Transaction) -> Vec<u8> {
    let mut text = Vec::new();
    write_transaction(&mut text, transaction);
    text
}

/// `tx/ID/apply`.
fn transact(store: &Store, id: &TransactionId, request: Request) -> Result<Vec<u8>> {
    let Head {
        options,
        parents,
        resolve,
        ..
    } = request.head;
    let commit = request.finish == Finish::Commit;
    let now = options
        .author
        .as_ref()
        .map_or_else(Time::now, |who| who.time);
    let mut result = None;
    if let Some(edits) = request.edits {
        result = Some(store.tx_edit(id, edits, Time::now())?);
    }
    if let Some((side, paths)) = resolve {
        result = Some(store.tx_resolve(id, &paths, side, Time::now())?);
    }
    let message = options.message.as_deref().filter(|_| !commit);
    if message.is_some() || parents.is_some() {
        result = Some(store.tx_set(id, message, parents.as_deref(), Time::now())?);
    }
    if commit {
        let head = store.tx_commit(id, &options, options.author.as_ref(), now)?;
        return Ok(format!("{head}\n").into_bytes());
    }
    match result {
        Some(transaction) => Ok(record(&transaction)),
        None => Ok(record(&store.transaction_named(id)?)),
    }
}
