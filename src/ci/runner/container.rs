//! Steps in containers, through the command line that docker and podman have
//! in common.
//!
//! The checkout is mounted, and all else of the image's is the image's. A
//! container is no child of anybody here, so it has a name, and whatever
//! happens it is removed by that in the end: by the supervisor; by the runner
//! where that was killed; by the next engine where both were ([`note`]).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinSet;

use super::sandbox::NOBODY;
use crate::ci::Done;

/// Where the checkout is in a container.
pub(super) const CHECKOUT: &str = "/checkout";
/// HOME there.
pub(super) const HOME: &str = "/ci/home";
/// The folder of the script there.
pub(super) const RUN: &str = "/ci/run";
const TMP: &str = "/ci/tmp";

/// How long what was learnt of an image or of the engine holds.
const FRESH: Duration = Duration::from_secs(300);

/// How long docker or podman have to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How long they have to bring an image here.
const PULL: Duration = Duration::from_secs(1800);

/// The programs, in the order in which they are tried.
const PROGRAMS: [&str; 2] = ["docker", "podman"];

/// Where SELinux is in force, and a container sees but what is labelled for it.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// The file in a job's folder that says how to remove its container.
const NOTE: &str = "container";

/// What runs containers on this machine, and what is known of its images.
pub(super) struct Containers {
    /// The variables of the programs: those of this process (`DOCKER_HOST`,
    /// `XDG_RUNTIME_DIR`, …) with the `PATH` of steps.
    pub env: Vec<(OsString, OsString)>,
    /// The answer, and when it was given.
    engine: tokio::sync::Mutex<Option<(Instant, Result<Engine, String>)>>,
    images: Arc<Mutex<Images>>,
    pulls: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Images {
    /// The digest of each, and when it was learnt.
    known: BTreeMap<String, (Instant, String)>,
    /// Those that are being fetched, with those that wait for them.
    pulled: BTreeMap<String, Vec<Done>>,
}

/// A program that answers.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    program: PathBuf,
    /// Root in its containers is the user here.
    rootless: bool,
    /// Users in its containers are others here, unless it is told otherwise.
    remapped: bool,
}

/// What a container is to be.
pub(super) struct Wanted<'a> {
    pub image: &'a str,
    /// The folder of the job (scratch.rs).
    pub folder: &'a Path,
    pub env: Vec<(&'a str, &'a str)>,
    /// Names of the variables it is given of those the program has.
    pub secrets: Vec<&'a str>,
    pub sandbox: bool,
}

impl Containers {
    pub fn new(path: &OsStr) -> Self {
        let own = std::env::vars_os().filter(|(name, _)| name != "PATH");
        Self {
            env: own.chain([("PATH".into(), path.into())]).collect(),
            engine: tokio::sync::Mutex::default(),
            images: Arc::default(),
            pulls: Mutex::default(),
        }
    }

