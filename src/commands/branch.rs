//! `dk branch`: the branches of a store.

use crate::client::{Error, Expect, MoveOptions};
use crate::commands::{Session, completions, parse};
use crate::model::text::JsonBytes;
use crate::model::{Branch, BranchName, Kind, ObjectId, Rev};
use crate::ui::{Exit, Look};

/// List, create, delete, rename and move branches
///
/// Without a subcommand the branches are listed.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  dk branch -v
  dk branch create release --from master~3
  dk branch reset release v2 --expect \"$(dk branch head release)\"

JSON:
  {\"name\", \"head\"}, with -v also \"subject\"
  of every subcommand; head is null where a branch was deleted"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    List(List),
    Create(Create),
    Delete(Delete),
    Rename(Rename),
    Head(Head),
    Ff(Ff),
    Reset(Reset),
}

/// List the branches that have a commit, in order of their names
#[derive(clap::Args, Debug)]
struct List {
    /// Show the head and its subject after each name, divided by tabs
    #[arg(short, long)]
    verbose: bool,
    /// List also the branches last fetched from remotes, as refs/remotes/REMOTE/NAME
    #[arg(short, long)]
    all: bool,
}

/// Create a branch, and print its head
#[derive(clap::Args, Debug)]
struct Create {
    /// The new branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    name: BranchName,
    /// Where it begins
    #[arg(long, value_name = "REV", default_value = "HEAD", value_parser = parse::rev(), add = completions::rev())]
    from: Rev,
}

/// Delete branches, and print the heads they had
#[derive(clap::Args, Debug)]
struct Delete {
    /// The branches
    #[arg(value_name = "NAME", required = true, value_parser = parse::branch(), add = completions::branch())]
    names: Vec<BranchName>,
    /// Only if the head is this commit
    #[arg(long, value_name = "ID", value_parser = parse::expect)]
    expect: Option<Expect>,
    #[command(flatten)]
    force: Force,
}

/// Rename a branch, and print its head
#[derive(clap::Args, Debug)]
struct Rename {
    /// The branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    old: BranchName,
    /// Its new name
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    new: BranchName,
    #[command(flatten)]
    force: Force,
}

/// Print the head of a branch
///
/// Ends with status 4 while the branch has no commit.
#[derive(clap::Args, Debug)]
struct Head {
    /// The branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    name: BranchName,
}

/// Move a branch forward to a commit, and print it
///
/// Ends with status 5 if the commit does not have the present head behind it.
#[derive(clap::Args, Debug)]
struct Ff {
    /// The branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    name: BranchName,
    /// Where it is to go
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    rev: Rev,
    #[command(flatten)]
    force: Force,
}

/// Move a branch to any commit, and print it
#[derive(clap::Args, Debug)]
struct Reset {
    /// The branch
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    name: BranchName,
    /// Where it is to go
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    rev: Rev,
    /// Only if the head is this commit (0: none); otherwise end with status 5
    #[arg(long, value_name = "ID", value_parser = parse::expect)]
    expect: Option<Expect>,
    #[command(flatten)]
    force: Force,
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Force {
    /// Even if a work tree has the branch checked out
    #[arg(long)]
    force: bool,
}

/// A branch, for JSON.
#[derive(serde::Serialize)]
struct Record<'a> {
    name: &'a BranchName,
    head: Option<ObjectId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<JsonBytes<'a>>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let list_args = args.list;
    match args.action.unwrap_or(Action::List(list_args)) {
        Action::List(args) => list(session, &args).await,
        Action::Create(args) => create(session, &args).await,
        Action::Delete(args) => delete(session, &args).await,
        Action::Rename(args) => {
            let Rename { old, new, force } = args;
            let head = session
                .client
                .rename_branch(&old, &new, force.force)
                .await?;
            moved(session, &new, Some(head), head)
        }
        Action::Head(args) => {
            let head = session.client.head(&args.name).await?;
            let head = head.ok_or_else(|| Error::NotFound {
                what: format!("branch {}", args.name),
            })?;
            moved(session, &args.name, Some(head), head)
        }
        Action::Ff(args) => {
            let options = MoveOptions {
                ff_only: true,
                force: args.force.force,
                ..MoveOptions::default()
            };
            move_to(session, &args.name, &args.rev, options).await
        }
        Action::Reset(args) => {
            let options = MoveOptions {
                expect: args.expect.unwrap_or_default(),
                force: args.force.force,
                ..MoveOptions::default()
            };
            move_to(session, &args.name, &args.rev, options).await
        }
    }
}

