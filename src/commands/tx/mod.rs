//! `dk tx`: transactions that outlive a process.
//!
//! What can be done with one transaction is a [`Step`]; `dk tx` names the
//! transaction before the step's own arguments, the shell knows it already.

use anyhow::Context as _;

use crate::client::Error;
use crate::commands::{Session, completions, parse};
use crate::model::{BranchName, Kind, ObjectId, Rev, State, Time, Transaction, TransactionId};

mod apply;
mod commit;
mod edit;
mod merge;
mod read;
mod resolve;
mod shell;

/// Work with transactions that outlive a process
///
/// A transaction is a tree under change, begun on a branch and invisible there
/// until it is committed. It is kept in the store: it survives the process,
/// can be continued by another, and every step is durable when its command
/// ends. TX is its id, or as much of the beginning as makes it unambiguous.
///
/// When it is committed it is merged with what the branch became meanwhile. If
/// that conflicts the status is 3 and the transaction stays open, to be
/// settled with `dk tx resolve`.
#[derive(clap::Args, Debug)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  tx=$(dk tx begin master)
  date | dk tx write \"$tx\" now
  dk tx commit \"$tx\" -m tick || dk tx resolve \"$tx\"
  dk tx shell master"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
#[command(defer = true)]
enum Command {
    Begin(Begin),
    Write(On<edit::Write>),
    Append(On<edit::Append>),
    Link(On<edit::Link>),
    Mkdir(On<edit::Mkdir>),
    Rm(On<edit::Rm>),
    Mv(On<edit::Mv>),
    Chmod(On<edit::Chmod>),
    Import(On<edit::Import>),
    Apply(On<apply::Apply>),
    Ls(On<read::Ls>),
    Cat(On<read::Cat>),
    Diff(On<read::Diff>),
    Status(On<read::Status>),
    Merge(On<merge::Merge>),
    Conflicts(On<merge::Conflicts>),
    Resolve(On<resolve::Resolve>),
    Parents(On<commit::Parents>),
    Message(On<commit::Message>),
    Commit(On<commit::Commit>),
    Abort(Abort),
    Open(read::Open),
    Gc(read::Gc),
    Shell(shell::Args),
}

/// What can be done with one transaction.
#[derive(clap::Subcommand, Debug)]
enum Step {
    Write(edit::Write),
    Append(edit::Append),
    Link(edit::Link),
    Mkdir(edit::Mkdir),
    Rm(edit::Rm),
    Mv(edit::Mv),
    Chmod(edit::Chmod),
    Import(edit::Import),
    Apply(apply::Apply),
    Ls(read::Ls),
    Cat(read::Cat),
    Diff(read::Diff),
    Status(read::Status),
    Merge(merge::Merge),
    Conflicts(merge::Conflicts),
    Resolve(resolve::Resolve),
    Parents(commit::Parents),
    Message(commit::Message),
    Commit(commit::Commit),
}

// The arguments of a step, after those of which transaction it is for. Without
// a doc comment of its own it leaves the help to the step.
#[derive(clap::Args, Debug)]
struct On<A: clap::Args + std::fmt::Debug> {
    /// The transaction
    #[arg(value_name = "TX", add = completions::transaction())]
    tx: String,
    #[command(flatten)]
    args: A,
}

/// Begin a transaction
///
/// Prints its id and nothing else. The branch need not exist: it is born when
/// the transaction is committed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tx=$(dk tx begin master)
  dk tx begin --name nightly --from v1.2 release

JSON:
  {\"id\"}")]
struct Begin {
    /// The branch it is to be committed to
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    branch: BranchName,
    /// Start from this commit instead of the branch's head
    #[arg(long, value_name = "REV", value_parser = parse::rev(), add = completions::rev())]
    from: Option<Rev>,
    /// Choose the id: letters, digits, '.', '_' and '-'
    #[arg(long, value_name = "ID")]
    name: Option<String>,
}

/// Throw transactions away
///
/// Prints nothing. What they changed is lost; their branches never saw it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx abort \"$tx\"
  dk tx open master | cut -f1 | xargs -r dk tx abort")]
