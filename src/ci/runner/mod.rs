//! Runs jobs on this machine.
//!
//! ```text
//!   Machine::run -> scratch    a folder
//!                -> checkout   the inputs in it, and nothing else
//!                -> process    a supervisor, told what to run ... supervisor
//!                -> outputs    what it made, as edits
//! ```
//!
//! What stays true:
//!
//! - A command has no variable, no open file and no folder of the engine's: a
//!   clean environment, standard output and error, its checkout. It never has
//!   the engine's secrets, beside those the job names.
//! - No process of a job outlives it, whatever becomes of the engine
//!   (`supervisor`).
//! - What is not trusted runs in a sandbox, or not at all (`sandbox`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::logs::{Masked, Secrets};
use super::{Done, Ended, Job, LogSink, Outputs, Runner, Script, Stop};
use crate::model::text::quote_always;

mod checkout;
mod container;
mod family;
mod links;
mod outputs;
mod process;
mod sandbox;
mod scratch;
mod supervisor;
mod wire;

pub use supervisor::supervise;

use container::{Containers, Wanted};
use process::{Event, Supervised};
use scratch::Folder;
use wire::Setup;

/// How this machine is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where jobs have their folders. It is made where it is missing.
    pub scratch: PathBuf,
    /// The words that run [`supervise`]: `dk ci supervise`.
    pub supervisor: Vec<OsString>,
    /// The variables of every step, before its own: `PATH`, and what else
    /// names places on this machine. Without `HOME` a step gets an empty one.
    pub env: Vec<(OsString, OsString)>,
    /// How long processes have between TERM and KILL.
    pub grace: Duration,
}

/// This machine.
pub struct Machine {
    options: Options,
    containers: Containers,
    /// Whether a namespace of processes can be had for what is trusted.
    namespace: OnceCell<bool>,
}

/// How long the processes of a job have to end after TERM, where nobody says
/// otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// What a step is told about where it runs.
const CI: (&str, &str) = ("CI", "true");

/// Makes commands the children of the namespace's first process.
const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

impl Machine {
    /// Makes ready to run jobs, and removes what killed engines left.
    pub fn new(options: Options) -> Self {
        let containers = Containers::new(path_of(&options.env));
        scratch::sweep(&options.scratch, |folder| {
            family::end_marked(folder);
            containers.sweep(folder);
        });
        Self {
            options,
            containers,
            namespace: OnceCell::new(),
        }
    }

