//! The repository that `dk ci run` was called in, and the commit that stands
//! for its work tree as it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::ui::Usage;

/// A Git work tree.
pub(super) struct Work {
    /// Its uppermost folder.
    pub top: PathBuf,
    /// The branch that is checked out; `detached` where none is.
    pub branch: String,
}

impl Work {
    /// Returns the work tree around the current folder.
    pub fn here() -> anyhow::Result<Self> {
        let top = git(Path::new("."), &[], &["rev-parse", "--show-toplevel"]).map_err(|_| {
            Usage::new("this is no Git work tree: there is nothing to run steps on")
        })?;
        let top = PathBuf::from(OsStr::from_bytes(&top));
        let branch = git(&top, &[], &["symbolic-ref", "--quiet", "--short", "HEAD"]);
        let branch = branch.ok().and_then(|name| String::from_utf8(name).ok());
        Ok(Self {
            top,
            branch: branch.unwrap_or_else(|| "detached".into()),
        })
    }

    /// Returns a commit with all that is in the work tree now, and not
    /// ignored: the head, if that is just it. Neither the index nor a branch
    /// is changed; the same state is the same commit.
    pub fn commit(&self) -> anyhow::Result<String> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let index = scratch.path().join("index");
        let own = git(&self.top, &[], &["rev-parse", "--git-path", "index"])?;
        // Only to know what did not change without reading it: it may be missing.
        let _ = std::fs::copy(self.top.join(OsStr::from_bytes(&own)), &index);
        let index = [("GIT_INDEX_FILE", index.as_os_str())];
        git(&self.top, &index, &["add", "--all"])?;
        let tree = text(git(&self.top, &index, &["write-tree"])?)?;
        let head = git(
            &self.top,
            &[],
            &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
        );
        let head = head.ok().map(text).transpose()?;
        if let Some(head) = &head {
            let same = git(&self.top, &[], &["rev-parse", &format!("{head}^{{tree}}")])?;
            if text(same)? == tree {
                return Ok(head.clone());
            }
        }
        let who = ["GIT_AUTHOR", "GIT_COMMITTER"].into_iter().flat_map(|who| {
            let each = [
                ("NAME", "dk"),
                ("EMAIL", "dk@localhost"),
                ("DATE", "@0 +0000"),
            ];
            each.map(|(what, value)| (format!("{who}_{what}"), value))
        });
        let who: Vec<(String, &str)> = who.collect();
        let who: Vec<(&str, &OsStr)> = who
            .iter()
            .map(|(name, value)| (name.as_str(), OsStr::new(*value)))
            .collect();
        let mut words = vec!["commit-tree", "-m", "The work tree as it is", &tree];
        if let Some(head) = &head {
            words.extend(["-p", head]);
        }
        text(git(&self.top, &who, &words)?)
    }
}

fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(bytes).context("git printed what is no text")
}

/// Runs git; returns the line it prints.
fn git(folder: &Path, env: &[(&str, &OsStr)], words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .args(words)
        .current_dir(folder)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("git {}: {}", words[0], said.trim());
    }
    let line = output.stdout.strip_suffix(b"\n");
    Ok(line.unwrap_or(&output.stdout).to_vec())
}