async fn list(session: &Session, args: &List) -> anyhow::Result<()> {
    let paint = session.ui.paint;
    let mut records = session.ui.records();
    let mut branches = session.client.branches().await?;
    if args.all {
        for Branch { name, head } in session.client.fetched_branches().await? {
            let name = [b"refs/remotes/", name.as_bytes()].concat();
            let name = BranchName::new(name)?;
            branches.push(Branch { name, head });
        }
    }
    for Branch { name, head } in branches {
        let commit = match args.verbose {
            true => Some(session.client.commit(&head).await?),
            false => None,
        };
        let subject = commit.as_ref().map(|commit| commit.subject());
        let record = Record {
            name: &name,
            head: Some(head),
            subject: subject.map(JsonBytes),
        };
        let shown = subject.map(|subject| session.ui.text(subject));
        records.show(&record, |_, out| {
            write!(out, "{name}")?;
            if let Some(subject) = shown {
                write!(out, "\t{}\t", paint.of(Look::Commit, head))?;
                out.write_all(&subject)?;
            }
            writeln!(out)
        })?;
    }
    records.finish()
}

async fn create(session: &Session, args: &Create) -> anyhow::Result<()> {
    let to = session.resolve(&args.from).await?;
    let options = MoveOptions {
        expect: Expect::Unborn,
        ..MoveOptions::default()
    };
    match session.client.move_head(&args.name, &to, options).await {
        Ok(()) => moved(session, &args.name, Some(to), to),
        Err(Error::HeadMoved {
            actual: Some(_), ..
        }) => Err(Error::Other {
            kind: Kind::Exists,
            message: format!("branch {} exists already", args.name),
            hint: Some(format!(
                "move it with 'dk branch reset {} {}'",
                args.name, args.from
            )),
            source: None,
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes what can be deleted; the status is that of the first failure.
async fn delete(session: &Session, args: &Delete) -> anyhow::Result<()> {
    let options = MoveOptions {
        expect: args.expect.unwrap_or_default(),
        force: args.force.force,
        ..MoveOptions::default()
    };
    let mut failed = None;
    for name in &args.names {
        match session.client.delete_branch(name, options).await {
            Ok(head) => moved(session, name, None, head)?,
            Err(error) if args.names.len() == 1 => return Err(error.into()),
            Err(error) => {
                let error = error.into();
                session.ui.error(&error, super::hint(&error));
                failed.get_or_insert(super::exit_status(&error));
            }
        }
    }
    match failed {
        Some(status) => Err(Exit::quiet(status).into()),
        None => Ok(()),
    }
}

async fn move_to(
    session: &Session,
    name: &BranchName,
    rev: &Rev,
    options: MoveOptions,
) -> anyhow::Result<()> {
    let to = session.resolve(rev).await?;
    session.client.move_head(name, &to, options).await?;
    moved(session, name, Some(to), to)
}

/// Prints the id a branch has, or had.
fn moved(
    session: &Session,
    name: &BranchName,
    head: Option<ObjectId>,
    id: ObjectId,
) -> anyhow::Result<()> {
    let record = Record {
        name,
        head,
        subject: None,
    };
    session.ui.show(&record, |_, out| writeln!(out, "{id}"))
}
