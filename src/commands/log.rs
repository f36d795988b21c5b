//! `dk log`: the commits that led to a revision.

use std::io::{self, Write};

use anyhow::Context as _;

use crate::client::{At, Event, LogQuery, Since, WatchQuery};
use crate::commands::{Session, completions, diff, parse, patch};
use crate::model::{BranchName, Commit, ObjectId, Rev, Signature, TreePath};
use crate::ui::{Look, Records, Ui, Usage};

/// Show the commits that led to a revision
///
/// Newest first, or with --reverse and --follow oldest first. With paths, only
/// the commits that changed one of them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk log -n 5 master
  dk log -p v1..v2 -- src
  dk log -f --oneline master
  dk log --json master | jq -r 'select(.author.name==\"ci\") | .id'

JSON:
  {\"id\", \"tree\", \"parents\", \"author\", \"committer\", \"message\"}
  where author and committer are {\"name\", \"email\", \"time\": seconds, \"offset\": minutes}
  with --stat or --patch also \"changes\": a list of what dk diff prints")]
pub struct Args {
    /// Show only so many commits, the newest
    #[arg(short = 'n', long = "max-count", value_name = "N")]
    limit: Option<u64>,
    /// Show also how many lines of each file changed, against the first parent
    #[arg(long)]
    stat: bool,
    /// Show also the changes as a patch, against the first parent
    #[arg(short, long)]
    patch: bool,
    /// Show one line a commit: the beginning of its id, and its subject
    #[arg(long, conflicts_with_all = ["stat", "patch"])]
    oneline: bool,
    /// Show the oldest commit first
    #[arg(long)]
    reverse: bool,
    /// Follow only the first parent of each commit
    #[arg(long)]
    first_parent: bool,
    /// Oldest first, and go on with new commits as they come
    #[arg(short, long)]
    follow: bool,
    /// Where to begin; A..B is what led to B but not to A
    #[arg(value_name = "REV", default_value = "HEAD", value_parser = parse::range(), add = completions::rev())]
    range: parse::Range,
    /// Show only commits that changed one of these
    #[arg(last = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// How commits are shown.
pub(super) struct Style {
    oneline: bool,
    /// Show what a commit changed.
    changes: Option<diff::Options>,
    /// A commit was shown before: a blank line is due.
    begun: bool,
}

impl Style {
    /// As `dk show` does.
    pub fn full(changes: diff::Options) -> Self {
        Self {
            oneline: false,
            changes: Some(changes),
            begun: false,
        }
    }
}

/// One commit, for JSON.
#[derive(serde::Serialize)]
struct Logged<'a> {
    #[serde(flatten)]
    commit: &'a Commit,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<diff::Changed<'a>>>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let options = diff::Options::of(args.stat, args.patch);
    let mut style = Style {
        oneline: args.oneline,
        changes: (args.stat || args.patch).then_some(options),
        begun: false,
    };
    if args.follow {
        return follow(session, &args, &mut style).await;
    }
    let hidden = match &args.range.from {
        Some(from) => vec![session.resolve(from).await?],
        None => Vec::new(),
    };
    let query = LogQuery {
        from: vec![session.resolve(&args.range.to).await?],
        hidden,
        limit: args.limit,
        ..query(&args)
    };
    let mut records = session.ui.records();
    if args.reverse {
        oldest_first(session, &mut records, query, &mut style).await?;
    } else {
        let mut commits = session.client.log(query);
        while let Some(commit) = records.next(&mut commits).await? {
            show(session, &mut records, &commit?, &args.paths, &mut style).await?;
        }
    }
    records.finish()
}

fn query(args: &Args) -> LogQuery {
    LogQuery {
        paths: args.paths.clone(),
        first_parent: args.first_parent,
        ..LogQuery::default()
    }
}

async fn oldest_first(
    session: &Session,
    records: &mut Records,
    query: LogQuery,
    style: &mut Style,
) -> anyhow::Result<()> {
    let paths = query.paths.clone();
    let mut newest_first = Vec::new();
    let mut commits = session.client.log(query);
    while let Some(commit) = records.next(&mut commits).await? {
        newest_first.push(commit?);
    }
    for commit in newest_first.iter().rev() {
        show(session, records, commit, &paths, style).await?;
    }
    Ok(())
}

