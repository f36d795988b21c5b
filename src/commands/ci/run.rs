//! `dk ci run`: the steps, here and now.
//!
//! It is an engine with one project, one target and a store of its own: what
//! is run, in which order, and what need not be run again, is what an engine
//! decides. Only failures are not taken from the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::work::Work;
use super::{check, life, serve};
use crate::ci::config::{self, Config, FileKind, IN_TREE, Project, Reserved, Source, Steps};
use crate::ci::engine::{Engine, Options, World};
use crate::ci::layout::{self, Logs, Output, SavedLog, State, Target};
use crate::ci::runner::{self, Machine};
use crate::ci::{Sources, SystemClock, key, request, term};
use crate::client::local::{Durability, Local, Options as LocalOptions};
use crate::client::{self, At, Client, CommitOptions, Empty};
use crate::commands::{Global, blocking, hold_signals, open, parse};
use crate::forge::{Difference, Repo, Sha, layout::Reader};
use crate::model::{BranchName, HashKind, ObjectId, Rev, TreePath};
use crate::ui::{Board, Exit, Look, Ui, Usage};

/// Run steps here and now, on the work tree as it is
///
/// The steps are those of .dk-ci.toml. Whatever is in the work tree and not
/// ignored takes part, committed or not; or a revision as it was. A step whose
/// inputs did not change since it succeeded is not run again: results, logs
/// and history are kept in the user's cache folder, or in the store that -C
/// names. Steps get no secrets, and wait for no other CI.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci run
  dk ci run build test
  dk ci run 'test,locale=C' --no-cache
  dk ci run --rev v1.0

Exit status:
  1  A step failed
  2  The configuration is wrong

JSON:
  {\"cell\", \"state\": success or failure, \"text\", \"cached\": BOOL, \"seconds\",
   \"branch\": null or the branch of the result}")]
pub(super) struct Args {
    /// The steps, or cells of them; those they need come too. Without any: all
    steps: Vec<String>,
    /// Run on this revision
    #[arg(long, value_parser = parse::rev())]
    rev: Option<Rev>,
    /// The file with the steps, here, instead of .dk-ci.toml of the tree; it may be an engine's
    #[arg(short, long, value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The project of an engine's file
    #[arg(long, value_name = "USER/REPO", requires = "file")]
    project: Option<Repo>,
    /// Neither use nor keep results
    #[arg(long)]
    no_cache: bool,
    /// Let steps see this variable, beside PATH, HOME, LANG and TZ; may be given again
    #[arg(short, long, value_name = "NAME")]
    env: Vec<OsString>,
    /// How many steps run at a time; without it as many as there are processors
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// Lines of a failed step's log that are shown.
const SHOWN: usize = 200;
/// The longest of them, in bytes.
const LONGEST: u64 = 64 * 1024;

pub(super) async fn run(ui: &Ui, global: &Global, args: Args) -> anyhow::Result<()> {
    let held = hold_signals();
    let mut asked = Asked {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    };
    let work = Work::here()?;
    let source = open_local(&work.top)?;
    let sha = match &args.rev {
        Some(rev) => source.resolve(rev).await?.to_hex(),
        None => work.commit()?,
    };
    let steps = steps(ui, &args, source.as_ref(), &sha).await?;
    let cells: BTreeSet<String> = steps
        .iter()
        .flat_map(|step| step.cells.iter().map(|cell| cell.name.clone()))
        .collect();
    let target = target(&work, &args)?;
    let cache = serve::cache_folder(None)?;
    let store = store(global, &args, &work, &cache).await?;
    tell(store.as_ref(), &target, &sha).await?;
    let world = World {
        client: Arc::clone(&store),
        sources: Arc::new(Here(source)),
        runner: Arc::new(Machine::new(runner::Options {
            scratch: cache.join("steps"),
            supervisor: runner::supervisor().context("cannot tell where dk is")?,
            env: environment(&args.env),
            grace: runner::GRACE,
        })),
        clock: Arc::new(SystemClock),
        secrets: Arc::new(|name| Err(format!("secret {name}: steps run here get none"))),
        holder: life::holder(),
    };
    let jobs = serve::jobs(args.jobs);
    let config = config(&target, steps)?;
    let options = Options {
        jobs,
        ..Options::default()
    };
    let mut engine = Engine::start(world, config, options)
        .await
        .context("cannot run steps with this store")?;
    let mut view = View::new(ui, store.as_ref(), target, cells);
    let ended = tokio::select! {
        ended = view.follow(&mut engine) => Some(ended),
        () = asked.next() => None,
    };
    drop(view.board.take());
    crate::ui::signals::forget();
    let closed = tokio::select! {
        closed = engine.close() => closed,
        // Another one ends it where it stands.
        () = asked.next() => Ok(()),
    };
    crate::ui::signals::forget();
    // Not before: a signal that is heeded here may still be on its way to
    // whoever else listens.
    drop(held);
    let Some(ended) = ended else {
        return Err(Exit::with(130, anyhow::anyhow!("interrupted")).into());
    };
    ended?;
    closed?;
    view.verdict()
}

/// Signals that ask for the end.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
}

