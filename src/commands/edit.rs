//! `dk edit`: one file in the user's editor, then one commit.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::client::{At, Content, Edit, Edits, Error, Expect, FileKind};
use crate::commands::parse::BranchPath;
use crate::commands::{Session, blocking, commit, completions, hold_interrupts, parse};
use crate::model::{Entry, EntryKind, Kind, ObjectId, TreePath};
use crate::ui::{Ui, Usage};

/// Change one file in an editor, then commit it
///
/// Starts $VISUAL, else $EDITOR, else vi on a copy of the file. A file that
/// does not exist is new. If it comes back unchanged nothing is committed.
/// Should somebody else change the file meanwhile, nothing is committed, the
/// status is 5, and the text is kept where the message says. Prints the commit.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk edit master:notes/today
  EDITOR='code --wait' dk edit -m 'a better title' web:index.html
  EDITOR='sed -i s/old/new/' dk edit master:config   no terminal needed

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The branch, and which file of it
    #[arg(value_name = "BRANCH:PATH", value_parser = parse::branch_path(), add = completions::rev_path())]
    at: BranchPath,
    #[command(flatten)]
    commit: commit::Flags,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let BranchPath { branch, path } = &args.at;
    let Some((_, name)) = path.split_last() else {
        let error = Usage::new(format!("no path given: which file of {branch}?"));
        return Err(error.hint("write it as BRANCH:PATH").into());
    };
    let head = session.client.head(branch).await?;
    let entry = entry(session, head, path).await?;
    let old = match &entry {
        None => None,
        Some(entry) => Some(content(session, entry, path).await?),
    };
    let folder = tempfile::Builder::new()
        .prefix("dk-edit-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let file = folder.path().join(OsStr::from_bytes(name));
    if let Some(old) = &old {
        fs::write(&file, old).with_context(|| format!("cannot write {}", file.display()))?;
    }
    editor(&session.ui, &file).await?;
    let new = match fs::read(&file) {
        Ok(new) => Some(new),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", file.display()));
        }
    };
    let Some(new) = new.filter(|new| Some(new) != old.as_ref()) else {
        session.ui.note(&format!("{branch}:{path}: no change"));
        return Ok(());
    };
    match change(session, &args, entry, &new).await {
        Ok(head) => commit::show(session, head),
        Err(error) => {
            // Nothing that was typed is lost.
            let kept = folder.keep().join(OsStr::from_bytes(name));
            Err(error.context(format!(
                "cannot commit {branch}:{path}: your text is kept in {}",
                kept.display()
            )))
        }
    }
}

/// Commits the text, provided that the file still is what was edited. Other
/// files may have changed.
async fn change(
    session: &Session,
    args: &Args,
    before: Option<Entry>,
    text: &[u8],
) -> anyhow::Result<ObjectId> {
    let BranchPath { branch, path } = &args.at;
    let message = || format!("edit {path}");
    let mut options = args.commit.options(session, message).await?;
    loop {
        let head = session.client.head(branch).await?;
        if entry(session, head, path).await? != before {
            let message = format!("{branch}:{path} was changed by somebody else meanwhile");
            return Err(Error::HeadMoved {
                message,
                actual: head,
            }
            .into());
        }
        if args.commit.guard.expect.is_none() {
            options.expect = head.map_or(Expect::Unborn, Expect::Head);
        }
        let edits = replace(path.clone(), FileKind::Keep, text.to_vec());
        match session.client.edit(branch, edits, options.clone()).await {
            // Somebody was faster: look again at what.
            Err(error) if error.kind() == Kind::HeadMoved && args.commit.guard.expect.is_none() => {
            }
            result => return Ok(result?),
        }
    }
}

async fn entry(
    session: &Session,
    head: Option<ObjectId>,
    path: &TreePath,
) -> anyhow::Result<Option<Entry>> {
    let Some(head) = head else {
        return Ok(None);
    };
    let stat = session.client.stat(&At::Commit(head), path).await?;
    Ok(stat.map(|stat| stat.entry))
}

/// Returns the edit that makes `text` the content of a file.
pub(super) fn replace(path: TreePath, kind: FileKind, text: Vec<u8>) -> Edits {
    Edits::at_hand(move |sink| {
        sink.edit(Edit::Write {
            path,
            kind,
            content: Content::Bytes(&text),
        })
    })
}

/// Reads a file whole, as an editor will.
pub(super) async fn content(
    session: &Session,
    entry: &Entry,
    path: &TreePath,
) -> anyhow::Result<Vec<u8>> {
    match entry.mode.kind() {
        EntryKind::Dir => {
            return Err(Error::new(Kind::IsDirectory, format!("{path} is a directory")).into());
        }
        EntryKind::Link => bail!("{path} is a symbolic link"),
        EntryKind::Submodule => bail!("{path} is a submodule"),
        _ => (),
    }
    let mut reader = session.client.open_blob(&entry.id).await?;
    let name = path.to_string();
    blocking(move || {
        let mut text = Vec::new();
        let read = reader.read_to_end(&mut text);
        read.with_context(|| format!("cannot read {name}"))?;
        Ok(text)
    })
    .await
}

/// Lets the user edit a file of the file system, and waits until that is done.
pub(super) async fn editor(ui: &Ui, file: &Path) -> anyhow::Result<()> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = match set("VISUAL").or_else(|| set("EDITOR")) {
        Some(editor) => editor,
        None if ui.interactive() => "vi".into(),
        None => {
            let error = Usage::new("no editor can be started without a terminal");
            return Err(error
                .hint("set VISUAL or EDITOR to a command, or use dk put")
                .into());
        }
    };
    let shown = editor.display().to_string();
    // The words of the variable are the shell's to divide, as Git has it.
    let mut line = editor.clone();
    line.push(" \"$@\"");
    // Ctrl-C is the editor's.
    let held = hold_interrupts();
    let status = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(line)
        .arg(editor)
        .arg(file)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot start the editor {shown}"))?;
    drop(held);
    if !status.success() {
        bail!("the editor {shown} failed: {status}");
    }
    Ok(())
}
