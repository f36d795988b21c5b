//! `dk tx commit`, and what goes into the commit: message and parents.

use std::ffi::OsString;
use std::io::Read as _;

use anyhow::Context as _;
use serde::Serialize;

use super::merge;
use crate::client::{CommitOptions, Error, Expect};
use crate::commands::{Session, author, blocking, commit, completions, parse, source};
use crate::model::text::JsonBytes;
use crate::model::{ObjectId, Rev, Signature, Transaction};

/// Commit a transaction
///
/// Where the branch moved meanwhile, the two are merged. Prints the new head.
/// On a conflict nothing is committed: conflicts are listed on standard error,
/// the transaction stays open, and the status is 3. Asked again after it went
/// through, it gives the same answer and commits nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx commit \"$tx\" -m 'tick'
  dk tx commit \"$tx\" --no-empty --keep     go on with the same transaction
  dk tx commit \"$tx\" || dk tx resolve \"$tx\"

JSON:
  {\"commit\"}")]
pub(super) struct Commit {
    /// The message of the commit, instead of the transaction's
    #[arg(short, long, value_name = "MSG")]
    message: Option<OsString>,
    /// Fail with status 5 if the branch moved, rather than merge
    #[arg(long)]
    ff_only: bool,
    #[command(flatten)]
    empty: commit::EmptyFlags,
    #[command(flatten)]
    guard: commit::Guard,
    /// Keep the transaction open after the commit, based on it
    #[arg(long)]
    keep: bool,
}

/// Show or set the message of the commit to be
///
/// Prints it byte for byte; with MSG sets it and prints nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx message \"$tx\" 'what it is about'
  fmt notes | dk tx message \"$tx\" -

JSON:
  {\"message\"}")]
pub(super) struct Message {
    /// The message; with -: standard input
    #[arg(value_name = "MSG")]
    message: Option<OsString>,
}

/// Show or set the parents of the commit to be
///
/// Prints their ids in order; with REVs sets them and prints nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx parents \"$tx\"
  dk tx parents \"$tx\" master feature/a
  dk tx parents --none \"$tx\"             a commit without history

JSON:
  {\"commit\"}")]
pub(super) struct Parents {
    /// The parents, the first one first
    #[arg(value_name = "REV", value_parser = parse::rev(), add = completions::rev())]
    revs: Vec<Rev>,
    /// Set no parents at all
    #[arg(long, conflicts_with = "revs")]
    none: bool,
}

pub(super) async fn run(session: &Session, tx: &Transaction, args: Commit) -> anyhow::Result<()> {
    // Whoever began it is its author, unless somebody is named.
    let author = match session.author {
        Some(_) => session.signature().await?,
        None => Signature {
            time: author::time()?,
            ..tx.author.clone()
        },
    };
    let options = CommitOptions {
        message: args.message.map(commit::in_full),
        author: Some(author),
        expect: args.guard.expect.unwrap_or(Expect::Any),
        ff_only: args.ff_only,
        empty: args.empty.choice(),
        force: args.guard.force,
        keep: args.keep,
    };
    let cannot = || format!("cannot commit {} to {}", tx.id, tx.branch);
    match session.client.tx_commit(&tx.id, options).await {
        Ok(head) => commit::show(session, head),
        Err(Error::Conflict { paths, kinds }) => {
            for (path, kind) in paths.iter().zip(&kinds) {
                session.ui.line(&format!("{path}\t{}", kind.text()));
            }
            let tx = session.client.transaction(tx.id.as_str()).await?;
            Err(merge::unsettled(&tx, &cannot()))
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

pub(super) async fn message(
    session: &Session,
    tx: &Transaction,
    args: Message,
) -> anyhow::Result<()> {
    let message = match args.message {
        None => {
            #[derive(Serialize)]
            struct Record<'a> {
                message: JsonBytes<'a>,
            }
            let message = JsonBytes(&tx.message);
            let ui = &session.ui;
            return ui.show(&Record { message }, |_, out| {
                out.write_all(&ui.text(&tx.message))
            });
        }
        Some(message) if message == "-" => {
            blocking(|| {
                let mut text = Vec::new();
                let read = source::stdin()?.read_to_end(&mut text);
                read.context("cannot read standard input")?;
                Ok(text)
            })
            .await?
        }
        Some(message) => commit::in_full(message),
    };
    let set = session.client.tx_set(&tx.id, Some(message), None).await;
    set.context("cannot set the message")?;
    Ok(())
}

pub(super) async fn parents(
    session: &Session,
    tx: &Transaction,
    args: Parents,
) -> anyhow::Result<()> {
    if args.revs.is_empty() && !args.none {
        for parent in &tx.parents {
            commit::show(session, *parent)?;
        }
        return Ok(());
    }
    let mut parents: Vec<ObjectId> = Vec::with_capacity(args.revs.len());
    for rev in &args.revs {
        parents.push(session.resolve(rev).await?);
    }
    let set = session.client.tx_set(&tx.id, None, Some(parents)).await;
    set.context("cannot set the parents")?;
    Ok(())
}
