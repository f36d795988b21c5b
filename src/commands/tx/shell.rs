//! `dk tx shell`: a session with one transaction at a time.
//!
//! Each command is durable when its prompt returns, so nothing is lost with
//! the session. A transaction begins with the first command that needs one;
//! only one that the session began itself, and that holds no work, is ever
//! thrown away without being asked for.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;

use self::terminal::Terminal;
use super::{Step, drop_one, is_open, read, start};
use crate::client::{At, Error};
use crate::commands::{Session, blocking, completions, hint, source};
use crate::model::{BranchName, Kind, Transaction, TransactionId};
use crate::ui::{Exit, Usage};

mod terminal;

/// Work with a transaction interactively
///
/// Takes the commands of dk tx without `dk tx` and without TX, words divided
/// and quoted as in the shell, and # for comments. The prompt shows the
/// branch, the number of edits and of conflicts. Given a branch, a transaction
/// is begun on it with the first command that needs one; after a commit or an
/// abort the next one begins another. Commands on a pipe run up to the first
/// that fails, which gives the status; one that reads standard input takes the
/// lines after it. At the end a transaction that holds work stays open, unless
/// the answer to the question is another.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx shell master
  dk tx shell \"$tx\"                go on with that one
  dk tx shell master < commands

In the shell: help, help COMMAND, quit (or Ctrl-D).")]
pub(super) struct Args {
    /// A branch, else a transaction
    #[arg(value_name = "BRANCH|TX", add = completions::branch())]
    at: OsString,
}

/// A line, as typed.
#[derive(clap::Parser, Debug)]
#[command(
    name = "",
    no_binary_name = true,
    disable_help_flag = true,
    subcommand_required = true,
    subcommand_value_name = "COMMAND",
    help_template = "{subcommands}"
)]
struct Line {
    #[command(subcommand)]
    command: Typed,
}

#[derive(clap::Subcommand, Debug)]
enum Typed {
    #[command(flatten)]
    Step(Step),
    /// Throw the transaction away
    Abort {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    Open(read::Open),
    /// End the session
    #[command(alias = "exit")]
    Quit,
}

struct Shell<'a> {
    session: &'a Session,
    branch: BranchName,
    /// The transaction at hand, once there is one.
    current: Option<TransactionId>,
    /// This session began it.
    own: bool,
}

/// What follows a command.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let mut shell = Shell::at(session, &args.at).await?;
    if session.ui.interactive() {
        shell.talk().await
    } else {
        shell.obey().await
    }
}

