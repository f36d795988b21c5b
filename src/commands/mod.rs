//! The commands: one file each, `Args` (whose doc comments are the help),
//! `run`, and how its records are rendered.
//!
//! [`Cli`] is the one definition: parser, completions and man pages come from
//! it. Dropping the future of [`run`] ends a command; whatever it holds is
//! cleaned up by its `Drop`.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::client::{self, Client};
use crate::model::path::NameError;
use crate::model::{Identity, Kind, ObjectId, Rev, RevPath, Signature};
use crate::ui::{Color, Exit, Ui, Usage};

mod author;
mod branch;
mod bridge;
mod cat;
mod ci;
mod commit;
mod completions;
mod daemon;
mod diff;
mod edit;
mod export;
mod fetch;
mod fsck;
mod gc;
mod import;
mod init;
mod log;
mod ls;
mod man;
mod merge;
mod mv;
mod open;
mod parse;
mod patch;
mod push;
mod put;
mod remote;
mod rm;
mod serve;
mod show;
mod source;
mod stat;
mod tree;
mod tx;
mod watch;

pub use completions::complete;
pub use open::abandon;

/// Keep versioned trees of files in a Git repository, and watch them
///
/// dk is a set of Unix filters over a versioned, watchable tree: branches,
/// commits, transactions that outlive a process, merges and watches, kept in
/// an ordinary Git repository.
#[derive(clap::Parser, Debug)]
#[command(
    name = "dk",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  dk init db.git                          a new store
  date | dk -C db.git put master:now      one file, one commit
  dk -C db.git log -p master              what happened
  dk -C db.git watch master | xargs make  build when something changes"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the command line of this process.
    ///
    /// Only the command that is asked for is put together, which is most of
    /// what a small command costs; what refuses a line or explains has them all.
    pub fn read() -> Result<Self, clap::Error> {
        let line: Vec<OsString> = std::env::args_os().collect();
        Self::lean(&line).or_else(|_| {
            let mut whole = Self::command();
            whole.build();
            let found = whole.try_get_matches_from_mut(line)?;
            Self::from_arg_matches(&found).map_err(|error| error.format(&mut whole))
        })
    }

    /// Parses a line by the commands whose names stand in it: each more would be
    /// given all global options.
    fn lean(line: &[OsString]) -> Result<Self, clap::Error> {
        let named = |command: &clap::Command| line.iter().any(|word| word == command.get_name());
        let all = <Command as clap::Subcommand>::augment_subcommands(clap::Command::new("dk"));
        let commands = all.get_subcommands().filter(|it| named(it)).cloned();
        let lean = clap::Command::new("dk").disable_help_subcommand(true);
        let lean = <Global as clap::Args>::augment_args(lean).subcommands(commands);
        Self::from_arg_matches_mut(&mut lean.try_get_matches_from(line)?)
    }

    /// Tells whether it goes on for long and works for many at a time.
    pub fn is_daemon(&self) -> bool {
        match &self.command {
            Command::Serve(_) => true,
            Command::Ci(args) => args.is_daemon(),
            Command::Bridge(args) => args.is_daemon(),
            _ => false,
        }
    }
}

/// The options every command takes.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The store: a Git repository, or tcp://HOST:PORT or unix:///PATH of a server
    ///
    /// Without it: the nearest repository at or above the current folder.
    #[arg(short = 'C', long, global = true, env = "DK_STORE", hide_env_values = true, value_name = "STORE",
          value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,
    /// Print every record as one line of JSON
    #[arg(long, global = true)]
    json: bool,
    /// Who commits, as 'Name <mail>', instead of GIT_AUTHOR_* or Git's configuration
    #[arg(long, global = true, value_parser = author::identity)]
    author: Option<Identity>,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    color: Color,
    /// Print no notices and no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    /// What an acknowledged change survives: strict (power loss) or none (a crash of dk only)
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "strict",
        hide_possible_values = true,
        hide_default_value = true
    )]
    durability: open::Durability,
}

impl Global {
    /// Returns how this run speaks to its user.
    pub fn ui(&self) -> Ui {
        Ui::new(self.json, self.quiet, self.color)
    }
}

/// What every command works with.
pub struct Session {
    pub client: Arc<dyn Client>,
    pub ui: Ui,
    /// The store, so that another process would find it: `DK_STORE`.
    pub store: OsString,
    /// `--author`.
    author: Option<Identity>,
    /// Ends with the command.
    life: source::Life,
}

impl Session {
    /// Returns the commit a revision names.
    pub async fn resolve(&self, rev: &Rev) -> anyhow::Result<ObjectId> {
        Ok(self.client.resolve(rev).await?)
    }

    /// Returns the author of a commit made now: `--author`, else the
    /// environment, else Git's configuration; at `GIT_AUTHOR_DATE`, else now.
    pub async fn signature(&self) -> anyhow::Result<Signature> {
        let who = match &self.author {
            Some(author) => author.clone(),
            None => self.client.identity().await?,
        };
        Ok(Signature {
            name: who.name.into_bytes(),
            email: who.email.into_bytes(),
            time: author::time()?,
        })
    }
}

/// How many ask that SIGINT be let pass: an editor on the terminal decides
/// itself what Ctrl-C means.
static HOLDERS: AtomicUsize = AtomicUsize::new(0);

