//! `dk bridge local`: the refs of repositories on this machine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::bridge::local::{Bridge, Options, Source, Told};
use crate::client;
use crate::client::local::{self, Local};
use crate::commands::{Session, completions};
use crate::forge::{RefName, Repo, Sha};
use crate::model::BranchName;
use crate::model::text::chain;
use crate::ui::{Exit, Usage};

/// Keep the branches of local repositories in a branch of the store
///
/// Each branch of each repository is a file, USER/REPO/ref/heads/NAME/head,
/// that holds the id of its commit. They follow the repositories until the
/// command is ended; nothing is ever written to a repository. Branches that a
/// dk CI or a bridge writes (status-*, dk-step-*, commit-index, dk-ci,
/// dk-ci-lease and the branch itself) are left out. Prints the id of every commit it makes.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk -C db.git bridge local me/app:/src/app
  dk -C db.git bridge local me/app:. --tags --branch builds

JSON:
  {\"commit\"}")]
pub struct Args {
    /// What a repository is to be called, and where it is
    #[arg(required = true, value_name = "USER/REPO:PATH", value_parser = parse)]
    repository: Vec<(Repo, PathBuf)>,
    /// The branch that tells of them
    #[arg(long, default_value = "github-metadata", add = completions::branch())]
    branch: BranchName,
    /// Follow tags too
    #[arg(long)]
    tags: bool,
    /// Bring the branch up to date once, and end
    #[arg(long)]
    once: bool,
}

fn parse(text: &str) -> Result<(Repo, PathBuf), String> {
    let (repo, path) = text.split_once(':').ok_or("it should be USER/REPO:PATH")?;
    if path.is_empty() {
        return Err("the path is missing".into());
    }
    let repo = repo.parse::<Repo>().map_err(|error| error.to_string())?;
    Ok((repo, path.into()))
}

/// A repository on this machine.
struct Repository(Local);

#[async_trait::async_trait]
impl Source for Repository {
    async fn refs(&self) -> client::Result<BTreeMap<RefName, Sha>> {
        let refs = self.0.refs().await?;
        Ok(refs
            .into_iter()
            .map(|(name, id)| (name, id.to_hex()))
            .collect())
    }

    fn changes(&self) -> client::Result<watch::Receiver<u64>> {
        self.0.changes()
    }
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let own = session.client.info().await?.id;
    let mut sources: BTreeMap<Repo, Box<dyn Source>> = BTreeMap::new();
    for (repo, path) in args.repository {
        let options = local::Options {
            // A folder with a work tree, or a bare repository.
            discover: false,
            ..local::Options::default()
        };
        let opened = Local::open(&path, options)
            .map_err(|error| Exit::with(1, error))
            .with_context(|| format!("cannot open {repo}: {}", path.display()))?;
        let id = client::Client::info(&opened).await?.id;
        if id.is_some() && id == own {
            let why = format!(
                "{repo} is the store itself: its branches would follow each other for ever"
            );
            return Err(Usage::new(why)
                .hint("keep the branch in a store of its own: dk init DIR")
                .into());
        }
        if sources
            .insert(repo.clone(), Box::new(Repository(opened)))
            .is_some()
        {
            return Err(Usage::new(format!("{repo} is given twice")).into());
        }
    }
    let options = Options {
        branch: args.branch.clone(),
        tags: args.tags,
    };
    let count = sources.len();
    let mut bridge = Bridge::new(session.client.clone(), sources, options);
    let ui = &session.ui;
    if args.once {
        if let Some(commit) = bridge.sync().await? {
            super::show(ui, &commit)?;
        }
        return Ok(());
    }
    let mut failed = None;
    let told = |told: Told<'_>| {
        match told {
            Told::Ready => {
                let noun = if count == 1 {
                    "repository"
                } else {
                    "repositories"
                };
                ui.note(&format!(
                    "following {count} {noun} on branch {}",
                    args.branch
                ));
            }
            Told::Committed(commit) => {
                if let Err(error) = super::show(ui, commit) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            Told::Failed(error, pause) => {
                let seconds = pause.as_secs_f32();
                ui.warn(&format!("{}; trying again in {seconds} s", chain(error)));
            }
        }
        ControlFlow::Continue(())
    };
    bridge.run(told).await?;
    failed.map_or(Ok(()), Err)
}
