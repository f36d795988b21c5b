//! `dk fsck`: check everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;

use crate::client::Progress;
use crate::commands::Session;
use crate::model::text::printable;
use crate::ui::Exit;

/// Check every object that anything reaches, and every ref
///
/// Prints faults one a line: what is at fault, a tab, and what is wrong with
/// it. The status is 1 if there are any.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk fsck
  dk fsck || mail -s 'the store is damaged' root < /dev/null

JSON:
  {\"what\", \"message\"}")]
pub struct Args {}

pub(super) async fn run(session: &Session, _args: Args) -> anyhow::Result<()> {
    let counting = Arc::new(Counting {
        shown: session.ui.progress(),
        objects: AtomicU64::new(0),
    });
    let faults = session
        .client
        .fsck(Arc::clone(&counting) as Arc<dyn Progress>)
        .await
        .context("cannot check the store")?;
    let mut records = session.ui.records();
    for fault in &faults {
        records.show(fault, |fault, out| {
            let text = |text: &str| printable(text.as_bytes());
            writeln!(out, "{}\t{}", text(&fault.what), text(&fault.message))
        })?;
    }
    records.finish()?;
    let objects = counting.objects.load(Ordering::Relaxed);
    let plural = if objects == 1 { "" } else { "s" };
    session
        .ui
        .note(&format!("checked {objects} object{plural}"));
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Exit::quiet(1).into())
    }
}

/// Passes progress on, and counts what was checked.
struct Counting {
    shown: Arc<dyn Progress>,
    objects: AtomicU64,
}

impl Progress for Counting {
    fn begin(&self, part: &str, total: Option<u64>, bytes: bool) {
        self.shown.begin(part, total, bytes);
    }

    fn advance(&self, by: u64) {
        self.objects.fetch_add(by, Ordering::Relaxed);
        self.shown.advance(by);
    }

    /// Faults are printed as records in the end.
    fn line(&self, _: &str) {}
}