/// How many end by themselves when SIGINT or SIGTERM comes, in good order.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// While it lives, a signal does not end dk.
pub(crate) struct Held(&'static AtomicUsize);

impl Held {
    fn by(holders: &'static AtomicUsize) -> Self {
        holders.fetch_add(1, Ordering::SeqCst);
        Self(holders)
    }
}

/// Lets SIGINT pass until the guard is dropped.
pub(crate) fn hold_interrupts() -> Held {
    Held::by(&HOLDERS)
}

/// Lets SIGINT and SIGTERM pass until the guard is dropped.
pub(crate) fn hold_signals() -> Held {
    Held::by(&ENDING)
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Tells whether a signal is to be let pass.
pub fn is_held(signal: i32) -> bool {
    let held = |holders: &AtomicUsize| holders.load(Ordering::SeqCst) > 0;
    held(&ENDING) || (signal == signal_hook::consts::SIGINT && held(&HOLDERS))
}

/// Runs blocking work (reading a file of the store, say) where it may block,
/// so that a signal still ends the command.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(cancelled.into()),
        },
    }
}

/// Says which revision lacks a path, where an error says only which path.
pub(crate) fn named(error: anyhow::Error, wanted: &RevPath) -> anyhow::Error {
    match error.downcast_ref() {
        Some(client::Error::NotFound { what }) if *what == wanted.path.to_string() => {
            let what = wanted.to_string();
            client::Error::NotFound { what }.into()
        }
        _ => error,
    }
}

#[derive(clap::Subcommand, Debug)]
#[command(defer = true)]
pub enum Command {
    Init(init::Args),
    Branch(branch::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Stat(stat::Args),
    Tree(tree::Args),
    Log(log::Args),
    Show(show::Args),
    Diff(diff::Args),
    Export(export::Args),
    Put(put::Args),
    Rm(rm::Args),
    Mv(mv::Args),
    Import(import::Args),
    Merge(merge::Args),
    Edit(edit::Args),
    Tx(tx::Args),
    Watch(watch::Args),
    Serve(serve::Args),
    Fetch(fetch::Args),
    Push(push::Args),
    Remote(remote::Args),
    Bridge(bridge::Args),
    Ci(ci::Args),
    Gc(gc::Args),
    Fsck(fsck::Args),
    Completions(completions::Args),
    Man(man::Args),
    Help(man::HelpArgs),
}

/// Runs one command to its end.
pub async fn run(ui: &Ui, cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    // These need no store.
    match cli.command {
        Command::Init(args) => return init::run(ui, global, args).await,
        Command::Serve(args) => return serve::run(ui, global, args).await,
        Command::Ci(args) if args.is_alone() => return ci::alone(ui, global, args).await,
        Command::Completions(args) => return completions::run(ui, &args),
        Command::Man(args) => return man::run(ui, args).await,
        Command::Help(args) => return man::help(ui, args).await,
        _ => (),
    }
    let session = &open::session(ui, global).await?;
    match cli.command {
        Command::Branch(args) => branch::run(session, args).await,
        Command::Ls(args) => ls::run(session, args).await,
        Command::Cat(args) => cat::run(session, args).await,
        Command::Stat(args) => stat::run(session, args).await,
        Command::Tree(args) => tree::run(session, args).await,
        Command::Log(args) => log::run(session, args).await,
        Command::Show(args) => show::run(session, args).await,
        Command::Diff(args) => diff::run(session, args).await,
        Command::Export(args) => export::run(session, args).await,
        Command::Put(args) => put::run(session, args).await,
        Command::Rm(args) => rm::run(session, args).await,
        Command::Mv(args) => mv::run(session, args).await,
        Command::Import(args) => import::run(session, args).await,
        Command::Merge(args) => merge::run(session, args).await,
        Command::Edit(args) => edit::run(session, args).await,
        Command::Tx(args) => tx::run(session, args).await,
        Command::Watch(args) => watch::run(session, args).await,
        Command::Fetch(args) => fetch::run(session, args).await,
        Command::Push(args) => push::run(session, args).await,
        Command::Remote(args) => remote::run(session, args).await,
        Command::Bridge(args) => bridge::run(session, args).await,
        Command::Ci(args) => ci::run(session, args).await,
        Command::Gc(args) => gc::run(session, args).await,
        Command::Fsck(args) => fsck::run(session, args).await,
        Command::Init(_)
        | Command::Serve(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Help(_) => Ok(()),
    }
}

/// Returns the exit status an error ends the run with (dk(1), EXIT STATUS).
pub fn exit_status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<client::Error>() {
            return match error.kind() {
                Kind::Invalid | Kind::Ambiguous => 2,
                Kind::Conflict => 3,
                Kind::NotFound => 4,
                Kind::HeadMoved => 5,
                _ => 1,
            };
        }
        if cause.is::<Usage>() || cause.is::<NameError>() {
            return 2;
        }
        if let Some(exit) = cause.downcast_ref::<Exit>() {
            return exit.status;
        }
    }
    1
}

/// Returns what the user could do about an error, where that is known.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| {
        let client = cause.downcast_ref::<client::Error>();
        let usage = cause.downcast_ref::<Usage>();
        client
            .and_then(client::Error::hint)
            .or_else(|| usage.and_then(|usage| usage.hint.as_deref()))
    })
}