/// Shows what a branch has, and then each commit that comes. A move of the
/// branch by several commits, or to other history, shows all that are new.
async fn follow(session: &Session, args: &Args, style: &mut Style) -> anyhow::Result<()> {
    let branch = match &args.range.to {
        Rev { base, steps } if steps.is_empty() => BranchName::new(base).ok(),
        _ => None,
    };
    let branch = branch.ok_or_else(|| {
        Usage::new(format!("cannot follow {}: it is no branch", args.range.to))
            .hint("name a branch: dk log -f master")
    })?;
    let mut hidden = match &args.range.from {
        Some(from) => vec![session.resolve(from).await?],
        None => Vec::new(),
    };
    let mut records = session.ui.records();
    let head = session.client.head(&branch).await?;
    if let Some(head) = head {
        let query = LogQuery {
            from: vec![head],
            hidden: hidden.clone(),
            limit: args.limit,
            ..query(args)
        };
        oldest_first(session, &mut records, query, style).await?;
    }
    let mut events = session.client.watch(WatchQuery {
        branch: branch.clone(),
        path: TreePath::root(),
        since: head.map_or(Since::Beginning, Since::Commit),
        latest: false,
        unchanged: true,
    });
    while let Some(event) = records.next(&mut events).await? {
        let event = event.with_context(|| format!("cannot follow {branch}"))?;
        let Event::Commit {
            commit, previous, ..
        } = event
        else {
            session.ui.note(&format!("branch {branch} was deleted"));
            continue;
        };
        hidden.truncate(usize::from(args.range.from.is_some()));
        hidden.extend(previous);
        let query = LogQuery {
            from: vec![commit.id],
            hidden: hidden.clone(),
            ..query(args)
        };
        oldest_first(session, &mut records, query, style).await?;
    }
    records.finish()
}

/// Shows one commit.
pub(super) async fn show(
    session: &Session,
    records: &mut Records,
    commit: &Commit,
    paths: &[TreePath],
    style: &mut Style,
) -> anyhow::Result<()> {
    let changes = match style.changes {
        Some(_) => {
            let (from, to) = (diff::before(commit), At::Commit(commit.id));
            diff::between(session, &from, &to, paths.to_vec()).await?
        }
        None => Vec::new(),
    };
    if session.ui.json {
        let options = style.changes.unwrap_or_default();
        let mut patches: Vec<Option<patch::Patch>> = Vec::new();
        for change in &changes {
            patches.push(diff::patch_of(session, change, options).await?);
        }
        let changed = changes.iter().zip(&patches);
        let changed = changed.map(|(change, patch)| diff::changed(change, patch, options));
        let record = Logged {
            commit,
            changes: style.changes.map(|_| changed.collect()),
        };
        return records.show(&record, |_, _| Ok(()));
    }
    let ui = session.ui.clone();
    if style.oneline {
        return records.text(|out| oneline(&ui, commit, out));
    }
    let blank = std::mem::replace(&mut style.begun, true);
    records.text(|out| {
        if blank {
            writeln!(out)?;
        }
        header(&ui, commit, out)
    })?;
    if let Some(options) = style.changes
        && !changes.is_empty()
    {
        records.text(|out| writeln!(out))?;
        diff::show(session, records, &changes, options).await?;
    }
    Ok(())
}

fn oneline(ui: &Ui, commit: &Commit, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{} ", ui.paint.of(Look::Commit, short(&commit.id)))?;
    out.write_all(&ui.text(commit.subject()))?;
    writeln!(out)
}

/// Returns the beginning of an id, long enough to name it in practice.
pub(super) fn short(id: &ObjectId) -> String {
    format!("{id:.12}")
}

fn header(ui: &Ui, commit: &Commit, out: &mut dyn Write) -> io::Result<()> {
    let title = format!("commit {}", commit.id);
    writeln!(out, "{}", ui.paint.of(Look::Commit, title))?;
    if commit.parents.len() > 1 {
        let parents: Vec<String> = commit.parents.iter().map(short).collect();
        writeln!(out, "Merge:  {}", parents.join(" "))?;
    }
    person(ui, "Author: ", &commit.author, out)?;
    writeln!(out, "Date:   {}", commit.author.time)?;
    let Signature { name, email, .. } = &commit.committer;
    if (name, email) != (&commit.author.name, &commit.author.email) {
        person(ui, "Commit: ", &commit.committer, out)?;
    }
    let message = commit.message.trim_ascii_end();
    if !message.is_empty() {
        writeln!(out)?;
    }
    for line in ui
        .text(message)
        .split(|b| *b == b'\n')
        .filter(|_| !message.is_empty())
    {
        out.write_all(if line.is_empty() { b"" } else { b"    " })?;
        out.write_all(line)?;
        writeln!(out)?;
    }
    Ok(())
}

fn person(ui: &Ui, label: &str, who: &Signature, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(label.as_bytes())?;
    out.write_all(&ui.text(&who.name))?;
    out.write_all(b" <")?;
    out.write_all(&ui.text(&who.email))?;
    out.write_all(b">\n")
}
