//! `dk watch`: wait for commits and print what they changed.
//!
//! Nothing is skipped: a watch that goes on from a commit or a cursor reports
//! every commit after it. A cursor moves only after its commit was handled, so
//! a watch that dies repeats its last commit rather than losing it.

use std::ffi::OsString;
use std::future::{pending, poll_fn};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;

use self::cursor::Cursor;
use self::emit::{Format, Record};
use self::exec::{Exec, Running, Work};
use self::post::Post;
use crate::client::{Error, Event, Records, Since, WatchQuery};
use crate::commands::parse::BranchPath;
use crate::commands::{Session, blocking, completions, parse};
use crate::model::{Kind, ObjectId, Rev};
use crate::ui::{Exit, Reader, Ui, Usage};

mod cursor;
mod emit;
mod exec;
mod post;

/// Wait for commits and print what they changed
///
/// Waits for the next commit that changes something on BRANCH (at PATH, where
/// one is given), prints the changed paths, one a line, and exits. Blanks,
/// quotes, backslashes and newlines in a path have a backslash before them,
/// which xargs takes away again. A merge is shown as what it changed on the
/// branch. A branch without a commit is waited for.
///
/// Paths come from whoever may commit. Where that is not only you, let a
/// program read them with -z and xargs -0, or use --exec, and mind names that
/// begin with a dash.
///
/// dk never updates a work tree: a Makefile reads with dk cat or dk export.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk watch master | xargs make                        one commit, then make
  while dk watch --cursor .seen master:src | xargs -r make -C build; do :; done
  dk watch -f --batch master | xargs -r -L1 ./publish
  dk watch --cursor .seen --exec ./deploy master:config
  dk watch --cursor .sent --post https://example.org/hook --post-secret key master
  dk watch -fz master | xargs -0 -n1 printf '%s\\n'    names as they are

JSON:
  {\"id\", \"tree\", \"parents\", \"author\", \"committer\", \"message\",
   \"time\": seconds, \"previous\", \"reset\", \"changes\"}
  The commit is as dk log prints it, changes are as dk diff does, and previous is
  the commit they differ from. reset: the branch moved to history without it.

Exit status:
  4 if the branch is deleted (unless --follow), 124 after --timeout, with --exec that of the command")]
pub struct Args {
    /// The branch, and where in its tree
    #[arg(value_name = "BRANCH[:PATH]", required_unless_present = "exec",
          value_parser = parse::branch_path(), add = completions::rev_path())]
    target: Option<BranchPath>,

    /// Go on for ever, even if the branch is deleted
    #[arg(short, long)]
    follow: bool,

    /// Stop after N commits
    #[arg(short = 'n', long = "number", value_name = "N")]
    number: Option<NonZeroU64>,

    /// End raw paths with NUL, for xargs -0
    #[arg(short = 'z', long = "null", visible_short_alias = '0', conflicts_with_all = ["batch", "commits"])]
    nul: bool,

    /// Print one line a commit, its escaped paths, for xargs -L1
    ///
    /// More than 100 kB of paths are split over several lines.
    #[arg(long, conflicts_with = "commits")]
    batch: bool,

    /// Print the commits' ids; `! ID` where the branch moved to other history
    #[arg(long)]
    commits: bool,

    /// First report the whole present tree as added
    #[arg(long, conflicts_with = "since")]
    current: bool,

    /// First report everything after COMMIT: a revision, 0 (the beginning) or head (now)
    #[arg(long, value_name = "COMMIT", add = completions::rev())]
    since: Option<OsString>,

    /// Go on after the commit in FILE, and keep it up to date
    ///
    /// An absent or empty FILE begins now, or at --since or --current. FILE is
    /// replaced after a commit's record is written out, or with --exec after the
    /// command exits 0: across crashes every commit is reported at least once.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    cursor: Option<PathBuf>,

    /// When behind, skip to the newest state: one record with all that differs
    #[arg(long)]
    latest: bool,

    /// Run a command for each commit, the paths on its standard input
    ///
    /// Follows the branch. The command is everything after --exec, less the last
    /// word if no BRANCH stands before. It gets the paths ended with NUL on
    /// standard input and DK_BRANCH, DK_COMMIT, DK_PARENT (what the paths differ
    /// from; empty: nothing) and DK_STORE in its environment. The first one that
    /// fails ends the watch with its status.
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true,
          value_hint = clap::ValueHint::CommandName,
          conflicts_with_all = ["nul", "batch", "commits"])]
    exec: Vec<OsString>,

    /// End the command still running when the next commit comes
    ///
    /// Its process group gets SIGTERM, and SIGKILL 5 seconds later. The next run
    /// is given its paths too.
    #[arg(long, requires = "exec")]
    restart: bool,

    /// Post each commit as JSON to URL, again and again until it is taken
    ///
    /// Follows the branch. The body is what --json prints, with the key branch.
    /// Any answer of 2xx takes it. After 408, 429, 5xx or none within 30 seconds
    /// it is posted again, after 1 second, then twice as long each time, at most
    /// 5 minutes, or when Retry-After says. Any other answer ends the watch with
    /// status 1. X-Dk-Delivery is the commit: who sees it twice can tell.
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url,
          conflicts_with_all = ["nul", "batch", "commits", "exec"])]
    post: Option<String>,

    /// Sign what is posted with the secret in FILE
    ///
    /// As GitHub does: X-Hub-Signature-256 is `sha256=` and the HMAC of the body.
    #[arg(long, value_name = "FILE", requires = "post", value_hint = clap::ValueHint::FilePath)]
    post_secret: Option<PathBuf>,

    /// Give up after so long without a commit: 90, 1.5s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
}

