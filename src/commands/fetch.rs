//! `dk fetch`: bring commits from another repository.

use anyhow::Context as _;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::client::Fetched;
use crate::commands::{Session, completions};
use crate::model::text::{JsonBytes, quote};
use crate::ui::Exit;

/// Fetch from another repository
///
/// Prints one line for each ref: its commit, the remote's name for it, and the
/// local ref it was stored in, which is empty where the refspec names none;
/// tabs between. A local ref only moves forward, unless its refspec has a +;
/// one that may not move is reported on standard error, and the status is 5.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk fetch https://example.org/a.git refs/heads/main
  dk fetch origin                                   the refspecs it is configured with
  dk fetch ../b.git '+refs/heads/*:refs/heads/b/*'

JSON:
  {\"id\", \"remote\", \"local\", \"previous\", \"rejected\"}
  previous: what the local ref was before; rejected: why it was not moved; null where there is nothing to say")]
pub struct Args {
    /// A URL, a path, or the name of a remote
    #[arg(add = completions::remote())]
    remote: String,
    /// What to fetch, and into which local ref: SRC or [+]SRC:DST
    refspec: Vec<String>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let progress = session.ui.progress();
    let fetched = session
        .client
        .fetch(&args.remote, &args.refspec, progress)
        .await
        .with_context(|| format!("cannot fetch from {}", args.remote))?;
    let mut records = session.ui.records();
    let mut rejected = false;
    for one in &fetched {
        let shown = Record(one);
        if let Some(reason) = &one.rejected {
            rejected = true;
            session
                .ui
                .line(&format!("{} was not moved: {reason}", shown.local()));
        }
        records.show(&shown, |shown, out| {
            let local = match &one.rejected {
                None => shown.local(),
                Some(_) => String::new(),
            };
            writeln!(out, "{}\t{}\t{local}", one.id, quote(&one.remote))
        })?;
    }
    records.finish()?;
    if rejected {
        return Err(Exit::quiet(5).into());
    }
    Ok(())
}

/// How one ref is printed.
struct Record<'a>(&'a Fetched);

impl Record<'_> {
    fn local(&self) -> String {
        match &self.0.local {
            Some((name, _)) => quote(name).to_string(),
            None => String::new(),
        }
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let local = self.0.local.as_ref();
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("id", &self.0.id)?;
        map.serialize_entry("remote", &JsonBytes(&self.0.remote))?;
        map.serialize_entry("local", &local.map(|(name, _)| JsonBytes(name)))?;
        map.serialize_entry("previous", &local.and_then(|(_, previous)| *previous))?;
        map.serialize_entry("rejected", &self.0.rejected)?;
        map.end()
    }
}
