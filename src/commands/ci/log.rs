//! `dk ci log`: what a step printed, also while it does.

use std::io::{self, Read as _, Write};
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;

use crate::ci::Target;
use crate::ci::layout;
use crate::ci::view::{self, Growing, Grown, Job, LogAt, Look, Record};
use crate::ci::web::ansi::{Mark, Screen, Style, Terminal};
use crate::client::{self, Since, WatchQuery};
use crate::commands::{Session, blocking};
use crate::model::{BranchName, ObjectId, TreePath, text};
use crate::ui::{self, Usage};

use super::status::unknown;

/// Print the log of a step
///
/// The bytes as the step printed them; on a terminal, colours are kept and
/// other control sequences left out. Of a step that runs: what there is so far,
/// or with --follow all of it, to its end.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci log me/app/heads/master build
  dk ci log me/app/pr/7 test,os=linux | grep -n error
  dk -C tcp://db ci log -f me/app/heads/master build")]
pub struct Args {
    /// The target: USER/REPO/heads/NAME, …/tags/NAME or …/pr/NUMBER
    target: Target,
    /// The step; of one with a matrix also the values: test,os=linux
    step: String,
    /// Wait until the step has begun, and go on until it has ended
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let client = &*session.client;
    let branch = layout::status_branch(&args.target)?;
    let mut changes = client.watch(WatchQuery {
        branch,
        path: TreePath::root(),
        since: Since::Now,
        latest: true,
        unchanged: false,
    });
    let mut out = Out::new(&session.ui);
    loop {
        let record = view::target(client, &args.target).await?;
        if let Some(record) = record {
            let job = find(&record, &args)?;
            let logs = view::logs(&job.output.logs);
            let waits = args.follow && job.look() == Look::Pending && logs.is_empty();
            if !waits {
                if logs.is_empty() {
                    return Err(client::Error::NotFound {
                        what: format!("a log of {} in {} ({})", job.name, args.target, job.text()),
                    }
                    .into());
                }
                for log in &logs {
                    print(session, log, args.follow, &mut out).await?;
                }
                return out.finish();
            }
            session.ui.note(&format!("{}: {}", job.name, job.text()));
        } else if !args.follow {
            return Err(unknown(&args.target).into());
        }
        // One state after the other, until there is something to print.
        match changes.next().await {
            Some(event) => drop(event?),
            None => return Ok(()),
        }
    }
}

/// Returns the job that is meant.
fn find<'a>(record: &'a Record, args: &Args) -> anyhow::Result<&'a Job> {
    if let Some(job) = record.job(&args.step) {
        return Ok(job);
    }
    let cells: Vec<&Job> = record
        .jobs
        .iter()
        .filter(|job| job.name.starts_with(&format!("{},", args.step)))
        .collect();
    match cells[..] {
        [job] => Ok(job),
        [] => Err(client::Error::NotFound {
            what: format!("step {} of {}", args.step, args.target),
        }
        .into()),
        _ => {
            let names: Vec<&str> = cells.iter().map(|job| job.name.as_str()).collect();
            let message = format!("step {} has several cells", args.step);
            Err(Usage::new(message)
                .hint(format!("name one of {}", names.join(" ")))
                .into())
        }
    }
}

async fn print(session: &Session, log: &LogAt, follow: bool, out: &mut Out) -> anyhow::Result<()> {
    let branch = BranchName::new(&log.branch)?;
    let commit = log.commit.as_deref();
    let saved = commit.and_then(|commit| ObjectId::from_hex(commit.as_bytes()));
    if saved.is_none() && follow {
        let mut growing = Growing::new(Arc::clone(&session.client), branch.clone());
        loop {
            let grown = growing.next().await;
            match grown.with_context(|| format!("cannot follow the log on {branch}"))? {
                Grown::Bytes(bytes) => out.write(&bytes)?,
                Grown::Ended(..) => return Ok(()),
                Grown::Lost => {
                    session
                        .ui
                        .warn(&format!("the log on {branch} is not written any more"));
                    return Ok(());
                }
            }
        }
    }
    let client = &*session.client;
    let head = match saved {
        // One that retention took away says so at the head of its branch.
        Some(commit) => match client.commit(&commit).await {
            Ok(_) => Some(commit),
            Err(_) => client.head(&branch).await?,
        },
        None => client.head(&branch).await?,
    };
    let Some(head) = head else {
        return Ok(());
    };
    let log = view::log(client, &head).await?;
    let mut reader = view::open(client, &log).await?;
    loop {
        let (rest, piece) = blocking(move || {
            let mut piece = Vec::new();
            reader.by_ref().take(1 << 18).read_to_end(&mut piece)?;
            Ok((reader, piece))
        })
        .await?;
        if piece.is_empty() {
            return Ok(());
        }
        out.write(&piece)?;
        reader = rest;
    }
}

/// stdout: as it is, or fit for a terminal.
struct Out {
    stdout: ui::Stdout,
    shown: Option<(Terminal, Shown)>,
}

impl Out {
    fn new(ui: &ui::Ui) -> Self {
        let colours = !ui.paint.begin(ui::Look::Strong).is_empty();
        let shown = ui.is_terminal().then(|| {
            let shown = Shown {
                colours,
                ..Shown::default()
            };
            (Terminal::default(), shown)
        });
        Self {
            stdout: ui.stdout(),
            shown,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.shown {
            None => self.stdout.write_all(bytes),
            Some((terminal, shown)) => {
                terminal.feed(bytes, shown);
                self.stdout.write_all(&std::mem::take(&mut shown.text))
            }
        }
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if let Some((terminal, shown)) = &mut self.shown {
            terminal.finish(shown);
            shown.style(Style::default());
            self.stdout.write_all(&shown.text)?;
        }
        Ok(())
    }
}

/// What may go to a terminal: text, lines, and colours.
#[derive(Default)]
struct Shown {
    colours: bool,
    now: Style,
    text: Vec<u8>,
}

impl Shown {
    fn style(&mut self, style: Style) {
        if style != self.now && self.colours {
            self.text.extend_from_slice(style.sequence().as_bytes());
        }
        self.now = style;
    }
}

impl Screen for Shown {
    fn text(&mut self, style: Style, text: &[u8]) {
        self.style(style);
        self.text
            .extend_from_slice(text::printable(text).as_bytes());
    }

    fn too_long(&mut self, _: Style) {}

    fn rewind(&mut self) {
        self.text.extend_from_slice(b"\r\x1b[K");
    }

    fn line(&mut self, _: usize, _: Mark) {
        self.style(Style::default());
        self.text.push(b'\n');
    }
}