pub(super) async fn run(session: &Session, mut args: Args) -> anyhow::Result<()> {
    let BranchPath { branch, path } = target(&mut args)?;
    if session.ui.json && !args.exec.is_empty() {
        return Err(Usage::new("--json cannot be used with --exec, which prints nothing").into());
    }
    let post = match &args.post {
        Some(url) => Some(Post::new(url, args.post_secret.as_deref(), branch.clone())?),
        None => None,
    };
    let cursor = args.cursor.clone().map(Cursor::new);
    let head = session.client.head(&branch).await?;
    let since = beginning(session, &args, head, cursor.as_ref()).await?;
    if head.is_none() && !matches!(since, Since::Commit(_)) {
        session.ui.note(&format!(
            "branch {branch} has no commit yet: waiting for one"
        ));
    }
    let follow = args.follow || !args.exec.is_empty() || post.is_some();
    let query = WatchQuery {
        branch: branch.clone(),
        path,
        since,
        latest: args.latest,
        unchanged: false,
    };
    let watch = Watch {
        session,
        events: session.client.watch(query.clone()),
        query,
        reader: session
            .ui
            .reader()
            .context("cannot watch standard output")?,
        cursor,
        follow,
        left: match args.number {
            Some(number) => Some(number.get()),
            None if follow => None,
            None => Some(1),
        },
        timeout: args.timeout,
    };
    if let Some(post) = post {
        return watch.post(&post).await;
    }
    if args.exec.is_empty() {
        return watch.print(format(&args)).await;
    }
    let exec = Exec {
        words: args.exec,
        branch,
        store: session.store.clone(),
    };
    watch.exec(&exec, args.restart).await
}

/// Returns what to watch, which may stand behind the command of `--exec`.
fn target(args: &mut Args) -> anyhow::Result<BranchPath> {
    if let Some(target) = args.target.take() {
        return Ok(target);
    }
    match args.exec.pop() {
        Some(target) if !args.exec.is_empty() => Ok(BranchPath::new(target.as_bytes())?),
        _ => Err(Usage::new("no branch is named")
            .hint("a branch stands before --exec, or is the last word behind it")
            .into()),
    }
}

fn format(args: &Args) -> Format {
    match (args.nul, args.batch, args.commits) {
        (true, ..) => Format::Nul,
        (_, true, _) => Format::Batch,
        (.., true) => Format::Commits,
        _ => Format::Paths,
    }
}

/// Returns where the watch begins. A cursor that says nothing yet is written
/// at once, so that the next watch misses nothing even if this one sees nothing.
async fn beginning(
    session: &Session,
    args: &Args,
    head: Option<ObjectId>,
    cursor: Option<&Cursor>,
) -> anyhow::Result<Since> {
    let since = match &args.since {
        _ if args.current => Since::Current,
        Some(text) => since(session, text.as_bytes()).await?,
        None => Since::Now,
    };
    let Some(cursor) = cursor else {
        return Ok(since);
    };
    let since = match cursor.read()? {
        None => since,
        Some(text) => match resume(session, cursor, &text).await? {
            Since::Commit(id) => return Ok(Since::Commit(id)),
            other => other,
        },
    };
    let since = match since {
        Since::Now => head.map_or(Since::Beginning, Since::Commit),
        since => since,
    };
    match &since {
        Since::Commit(id) => cursor.write(Some(id))?,
        Since::Beginning => cursor.write(None)?,
        // Only the first record makes good the promise of the whole tree.
        Since::Current | Since::Now => (),
    }
    Ok(since)
}

