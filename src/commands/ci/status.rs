//! `dk ci status`: the state of targets and of their steps.

use std::io::{self, Write};

use crate::ci::Target;
use crate::ci::view::report::TargetReport;
use crate::ci::view::{self, Look, METADATA};
use crate::client;
use crate::commands::{Session, parse};
use crate::forge::Snapshot;
use crate::forge::layout::Reader;
use crate::model::BranchName;
use crate::ui::{self, Paint};

/// Show the state of every target, or of the steps of one
///
/// A line each: its name, its state (success, failure, pending, or running
/// where a log grows) and a text. Targets that the forge has no more are left
/// out unless asked for.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci status
  dk ci status me/app/heads/master
  dk ci status --state failure
  dk -C tcp://db ci status --json | jq -r 'select(.state==\"failure\") | .target'

JSON:
  {\"target\", \"state\", \"text\", \"source\", \"commit\", \"open\", \"head\", \"title\", \"jobs\"}
  where jobs is a list of {\"name\", \"state\", \"text\", \"needs\", \"logs\"}
  and logs a list of {\"branch\", \"commit\"}; without a commit it grows")]
pub struct Args {
    /// A target, whose steps are shown: USER/REPO/heads/NAME, …/tags/NAME or …/pr/NUMBER
    target: Option<Target>,
    /// Show only targets in this state
    #[arg(long, value_enum)]
    state: Option<Wanted>,
    /// Show also targets that the forge has no more
    #[arg(short, long)]
    all: bool,
    /// The branch that the bridge writes
    #[arg(long, value_name = "BRANCH", default_value = METADATA, value_parser = parse::branch())]
    metadata_branch: BranchName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    Success,
    Failure,
    /// Running too
    Pending,
    Running,
}

impl Wanted {
    fn is(self, look: Look) -> bool {
        match self {
            Self::Success => look == Look::Success,
            Self::Failure => look == Look::Failure,
            Self::Pending => matches!(look, Look::Pending | Look::Running),
            Self::Running => look == Look::Running,
        }
    }
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let client = &*session.client;
    let mut reader = Reader::default();
    if let Some(head) = client.head(&args.metadata_branch).await? {
        reader.advance(client, &head).await?;
    }
    let forge = reader.snapshot();
    match &args.target {
        Some(target) => one(session, target, forge).await,
        None => all(session, &args, forge).await,
    }
}

async fn one(session: &Session, target: &Target, forge: &Snapshot) -> anyhow::Result<()> {
    let record = view::target(&*session.client, target).await?;
    let record = record.ok_or_else(|| unknown(target))?;
    let report = TargetReport::new(target, &record, view::about(forge, target).as_ref());
    let paint = session.ui.paint;
    let ui = &session.ui;
    session.ui.show(&report, |report, out| {
        for job in &report.jobs {
            let (name, text) = (ui.text(job.name.as_bytes()), line(&job.text));
            out.write_all(&name)?;
            write!(out, "\t{}\t", painted(paint, job.state))?;
            out.write_all(&ui.text(text.as_bytes()))?;
            writeln!(out)?;
        }
        Ok(())
    })
}

async fn all(session: &Session, args: &Args, forge: &Snapshot) -> anyhow::Result<()> {
    let client = &*session.client;
    let mut heads = view::recorded(client).await?;
    if !args.all {
        heads.retain(|target, _| view::about(forge, target).is_some());
    }
    let mut records = session.ui.records();
    let paint = session.ui.paint;
    let ui = &session.ui;
    for (target, record) in view::records(client, heads.into_iter().collect()).await? {
        if args.state.is_some_and(|wanted| !wanted.is(record.look())) {
            continue;
        }
        let report = TargetReport::new(&target, &record, view::about(forge, &target).as_ref());
        records.show(&report, |report, out| {
            out.write_all(&ui.text(report.target.as_bytes()))?;
            write!(out, "\t{}\t", painted(paint, report.state))?;
            out.write_all(&ui.text(line(&report.text).as_bytes()))?;
            writeln!(out)
        })?;
    }
    records.finish()
}

/// The first line of a text, with nothing in it that divides columns.
pub(super) fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('\t', " ")
}

fn painted(paint: Paint, look: Look) -> ui::Painted<&'static str> {
    let of = match look {
        Look::Success => ui::Look::Added,
        Look::Failure => ui::Look::Bad,
        Look::Pending | Look::Running => ui::Look::Updated,
    };
    paint.of(of, look.word())
}

/// The error for a target that was never tested.
pub(super) fn unknown(target: &Target) -> client::Error {
    client::Error::NotFound {
        what: format!("a build of {target}"),
    }
}

/// Writes a line of columns; for those whose texts come from the store.
pub(super) fn columns(ui: &ui::Ui, parts: &[&str], out: &mut dyn Write) -> io::Result<()> {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.write_all(b"\t")?;
        }
        out.write_all(&ui.text(part.as_bytes()))?;
    }
    writeln!(out)
}
