//! `dk remote`: the remotes in Git's own configuration.

use anyhow::Context as _;

use crate::commands::{Session, completions};
use crate::model::text::printable;

/// List and change the configured remotes
///
/// They are Git's own: `git remote` shows the same.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk remote add origin https://example.org/a.git
  dk remote list
  dk remote remove origin")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List remotes: the name, a tab, the URL
    #[command(after_help = "Examples:
  dk remote list
  dk remote list | cut -f1 | xargs -n1 dk fetch

JSON:
  {\"name\", \"url\"}")]
    List,
    /// Add a remote
    ///
    /// Prints nothing. Fetching from it by its name stores its branches
    /// below refs/remotes/NAME, as git does.
    #[command(after_help = "Examples:
  dk remote add origin https://example.org/a.git
  dk remote add backup /mnt/backup.git")]
    Add {
        /// What it is to be called
        name: String,
        /// Where it is
        #[arg(value_hint = clap::ValueHint::Url)]
        url: String,
    },
    /// Remove a remote and its configuration
    ///
    /// Prints nothing. The refs below refs/remotes/NAME go with it; branches stay.
    #[command(after_help = "Examples:
  dk remote remove origin")]
    Remove {
        /// The remote
        #[arg(add = completions::remote())]
        name: String,
    },
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let client = &session.client;
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let mut records = session.ui.records();
            for remote in client.remotes().await? {
                records.show(&remote, |remote, out| {
                    let text = |text: &str| printable(text.as_bytes());
                    writeln!(out, "{}\t{}", text(&remote.name), text(&remote.url))
                })?;
            }
            records.finish()
        }
        Command::Add { name, url } => client
            .add_remote(&name, &url)
            .await
            .with_context(|| format!("cannot add the remote {name}")),
        Command::Remove { name } => client
            .remove_remote(&name)
            .await
            .with_context(|| format!("cannot remove the remote {name}")),
    }
}