/// Reads what may stand behind `--since` and in a cursor.
async fn since(session: &Session, text: &[u8]) -> anyhow::Result<Since> {
    Ok(match text {
        b"0" => Since::Beginning,
        b"head" => Since::Now,
        text => Since::Commit(session.resolve(&Rev::new(text)?).await?),
    })
}

/// Reads a cursor, and says what to do about one that fits this store no more.
async fn resume(session: &Session, cursor: &Cursor, text: &str) -> anyhow::Result<Since> {
    let file = cursor.file().display();
    since(session, text.as_bytes()).await.map_err(|error| {
        let kind = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Error>().map(Error::kind));
        Error::Other {
            kind: kind.unwrap_or(Kind::Invalid),
            message: format!("cannot go on from the cursor {file}"),
            hint: Some(format!(
                "remove {file} to go on from now, or put 0 into it to begin with the first commit"
            )),
            source: Some(error.into()),
        }
        .into()
    })
}

/// Records printed together at most.
const TOGETHER: usize = 128;

/// A watch under way.
struct Watch<'a> {
    session: &'a Session,
    query: WatchQuery,
    events: Records<Event>,
    reader: Reader,
    cursor: Option<Cursor>,
    /// Go on when the branch is deleted.
    follow: bool,
    /// Commits still to be reported; `None`: without end.
    left: Option<u64>,
    timeout: Option<Duration>,
}

/// What a watch waits for.
enum Step {
    Commit(Record),
    /// The command is done.
    Ended(ExitStatus),
    /// Nobody reads standard output any more.
    Unread,
    /// Nothing yet.
    Waiting,
}

