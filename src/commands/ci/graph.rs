//! `dk ci graph`: the steps of targets as a drawing.

use std::io::{self, Write};

use crate::ci::Target;
use crate::ci::view::report::TargetReport;
use crate::ci::view::{self, Look};
use crate::commands::Session;

use super::status::unknown;

/// Print the steps of targets and what they wait for, for Graphviz
///
/// Without a target: of all that were tested.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci graph me/app/heads/master | dot -Tsvg > graph.svg

JSON:
  as dk ci status: jobs have names, states and needs")]
pub struct Args {
    /// The target: USER/REPO/heads/NAME, …/tags/NAME or …/pr/NUMBER
    target: Option<Target>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let client = &*session.client;
    let found = match args.target {
        Some(target) => {
            let record = view::target(client, &target).await?;
            vec![(target.clone(), record.ok_or_else(|| unknown(&target))?)]
        }
        None => {
            let heads = view::recorded(client).await?;
            view::records(client, heads.into_iter().collect()).await?
        }
    };
    let mut records = session.ui.records();
    let drawn = !session.ui.json;
    if drawn {
        records.text(|out| writeln!(out, "digraph ci {{\n  rankdir=LR;\n  node [shape=box];"))?;
    }
    for (number, (target, record)) in found.iter().enumerate() {
        let report = TargetReport::new(target, record, None);
        records.show(&report, |report, out| cluster(number, report, out))?;
    }
    if drawn {
        records.text(|out| writeln!(out, "}}"))?;
    }
    records.finish()
}

fn cluster(number: usize, report: &TargetReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  subgraph cluster_{number} {{")?;
    writeln!(out, "    label={};", quoted(&report.target))?;
    let node = |name: &str| quoted(&format!("{}:{name}", report.target));
    for job in &report.jobs {
        let colour = match job.state {
            Look::Success => "green",
            Look::Failure => "red",
            Look::Pending | Look::Running => "orange",
        };
        let (id, label) = (node(&job.name), quoted(&job.name));
        writeln!(out, "    {id} [label={label}, color={colour}];")?;
    }
    for job in &report.jobs {
        for need in &job.needs {
            writeln!(out, "    {} -> {};", node(need), node(&job.name))?;
        }
    }
    writeln!(out, "  }}")
}

/// A text as DOT quotes it: what would end it or hide in it is visible.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                out.extend(c.escape_unicode().map(|c| if c == '\\' { '/' } else { c }))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