impl Asked {
    /// Waits for the next. Cancel-safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// The source of the only commit.
struct Here(Arc<dyn Client>);

#[async_trait::async_trait]
impl Sources for Here {
    async fn get(&self, _: &Target, _: &Sha) -> client::Result<Arc<dyn Client>> {
        Ok(Arc::clone(&self.0))
    }
}

fn open_local(path: &std::path::Path) -> anyhow::Result<Arc<dyn Client>> {
    let options = LocalOptions {
        durability: Durability::None,
        discover: true,
        alone: false,
    };
    Ok(Arc::new(Local::open(path, options)?))
}

/// Reads the steps that are to be run.
async fn steps(ui: &Ui, args: &Args, source: &dyn Client, sha: &str) -> anyhow::Result<Steps> {
    let (shown, text) = match &args.file {
        Some(file) => (file.clone(), check::read(file)?),
        None => (PathBuf::from(IN_TREE), in_tree(source, sha).await?),
    };
    let refuse = |invalid: config::Invalid| check::refuse(ui, &shown, &invalid);
    let steps = match config::kind(&text) {
        FileKind::Tree => config::tree(&text, &Reserved::new()).map_err(refuse)?,
        FileKind::Engine => {
            let config = config::engine(&text).map_err(refuse)?;
            let project = project(&config, args)?;
            match &project.steps {
                Source::Here(steps) => steps.clone(),
                Source::Tree { file, reserved } => {
                    let text = read(source, sha, file).await?;
                    let shown = PathBuf::from(file.to_string());
                    config::tree(&text, reserved)
                        .map_err(|invalid| check::refuse(ui, &shown, &invalid))?
                }
            }
        }
    };
    let chosen = match args.steps.is_empty() {
        true => steps,
        false => steps.only(&args.steps).map_err(|name| {
            let known: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
            Usage::new(format!("there is no step {name:?}"))
                .hint(format!("the steps are {}", known.join(", ")))
        })?,
    };
    // What only an engine can give is not waited for here.
    Ok(chosen
        .into_iter()
        .map(|mut step| {
            step.pool = None;
            step.secrets.clear();
            step.also.clear();
            step.after_status = None;
            step
        })
        .collect())
}

fn project<'a>(config: &'a Config, args: &Args) -> anyhow::Result<&'a Project> {
    let mut projects = config.projects.iter();
    let found = match &args.project {
        Some(repo) => projects.find(|project| project.repo == *repo),
        None => projects.next().filter(|_| config.projects.len() == 1),
    };
    let refused = || match &args.project {
        Some(repo) => Usage::new(format!("there is no project {repo}")),
        None => Usage::new("the file has several projects").hint("name one with --project"),
    };
    Ok(found.ok_or_else(refused)?)
}

async fn in_tree(source: &dyn Client, sha: &str) -> anyhow::Result<String> {
    let path = TreePath::new(IN_TREE)?;
    read(source, sha, &path)
        .await
        .map_err(|error| match error.downcast_ref::<client::Error>() {
            Some(client::Error::NotFound { .. }) => {
                let error = Usage::new(format!("there is no {IN_TREE}: no steps are described"));
                error
                    .hint("dk-ci(5) says how, and --file names another file")
                    .into()
            }
            _ => error,
        })
}

async fn read(source: &dyn Client, sha: &str, path: &TreePath) -> anyhow::Result<String> {
    let commit = ObjectId::from_hex(sha.as_bytes()).context("git printed no id")?;
    let mut reader = source.open(&At::Commit(commit), path).await?;
    let shown = path.to_string();
    blocking(move || {
        let mut text = String::new();
        reader
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {shown}"))?;
        Ok(text)
    })
    .await
}

/// Returns what stands for the work tree among targets.
fn target(work: &Work, args: &Args) -> anyhow::Result<Target> {
    let name = work.top.file_name().unwrap_or_default().to_string_lossy();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name
        .chars()
        .map(|c| if legal(c) { c } else { '_' })
        .collect();
    let repo = Repo::new("local", &name).or_else(|| Repo::new("local", "work"));
    let repo = repo.context("\"local/work\" is a name")?;
    let place = match &args.rev {
        None => format!("heads/{}", work.branch),
        // It is no branch, unless it names one.
        Some(rev) => match BranchName::new(rev.to_string()) {
            Ok(branch) => format!("heads/{branch}"),
            Err(_) => "heads/detached".into(),
        },
    };
    Ok(Target::of_ref(&repo, &TreePath::new(place)?))
}

