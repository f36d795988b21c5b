//! The steps that change a transaction's tree. Silent when all goes well.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::client::{At, Edit, Edits};
use crate::commands::source::{self, Input, Tree};
use crate::commands::{Session, import, mv as moving, parse};
use crate::model::{Transaction, TreePath};
use crate::ui::Usage;

/// Write a file in a transaction
///
/// Replaces or creates it, and makes the folders above it. A conflict at the
/// path is settled by it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  date | dk tx write \"$tx\" now
  dk tx write -x \"$tx\" bin/run run.sh")]
pub(super) struct Write {
    /// Where in the tree
    #[arg(value_parser = parse::path())]
    path: TreePath,
    /// What to write; without it or with -: standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Make it executable (a FILE that is executable stays so)
    #[arg(short = 'x', long)]
    exec: bool,
}

/// Add to the end of a file in a transaction
///
/// Creates it where it is missing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  date | dk tx append \"$tx\" log
  dk tx append \"$tx\" all.csv today.csv")]
pub(super) struct Append {
    /// Where in the tree
    #[arg(value_parser = parse::path())]
    path: TreePath,
    /// What to add; without it or with -: standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

/// Make a symbolic link in a transaction
///
/// Replaces the file or link at PATH. TARGET is kept as it is written, and
/// need not exist.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx link \"$tx\" current releases/7
  dk tx link \"$tx\" etc/app.conf ../common/app.conf")]
pub(super) struct Link {
    /// Where in the tree
    #[arg(value_parser = parse::path())]
    path: TreePath,
    /// What the link points to
    target: OsString,
}

/// Make folders in a transaction
///
/// Those above them are made too, and one that exists is no failure. Git
/// keeps no empty folders: one that is still empty is not committed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx mkdir \"$tx\" a/b/c
  dk tx mkdir \"$tx\" src docs tests")]
pub(super) struct Mkdir {
    /// Where in the tree
    #[arg(required = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// Remove files and folders in a transaction
///
/// A folder goes with all below it. If one path does not exist nothing is
/// removed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx rm \"$tx\" old
  dk tx ls -rz \"$tx\" | grep -z '~$' | xargs -0r dk tx rm \"$tx\"")]
pub(super) struct Rm {
    /// What to remove
    #[arg(required = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// Move or rename a file or folder in a transaction
///
/// Where NEW is a folder, OLD is moved into it; where it is a file, that file
/// is replaced.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx mv \"$tx\" draft.txt final.txt
  dk tx mv \"$tx\" src/a.c lib/")]
pub(super) struct Mv {
    /// What to move
    #[arg(value_parser = parse::path())]
    old: TreePath,
    /// Its new path
    #[arg(value_parser = parse::path())]
    new: TreePath,
}

/// Make files executable, or not, in a transaction
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx chmod \"$tx\" +x bin/run
  dk tx chmod \"$tx\" 644 a.txt b.txt")]
pub(super) struct Chmod {
    /// +x or 755: executable; -x or 644: not
    #[arg(allow_hyphen_values = true)]
    mode: ExecMode,
    /// The files
    #[arg(required = true, value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
}

/// The modes Git knows of a file.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum ExecMode {
    #[value(name = "+x", alias = "755", alias = "0755")]
    Exec,
    #[value(name = "-x", alias = "644", alias = "0644")]
    Normal,
}

/// Write a folder or a tar stream in a transaction
///
/// Adds and replaces files; --replace also removes what is not there any more.
/// Symbolic links and the executable bit are kept, .git is not, and what is
/// neither file, folder nor link is refused. Whatever goes wrong, a truncated
/// archive included, nothing is changed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx import \"$tx\" --at site ./public
  tar c site | dk tx import \"$tx\" -")]
pub(super) struct Import {
    /// What to import; with -: a tar stream on standard input
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Where in the tree
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = parse::path())]
    at: TreePath,
    /// Remove everything else there
    #[arg(long)]
    replace: bool,
}

pub(super) async fn write(session: &Session, tx: &Transaction, args: Write) -> anyhow::Result<()> {
    let path = some(args.path)?;
    let input = Input::new(args.file).open(session).await?;
    let cannot = format!("cannot write {path}");
    edit(session, tx, input.write(path, args.exec), cannot).await
}

pub(super) async fn append(
    session: &Session,
    tx: &Transaction,
    args: Append,
) -> anyhow::Result<()> {
    let path = some(args.path)?;
    let input = Input::new(args.file).open(session).await?;
    let cannot = format!("cannot add to {path}");
    edit(session, tx, input.append(path), cannot).await
}

pub(super) async fn link(session: &Session, tx: &Transaction, args: Link) -> anyhow::Result<()> {
    let path = some(args.path)?;
    let cannot = format!("cannot make the link {path}");
    let target = args.target.into_vec();
    let edits = Edits::new(move |sink| {
        sink.edit(Edit::Link {
            path,
            target: &target,
        })
    });
    edit(session, tx, edits, cannot).await
}

pub(super) async fn mkdir(session: &Session, tx: &Transaction, args: Mkdir) -> anyhow::Result<()> {
    let edits = args.paths.into_iter().map(|path| Edit::Mkdir { path });
    let edits = source::edits(edits.collect());
    edit(session, tx, edits, "cannot make a folder".into()).await
}

pub(super) async fn rm(session: &Session, tx: &Transaction, args: Rm) -> anyhow::Result<()> {
    let mut edits = Vec::with_capacity(args.paths.len());
    for path in args.paths {
        let path = some(path)?;
        edits.push(Edit::Remove { path });
    }
    edit(session, tx, source::edits(edits), "cannot remove".into()).await
}

pub(super) async fn mv(session: &Session, tx: &Transaction, args: Mv) -> anyhow::Result<()> {
    let from = some(args.old)?;
    let at = At::Transaction(tx.id.clone());
    let to = moving::target(session, Some(&at), &from, args.new).await?;
    let cannot = format!("cannot move {from} to {to}");
    let edits = source::edits(vec![Edit::Rename { from, to }]);
    edit(session, tx, edits, cannot).await
}

pub(super) async fn chmod(session: &Session, tx: &Transaction, args: Chmod) -> anyhow::Result<()> {
    let exec = matches!(args.mode, ExecMode::Exec);
    let edits = args.paths.into_iter();
    let edits = edits.map(|path| Edit::Chmod { path, exec }).collect();
    let cannot = "cannot change the mode".into();
    edit(session, tx, source::edits(edits), cannot).await
}

pub(super) async fn import(
    session: &Session,
    tx: &Transaction,
    args: Import,
) -> anyhow::Result<()> {
    let tree = Tree::new(args.dir)?;
    let cannot = format!("cannot import {tree}");
    let before = if args.replace {
        import::clearing(session, &args.at).await?
    } else {
        Vec::new()
    };
    let edits = tree.edits(args.at, before, session)?;
    edit(session, tx, edits, cannot).await
}

/// Applies edits to a transaction.
pub(super) async fn edit(
    session: &Session,
    tx: &Transaction,
    edits: Edits,
    cannot: String,
) -> anyhow::Result<()> {
    let edited = session.client.tx_edit(&tx.id, edits).await;
    edited.context(cannot)?;
    Ok(())
}

/// Refuses the root, which is no file.
fn some(path: TreePath) -> Result<TreePath, Usage> {
    if path.is_root() {
        return Err(Usage::new("the path is empty"));
    }
    Ok(path)
}
