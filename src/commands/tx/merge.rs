//! `dk tx merge` and `dk tx conflicts`.

use anyhow::Context as _;

use crate::commands::{Session, completions, merge, parse};
use crate::model::{Kind, Rev, Transaction};
use crate::ui::{Exit, Usage};

/// Merge a commit into a transaction
///
/// Three-way, file by file. Conflicts are printed one a line: the path, a tab,
/// the reason; they stay in the transaction until they are settled, and the
/// status is 3.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx merge \"$tx\" feature/a || dk tx resolve \"$tx\"

JSON:
  {\"path\", \"kind\"}")]
pub(super) struct Merge {
    /// What to merge
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    rev: Rev,
}

/// List the conflicts of a transaction
///
/// Prints one line each: the path, a tab, the reason.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx conflicts \"$tx\"
  dk tx conflicts --json \"$tx\" | jq -r .theirs.id

JSON:
  {\"path\", \"kind\": \"file-vs-dir\"|\"changed-both\"|\"add-add\"|\"add-del\", \"base\": ENTRY, \"ours\": ENTRY, \"theirs\": ENTRY}
  where ENTRY is {\"kind\", \"mode\", \"id\"} or null")]
pub(super) struct Conflicts {}

pub(super) async fn run(session: &Session, tx: &Transaction, args: Merge) -> anyhow::Result<()> {
    let theirs = session.resolve(&args.rev).await?;
    let cannot = || format!("cannot merge {} into {}", args.rev, tx.id);
    let merged = match session.client.tx_merge(&tx.id, &theirs).await {
        // Those of an earlier merge are in the way.
        Err(error) if error.kind() == Kind::Conflict => return Err(unsettled(tx, &cannot())),
        merged => merged.with_context(cannot)?,
    };
    if merged.conflicts.is_empty() {
        return Ok(());
    }
    let found = merged.conflicts.iter();
    merge::show_conflicts(session, found.map(|one| (&one.path, one.kind)), "")?;
    Err(unsettled(&merged, &cannot()))
}

pub(super) fn conflicts(session: &Session, tx: &Transaction) -> anyhow::Result<()> {
    let mut records = session.ui.records();
    for conflict in &tx.conflicts {
        records.show(conflict, |conflict, out| {
            writeln!(out, "{}\t{}", conflict.path, conflict.kind.text())
        })?;
    }
    records.finish()
}

/// Returns what ends a command that left conflicts: status 3, and what to do.
pub(super) fn unsettled(tx: &Transaction, cannot: &str) -> anyhow::Error {
    let (count, plural) = match tx.conflicts.len() {
        1 => (1, ""),
        count => (count, "s"),
    };
    let message = format!("{cannot}: {count} path{plural} in conflict");
    let hint = format!("settle them with 'dk tx resolve {}'", tx.id);
    Exit::with(3, Usage::new(message).hint(hint)).into()
}
