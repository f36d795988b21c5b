//! Steps in containers, through the command line that docker and podman have
//! in common.
//!
//! The checkout is mounted, and all else of the image's is the image's. A
//! container is no child of anybody here, so it has a name, and whatever
//! happens it is removed by that in the end.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::sync::Mutex;

use super::sandbox::NOBODY;

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

/// The programs, in the order in which they are tried.
const PROGRAMS: [&str; 2] = ["docker", "podman"];

/// What runs containers on this machine, and what is known of its images.
pub(super) struct Containers {
    /// Where programs are looked for.
    path: OsString,
    /// The answer, and when it was given.
    engine: Mutex<Option<(Instant, Result<Engine, String>)>>,
    digests: Mutex<BTreeMap<String, (Instant, String)>>,
}

/// A program that answers.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    program: PathBuf,
    /// In podman's containers root is the user outside; in docker's it is root.
    podman: bool,
}

/// What a container is to be.
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    pub image: &'a str,
    /// The folder of the job (scratch.rs).
    pub folder: &'a Path,
    /// Names of the variables it is given, of those the program has.
    pub env: Vec<&'a OsStr>,
    pub sandbox: bool,
}

impl Containers {
    pub fn new(path: &OsStr) -> Self {
        Self {
            path: path.into(),
            engine: Mutex::default(),
            digests: Mutex::default(),
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
            let engine = Engine {
                podman: name == "podman",
                program,
            };
            // A client without a server is no engine.
            match self
                .ask(&engine, &["version", "--format", "{{.Server.Version}}"])
                .await
            {
                Ok(_) => return Ok(engine),
                Err(error) => why.push(format!("{name}: {error}")),
            }
        }
        Err(match why.is_empty() {
            true => "neither docker nor podman is on this machine".into(),
            false => format!("no container engine answers ({})", why.join("; ")),
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let folders = std::env::split_paths(&self.path);
        folders
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())
    }

    /// Asks the engine; returns the first line of what it says.
    async fn ask(&self, engine: &Engine, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&engine.program)
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(ANSWER, output).await;
        let output = output.map_err(|_| format!("no answer within {} s", ANSWER.as_secs()))?;
        let output = output.map_err(|error| error.to_string())?;
        let first = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .map(str::to_owned)
        };
        match output.status.success() {
            true => Ok(first(&output.stdout).unwrap_or_default()),
            false => Err(first(&output.stderr).unwrap_or_else(|| output.status.to_string())),
        }
    }

    /// Returns the digest of an image that is on this machine, else its name.
    pub async fn digest(&self, image: &str) -> String {
        let Ok(engine) = self.engine().await else {
            return image.into();
        };
        if let Some((when, digest)) = self.digests.lock().await.get(image)
            && when.elapsed() < FRESH
        {
            return digest.clone();
        }
        let args = ["image", "inspect", "--format", "{{.Id}}", image];
        let Ok(digest) = self.ask(&engine, &args).await else {
            // It will be there once it was run.
            return image.into();
        };
        let mut digests = self.digests.lock().await;
        digests.retain(|_, (when, _)| when.elapsed() < FRESH);
        digests.insert(image.into(), (Instant::now(), digest.clone()));
        digest
    }
}

impl Engine {
    /// Returns the words that run a command in a new container; those of the
    /// command follow.
    pub fn run(&self, wanted: &Wanted<'_>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        words.extend(["run", "--rm", "--name", wanted.name].map(Into::into));
        for (part, to, how) in [
            ("tree", CHECKOUT, ""),
            ("home", HOME, ""),
            ("tmp", TMP, ""),
            ("run", RUN, ":ro"),
        ] {
            let mut volume = wanted.folder.join(part).into_os_string();
            volume.push(format!(":{to}{how}"));
            words.extend(["--volume".into(), volume]);
        }
        words.extend(["--workdir", CHECKOUT].map(Into::into));
        words.extend(["--env", &format!("HOME={HOME}")].map(Into::into));
        words.extend(["--env", &format!("TMPDIR={TMP}")].map(Into::into));
        for name in &wanted.env {
            // Its value is in the environment, not in the list of processes.
            words.extend(["--env".into(), OsString::from(name)]);
        }
        if wanted.sandbox {
            let limits = ["--network", "none", "--cap-drop", "ALL"];
            words.extend(limits.map(Into::into));
            words.extend(["--security-opt", "no-new-privileges"].map(Into::into));
        }
        if let Some(user) = self.user(wanted.sandbox) {
            words.extend(["--user".into(), user.into()]);
        }
        // What stands before it is no option of the command.
        words.extend(["--entrypoint", ""].map(Into::into));
        words.push(wanted.image.into());
        words
    }

    /// Who commands are run as, so that what they write can be removed.
    fn user(&self, sandbox: bool) -> Option<String> {
        let me = rustix::process::geteuid();
        if me.is_root() {
            return sandbox.then(|| format!("{NOBODY}:{NOBODY}"));
        }
        // Root of a podman container without root is this user.
        let group = rustix::process::getegid().as_raw();
        (!self.podman).then(|| format!("{}:{group}", me.as_raw()))
    }

    /// Returns the words that remove a container, running or not.
    pub fn remove(&self, name: &str) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        vec![program, "rm".into(), "--force".into(), name.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_the_list_of_processes() {
        let engine = Engine {
            program: "/usr/bin/docker".into(),
            podman: false,
        };
        let words = engine.run(&Wanted {
            name: "dk-ci-1",
            image: "debian:12",
            folder: Path::new("/s/job-1"),
            env: vec![OsStr::new("KEY")],
            sandbox: true,
        });
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        let line = words.join(" ");
        assert!(line.contains("--volume /s/job-1/tree:/checkout "), "{line}");
        assert!(line.contains(" --env KEY "), "{line}");
        assert!(line.contains("--network none --cap-drop ALL"), "{line}");
        assert!(line.ends_with(" debian:12"), "{line}");
    }
}
