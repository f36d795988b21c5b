//! `dk init`: a new store.

use std::path::{Path, PathBuf};

use crate::client::local::Local;
use crate::commands::{Global, blocking, open};
use crate::model::HashKind;
use crate::ui::Ui;

/// Create a store
///
/// Makes a bare Git repository and prints its path. A repository that is there
/// already is left as it is.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk init db.git
  export DK_STORE=$(dk init /srv/db.git)

JSON:
  {\"path\"}")]
pub struct Args {
    /// The function that names objects: sha1 or sha256
    #[arg(
        long,
        value_name = "HASH",
        default_value = "sha1",
        hide_default_value = true,
        hide_possible_values = true
    )]
    object_format: Hash,
    /// Where; without it the store -C names, or the current folder
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Hash {
    Sha1,
    Sha256,
}

/// The store, for JSON.
#[derive(serde::Serialize)]
struct Record<'a> {
    path: std::borrow::Cow<'a, str>,
}

pub(super) async fn run(ui: &Ui, global: &Global, args: Args) -> anyhow::Result<()> {
    let dir = match (args.dir, &global.store) {
        (Some(dir), _) => dir,
        (None, Some(store)) if !store.is_empty() => open::path(store)?,
        _ => Path::new(".").into(),
    };
    let hash = match args.object_format {
        Hash::Sha1 => HashKind::Sha1,
        Hash::Sha256 => HashKind::Sha256,
    };
    let path = blocking(move || Ok(Local::init(&dir, hash)?)).await?;
    let record = Record {
        path: path.to_string_lossy(),
    };
    ui.show(&record, |_, out| {
        use std::os::unix::ffi::OsStrExt as _;
        out.write_all(path.as_os_str().as_bytes())?;
        writeln!(out)
    })
}