struct Abort {
    /// The transactions
    #[arg(value_name = "TX", required = true, add = completions::transaction())]
    tx: Vec<String>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let (tx, step) = match args.command {
        Command::Begin(args) => return begin(session, args).await,
        Command::Abort(args) => return abort(session, args).await,
        Command::Open(args) => return read::open(session, args).await,
        Command::Gc(args) => return read::gc(session, args).await,
        Command::Shell(args) => return shell::run(session, args).await,
        Command::Write(on) => (on.tx, Step::Write(on.args)),
        Command::Append(on) => (on.tx, Step::Append(on.args)),
        Command::Link(on) => (on.tx, Step::Link(on.args)),
        Command::Mkdir(on) => (on.tx, Step::Mkdir(on.args)),
        Command::Rm(on) => (on.tx, Step::Rm(on.args)),
        Command::Mv(on) => (on.tx, Step::Mv(on.args)),
        Command::Chmod(on) => (on.tx, Step::Chmod(on.args)),
        Command::Import(on) => (on.tx, Step::Import(on.args)),
        Command::Apply(on) => (on.tx, Step::Apply(on.args)),
        Command::Ls(on) => (on.tx, Step::Ls(on.args)),
        Command::Cat(on) => (on.tx, Step::Cat(on.args)),
        Command::Diff(on) => (on.tx, Step::Diff(on.args)),
        Command::Status(on) => (on.tx, Step::Status(on.args)),
        Command::Merge(on) => (on.tx, Step::Merge(on.args)),
        Command::Conflicts(on) => (on.tx, Step::Conflicts(on.args)),
        Command::Resolve(on) => (on.tx, Step::Resolve(on.args)),
        Command::Parents(on) => (on.tx, Step::Parents(on.args)),
        Command::Message(on) => (on.tx, Step::Message(on.args)),
        Command::Commit(on) => (on.tx, Step::Commit(on.args)),
    };
    let tx = session.client.transaction(&tx).await?;
    step.run(session, &tx).await
}

impl Step {
    async fn run(self, session: &Session, tx: &Transaction) -> anyhow::Result<()> {
        match self {
            Self::Write(args) => edit::write(session, tx, args).await,
            Self::Append(args) => edit::append(session, tx, args).await,
            Self::Link(args) => edit::link(session, tx, args).await,
            Self::Mkdir(args) => edit::mkdir(session, tx, args).await,
            Self::Rm(args) => edit::rm(session, tx, args).await,
            Self::Mv(args) => edit::mv(session, tx, args).await,
            Self::Chmod(args) => edit::chmod(session, tx, args).await,
            Self::Import(args) => edit::import(session, tx, args).await,
            Self::Apply(args) => apply::run(session, tx, args).await,
            Self::Ls(args) => read::ls(session, tx, args).await,
            Self::Cat(args) => read::cat(session, tx, args).await,
            Self::Diff(args) => read::diff(session, tx, args).await,
            Self::Status(_) => read::status(session, tx).await,
            Self::Merge(args) => merge::run(session, tx, args).await,
            Self::Conflicts(_) => merge::conflicts(session, tx),
            Self::Resolve(args) => resolve::run(session, tx, args).await,
            Self::Parents(args) => commit::parents(session, tx, args).await,
            Self::Message(args) => commit::message(session, tx, args).await,
            Self::Commit(args) => commit::run(session, tx, args).await,
        }
    }
}

async fn begin(session: &Session, args: Begin) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct Record<'a> {
        id: &'a str,
    }
    let name = match &args.name {
        None => None,
        Some(name) => Some(TransactionId::new(name).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("{name:?} cannot be the id of a transaction"),
            )
        })?),
    };
    let from = match &args.from {
        None => None,
        Some(rev) => Some(session.resolve(rev).await?),
    };
    let tx = start(session, &args.branch, from.as_ref(), name.as_ref()).await?;
    let record = Record { id: tx.id.as_str() };
    session
        .ui
        .show(&record, |record, out| writeln!(out, "{}", record.id))
}

async fn start(
    session: &Session,
    branch: &BranchName,
    from: Option<&ObjectId>,
    name: Option<&TransactionId>,
) -> anyhow::Result<Transaction> {
    let mut author = session.signature().await?;
    // Its age counts from now, whatever date the commit is to carry.
    author.time = Time::now();
    session
        .client
        .begin(branch, from, name, Some(author))
        .await
        .with_context(|| format!("cannot begin a transaction on {branch}"))
}

async fn abort(session: &Session, args: Abort) -> anyhow::Result<()> {
    // All are looked up before the first is gone.
    let mut found = Vec::with_capacity(args.tx.len());
    for tx in &args.tx {
        found.push(session.client.transaction(tx).await?.id);
    }
    found.sort();
    found.dedup();
    for id in &found {
        drop_one(session, id).await?;
    }
    Ok(())
}

async fn drop_one(session: &Session, id: &TransactionId) -> anyhow::Result<()> {
    let dropped = session.client.tx_abort(id).await;
    dropped.with_context(|| format!("cannot throw the transaction {id} away"))
}

/// Tells whether a transaction still waits to be committed.
fn is_open(tx: &Transaction) -> bool {
    !matches!(tx.state, State::Committed(_))
}
