//! The steps that look at a transaction, and the lists of transactions.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::is_open;
use crate::client::At;
use crate::commands::cat as file;
use crate::commands::{Session, completions, diff as differing, ls as listing, parse};
use crate::model::text::amount::duration;
use crate::model::text::{JsonBytes, printable};
use crate::model::{BranchName, ObjectId, Rev, State, Time, Transaction, TreePath};

/// List the entries of a folder in a transaction
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx ls \"$tx\"
  dk tx ls -r \"$tx\" src

JSON:
  as of dk ls")]
pub(super) struct Ls {
    #[command(flatten)]
    options: listing::Options,
    /// The folder; without it the root
    #[arg(default_value = "", hide_default_value = true, value_parser = parse::path())]
    path: TreePath,
}

/// Write files of a transaction to stdout
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx cat \"$tx\" README.md
  dk tx cat \"$tx\" head body foot > page

JSON:
  as of dk cat")]
pub(super) struct Cat {
    /// The files
    #[arg(required = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// Show what a transaction changes
///
/// Compares it with the commit it was begun from, or with REV; prints one line
/// a path: `+` added, `-` removed, `*` changed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx diff \"$tx\"
  dk tx diff --patch \"$tx\" master     against the branch as it is now

JSON:
  as of dk diff")]
pub(super) struct Diff {
    #[command(flatten)]
    options: differing::Options,
    /// Compare with this commit
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    rev: Option<Rev>,
    /// Compare only these paths
    #[arg(last = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// Show where a transaction stands
///
/// Prints one fact a line, its name first: id, branch, state, base (the commit
/// it was begun from), head (the branch's), moved (whether the head is not the
/// base any more), begun, edited, author, edits, conflicts, message.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx status \"$tx\"
  dk tx status --json \"$tx\" | jq .moved

JSON:
  {\"id\", \"branch\", \"state\": \"open\"|\"committing\"|\"committed\", \"base\", \"parents\", \"author\",
   \"begun\", \"edited\", \"edits\", \"conflicts\", \"message\", \"tree\", \"head\", \"moved\"}
  begun and edited are seconds since 1970")]
pub(super) struct Status {}

/// List open transactions
///
/// Prints one line each, oldest first: id, branch, age, number of edits,
/// number of conflicts, author; tabs between.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx open
  dk tx open master | cut -f1

JSON:
  as of dk tx status, without \"head\" and \"moved\"")]
pub(super) struct Open {
    /// Only those on this branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    branch: Option<BranchName>,
}

/// Throw old transactions away
///
/// Drops transactions that nobody touched for so long, and the records of
/// committed ones. Prints the id of each.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx gc --dry-run
  dk tx gc --older-than 12h

JSON:
  as of dk tx open")]
pub(super) struct Gc {
    /// Keep what was touched less than this ago: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = duration)]
    older_than: Duration,
    /// Drop nothing: print what would be dropped
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) async fn ls(session: &Session, tx: &Transaction, args: Ls) -> anyhow::Result<()> {
    let at = At::Transaction(tx.id.clone());
    listing::list(session, &at, &args.path, args.options).await
}

pub(super) async fn cat(session: &Session, tx: &Transaction, args: Cat) -> anyhow::Result<()> {
    let at = At::Transaction(tx.id.clone());
    let opening = args
        .paths
        .iter()
        .map(|path| file::open(session, at.clone(), path));
    let mut opened = stream::iter(opening).buffered(file::AHEAD);
    while let Some(opened) = opened.next().await {
        opened?.write(session).await?;
    }
    Ok(())
}

pub(super) async fn diff(session: &Session, tx: &Transaction, args: Diff) -> anyhow::Result<()> {
    let from = match (&args.rev, tx.base) {
        (Some(rev), _) => At::Commit(session.resolve(rev).await?),
        (None, Some(base)) => At::Commit(base),
        (None, None) => At::Tree(differing::empty_tree(tx.tree.hash_kind())),
    };
    // The tree as it was when the command began, whoever edits meanwhile.
    let to = At::Tree(tx.tree);
    let changes = differing::between(session, &from, &to, args.paths).await?;
    let mut records = session.ui.records();
    differing::show(session, &mut records, &changes, args.options).await?;
    records.finish()
}

pub(super) async fn status(session: &Session, tx: &Transaction) -> anyhow::Result<()> {
    let head = session.client.head(&tx.branch).await?;
    let record = Record {
        tx,
        head: Some(head),
    };
    session.ui.show(&record, |_, out| facts(tx, head, out))
}

fn facts(tx: &Transaction, head: Option<ObjectId>, out: &mut dyn Write) -> io::Result<()> {
    let id = |id: Option<ObjectId>| id.map_or_else(|| "none".to_string(), |id| id.to_string());
    let state = match &tx.state {
        State::Open => "open".into(),
        State::Committing { new, .. } => format!("committing {new}"),
        State::Committed(head) => format!("committed {head}"),
    };
    let time = |time: Time| format!("{time} ({} ago)", age(time));
    let author = [&tx.author.name[..], b" <", &tx.author.email, b">"].concat();
    let message = tx.message.trim_ascii();
    let subject = message.split(|b| *b == b'\n').next().unwrap_or_default();
    for (name, value) in [
        ("id", tx.id.to_string()),
        ("branch", tx.branch.to_string()),
        ("state", state),
        ("base", id(tx.base)),
        ("head", id(head)),
        ("moved", if head == tx.base { "no" } else { "yes" }.into()),
        ("begun", time(tx.begun)),
        ("edited", time(tx.edited)),
        ("author", printable(&author)),
        ("edits", tx.edits.to_string()),
        ("conflicts", tx.conflicts.len().to_string()),
        ("message", printable(subject)),
    ] {
        writeln!(out, "{}", format!("{name:<10}{value}").trim_end())?;
    }
    Ok(())
}

pub(super) async fn open(session: &Session, args: Open) -> anyhow::Result<()> {
    let mut records = session.ui.records();
    for tx in &session.client.transactions().await? {
        let wanted = args.branch.as_ref().is_none_or(|name| *name == tx.branch);
        if wanted && is_open(tx) {
            records.show(&Record { tx, head: None }, |_, out| line(tx, out))?;
        }
    }
    records.finish()
}

fn line(tx: &Transaction, out: &mut dyn Write) -> io::Result<()> {
    let conflicts = tx.conflicts.len();
    let plural = |count, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    writeln!(
        out,
        "{}\t{}\t{}\t{}\t{}\t{}",
        tx.id,
        tx.branch,
        age(tx.begun),
        plural(tx.edits, "edit"),
        plural(conflicts as u64, "conflict"),
        printable(&[&tx.author.name[..], b" <", &tx.author.email, b">"].concat()),
    )
}

pub(super) async fn gc(session: &Session, args: Gc) -> anyhow::Result<()> {
    let dropped = session
        .client
        .tx_collect(args.older_than, args.dry_run)
        .await
        .context("cannot throw old transactions away")?;
    let mut records = session.ui.records();
    for tx in &dropped {
        records.show(&Record { tx, head: None }, |_, out| {
            writeln!(out, "{}", tx.id)
        })?;
    }
    records.finish()
}

/// A transaction, for JSON.
struct Record<'a> {
    tx: &'a Transaction,
    /// The branch's head, where it was asked for.
    head: Option<Option<ObjectId>>,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tx = self.tx;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", tx.id.as_str())?;
        map.serialize_entry("branch", &JsonBytes(tx.branch.as_bytes()))?;
        let state = match tx.state {
            State::Open => "open",
            State::Committing { .. } => "committing",
            State::Committed(_) => "committed",
        };
        map.serialize_entry("state", state)?;
        map.serialize_entry("base", &tx.base)?;
        map.serialize_entry("parents", &tx.parents)?;
        map.serialize_entry("author", &tx.author)?;
        map.serialize_entry("begun", &tx.begun.seconds)?;
        map.serialize_entry("edited", &tx.edited.seconds)?;
        map.serialize_entry("edits", &tx.edits)?;
        map.serialize_entry("conflicts", &tx.conflicts)?;
        map.serialize_entry("message", &JsonBytes(&tx.message))?;
        map.serialize_entry("tree", &tx.tree)?;
        if let Some(head) = self.head {
            map.serialize_entry("head", &head)?;
            map.serialize_entry("moved", &(head != tx.base))?;
        }
        map.end()
    }
}

/// Returns how long ago a moment was, in the largest unit that fits.
fn age(time: Time) -> String {
    let now = jiff::Timestamp::now().as_second();
    let seconds = now.saturating_sub(time.seconds).max(0);
    for (unit, letter) in [(86_400, 'd'), (3_600, 'h'), (60, 'm')] {
        if seconds >= unit {
            return format!("{}{letter}", seconds / unit);
        }
    }
    format!("{seconds}s")
}
