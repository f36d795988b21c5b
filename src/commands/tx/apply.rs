//! `dk tx apply`: many edits at once, as JSON Lines.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde::Deserialize;

use crate::client::{Content, Edit, Edits, Error, FileKind, Sink, Stop};
use crate::commands::Session;
use crate::commands::source::Input;
use crate::model::text::unbase64;
use crate::model::{Transaction, TreePath};
use crate::ui::Usage;

/// Make many edits at once in a transaction
///
/// Reads JSON Lines: one object a line, one edit each, applied in order; all
/// of them or, when one fails, none. Blank lines count as nothing. The error
/// says which line failed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  printf '%s\\n' '{\"op\":\"rm\",\"path\":\"a\"}' '{\"op\":\"mkdir\",\"path\":\"b\"}' | dk tx apply \"$tx\" -
  jq -c '.[] | {op:\"write\", path:.name, text:.body}' pages.json | dk tx apply \"$tx\"

Input:
  {\"op\":\"write\",  \"path\":P, \"text\":T | \"base64\":B, \"exec\":true|false}   exec as it was if left out
  {\"op\":\"append\", \"path\":P, \"text\":T | \"base64\":B}
  {\"op\":\"link\",   \"path\":P, \"target\":T}
  {\"op\":\"mkdir\",  \"path\":P}
  {\"op\":\"rm\",     \"path\":P}
  {\"op\":\"mv\",     \"from\":P, \"to\":P}
  {\"op\":\"chmod\",  \"path\":P, \"exec\":true|false}
  a path or target that is not UTF-8 is {\"base64\":B}; other keys are refused")]
pub(super) struct Apply {
    /// The file to read; without it or with -: standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Op {
    Write {
        path: Text,
        text: Option<String>,
        base64: Option<String>,
        exec: Option<bool>,
    },
    Append {
        path: Text,
        text: Option<String>,
        base64: Option<String>,
    },
    Link {
        path: Text,
        target: Text,
    },
    Mkdir {
        path: Text,
    },
    Rm {
        path: Text,
    },
    Mv {
        from: Text,
        to: Text,
    },
    Chmod {
        path: Text,
        exec: bool,
    },
}

/// Bytes, as dk writes them in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Encoded { base64: String },
}

impl Text {
    fn bytes(self) -> Result<Vec<u8>, Usage> {
        match self {
            Self::Plain(text) => Ok(text.into_bytes()),
            Self::Encoded { base64 } => decoded(&base64),
        }
    }

    fn path(self) -> anyhow::Result<TreePath> {
        let path = TreePath::new(self.bytes()?)?;
        if path.is_root() {
            return Err(Usage::new("the path is empty").into());
        }
        Ok(path)
    }
}

fn decoded(base64: &str) -> Result<Vec<u8>, Usage> {
    unbase64(base64).ok_or_else(|| Usage::new("\"base64\" holds something else"))
}

fn content(text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, Usage> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => decoded(&base64),
        _ => Err(Usage::new("either \"text\" or \"base64\" is needed")),
    }
}

pub(super) async fn run(session: &Session, tx: &Transaction, args: Apply) -> anyhow::Result<()> {
    let input = Input::new(args.file).open(session).await?;
    let mut input = BufReader::with_capacity(64 * 1024, input.reader);
    // Which line an edit is in, told to whoever reports a failure.
    let lines = Arc::new(Mutex::new(Lines::default()));
    let edits: Edits = {
        let lines = Arc::clone(&lines);
        Edits::new(move |sink| {
            let mut text = Vec::new();
            loop {
                text.clear();
                let read = input.read_until(b'\n', &mut text);
                if read.map_err(|error| Stop::Source(error.into()))? == 0 {
                    return Ok(());
                }
                let mut lines = lock(&lines);
                lines.read += 1;
                if text.trim_ascii().is_empty() {
                    continue;
                }
                let edit = match parse(&text) {
                    Ok(edit) => edit,
                    Err(error) => {
                        let stop = Stop::Source(format!("{error:#}").into());
                        lines.refused = Some(error);
                        return Err(stop);
                    }
                };
                let line = lines.read;
                lines.of.push(line);
                drop(lines);
                apply(sink, edit)?;
            }
        })
    };
    let Err(error) = session.client.tx_edit(&tx.id, edits).await else {
        return Ok(());
    };
    let mut lines = lock(&lines);
    // What the input itself is refused for is wrong usage, not a failed store.
    if let Some(refused) = lines.refused.take() {
        return Err(refused.context(format!("line {}: nothing was changed", lines.read)));
    }
    let line = match &error {
        Error::Edit(refused) => refused
            .number
            .checked_sub(1)
            .and_then(|index| lines.of.get(index)),
        _ => None,
    };
    let context = match line {
        Some(line) => format!("line {line}: nothing was changed"),
        None => "nothing was changed".into(),
    };
    Err(error).context(context)
}

/// Where in the input the edits are.
#[derive(Default)]
struct Lines {
    /// How many were read.
    read: usize,
    /// The line of each edit.
    of: Vec<usize>,
    /// Why the last one that was read is no edit.
    refused: Option<anyhow::Error>,
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An edit that owns what it writes.
enum Owned {
    Plain(Edit<'static>),
    Write(TreePath, FileKind, Vec<u8>),
    Append(TreePath, Vec<u8>),
    Link(TreePath, Vec<u8>),
}

fn parse(text: &[u8]) -> anyhow::Result<Owned> {
    let op: Op = serde_json::from_slice(text).map_err(|error| {
        // Which line it is, is said elsewhere.
        Usage::new(error.to_string().replace(" at line 1 column", " at column"))
    })?;
    Ok(match op {
        Op::Write {
            path,
            text,
            base64,
            exec,
        } => {
            let kind = match exec {
                None => FileKind::Keep,
                Some(true) => FileKind::Exec,
                Some(false) => FileKind::Normal,
            };
            Owned::Write(path.path()?, kind, content(text, base64)?)
        }
        Op::Append { path, text, base64 } => Owned::Append(path.path()?, content(text, base64)?),
        Op::Link { path, target } => Owned::Link(path.path()?, target.bytes()?),
        Op::Mkdir { path } => Owned::Plain(Edit::Mkdir { path: path.path()? }),
        Op::Rm { path } => Owned::Plain(Edit::Remove { path: path.path()? }),
        Op::Mv { from, to } => Owned::Plain(Edit::Rename {
            from: from.path()?,
            to: to.path()?,
        }),
        Op::Chmod { path, exec } => Owned::Plain(Edit::Chmod {
            path: path.path()?,
            exec,
        }),
    })
}

fn apply(sink: &mut dyn Sink, edit: Owned) -> Result<(), Stop> {
    match edit {
        Owned::Plain(edit) => sink.edit(edit),
        Owned::Write(path, kind, content) => sink.edit(Edit::Write {
            path,
            kind,
            content: Content::Bytes(&content),
        }),
        Owned::Append(path, content) => sink.edit(Edit::Append {
            path,
            content: Content::Bytes(&content),
        }),
        Owned::Link(path, target) => sink.edit(Edit::Link {
            path,
            target: &target,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_is_understood() {
        for good in [
            r#"{"op":"write","path":"a","text":"x"}"#,
            r#"{"op":"write","path":"a","base64":"eA==","exec":true}"#,
            r#"{"op":"append","path":"a","text":""}"#,
            r#"{"op":"link","path":"a","target":"/b"}"#,
            r#"{"op":"mkdir","path":"a/b"}"#,
            r#"{"op":"rm","path":{"base64":"/w=="}}"#,
            r#"{"op":"mv","from":"a","to":"b"}"#,
            r#" {"op":"chmod","path":"a","exec":false} "#,
        ] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"op":"fly","path":"a"}"#,
            r#"{"path":"a","text":"x"}"#,
            r#"{"op":"write","path":"a"}"#,
            r#"{"op":"write","path":"a","text":"x","base64":"eA=="}"#,
            r#"{"op":"write","path":"a","base64":"!"}"#,
            r#"{"op":"write","path":"","text":"x"}"#,
            r#"{"op":"write","path":"../a","text":"x"}"#,
            r#"{"op":"write","path":"a","text":"x","mode":"644"}"#,
            r#"{"op":"rm","path":"a"}{"op":"rm","path":"b"}"#,
            r#"{"op":"chmod","path":"a"}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