    /// Returns what runs containers, or says why nothing does.
    pub async fn engine(&self) -> Result<Engine, String> {
        let mut known = self.engine.lock().await;
        if let Some((when, answer)) = &*known
            && when.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.look().await;
        *known = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn look(&self) -> Result<Engine, String> {
        let mut why = Vec::new();
        for name in PROGRAMS {
            let Some(program) = self.find(name) else {
                continue;
            };
            let asked = async |words: &[&str]| ask(&program, &self.env, words, ANSWER).await;
            // A client without a server is no engine.
            if let Err(error) = asked(&["version", "--format", "{{.Server.Version}}"]).await {
                why.push(format!("{name}: {error}"));
                continue;
            }
            // podman goes by docker's name, too.
            let version = asked(&["--version"]).await.unwrap_or_default();
            let about = match version.starts_with("podman") {
                true => "{{.Host.Security.Rootless}}",
                false => "{{.SecurityOptions}}",
            };
            let about = asked(&["info", "--format", about])
                .await
                .unwrap_or_default();
            return Ok(Engine {
                rootless: about == "true" || about.contains("name=rootless"),
                remapped: about.contains("name=userns"),
                program,
            });
        }
        Err(match why.is_empty() {
            true => "neither docker nor podman is on this machine".into(),
            false => format!("no container engine answers ({})", why.join("; ")),
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = self.env.iter().find(|(name, _)| name == "PATH");
        let folders = std::env::split_paths(path.map_or(OsStr::new(""), |(_, path)| path));
        folders
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())
    }

    /// Returns the digest of an image, or its name where nobody can tell.
    /// Nothing: it is not here yet, and `done` is called when it is. (A step is
    /// not run before: it would be run again as soon as its image has a digest.)
    pub async fn digest(&self, image: &str, done: Done) -> Option<String> {
        let Ok(engine) = self.engine().await else {
            return Some(image.into());
        };
        if let Some(known) = lock(&self.images).fresh(image) {
            return Some(known);
        }
        if let Ok(digest) = engine.inspect(&self.env, image).await {
            lock(&self.images).learn(image, &digest);
            return Some(digest);
        }
        let mut images = lock(&self.images);
        // It may have come meanwhile.
        if let Some(known) = images.fresh(image) {
            return Some(known);
        }
        let waiting = images.pulled.entry(image.into()).or_default();
        waiting.push(done);
        if waiting.len() == 1 {
            let (env, images, image) = (self.env.clone(), self.images.clone(), image.to_owned());
            let mut pulls = lock(&self.pulls);
            while pulls.try_join_next().is_some() {}
            pulls.spawn(async move {
                let words = ["pull", "--quiet", &image];
                let pulled = ask(&engine.program, &env, &words, PULL).await;
                if let Err(why) = &pulled {
                    // The log of the step will say so, too.
                    tracing::warn!(target: "ci", "cannot pull {image}: {why}");
                }
                let digest = engine.inspect(&env, &image).await;
                let waiting = {
                    let mut images = lock(&images);
                    images.learn(&image, digest.as_deref().unwrap_or(&image));
                    images.pulled.remove(&image)
                };
                for done in waiting.into_iter().flatten() {
                    done();
                }
            });
        }
        None
    }

    /// Removes the container of a job whose supervisor did not live to do so.
    pub async fn remove(&self, folder: &Path) {
        if let Some((program, words)) = noted(folder) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // There may be none.
            let _ = ask(Path::new(&program), &self.env, &words, ANSWER).await;
        }
    }

    /// The same at the start, for a job of an engine that was killed. It blocks.
    pub fn sweep(&self, folder: &Path) {
        let Some((program, words)) = noted(folder) else {
            return;
        };
        let child = std::process::Command::new(program)
            .args(words)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            return;
        };
        let until = Instant::now() + ANSWER;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Images {
    fn fresh(&self, image: &str) -> Option<String> {
        let (when, digest) = self.known.get(image)?;
        (when.elapsed() < FRESH).then(|| digest.clone())
    }

    fn learn(&mut self, image: &str, digest: &str) {
        self.known.retain(|_, (when, _)| when.elapsed() < FRESH);
        self.known
            .insert(image.into(), (Instant::now(), digest.into()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks docker or podman; returns the first line of the answer.
async fn ask(
    program: &Path,
    env: &[(OsString, OsString)],
    words: &[&str],
    patience: Duration,
) -> Result<String, String> {
    let output = Command::new(program)
        .args(words)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(patience, output).await;
    let output = output.map_err(|_| format!("no answer within {} s", patience.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    let first = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.next().map(str::to_owned)
    };
    match output.status.success() {
        true => Ok(first(&output.stdout).unwrap_or_default()),
        false => Err(first(&output.stderr).unwrap_or_else(|| output.status.to_string())),
    }
}

/// The name of the container of the job in a folder.
fn name(folder: &Path) -> String {
    let folder = folder.file_name().unwrap_or_default();
    format!("dk-ci-{}", folder.to_string_lossy())
}

/// Keeps the words that remove a container where the next engine finds them.
pub(super) fn note(folder: &Path, words: &[String]) -> Result<(), String> {
    let path = folder.join(NOTE);
    let text = serde_json::to_vec(words).map_err(|error| error.to_string())?;
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads them. Nobody but the engine sees that folder from outside of its
/// parts, and those who may do as the engine does.
fn noted(folder: &Path) -> Option<(String, Vec<String>)> {
    let text = std::fs::read(folder.join(NOTE)).ok()?;
    let mut words: Vec<String> = serde_json::from_slice(&text).ok()?;
    match words.is_empty() {
        true => None,
        false => Some((words.remove(0), words)),
    }
}

impl Engine {
    async fn inspect(&self, env: &[(OsString, OsString)], image: &str) -> Result<String, String> {
        let words = ["image", "inspect", "--format", "{{.Id}}", image];
        ask(&self.program, env, &words, ANSWER).await
    }

    /// Returns the words that run a command in a new container; those of the
    /// command follow.
    pub fn run(&self, wanted: &Wanted<'_>) -> Result<Vec<OsString>, String> {
        let folder = wanted
            .folder
            .to_str()
            .filter(|folder| !folder.contains(':'));
        let Some(folder) = folder else {
            let folder = wanted.folder.display();
            return Err(format!("{folder} cannot be mounted with that name"));
        };
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(OsString::from));
        add(&[
            "run",
            "--rm",
            "--name",
            &name(wanted.folder),
            "--label",
            "dk-ci",
        ]);
        let label = Path::new(SELINUX).exists();
        for (part, to, how) in [
            ("tree", CHECKOUT, "rw"),
            ("home", HOME, "rw"),
            ("tmp", TMP, "rw"),
            ("run", RUN, "ro"),
        ] {
            let label = if label { ",Z" } else { "" };
            add(&["--volume", &format!("{folder}/{part}:{to}:{how}{label}")]);
        }
        add(&["--workdir", CHECKOUT]);
        let own = [("HOME", HOME), ("TMPDIR", TMP)];
        for (name, value) in own.iter().chain(&wanted.env) {
            add(&["--env", &format!("{name}={value}")]);
        }
        for name in &wanted.secrets {
            // Its value is in the environment, not in the list of processes.
            add(&["--env", name]);
        }
        if wanted.sandbox {
            add(&["--network", "none", "--cap-drop", "ALL"]);
            add(&["--security-opt", "no-new-privileges"]);
        }
        if self.remapped {
            // Else the checkout would be somebody else's.
            add(&["--userns", "host"]);
        }
        if let Some(user) = self.user(wanted.sandbox) {
            add(&["--user", &user]);
        }
        // What stands before it is no option of the command.
        add(&["--entrypoint", "", wanted.image]);
        Ok(words)
    }

    /// Who commands are run as, so that what they write can be removed.
    fn user(&self, sandbox: bool) -> Option<String> {
        let me = rustix::process::geteuid();
        if me.is_root() {
            return sandbox.then(|| format!("{NOBODY}:{NOBODY}"));
        }
        let group = rustix::process::getegid().as_raw();
        (!self.rootless).then(|| format!("{}:{group}", me.as_raw()))
    }

    /// Returns the words that remove a job's container, running or not.
    pub fn remove(&self, folder: &Path) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        let words = ["rm", "--force", "--volumes"].map(str::to_owned);
        let words = words.into_iter().chain([name(folder)]);
        [program].into_iter().chain(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rootless: bool, remapped: bool, sandbox: bool) -> String {
        let engine = Engine {
            program: "/usr/bin/docker".into(),
            rootless,
            remapped,
        };
        let words = engine.run(&Wanted {
            image: "debian:12",
            folder: Path::new("/s/job-1"),
            env: vec![("LEVEL", "3 or 4")],
            secrets: vec!["KEY"],
            sandbox,
        });
        let words = words.expect("a folder that can be mounted");
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        words.join(" ")
    }

    #[test]
    fn a_secret_is_not_in_the_list_of_processes() {
        let line = line(false, false, true);
        assert!(line.starts_with("/usr/bin/docker run --rm --name dk-ci-job-1 --label dk-ci "));
        assert!(
            line.contains("--volume /s/job-1/tree:/checkout:rw"),
            "{line}"
        );
        assert!(line.contains("--volume /s/job-1/run:/ci/run:ro"), "{line}");
        assert!(line.contains(" --env LEVEL=3 or 4 --env KEY "), "{line}");
        assert!(line.contains("--network none --cap-drop ALL --security-opt no-new-privileges "));
        assert!(line.ends_with(" --entrypoint  debian:12"), "{line}");
    }

    #[test]
    fn what_is_written_belongs_to_the_engines_user() {
        let root = rustix::process::geteuid().is_root();
        let user = |rootless, sandbox| {
            let line = line(rootless, false, sandbox);
            let (_, after) = line.split_once(" --user ")?;
            after.split(' ').next().map(str::to_owned)
        };
        if root {
            assert_eq!(user(false, false), None);
            assert_eq!(user(false, true).as_deref(), Some("65534:65534"));
        } else {
            assert!(user(false, false).is_some_and(|user| !user.starts_with("0:")));
            assert_eq!((user(true, false), user(true, true)), (None, None));
        }
        assert!(line(false, true, false).contains(" --userns host "));
    }

    #[test]
    fn a_folder_that_cannot_be_named_is_refused() {
        let engine = Engine {
            program: "/usr/bin/docker".into(),
            rootless: false,
            remapped: false,
        };
        let refused = engine.run(&Wanted {
            image: "debian:12",
            folder: Path::new("/a:b/job-1"),
            env: Vec::new(),
            secrets: Vec::new(),
            sandbox: false,
        });
        let why = "/a:b/job-1 cannot be mounted with that name";
        assert_eq!(refused, Err(why.into()));
    }
}
