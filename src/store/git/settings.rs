//! What Git's configuration says about refs.

use std::path::Path;
use std::time::Duration;

use super::locate::locate;

/// Which refs get a log of their moves (`core.logAllRefUpdates`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Only those that have one already.
    Existing,
    /// Branches, remote-tracking branches, notes and `HEAD` too.
    Branches,
    All,
}

/// What is read from the configuration once, at the first write.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub bare: bool,
    pub logs: Logs,
    /// How long to wait for another's lock; `None`: for ever.
    pub lock_timeout: Option<Duration>,
}

/// The least dk waits. Git's own default of 0.1 s makes sense for one command,
/// not for many writers at once.
const PATIENCE: Duration = Duration::from_secs(5);

impl Settings {
    /// Reads the repository's configuration, with the user's and the
    /// environment's; what cannot be read counts as not set.
    pub fn load(common_dir: &Path) -> Self {
        match locate(common_dir, false) {
            Ok(found) => Self::of(&found.config, common_dir),
            Err(_) => Self::of(&gix::config::File::default(), common_dir),
        }
    }

    /// Takes them from what was read already.
    pub fn of(config: &gix::config::File, common_dir: &Path) -> Self {
        let text = |key: &str| config.string(key).map(|value| value.to_string());
        let flag = |key: &str| config.boolean(key).ok().flatten();
        // Git takes a folder that is not called .git for bare unless told.
        let bare = flag("core.bare").unwrap_or_else(|| !common_dir.ends_with(".git"));
        let logs = match (text("core.logAllRefUpdates"), flag("core.logAllRefUpdates")) {
            (Some(word), _) if word.eq_ignore_ascii_case("always") => Logs::All,
            (_, Some(true)) => Logs::Branches,
            (_, Some(false)) => Logs::Existing,
            (_, None) if bare => Logs::Existing,
            (_, None) => Logs::Branches,
        };
        let milliseconds: Option<i64> =
            text("core.filesRefLockTimeout").and_then(|value| value.trim().parse().ok());
        let lock_timeout = match milliseconds {
            Some(number) if number < 0 => None,
            number => {
                let asked = Duration::from_millis(number.map_or(0, i64::unsigned_abs));
                Some(asked.max(PATIENCE))
            }
        };
        Self {
            bare,
            logs,
            lock_timeout,
        }
    }

    /// Tells whether a ref without a log gets one.
    pub fn logs(&self, name: &[u8]) -> bool {
        match self.logs {
            Logs::Existing => false,
            Logs::All => true,
            Logs::Branches => {
                let kept: [&[u8]; 3] = [b"refs/heads/", b"refs/remotes/", b"refs/notes/"];
                name == b"HEAD" || kept.iter().any(|prefix| name.starts_with(prefix))
            }
        }
    }
}