/// Opens the store of results.
async fn store(
    global: &Global,
    args: &Args,
    work: &Work,
    cache: &std::path::Path,
) -> anyhow::Result<Arc<dyn Client>> {
    if args.no_cache {
        return Ok(Arc::new(Local::memory(HashKind::Sha1)));
    }
    if global.store.as_ref().is_some_and(|store| !store.is_empty()) {
        return Ok(
            open::session(&Ui::new(false, true, crate::ui::Color::Never), global)
                .await?
                .client,
        );
    }
    let digest = key::digest_of(work.top.as_os_str().as_encoded_bytes());
    let name = work.top.file_name().unwrap_or_default().to_string_lossy();
    let path = cache
        .join("results")
        .join(format!("{name}-{}.git", &digest[..12]));
    let made = || -> anyhow::Result<Arc<dyn Client>> {
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above)?;
        }
        Local::init(&path, HashKind::Sha1)?;
        open_local(&path)
    };
    made().with_context(|| format!("cannot open {}", path.display()))
}

/// Writes what a bridge would: where the only branch is.
async fn tell(store: &dyn Client, target: &Target, sha: &str) -> anyhow::Result<()> {
    let layout::Place::Ref(name) = &target.place else {
        return Ok(());
    };
    let branch = metadata()?;
    let mut reader = Reader::following([target.repo.clone()].into());
    if let Some(head) = store.head(&branch).await? {
        reader.advance(store, &head).await?;
    }
    let mut difference = Difference::default();
    difference
        .updated
        .add_ref(&target.repo, name, sha.to_owned());
    let puts = reader.edits(&difference);
    if puts.is_empty() {
        return Ok(());
    }
    let options = CommitOptions {
        message: Some(format!("{target} is {sha}").into_bytes()),
        empty: Empty::Skip,
        ..CommitOptions::default()
    };
    let edits = crate::forge::layout::change(puts);
    store.edit(&branch, edits, options).await?;
    Ok(())
}

/// The branch that stands for a bridge's: never the same.
fn metadata() -> anyhow::Result<BranchName> {
    Ok(BranchName::new("dk-ci-run")?)
}

fn config(target: &Target, steps: Steps) -> anyhow::Result<Config> {
    let mut config = config::engine("")?;
    config.metadata_branch = metadata()?;
    config.projects.push(Project {
        repo: target.repo.clone(),
        source: String::new(),
        browse: None,
        targets: config::Targets::new([target.place.to_string()]).map_err(Usage::new)?,
        dashboards: Vec::new(),
        steps: Source::Here(steps),
        secrets: Vec::new(),
        untrusted: config::Untrusted::Approve,
        keep: config::Keep::default(),
        log_limit: None,
    });
    Ok(config)
}

/// Returns the variables of the user's that steps see.
fn environment(more: &[OsString]) -> Vec<(OsString, OsString)> {
    let kept = ["PATH", "HOME", "LANG", "TZ"].map(OsString::from);
    let names = kept.iter().chain(more);
    names
        .filter_map(|name| Some((name.clone(), std::env::var_os(name)?)))
        .collect()
}

/// One line of the result.
#[derive(Serialize)]
struct Line<'a> {
    cell: &'a str,
    state: &'a str,
    text: &'a str,
    cached: bool,
    seconds: f64,
    branch: Option<&'a str>,
}

/// What is shown while steps run.
struct View<'a> {
    ui: &'a Ui,
    store: &'a dyn Client,
    target: Target,
    cells: BTreeSet<String>,
    board: Option<Board>,
    /// When each cell was first seen to run.
    begun: BTreeMap<String, Instant>,
    /// Kept failures that are to be run again.
    again: BTreeSet<String>,
    told: BTreeSet<String>,
    failed: Vec<String>,
}

impl<'a> View<'a> {
    fn new(ui: &'a Ui, store: &'a dyn Client, target: Target, cells: BTreeSet<String>) -> Self {
        Self {
            ui,
            store,
            target,
            cells,
            board: Some(ui.board()),
            begun: BTreeMap::new(),
            again: BTreeSet::new(),
            told: BTreeSet::new(),
            failed: Vec::new(),
        }
    }

    /// Has the engine go on until every cell has come to an end.
    async fn follow(&mut self, engine: &mut Engine) -> anyhow::Result<()> {
        loop {
            engine.round().await?;
            let outputs = engine.outputs(&self.target);
            for (cell, output) in &outputs {
                self.see(cell, output).await?;
            }
            // Those that failed because others did, once that is for good.
            let left = self.cells.iter().filter(|cell| !self.told.contains(*cell));
            let left: Vec<_> = left.map(|cell| (cell, outputs.get(cell))).collect();
            let followed =
                |(_, output): &(&String, Option<&Output>)| output.is_some_and(is_consequence);
            if left.iter().all(followed) {
                let left = left.into_iter();
                let left: Vec<_> = left
                    .filter_map(|(cell, output)| Some((cell.clone(), output?.clone())))
                    .collect();
                for (cell, output) in left {
                    self.tell(&cell, &output, None).await?;
                }
                return Ok(());
            }
            engine.wait().await;
        }
    }

