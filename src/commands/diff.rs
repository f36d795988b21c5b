//! `dk diff`: what differs between two commits, and how changes are shown
//! wherever they are.

use std::pin::pin;

use futures_util::StreamExt as _;

use crate::client::At;
use crate::commands::{Session, completions, parse, patch};
use crate::model::text::JsonBytes;
use crate::model::{Change, ChangeKind, Commit, HashKind, ObjectId, Rev, TreePath};
use crate::ui::{Exit, Look, Records, write_path};

/// Show what differs between two commits
///
/// Prints one line a path: `+` added, `-` removed, `*` changed. With one
/// revision, that commit is compared with its first parent.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk diff v1 v2
  dk diff --patch master~1 master -- src | git apply
  dk diff --exit-code v1 v2 -- config || notify

JSON:
  {\"path\", \"change\": \"added\"|\"removed\"|\"updated\", \"old\": ENTRY, \"new\": ENTRY}
  where ENTRY is {\"kind\", \"mode\", \"id\"} or null
  with --stat also \"added\" and \"removed\": lines, null for binary files
  with --patch also \"patch\": the text")]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// End with status 1 if there are differences, and with 128 on trouble
    #[arg(long)]
    exit_code: bool,
    /// The older revision; or, alone, the one to compare with its first parent
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    a: Rev,
    /// The newer revision
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    b: Option<Rev>,
    /// Compare only these paths
    #[arg(last = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// How to show changes.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Show how many lines of each file changed
    #[arg(long)]
    stat: bool,
    /// Show the changes as a patch
    #[arg(short, long, visible_short_alias = 'u')]
    patch: bool,
    /// End lines with NUL and do not quote paths
    #[arg(short = 'z', long = "null", visible_short_alias = '0')]
    nul: bool,
}

impl Options {
    pub fn of(stat: bool, patch: bool) -> Self {
        Self {
            stat,
            patch,
            nul: false,
        }
    }
}

/// One change, for JSON.
#[derive(serde::Serialize)]
pub(super) struct Changed<'a> {
    #[serde(flatten)]
    change: &'a Change,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counts: Option<patch::Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<JsonBytes<'a>>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let exit_code = args.exit_code;
    match compare(session, args).await {
        Ok(differ) if differ && exit_code => Err(Exit::quiet(1).into()),
        Ok(_) => Ok(()),
        Err(error) if exit_code => Err(Exit::with(128, error).into()),
        Err(error) => Err(error),
    }
}

async fn compare(session: &Session, args: Args) -> anyhow::Result<bool> {
    let a = session.resolve(&args.a).await?;
    let (from, to) = match &args.b {
        Some(b) => (At::Commit(a), At::Commit(session.resolve(b).await?)),
        None => (before(&session.client.commit(&a).await?), At::Commit(a)),
    };
    let changes = between(session, &from, &to, args.paths).await?;
    let mut records = session.ui.records();
    show(session, &mut records, &changes, args.options).await?;
    records.finish()?;
    Ok(!changes.is_empty())
}

/// Returns what a commit is compared with when nothing else is said: its first
/// parent, or nothing at all.
pub(super) fn before(commit: &Commit) -> At {
    match commit.parents.first() {
        Some(parent) => At::Commit(*parent),
        None => At::Tree(empty_tree(commit.id.hash_kind())),
    }
}

pub(super) fn empty_tree(hash: HashKind) -> ObjectId {
    let hex = match hash {
        HashKind::Sha1 => "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        HashKind::Sha256 => "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    };
    ObjectId::from_hex(hex.as_bytes()).expect("the digits above")
}

/// Returns what differs at these paths (everywhere, if there are none), in
/// path order.
pub(super) async fn between(
    session: &Session,
    from: &At,
    to: &At,
    mut paths: Vec<TreePath>,
) -> anyhow::Result<Vec<Change>> {
    if paths.is_empty() {
        paths.push(TreePath::root());
    }
    paths.sort();
    let mut changes = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        // What lies in another of the paths was compared with that.
        if !paths[..index].iter().any(|above| path.starts_with(above)) {
            changes.extend(session.client.diff(from, to, path).await?);
        }
    }
    Ok(changes)
}

/// Shows changes, one record each; with `--stat` and `--patch` on a terminal
/// or pipe as Git does.
pub(super) async fn show(
    session: &Session,
    records: &mut Records,
    changes: &[Change],
    options: Options,
) -> anyhow::Result<()> {
    if session.ui.json {
        for change in changes {
            let patch = patch_of(session, change, options).await?;
            records.show(&changed(change, &patch, options), |_, _| Ok(()))?;
        }
        return Ok(());
    }
    let paint = session.ui.paint;
    if options.stat {
        let mut counted = Vec::new();
        let mut patches = pin!(patch::all(&*session.client, changes));
        for change in changes {
            let Some(patch) = patches.next().await else {
                break;
            };
            counted.push((change.path.clone(), patch?.counts));
        }
        if !counted.is_empty() {
            let width = session.ui.width();
            records.text(|out| patch::write_table(out, &counted, paint, width))?;
        }
        if options.patch && !counted.is_empty() {
            records.text(|out| writeln!(out))?;
        }
    }
    if options.patch {
        let mut patches = pin!(patch::all(&*session.client, changes));
        while let Some(patch) = patches.next().await {
            let text = patch?.text;
            let text = session.ui.text(&text);
            records.text(|out| patch::write(out, &text, paint))?;
        }
    }
    if options.stat || options.patch {
        return Ok(());
    }
    for change in changes {
        let (sign, look) = match change.kind() {
            ChangeKind::Added => ("+", Look::Added),
            ChangeKind::Removed => ("-", Look::Removed),
            ChangeKind::Updated => ("*", Look::Updated),
        };
        records.text(|out| {
            write!(out, "{}{sign}{} ", paint.begin(look), paint.end())?;
            write_path(out, &change.path, options.nul)
        })?;
    }
    Ok(())
}

/// Returns the patch of a change if its options ask for any of it.
pub(super) async fn patch_of(
    session: &Session,
    change: &Change,
    options: Options,
) -> anyhow::Result<Option<patch::Patch>> {
    if options.stat || options.patch {
        return Ok(Some(patch::compute(&*session.client, change).await?));
    }
    Ok(None)
}

/// Returns the record of a change.
pub(super) fn changed<'a>(
    change: &'a Change,
    patch: &'a Option<patch::Patch>,
    options: Options,
) -> Changed<'a> {
    let wanted = |want: bool| patch.as_ref().filter(|_| want);
    Changed {
        change,
        counts: wanted(options.stat).map(|patch| patch.counts),
        patch: wanted(options.patch).map(|patch| JsonBytes(&patch.text)),
    }
}
