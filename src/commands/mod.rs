//! The commands: one file each, `Args` (whose doc comments are the help),
//! `run`, and how its records are rendered.

use std::sync::Arc;

use crate::client::Client;
use crate::model::{ObjectId, Rev};
use crate::ui::Ui;

mod branch;
mod cat;
mod completions;
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
mod push;
mod put;
mod remote;
mod rm;
mod show;
mod stat;
mod tree;
mod tx;
mod watch;

/// What every command works with.
pub struct Session {
    pub client: Arc<dyn Client>,
    pub ui: Ui,
}

impl Session {
    /// Returns the commit a revision names.
    pub async fn resolve(&self, rev: &Rev) -> anyhow::Result<ObjectId> {
        Ok(self.client.resolve(rev).await?)
    }
}

#[derive(clap::Subcommand, Debug)]
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
    Fetch(fetch::Args),
    Push(push::Args),
    Remote(remote::Args),
    Gc(gc::Args),
    Fsck(fsck::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs one command to its end.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init::run(session, args).await,
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
        Command::Gc(args) => gc::run(session, args).await,
        Command::Fsck(args) => fsck::run(session, args).await,
        Command::Completions(args) => completions::run(session, args).await,
        Command::Man(args) => man::run(session, args).await,
    }
}