    async fn see(&mut self, cell: &str, output: &Output) -> anyhow::Result<()> {
        if self.told.contains(cell) {
            return Ok(());
        }
        if let Logs::Live { .. } = output.logs {
            self.begun.entry(cell.into()).or_insert_with(Instant::now);
            let how = match output.result.descr.strip_prefix("Running ") {
                Some(_) => "running",
                None => &output.result.descr,
            };
            if let Some(board) = &mut self.board {
                board.goes(cell, how);
            }
        }
        let saved = match &output.logs {
            Logs::Saved(saved) => Some(saved),
            _ => None,
        };
        match (output.result.state, saved) {
            (State::Pending, _) => Ok(()),
            // A failure of before: perhaps for reasons that nobody sees.
            (State::Failure, Some(saved))
                if !self.begun.contains_key(cell) && self.again.insert(cell.into()) =>
            {
                let branch = BranchName::new(&saved.branch)?;
                request::rebuild_branch(self.store, &branch, None).await?;
                Ok(())
            }
            (State::Failure, Some(_)) if !self.begun.contains_key(cell) => Ok(()),
            _ if is_consequence(output) => Ok(()),
            _ => self.tell(cell, output, saved).await,
        }
    }

    async fn tell(
        &mut self,
        cell: &str,
        output: &Output,
        saved: Option<&SavedLog>,
    ) -> anyhow::Result<()> {
        self.told.insert(cell.into());
        if let Some(board) = &mut self.board {
            board.ends(cell);
        }
        let failed = output.result.state == State::Failure;
        let begun = self.begun.get(cell);
        let line = Line {
            cell,
            state: output.result.state.word(),
            text: &output.result.descr,
            cached: saved.is_some() && begun.is_none(),
            seconds: begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64()),
            branch: saved.map(|saved| saved.branch.as_str()),
        };
        let log = match saved.filter(|_| failed && begun.is_some()) {
            Some(saved) => tail(self.store, saved).await?,
            None => Vec::new(),
        };
        let ui = self.ui;
        let print = || -> anyhow::Result<()> {
            for line in &log {
                ui.line(line);
            }
            ui.show(&line, |line, out| render(ui, line, out))
        };
        match &self.board {
            Some(board) => board.print(print)?,
            None => print()?,
        }
        if failed {
            self.failed.push(cell.into());
        }
        Ok(())
    }

    fn verdict(&self) -> anyhow::Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let (failed, all) = (self.failed.len(), self.cells.len());
        let noun = if all == 1 { "step" } else { "steps" };
        let names = self.failed.join(", ");
        let cause = anyhow::anyhow!("{failed} of {all} {noun} failed: {names}");
        Err(Exit::with(1, cause).into())
    }
}

/// Tells whether something failed that was not run itself.
fn is_consequence(output: &Output) -> bool {
    output.result.state == State::Failure && output.logs == Logs::None
}

fn render(ui: &Ui, line: &Line<'_>, out: &mut dyn Write) -> io::Result<()> {
    let skipped = line.text.starts_with(term::SKIPPED);
    let (look, word) = match line.state {
        "failure" => (Look::Bad, "failed"),
        _ if skipped => (Look::Faint, "skipped"),
        _ if line.cached => (Look::Faint, "cached"),
        _ => (Look::Added, "ok"),
    };
    write!(
        out,
        "{} {}",
        ui.paint.of(look, format!("{word:<7}")),
        line.cell
    )?;
    if line.seconds > 0.0 {
        write!(out, "  {:.1} s", line.seconds)?;
    }
    if line.text != "Success" {
        let text = line.text.strip_prefix(term::SKIPPED).unwrap_or(line.text);
        write!(out, "  {text}")?;
    }
    writeln!(out)
}

/// Returns the last lines of a log.
async fn tail(store: &dyn Client, log: &SavedLog) -> anyhow::Result<Vec<String>> {
    let Some(commit) = ObjectId::from_hex(log.commit.as_bytes()) else {
        return Ok(Vec::new());
    };
    let path = TreePath::new(layout::LOG)?;
    let reader = store.open(&At::Commit(commit), &path).await?;
    blocking(move || {
        let mut reader = BufReader::new(reader);
        let mut lines = VecDeque::new();
        loop {
            let mut line = Vec::new();
            let count = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
            if count == 0 {
                return Ok(lines.into());
            }
            if lines.len() == SHOWN {
                lines.pop_front();
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            lines.push_back(String::from_utf8_lossy(line).into_owned());
        }
    })
    .await
}