impl Watch<'_> {
    /// Prints records until there are enough of them. Those that have come
    /// already are printed together, unless each is to be noted by itself.
    async fn print(mut self, format: Format) -> anyhow::Result<()> {
        let together = if self.cursor.is_some() || self.query.latest {
            1
        } else {
            TOGETHER
        };
        let tells_resets = self.session.ui.json || format == Format::Commits;
        let mut step = self.step(&mut None, true).await;
        loop {
            let Step::Commit(first) = step? else {
                return Ok(());
            };
            let mut records = vec![first];
            let mut enough = false;
            step = loop {
                if let Some(record) = records.last()
                    && (!record.changes.is_empty() || (record.reset && tells_resets))
                {
                    enough = self.last();
                }
                if enough || records.len() == together {
                    break Ok(Step::Waiting);
                }
                match self.ready().await {
                    Ok(Step::Commit(record)) => records.push(record),
                    other => break other,
                }
            };
            let newest = records.last().map(|record| record.commit.id);
            let (ui, cursor) = (self.session.ui.clone(), self.cursor.clone());
            blocking(move || {
                print(&ui, &records, format, tells_resets)?;
                if let (Some(cursor), Some(newest)) = (&cursor, newest) {
                    // A cursor must not outlive the record it stands for.
                    ui.sync().context("cannot sync standard output")?;
                    cursor.write(Some(&newest))?;
                }
                Ok(())
            })
            .await?;
            if enough {
                return Ok(());
            }
            self.handled(newest);
            if matches!(step, Ok(Step::Waiting)) {
                step = self.step(&mut None, true).await;
            }
        }
    }

    /// Posts records until there are enough of them.
    async fn post(mut self, post: &Post) -> anyhow::Result<()> {
        while let Step::Commit(record) = self.step(&mut None, true).await? {
            if record.changes.is_empty() && !record.reset {
                continue;
            }
            post.deliver(&self.session.ui, &record).await?;
            if let Some(cursor) = &self.cursor {
                cursor.write(Some(&record.commit.id))?;
            }
            if self.last() {
                break;
            }
            self.handled(Some(record.commit.id));
        }
        Ok(())
    }

    /// Runs the command for each commit until there were enough of them.
    async fn exec(mut self, exec: &Exec, restart: bool) -> anyhow::Result<()> {
        let mut running: Option<Running> = None;
        loop {
            let idle = running.is_none();
            match self.step(&mut running, idle || restart).await? {
                Step::Unread | Step::Waiting => return Ok(()),
                Step::Ended(status) => {
                    let Some(ended) = running.take() else {
                        continue;
                    };
                    exec.succeeded(ended.work(), status)?;
                    if let Some(cursor) = &self.cursor {
                        cursor.write(Some(&ended.work().commit))?;
                    }
                    if self.last() {
                        return Ok(());
                    }
                    self.handled(Some(ended.work().commit));
                }
                Step::Commit(record) if record.changes.is_empty() => (),
                Step::Commit(record) => {
                    let mut work = Work::new(record.commit.id, record.previous, record.changes);
                    if let Some(running) = running.take() {
                        work = running.end().await.and_then(work);
                    }
                    running = Some(exec.start(work)?);
                }
            }
        }
    }

    /// Forgets what came in while a commit was being handled, where only the
    /// newest state is asked for.
    fn handled(&mut self, commit: Option<ObjectId>) {
        if let (true, Some(commit)) = (self.query.latest, commit) {
            self.query.since = Since::Commit(commit);
            self.events = self.session.client.watch(self.query.clone());
        }
    }

    /// Counts a commit that was handled; tells whether it was the last.
    fn last(&mut self) -> bool {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        self.left == Some(0)
    }

    /// Returns what has come already.
    async fn ready(&mut self) -> anyhow::Result<Step> {
        let mut none = None;
        tokio::select! {
            biased;
            step = self.step(&mut none, true) => step,
            () = std::future::ready(()) => Ok(Step::Waiting),
        }
    }

    /// Waits for what comes next: a commit, if they are wanted now, or the end
    /// of the command. Only a watch that is idle gives up.
    async fn step(&mut self, running: &mut Option<Running>, commits: bool) -> anyhow::Result<Step> {
        let idle = running.is_none();
        loop {
            let events = &mut self.events;
            tokio::select! {
                event = poll_fn(|context| events.as_mut().poll_next(context)), if commits => {
                    match event.context("the watch ended")?? {
                        Event::Commit { commit, previous, reset, changes } => {
                            let time = commit.committer.time.seconds;
                            return Ok(Step::Commit(Record { commit, time, previous, reset, changes }));
                        }
                        Event::Deleted { .. } if self.follow => self.session.ui.note(&format!(
                            "branch {} was deleted: waiting for it to come back", self.query.branch
                        )),
                        Event::Deleted { .. } => {
                            let what = format!("branch {} was deleted", self.query.branch);
                            return Err(Error::new(Kind::NotFound, what).into());
                        }
                    }
                }
                status = ended(running) => {
                    return Ok(Step::Ended(status.context("cannot wait for the command")?));
                }
                () = self.reader.gone(), if idle => return Ok(Step::Unread),
                () = silence(self.timeout), if idle => return Err(Exit::quiet(124).into()),
            }
        }
    }
}

async fn ended(running: &mut Option<Running>) -> io::Result<ExitStatus> {
    match running {
        Some(running) => running.ended().await,
        None => pending().await,
    }
}

async fn silence(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}

/// Prints records, those without a change only where a reset is told.
fn print(ui: &Ui, records: &[Record], format: Format, tells_resets: bool) -> anyhow::Result<()> {
    let mut out = ui.records();
    for record in records {
        if record.changes.is_empty() && !(record.reset && tells_resets) {
            continue;
        }
        out.show(record, |record, out| {
            let mut lines = Vec::new();
            record.write(format, &mut lines)?;
            out.write_all(&ui.text(&lines))
        })?;
    }
    out.finish()
}

/// Parses a time: a number and `ms`, `s` (or nothing), `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = match &text[end..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("not a time: write 90, 1.5s, 10m, 2h or 1d".into()),
    };
    let number: f64 = text[..end]
        .parse()
        .map_err(|_| "a number is missing".to_string())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(Duration::ZERO) => Err("no time at all".into()),
        Ok(time) => Ok(time),
        Err(_) => Err("too long a time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for bad in [
            "",
            "s",
            "1x",
            "-1",
            "0",
            "1e9",
            "1.2.3",
            "9999999999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