impl<'a> Shell<'a> {
    /// A branch that exists, else a transaction, else a branch to be born.
    async fn at(session: &'a Session, at: &OsStr) -> anyhow::Result<Self> {
        let shell = |branch, current| Self {
            session,
            branch,
            current,
            own: false,
        };
        let branch = BranchName::new(at.as_bytes());
        if let Ok(branch) = &branch
            && session.client.head(branch).await?.is_some()
        {
            return Ok(shell(branch.clone(), None));
        }
        match session.client.transaction(&at.to_string_lossy()).await {
            Ok(tx) if is_open(&tx) => Ok(shell(tx.branch, Some(tx.id))),
            Ok(tx) => {
                let message = format!("the transaction {} is committed already", tx.id);
                Err(Error::new(Kind::Invalid, message).into())
            }
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => {
                let branch = branch?;
                session.ui.note(&format!(
                    "{branch} is neither a branch nor a transaction: a commit will make it a branch"
                ));
                Ok(shell(branch, None))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Commands from a terminal: a failure is reported, and that is all.
    async fn talk(&mut self) -> anyhow::Result<()> {
        let mut terminal = Terminal::new(self.session)?;
        loop {
            let at = match &self.current {
                Some(id) => Some(At::Transaction(id.clone())),
                None => self
                    .session
                    .client
                    .head(&self.branch)
                    .await?
                    .map(At::Commit),
            };
            let prompt = self.prompt().await?;
            let read;
            (terminal, read) = blocking(move || terminal.read(&prompt, at)).await?;
            let done = match read? {
                Some(line) => self.line(line.as_bytes()).await,
                None => Ok(Then::End),
            };
            let done = match done {
                Ok(Then::End) => self.leave().await,
                done => done,
            };
            match done {
                Ok(Then::GoOn) => (),
                Ok(Then::End) => return Ok(()),
                Err(error) => self.report(error),
            }
        }
    }

    /// Commands from a pipe or a file: the first that fails ends it.
    async fn obey(&mut self) -> anyhow::Result<()> {
        let mut number = 0;
        let ended = loop {
            number += 1;
            let line = match blocking(read_line).await? {
                Some(line) => line,
                None => break Ok(()),
            };
            match self.line(&line).await {
                Ok(Then::GoOn) => (),
                Ok(Then::End) => break Ok(()),
                Err(error) if error.is::<Exit>() => break Err(error),
                Err(error) => break Err(error.context(format!("line {number} failed"))),
            }
        };
        let left = self.leave().await;
        ended.and(left.map(|_| ()))
    }

    async fn prompt(&self) -> anyhow::Result<String> {
        let mut prompt = self.branch.to_string();
        if let Some(tx) = self.known().await? {
            if tx.edits > 0 {
                prompt += &format!(" +{}", tx.edits);
            }
            if !tx.conflicts.is_empty() {
                prompt += &format!(" !{}", tx.conflicts.len());
            }
        }
        Ok(prompt + "> ")
    }

    /// Returns the transaction at hand; `None` where there is none, or where
    /// somebody else ended it.
    async fn known(&self) -> anyhow::Result<Option<Transaction>> {
        let Some(id) = &self.current else {
            return Ok(None);
        };
        match self.session.client.transaction(id.as_str()).await {
            Ok(tx) if tx.id == *id && is_open(&tx) => Ok(Some(tx)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the transaction at hand, begun if need be.
    async fn transaction(&mut self) -> anyhow::Result<Transaction> {
        if let Some(tx) = self.known().await? {
            return Ok(tx);
        }
        if let Some(id) = self.current.take() {
            anyhow::bail!("the transaction {id} was ended by somebody else");
        }
        let tx = start(self.session, &self.branch, None, None).await?;
        self.session.ui.note(&format!("began {}", tx.id));
        self.current = Some(tx.id.clone());
        self.own = true;
        Ok(tx)
    }

    /// Runs one line.
    async fn line(&mut self, line: &[u8]) -> anyhow::Result<Then> {
        let words = shlex::bytes::split(line).ok_or_else(|| Usage::new("a quote is not closed"))?;
        if words.is_empty() {
            return Ok(Then::GoOn);
        }
        let words = words.into_iter().map(OsString::from_vec);
        let line = match Line::try_parse_from(words) {
            Ok(line) => line,
            Err(error) => {
                self.explain(&error)?;
                return Ok(Then::GoOn);
            }
        };
        match line.command {
            Typed::Quit => return Ok(Then::End),
            Typed::Open(args) => read::open(self.session, args).await?,
            Typed::Abort { yes } => self.abort(yes).await?,
            Typed::Step(Step::Commit(_)) if self.current.is_none() => {
                return Err(Usage::new("there is nothing to commit").into());
            }
            Typed::Step(step) => {
                let commits = matches!(step, Step::Commit(_));
                let tx = self.transaction().await?;
                step.run(self.session, &tx).await?;
                if commits && self.known().await?.is_none() {
                    self.current = None;
                }
            }
        }
        Ok(Then::GoOn)
    }

    /// Answers a line that cannot be run as it is: with help, or an error.
    fn explain(&self, error: &clap::Error) -> anyhow::Result<()> {
        let text = error.render().to_string();
        match error.kind() {
            ErrorKind::DisplayHelp => {
                let mut out = self.session.ui.stdout();
                out.write_all(text.trim_start_matches('\n').as_bytes())?;
                Ok(())
            }
            _ => {
                let first = text.split("\n\n").next().unwrap_or_default();
                let message = first.strip_prefix("error: ").unwrap_or(first);
                Err(Usage::new(message.trim())
                    .hint("'help' lists the commands")
                    .into())
            }
        }
    }

    /// Throws the transaction away, after a question if it holds work.
    async fn abort(&mut self, yes: bool) -> anyhow::Result<()> {
        let Some(tx) = self.known().await? else {
            self.current = None;
            return Ok(());
        };
        let ui = self.session.ui.clone();
        if !yes && holds_work(&tx) && ui.interactive() {
            let question = format!("Throw {} away?", work(&tx));
            if !blocking(move || ui.confirm(&question, "--yes")).await? {
                return Ok(());
            }
        }
        drop_one(self.session, &tx.id).await?;
        self.current = None;
        Ok(())
    }

    /// Decides what becomes of the transaction at the end of the session.
    async fn leave(&mut self) -> anyhow::Result<Then> {
        let Some(tx) = self.known().await? else {
            return Ok(Then::End);
        };
        if self.own && !holds_work(&tx) {
            drop_one(self.session, &tx.id).await?;
            return Ok(Then::End);
        }
        let ui = self.session.ui.clone();
        if self.own && ui.interactive() {
            let question = format!("{} not committed", work(&tx));
            let choices = [
                "keep    go on later",
                "commit  now",
                "abort   throw it away",
            ];
            let choices = choices.map(String::from);
            let flags = "commit or abort";
            match blocking(move || ui.select(&question, &choices, flags)).await? {
                1 => return Box::pin(self.line(b"commit")).await.map(|_| Then::End),
                2 => {
                    drop_one(self.session, &tx.id).await?;
                    return Ok(Then::End);
                }
                _ => (),
            }
        }
        self.session.ui.note(&format!(
            "{} stays open: go on with 'dk tx shell {}'",
            tx.id, tx.id
        ));
        Ok(Then::End)
    }

    /// Reports a failure and goes on.
    fn report(&self, error: anyhow::Error) {
        let cause = match error.downcast::<Exit>() {
            Ok(exit) => exit.cause,
            Err(error) => Some(error),
        };
        if let Some(error) = cause {
            self.session.ui.error(&error, hint(&error));
        }
    }
}

/// Tells whether something would be lost with a transaction.
fn holds_work(tx: &Transaction) -> bool {
    tx.edits > 0 || tx.merge.is_some() || !tx.message.is_empty()
}

fn work(tx: &Transaction) -> String {
    match tx.edits {
        0 => "this transaction".into(),
        1 => "1 edit".into(),
        edits => format!("{edits} edits"),
    }
}

/// Reads one line of standard input and nothing beyond it, so that a command
/// that reads standard input finds the next one.
fn read_line() -> anyhow::Result<Option<Vec<u8>>> {
    let mut input = source::stdin()?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        match input.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => return Ok(Some(line)),
            Ok(_) if byte == *b"\n" => return Ok(Some(line)),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error).context("cannot read standard input"),
        }
    }
}
