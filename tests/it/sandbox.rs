//! A place where `dk` and `git` run as if nothing else were on the machine.
//!
//! A temporary folder is the home and the current folder; the environment is
//! empty but for what is set here: author, committer, date and zone are fixed,
//! so ids are the same in every run. Nothing of the user's configuration is read.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// The date of everything committed in a sandbox.
pub const DATE: &str = "1700000000 +0100";

/// A temporary folder with a clean environment.
pub struct Sandbox {
    root: tempfile::TempDir,
    /// What is set beside the fixed environment.
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// An empty folder.
    pub fn new() -> Self {
        Self {
            root: tempfile::Builder::new()
                .prefix("dk-test-")
                .tempdir()
                .unwrap(),
            variables: Vec::new(),
        }
    }

    /// A folder with an empty bare store `db.git`, which commands use by themselves.
    pub fn with_store() -> Self {
        let mut sandbox = Self::new();
        sandbox.git(["init", "--quiet", "--bare", "-b", "master", "db.git"]);
        sandbox.set("DK_STORE", "db.git");
        sandbox
    }

    /// Sets a variable for every later command.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.variables.push((name.into(), value.into()));
    }

    /// Takes a variable set with [`Self::set`] away again.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Returns the path of something in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file of the folder, and the folders above it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Reads a file of the folder.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        String::from_utf8_lossy(&std::fs::read(self.join(name)).unwrap()).into_owned()
    }

    /// Returns `dk` with these arguments, ready to be run in any way.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        self.program(env!("CARGO_BIN_EXE_dk"), arguments)
    }

    /// Returns any program in this environment.
    pub fn program<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: I,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", self.search_path())
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "dumb")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CEILING_DIRECTORIES", self.path().parent().unwrap())
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.org")
            .env("GIT_AUTHOR_DATE", DATE)
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.org")
            .env("GIT_COMMITTER_DATE", DATE)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// The user's, with the folder of `dk` first.
    fn search_path(&self) -> std::ffi::OsString {
        let dk = Path::new(env!("CARGO_BIN_EXE_dk")).parent().unwrap();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(dk.to_path_buf()).chain(std::env::split_paths(&others));
        std::env::join_paths(folders).unwrap()
    }

    /// Runs `dk`; gives what it printed and how it ended, as one text: stdout,
    /// then stderr with `! ` before each line, then the status unless it is 0.
    pub fn dk<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> String {
        self.shown(&self.command(arguments).output().unwrap())
    }

    /// As [`Self::dk`], with something on stdin.
    pub fn dk_with<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        input: impl AsRef<[u8]>,
        arguments: I,
    ) -> String {
        self.shown(&feed(&mut self.command(arguments), input.as_ref()))
    }

    /// Runs `dk`, which must succeed and say nothing on stderr; returns its
    /// stdout without the last newline: for ids.
    pub fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> String {
        trimmed(self.command(arguments).output().unwrap())
    }

    /// As [`Self::ok`], with something on stdin.
    pub fn ok_with<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        input: impl AsRef<[u8]>,
        arguments: I,
    ) -> String {
        trimmed(feed(&mut self.command(arguments), input.as_ref()))
    }

    /// Runs a line of shell, which finds `dk`; as [`Self::dk`].
    pub fn sh(&self, line: &str) -> String {
        let output = self
            .program("bash", ["-o", "pipefail", "-c", line])
            .output();
        self.shown(&output.unwrap())
    }

    /// Runs `git`, which must succeed; returns its stdout without the last newline.
    pub fn git<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> String {
        let output = self.program("git", arguments).output().unwrap();
        assert!(output.status.success(), "{}", self.shown(&output));
        String::from_utf8_lossy(&output.stdout)
            .trim_end_matches('\n')
            .into()
    }

    /// Starts `dk` with pipes on all three streams, for tests that talk with it.
    pub fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Child {
        self.command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Commits files to a branch of `db.git` with stock git, so that tests of
    /// reading do not lean on commands that write. Returns the commit.
    pub fn commit(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> String {
        let mut stream =
            format!("commit refs/heads/{branch}\ncommitter Ada <ada@example.org> {DATE}\n");
        stream += &format!("data {}\n{message}\n", message.len());
        let reference = format!("refs/heads/{branch}");
        let known = self
            .program(
                "git",
                ["-C", "db.git", "rev-parse", "-q", "--verify", &reference],
            )
            .output()
            .unwrap();
        if known.status.success() {
            stream += &format!("from {reference}^0\n");
        }
        for (path, content) in files {
            stream += &format!(
                "M 100644 inline {path}\ndata {}\n{content}\n",
                content.len()
            );
        }
        let mut import = self.program("git", ["-C", "db.git", "fast-import", "--quiet"]);
        let output = feed(&mut import, stream.as_bytes());
        assert!(output.status.success(), "{}", self.shown(&output));
        self.git(["-C", "db.git", "rev-parse", &reference])
    }

    /// What a command printed, with the sandbox's own path as `$DIR`.
    pub fn shown(&self, output: &Output) -> String {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str("%\n");
        }
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            text += &format!("! {line}\n");
        }
        text += &ending(output.status);
        let real = self.path().canonicalize().unwrap();
        text.replace(real.to_str().unwrap(), "$DIR")
            .replace(self.path().to_str().unwrap(), "$DIR")
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => String::new(),
        (Some(code), _) => format!("exit status {code}\n"),
        (None, Some(signal)) => format!("ended by signal {signal}\n"),
        (None, None) => "ended in an unknown way\n".into(),
    }
}

/// Runs a command with something on stdin. One that does not read it is fine.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

fn trimmed(output: Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stderr.is_empty(),
        "{stdout}{stderr}"
    );
    stdout.strip_suffix('\n').unwrap_or(&stdout).into()
}

/// Replaces every full commit id by `ID1`, `ID2`, … in order of appearance.
pub fn ids(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == 40 || digits == 64 {
            let id = &rest[..digits];
            let number = seen
                .iter()
                .position(|known| known == id)
                .unwrap_or_else(|| {
                    seen.push(id.into());
                    seen.len() - 1
                });
            out += &format!("ID{}", number + 1);
            rest = &rest[digits..];
        } else {
            let next = rest.chars().next().unwrap().len_utf8().max(digits);
            out += &rest[..next];
            rest = &rest[next..];
        }
    }
    out
}

/// Waits until `ready` gives something, for as long as a slow machine may need.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(std::time::Instant::now() < limit, "{what} did not happen");
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}
