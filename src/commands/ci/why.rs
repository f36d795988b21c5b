//! `dk ci why`: what a result depends on, and what of it changed.

use std::io::{self, Write};

use crate::ci::Target;
use crate::ci::key::Changed;
use crate::ci::why::{Before, Reasons, why};
use crate::commands::Session;

/// Show why a step has its result, or had to be run again
///
/// Prints the parts of the result's key that differ from the result the step
/// had before, then where the result is. With --key the whole key: a part a
/// line, what it is and its value.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci why me/app/heads/master test
  dk ci why --key me/app/pr/7 test,locale=C

JSON:
  {\"target\", \"step\", \"status\", \"descr\", \"commit\", \"branch\", \"key\": null or text,
   \"before\": null or {\"commit\", \"branch\", \"changed\": [{\"what\", \"old\", \"new\"}]}}")]
pub struct Args {
    /// The target: USER/REPO/heads/NAME, USER/REPO/tags/NAME or USER/REPO/pr/NUMBER
    target: Target,
    /// The step, or a cell of its matrix: test,locale=C
    step: String,
    /// Print the whole key
    #[arg(long)]
    key: bool,
}

#[derive(serde::Serialize)]
struct Answer {
    target: Target,
    step: String,
    status: &'static str,
    descr: String,
    commit: Option<String>,
    branch: Option<String>,
    key: Option<String>,
    before: Option<Older>,
    #[serde(skip)]
    whole: bool,
}

#[derive(serde::Serialize)]
struct Older {
    commit: Option<String>,
    branch: String,
    changed: Vec<Changed>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let Reasons {
        outcome,
        source,
        branch,
        key,
        before,
    } = why(&*session.client, &args.target, &args.step).await?;
    let older = |before: Before| Older {
        commit: before.source,
        branch: before.branch,
        changed: before.changed,
    };
    let answer = Answer {
        target: args.target,
        step: args.step,
        status: outcome.state.word(),
        descr: outcome.descr,
        commit: source,
        branch,
        key,
        before: before.map(older),
        whole: args.key,
    };
    session.ui.show(&answer, render)
}

fn render(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    if answer.whole {
        return write!(out, "{}", answer.key.as_deref().unwrap_or_default());
    }
    for change in answer.before.iter().flat_map(|before| &before.changed) {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".into());
        let (old, new) = (side(&change.old), side(&change.new));
        writeln!(out, "{}: {old} -> {new}", change.what)?;
    }
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "{name} {value}"),
        None => Ok(()),
    };
    let before = answer.before.as_ref();
    line("before", before.map(|before| before.branch.as_str()))?;
    line("result", answer.branch.as_deref())?;
    writeln!(out, "{} {}", answer.status, answer.descr.replace('\n', " "))
}
