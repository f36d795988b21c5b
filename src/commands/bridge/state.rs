//! What a bridge keeps on its machine and in no store: the secret of its
//! webhooks, and how it is. A folder of its own for each store and branch, for
//! the user alone; one bridge at a time.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bridge::github::hooks;
use crate::bridge::github::http::Budget;
use crate::commands::Session;
use crate::model::BranchName;
use crate::model::text::hex;
use crate::ui::Usage;

const SECRET: &str = "webhook-secret";
const STATUS: &str = "status.json";
const LOCK: &str = "lock";

/// How a bridge is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Seconds since 1970 of the last sync that went through.
    pub synced: Option<i64>,
    /// Why the last one did not, if it did not.
    pub failure: Option<String>,
    pub budget: Budget,
}

/// The folder.
pub struct State(PathBuf);

impl State {
    /// `folder` is `--state-dir`.
    pub async fn at(
        session: &Session,
        folder: Option<PathBuf>,
        branch: &BranchName,
    ) -> anyhow::Result<Self> {
        if let Some(folder) = folder {
            return Ok(Self(folder));
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let above = set("XDG_STATE_HOME").map(PathBuf::from);
        let above = above.or_else(|| Some(Path::new(&set("HOME")?).join(".local/state")));
        let Some(above) = above else {
            let text = "there is no HOME to keep the bridge's secrets in";
            return Err(Usage::new(text)
                .hint("name a folder with --state-dir")
                .into());
        };
        let info = session.client.info().await?;
        let mut hash = Sha256::new();
        hash.update(info.id.unwrap_or(info.url));
        hash.update(b"\0");
        hash.update(branch.as_bytes());
        let name = hex(&hash.finalize()[..8]);
        Ok(Self(above.join("dk/bridge").join(name)))
    }

    fn cannot(&self) -> String {
        format!("cannot keep anything in {}", self.0.display())
    }

    /// Makes the folder, and keeps others from working with it while the file
    /// that is returned is open.
    pub fn hold(&self) -> anyhow::Result<File> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| self.cannot())?;
        let file = File::create(self.0.join(LOCK)).with_context(|| self.cannot())?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("another bridge works with {}", self.0.display());
                Err(Usage::new(text)
                    .hint("one bridge a branch; --state-dir names another folder")
                    .into())
            }
            Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| self.cannot()),
        }
    }

    /// Tells whether a bridge works with it now.
    pub fn is_held(&self) -> bool {
        let file = File::open(self.0.join(LOCK));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Returns the secret that GitHub signs deliveries with, made if there is
    /// none.
    pub fn secret(&self) -> anyhow::Result<String> {
        let path = self.0.join(SECRET);
        let cannot = || format!("cannot keep the webhooks' secret in {}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => {
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(&path, private).with_context(cannot)?;
                return Ok(text.trim().to_owned());
            }
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error).with_context(cannot),
        }
        let mut random = [0; 20];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .context("there are no random numbers")?;
        let secret = hooks::secret(random);
        self.write(SECRET, secret.as_bytes()).with_context(cannot)?;
        Ok(secret)
    }

    /// Says how the bridge is.
    pub fn tell(&self, status: &Status) -> io::Result<()> {
        self.write(STATUS, &serde_json::to_vec(status)?)
    }

    /// Returns how a bridge was when it last said so.
    pub fn told(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.0.join(STATUS)).ok()?).ok()
    }

    /// Replaces a file, which is for this user only, as a whole.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(content)?;
        file.persist(self.0.join(name))
            .map_err(|error| error.error)?;
        Ok(())
    }
}
