//! Where the benches run: folders on one disk, and programs in an environment
//! of their own.
//!
//! Inputs that take long to make are kept in `target/bench-data` for the next
//! run. What a run writes goes away at its end, not before: an ext4 without a
//! journal looks at every inode that was freed in the last minutes before it
//! gives one out, so that a commit, which replaces a ref, slows the next ones
//! down. Rows that write small files say more on a file system with a journal:
//! mount one at `target/bench-data`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The environment of a run.
pub struct Place {
    /// Minutes, not hours: smaller inputs and fewer rounds.
    pub quick: bool,
    dk: PathBuf,
    data: PathBuf,
    scratch: tempfile::TempDir,
}

impl Place {
    pub fn new(quick: bool) -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-data");
        fs::create_dir_all(&data).unwrap();
        let dk = std::env::var_os("DK_BIN");
        let place = Self {
            quick,
            dk: dk.map_or_else(|| env!("CARGO_BIN_EXE_dk").into(), PathBuf::from),
            scratch: tempfile::Builder::new()
                .prefix("scratch-")
                .tempdir_in(&data)
                .unwrap(),
            data,
        };
        place.settle();
        place
    }

    /// Waits until the file system has got over what was removed before.
    fn settle(&self) {
        const USUAL: Duration = Duration::from_micros(100);
        const FILES: u32 = 1000;
        for waited in 0..20 {
            let folder = self.folder();
            let began = Instant::now();
            for number in 0..FILES {
                // Each folder may lie elsewhere on the disk.
                let below = folder.join((number / 4).to_string());
                fs::create_dir_all(&below).unwrap();
                fs::File::create(below.join(number.to_string())).unwrap();
            }
            if began.elapsed() < USUAL * FILES {
                return;
            }
            if waited == 0 {
                eprintln!("files are slow to create just now: waiting, two minutes at most");
            }
            std::thread::sleep(Duration::from_secs(6));
        }
        eprintln!("files stay slow to create: rows that write will show it");
    }

    /// Returns one of two numbers.
    pub fn choose(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Returns a new folder that goes away with the run.
    pub fn folder(&self) -> PathBuf {
        tempfile::Builder::new()
            .prefix("it-")
            .disable_cleanup(true)
            .tempdir_in(self.scratch.path())
            .unwrap()
            .keep()
    }

    /// Returns an input, made by `make` unless an earlier run did.
    pub fn input(&self, name: &str, make: impl FnOnce(&Path)) -> PathBuf {
        let path = self.data.join(name);
        if !path.exists() {
            eprintln!("making {name}, once");
            let part = self.folder();
            let part = part.join("part");
            make(&part);
            fs::rename(&part, &path).unwrap();
        }
        path
    }

    /// Returns dk on a store.
    pub fn dk<I: IntoIterator<Item: AsRef<OsStr>>>(&self, store: &Path, args: I) -> Command {
        let mut command = self.program(&self.dk);
        command.arg("-C").arg(store).args(args);
        command
    }

    /// Returns git in a folder; it finds nothing to clean up by itself.
    pub fn git<I: IntoIterator<Item: AsRef<OsStr>>>(&self, folder: &Path, args: I) -> Command {
        let mut command = self.program("git");
        let quiet = ["-c", "gc.auto=0"];
        command.arg("-C").arg(folder).args(quiet).args(args);
        command
    }

    /// Returns git as [`Place::git`], which syncs all it writes, as dk does.
    pub fn durable_git<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        folder: &Path,
        args: I,
    ) -> Command {
        let synced = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"];
        let mut command = self.git(folder, synced);
        command.args(args);
        command
    }

    /// Returns any program in an environment that says who commits, and no more.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.scratch.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Bench")
                .env(format!("GIT_{role}_EMAIL"), "bench@example.org");
        }
        command
    }

    /// Returns an empty bare repository.
    pub fn store(&self) -> Store {
        let folder = self.folder();
        run(&mut self.dk(&folder, ["init", "--quiet"]));
        Store { folder }
    }

    /// Returns a copy of a repository.
    pub fn copy(&self, from: &Path) -> Store {
        let folder = self.folder();
        run(Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(&folder));
        Store { folder }
    }

    /// Returns the largest memory a program held, in MiB. `None` without
    /// GNU time.
    pub fn memory(&self, command: &Command) -> Option<f64> {
        let told = self.folder();
        let told = told.join("told");
        let mut timed = self.program("/usr/bin/time");
        timed
            .args(["-f", "%M", "-o"])
            .arg(&told)
            .arg(command.get_program())
            .args(command.get_args())
            .stdout(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                timed.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            timed.current_dir(folder);
        }
        match timed.status() {
            Ok(status) => assert!(status.success(), "{timed:?} failed"),
            Err(_) => return None,
        }
        let kibibytes: f64 = fs::read_to_string(told).unwrap().trim().parse().unwrap();
        Some(kibibytes / 1024.0)
    }

    /// Returns how many times a second this disk appends 4 KiB durably.
    pub fn disk(&self) -> Disk {
        let folder = self.folder();
        let file = fs::File::create(folder.join("log")).unwrap();
        // As a log does: written once before, so that only data is to be synced.
        file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
        file.sync_all().unwrap();
        Disk { file, at: 0 }
    }
}

/// The machine's limit for whoever syncs.
pub struct Disk {
    file: fs::File,
    at: u64,
}

impl Disk {
    pub fn append(&mut self) -> Duration {
        let began = Instant::now();
        self.file.write_all_at(&[1; 4096], self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at = (self.at + 4096) % (16 << 20);
        began.elapsed()
    }
}

/// A repository to write to.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

/// Runs a program, which must succeed; returns how long it took. What it prints
/// goes nowhere.
pub fn run(command: &mut Command) -> Duration {
    command.stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().unwrap();
    let time = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    time
}

/// Runs a program with this on its standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Duration {
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let status = child.wait().unwrap();
    let time = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    time
}

/// Runs a program and returns what it printed, without the newline at the end.
pub fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end().to_owned()
}