    /// Returns the words before those of the supervisor of a job.
    async fn wrapping(&self, job: &Job) -> Vec<&'static str> {
        let root = rustix::process::geteuid().is_root();
        if job.sandbox && job.image.is_none() {
            return sandbox::unshare(root);
        }
        let namespace = self.namespace.get_or_init(|| async {
            // In a user namespace sudo and much else would be broken.
            root && cfg!(target_os = "linux") && {
                let tried = tokio::process::Command::new(NAMESPACE[0])
                    .args(&NAMESPACE[1..])
                    .arg("true")
                    .env("PATH", path_of(&self.options.env))
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .status();
                tried.await.is_ok_and(|status| status.success())
            }
        });
        match namespace.await {
            true => NAMESPACE.to_vec(),
            false => Vec::new(),
        }
    }

    async fn attempt(&self, job: &Job, log: &Masked, stop: &mut Stop) -> Result<Ended, String> {
        let scratch = self.options.scratch.clone();
        let folder = blocking(move || Folder::new(&scratch)).await?;
        let owner = self.owner(job);
        if let Some(user) = owner {
            folder.give(user).map_err(|error| error.to_string())?;
        }
        if let Script::Shell(script) = &job.script {
            let path = folder.path().join("run/script");
            std::fs::write(&path, script)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if !check_out(job, folder.tree(), owner, stop).await? {
            return Ok(Ended::Cancelled);
        }
        let place = self.place(job, &folder).await?;
        let mut supervised = self.start(job, &folder, &place).await?;
        let event = commands(job, &place, &mut supervised, log, stop).await;
        if !supervised.end(log).await {
            // It was killed: what it had adopted is nobody's child here.
            let path = folder.path().to_owned();
            let ended = blocking(move || {
                family::end_marked(&path);
                Ok::<_, String>(())
            });
            ended.await?;
            self.containers.remove(folder.path()).await;
        }
        if let Some(ended) = event {
            return Ok(ended);
        }
        let outputs = self.outputs(job, folder, log).await?;
        Ok(Ended::Success {
            text: "Success".into(),
            outputs,
        })
    }

    /// Returns whose files those of a job are to be.
    fn owner(&self, job: &Job) -> Option<u32> {
        (job.sandbox && rustix::process::geteuid().is_root()).then_some(sandbox::NOBODY)
    }

    /// Works out where and how commands are run.
    async fn place(&self, job: &Job, folder: &Folder) -> Result<Place, String> {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &OsStr, value: OsString| {
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value));
        };
        if !job.sandbox {
            for (name, value) in &self.options.env {
                set(name, value.clone());
            }
        }
        if let Some(image) = &job.image {
            return self.contained(job, image, folder).await;
        }
        let (tree, home, tmp, run) = if job.sandbox {
            set("PATH".as_ref(), sandbox::PATH.into());
            let inside = |path: &str| PathBuf::from(path);
            (
                inside(sandbox::CHECKOUT),
                inside(sandbox::HOME),
                inside("/tmp"),
                inside(sandbox::RUN),
            )
        } else {
            let part = |name: &str| folder.path().join(name);
            (part("tree"), part("home"), part("tmp"), part("run"))
        };
        if !self.options.env.iter().any(|(name, _)| name == "HOME") || job.sandbox {
            set("HOME".as_ref(), home.into_os_string());
        }
        set("TMPDIR".as_ref(), tmp.into_os_string());
        set(CI.0.as_ref(), CI.1.into());
        for (name, value) in &job.env {
            set(name.as_ref(), value.into());
        }
        for secret in &job.secrets {
            let value = OsString::from_vec(secret.value.clone());
            set(secret.name.as_ref(), value);
        }
        Ok(Place {
            env,
            dir: tree,
            run,
            before: Vec::new(),
            finally: Vec::new(),
        })
    }

    /// The same for commands in a container. What is run here is the program
    /// that speaks to the container engine: it has the engine's own variables,
    /// and of the step's nothing but its secrets, which are passed on by name.
    async fn contained(&self, job: &Job, image: &str, folder: &Folder) -> Result<Place, String> {
        let failed = |why: String| format!("cannot run in the image {image}: {why}");
        let engine = self.containers.engine().await.map_err(failed)?;
        let mut env = self.containers.env.clone();
        for secret in &job.secrets {
            if env.iter().any(|(name, _)| *name == *secret.name) {
                let name = &secret.name;
                return Err(failed(format!(
                    "the secret {name} has the name of a variable of the engine's own"
                )));
            }
            let value = OsString::from_vec(secret.value.clone());
            env.push((secret.name.clone().into(), value));
        }
        let words = engine.run(&Wanted {
            image,
            folder: folder.path(),
            env: [CI]
                .into_iter()
                .chain(
                    job.env
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_str())),
                )
                .collect(),
            secrets: job
                .secrets
                .iter()
                .map(|secret| secret.name.as_str())
                .collect(),
            sandbox: job.sandbox,
        });
        let remove = engine.remove(folder.path());
        container::note(folder.path(), &remove).map_err(failed)?;
        Ok(Place {
            env,
            dir: folder.path().to_owned(),
            run: container::RUN.into(),
            before: words.map_err(failed)?,
            finally: vec![remove],
        })
    }

    async fn start(&self, job: &Job, folder: &Folder, place: &Place) -> Result<Supervised, String> {
        let sandboxed = job.sandbox && job.image.is_none();
        let setup = Setup {
            env: place.env.clone(),
            dir: place.dir.clone(),
            grace: self.options.grace,
            sandbox: sandboxed,
            user: self.owner(job).filter(|_| sandboxed),
            finally: place.finally.clone(),
        };
        let wrapping = self.wrapping(job).await;
        let mut words: Vec<OsString> = wrapping.iter().map(Into::into).collect();
        words.extend(self.options.supervisor.iter().cloned());
        let path = path_of(&self.options.env);
        let started = Supervised::start(&words, path, folder.path(), &setup).await;
        let shown = words.first().map(OsString::as_os_str).unwrap_or_default();
        let ready = match started {
            Ok(mut supervised) => supervised.ready().await.map(|()| supervised),
            Err(error) => Err(format!("cannot run {}: {error}", shown.display())),
        };
        match ready {
            Ok(supervised) => Ok(supervised),
            Err(why) if sandboxed => Err(format!(
                "what is not trusted can only run in a sandbox of namespaces, and this machine \
                 does not allow one: {why}"
            )),
            Err(why) => Err(format!("cannot start the supervisor of the step: {why}")),
        }
    }

    async fn outputs(&self, job: &Job, folder: Folder, log: &Masked) -> Result<Outputs, String> {
        let (job, secrets) = (job.clone(), secrets(job));
        blocking(move || outputs::read(&job, folder, &secrets))
            .await
            .map_err(|why| log.hide(&why))
    }
}

/// Where and how the commands of a job are run.
struct Place {
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    /// The folder of the script, as a command sees it.
    run: PathBuf,
    /// Words that come before those of each command.
    before: Vec<OsString>,
    finally: Vec<Vec<String>>,
}

/// A command, and how the log names it.
struct Named {
    shown: String,
    words: Vec<OsString>,
}

#[async_trait]
impl Runner for Machine {
    async fn run(&self, job: Job, log: Arc<dyn LogSink>, mut stop: Stop) -> Ended {
        let log = Masked::new(log, secrets(&job));
        if stop.is_wanted() {
            return Ended::Cancelled;
        }
        match self.attempt(&job, &log, &mut stop).await {
            Ok(ended) => ended,
            Err(text) => Ended::Failure {
                text: log.hide(&text),
                exit: None,
            },
        }
    }

    async fn image(&self, name: &str, done: Done) -> Option<String> {
        self.containers.digest(name, done).await
    }
}

