//! `dk bridge status`: how the bridge to GitHub is.

use std::io::{self, Write};
use std::path::PathBuf;

use super::state::State;
use crate::bridge::github::http::Budget;
use crate::commands::{Session, completions};
use crate::forge::layout::Reader;
use crate::model::BranchName;

/// Show how the bridge to GitHub is: the budget, the last sync, what failed
///
/// What failed is in the branch, in files named .error, and is shown from
/// anywhere. The rest is known on the machine the bridge runs on.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk -C db.git bridge status
  dk -C db.git --json bridge status | jq .budget.remaining

JSON:
  {\"branch\", \"running\", \"repositories\", \"synced\", \"failure\", \"budget\": {\"limit\", \"remaining\", \"reset\"}, \"errors\": [{\"repository\", \"error\"}]}
  synced and reset are seconds since 1970; what is not known is null; running: by a bridge of this machine.")]
pub struct Args {
    /// The branch the bridge keeps
    #[arg(short, long, default_value = "github-metadata", add = completions::branch())]
    branch: BranchName,
    /// The folder the bridge keeps its secrets in
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Shown {
    branch: BranchName,
    running: bool,
    repositories: usize,
    synced: Option<i64>,
    failure: Option<String>,
    budget: Budget,
    errors: Vec<Failure>,
}

#[derive(serde::Serialize)]
struct Failure {
    repository: String,
    error: String,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let mut reader = Reader::default();
    if let Some(head) = session.client.head(&args.branch).await? {
        reader.advance(&*session.client, &head).await?;
    }
    let state = State::at(session, args.state_dir, &args.branch).await?;
    let told = state.told().unwrap_or_default();
    let errors = reader.errors().into_iter();
    let shown = Shown {
        branch: args.branch,
        running: state.is_held(),
        repositories: reader.snapshot().repos.len(),
        synced: told.synced,
        failure: told.failure,
        budget: told.budget,
        errors: errors
            .map(|(repository, error)| Failure { repository, error })
            .collect(),
    };
    session.ui.show(&shown, render)
}

fn render(shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
    let running = if shown.running {
        "running"
    } else {
        "not running here"
    };
    writeln!(out, "bridge\t{running}")?;
    writeln!(out, "branch\t{}", shown.branch)?;
    let failed = match shown.errors.len() {
        0 => String::new(),
        count => format!(", {count} with an error"),
    };
    writeln!(out, "repositories\t{}{failed}", shown.repositories)?;
    let synced = shown.synced.map_or("unknown".into(), time);
    writeln!(out, "last sync\t{synced}")?;
    if let Some(failure) = &shown.failure {
        writeln!(out, "then failed\t{failure}")?;
    }
    let number = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
    let budget = shown.budget;
    let until = budget.reset.and_then(|reset| i64::try_from(reset).ok());
    match budget.remaining {
        None => writeln!(out, "budget\tunknown")?,
        Some(_) => writeln!(
            out,
            "budget\t{} of {} calls until {}",
            number(budget.remaining),
            number(budget.limit),
            until.map_or("?".into(), time)
        )?,
    }
    for failure in &shown.errors {
        writeln!(out, "error\t{}\t{}", failure.repository, failure.error)?;
    }
    Ok(())
}

fn time(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => "?".into(),
    }
}
