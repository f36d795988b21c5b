//! `dk ci check`: what a configuration says, and what is wrong with it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::ci::config::{self, Cell, Config, FileKind, IN_TREE, Invalid, Source, Step, Steps};
use crate::ui::{Exit, Ui};

/// Check a configuration, and print the plan of its steps
///
/// FILE is the configuration of an engine or the file of a tested tree: dk
/// tells them apart. The plan has a line for each cell of each step, in an
/// order in which all that it needs comes before it. dk-ci(5) describes the
/// file.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci check
  dk ci check /etc/dk-ci.toml && systemctl restart dk-ci
  dk ci check --schema > dk-ci.schema.json

Exit status:
  2  The configuration is wrong: every fault is printed with its line and column

JSON:
  {\"project\": null or USER/REPO, \"cell\", \"step\", \"needs\": [STEP], \"inputs\": [GLOB],
   \"outputs\": [PATH], \"image\": null or NAME, \"timeout\": SECONDS}")]
pub(super) struct Args {
    /// The file
    #[arg(default_value = IN_TREE, value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Print the JSON Schema of such files instead
    #[arg(long, conflicts_with = "file")]
    schema: bool,
}

pub(super) fn run(ui: &Ui, args: &Args) -> anyhow::Result<()> {
    if args.schema {
        let schema = config::schema();
        return ui.show(&schema, |schema, out| {
            serde_json::to_writer_pretty(&mut *out, schema).map_err(io::Error::from)?;
            writeln!(out)
        });
    }
    let text = read(&args.file)?;
    let mut records = ui.records();
    match config::kind(&text) {
        FileKind::Tree => {
            let steps = config::tree(&text, &config::Reserved::new());
            let steps = steps.map_err(|invalid| refuse(ui, &args.file, &invalid))?;
            for line in plan(None, &steps) {
                records.show(&line, |line, out| render(line, "", out))?;
            }
        }
        FileKind::Engine => {
            let config = config::engine(&text);
            let config = config.map_err(|invalid| refuse(ui, &args.file, &invalid))?;
            engine(ui, &mut records, &config)?;
        }
    }
    records.finish()
}

/// Reads a configuration's text.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Prints what is wrong, and ends with status 2.
pub(super) fn refuse(ui: &Ui, file: &Path, invalid: &Invalid) -> Exit {
    for fault in &invalid.0 {
        ui.error(&anyhow::anyhow!("{}:{fault}", file.display()), None);
    }
    Exit::quiet(2)
}

/// One line of the plan.
#[derive(Serialize)]
struct Line<'a> {
    project: Option<String>,
    cell: &'a str,
    step: &'a str,
    needs: &'a [String],
    inputs: &'a [String],
    outputs: Vec<String>,
    image: Option<&'a str>,
    timeout: u64,
}

fn plan<'a>(project: Option<&'a str>, steps: &'a Steps) -> impl Iterator<Item = Line<'a>> {
    let cells = |step: &'a Step| step.cells.iter().map(move |cell| (step, cell));
    steps
        .iter()
        .flat_map(cells)
        .map(move |(step, cell): (&Step, &Cell)| Line {
            project: project.map(str::to_owned),
            cell: &cell.name,
            step: &step.name,
            needs: &step.needs,
            inputs: step.inputs.texts(),
            outputs: cell.outputs.iter().map(ToString::to_string).collect(),
            image: cell.image.as_deref(),
            timeout: step.timeout.as_secs(),
        })
}

fn engine(ui: &Ui, records: &mut crate::ui::Records, config: &Config) -> anyhow::Result<()> {
    for project in &config.projects {
        let repo = project.repo.to_string();
        let heading = |out: &mut dyn Write| {
            let targets = project.targets.texts().join(", ");
            writeln!(out, "{repo}: {targets} of {}", project.source)
        };
        if !ui.json {
            records.text(heading)?;
        }
        match &project.steps {
            Source::Here(steps) => {
                for line in plan(Some(&repo), steps) {
                    records.show(&line, |line, out| render(line, "  ", out))?;
                }
            }
            Source::Tree { file, .. } if !ui.json => {
                records.text(|out| writeln!(out, "  steps: {file} of the tested tree"))?;
            }
            Source::Tree { .. } => (),
        }
    }
    Ok(())
}

fn render(line: &Line<'_>, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{indent}{}", line.cell)?;
    if !line.needs.is_empty() {
        write!(out, "  after {}", line.needs.join(", "))?;
    }
    if line.inputs != ["**"] {
        write!(out, "  reads {}", line.inputs.join(", "))?;
    }
    if !line.outputs.is_empty() {
        write!(out, "  makes {}", line.outputs.join(", "))?;
    }
    if let Some(image) = line.image {
        write!(out, "  in {image}")?;
    }
    writeln!(out)
}