fn secrets(job: &Job) -> Secrets {
    Secrets::new(job.secrets.iter().map(|secret| secret.value.as_slice()))
}

fn path_of(env: &[(OsString, OsString)]) -> &OsStr {
    let path = env.iter().find(|(name, _)| name == "PATH");
    path.map_or(OsStr::new(sandbox::PATH), |(_, path)| path)
}

/// Runs what may block where it may.
async fn blocking<T: Send + 'static, E: ToString + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the checkout; tells whether it was not stopped meanwhile.
async fn check_out(
    job: &Job,
    tree: PathBuf,
    owner: Option<u32>,
    stop: &mut Stop,
) -> Result<bool, String> {
    /// Gives the work up when it is not waited for any more.
    struct GiveUp(Arc<AtomicBool>);
    impl Drop for GiveUp {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let flag = GiveUp(Arc::default());
    let (job, given_up, runtime) = (job.clone(), Arc::clone(&flag.0), Handle::current());
    let mut written = std::pin::pin!(blocking(move || checkout::write(
        &job, &tree, owner, &given_up, &runtime
    )));
    tokio::select! {
        written = &mut written => written.map(|()| true),
        () = stop.wanted() => {
            drop(flag);
            // Nobody is to write while the folder is removed.
            let _ = written.await;
            Ok(false)
        }
    }
}

/// Runs the commands of a job; nothing where all succeeded.
async fn commands(
    job: &Job,
    place: &Place,
    supervised: &mut Supervised,
    log: &Masked,
    stop: &mut Stop,
) -> Option<Ended> {
    let until = Instant::now() + job.timeout;
    for command in named(&job.script, &place.run) {
        log.line(&format!("Running {}...", command.shown)).await;
        let words = [place.before.clone(), command.words].concat();
        let failed = |how: String, exit| Ended::Failure {
            text: log.hide(&format!("Command {} {how}", command.shown)),
            exit,
        };
        return Some(match supervised.run(words, log, until, stop).await {
            Event::Exited(0) => continue,
            Event::Exited(status) => failed(format!("exited with status {status}"), Some(status)),
            Event::Signalled(number) => failed(format!("failed with signal {number}"), None),
            Event::NotStarted(text) | Event::Broken(text) => Ended::Failure { text, exit: None },
            Event::Stopped => Ended::Cancelled,
            Event::TimedOut => {
                let text = exceeded(job.timeout);
                log.line(&text).await;
                Ended::TimedOut { text }
            }
        });
    }
    None
}

/// Says that a time limit was reached, as the ancestor does.
fn exceeded(timeout: Duration) -> String {
    let seconds = timeout.as_secs_f64();
    match seconds < 120.0 {
        true => format!("Exceeded timeout of {seconds:.2} seconds"),
        false => format!("Exceeded timeout of {:.2} minutes", seconds / 60.0),
    }
}

/// Returns the commands a script comes to.
fn named(script: &Script, run: &Path) -> Vec<Named> {
    match script {
        Script::Shell(text) => {
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let mut shown = quote_always(lines.next().unwrap_or_default().as_bytes());
            match lines.count() {
                0 => (),
                1 => shown.push_str(" and 1 more line"),
                more => shown.push_str(&format!(" and {more} more lines")),
            }
            let words = vec!["/bin/sh".into(), "-e".into(), run.join("script").into()];
            vec![Named { shown, words }]
        }
        Script::Commands(commands) => {
            let each = commands.iter().map(|words| {
                let shown: Vec<String> = words
                    .iter()
                    .map(|word| quote_always(word.as_bytes()))
                    .collect();
                Named {
                    shown: shown.join(" "),
                    words: words.iter().map(Into::into).collect(),
                }
            });
            each.collect()
        }
    }
}

/// Returns the words that run [`supervise`] in this program.
pub fn supervisor() -> io::Result<Vec<OsString>> {
    let program = std::env::current_exe()?;
    Ok(vec![program.into(), "ci".into(), "supervise".into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_as_the_ancestor_tells_them() {
        let told = |seconds| exceeded(Duration::from_secs(seconds));
        assert_eq!(told(60), "Exceeded timeout of 60.00 seconds");
        assert_eq!(told(119), "Exceeded timeout of 119.00 seconds");
        assert_eq!(told(120), "Exceeded timeout of 2.00 minutes");
        assert_eq!(told(1800), "Exceeded timeout of 30.00 minutes");
    }

    #[test]
    fn commands_are_named_by_what_they_run() {
        let shown = |script: Script| -> Vec<String> {
            let named = named(&script, Path::new("/run"));
            named.into_iter().map(|command| command.shown).collect()
        };
        let shell = |text: &str| Script::Shell(text.into());
        assert_eq!(shown(shell("ls")), ["\"ls\""]);
        assert_eq!(shown(shell("\nls\n\necho\n")), ["\"ls\" and 1 more line"]);
        let commands = vec![vec!["ls".into(), "a b".into()], vec!["id".into()]];
        assert_eq!(
            shown(Script::Commands(commands)),
            ["\"ls\" \"a b\"", "\"id\""]
        );
    }
}
