//! What is looked after now and then: marks that were put on results without a
//! word to the engine, and what is too old to be kept.

use std::collections::BTreeMap;

use crate::ci::cache::{self, Found};
use crate::ci::config::Keep;
use crate::ci::engine::results::{Shared, Why};
use crate::ci::retention;
use crate::client::Result;
use crate::forge::Repo;

pub(super) async fn run(shared: &Shared, keeps: &BTreeMap<Repo, Keep>) -> Result<()> {
    for branch in shared.wanted() {
        let stand = cache::load(&*shared.client, &branch).await?;
        if stand.is_cancel_requested() {
            shared.stop(&branch, Why::Asked);
        }
        if stand.found == Found::Wanted {
            shared.forget(&branch);
        }
    }
    let now = shared.clock.now();
    let is_wanted = |branch: &_| shared.is_wanted(branch);
    let dropped = retention::sweep(&*shared.client, keeps, is_wanted, now).await?;
    if dropped != retention::Dropped::default() {
        let (logs, builds) = (dropped.logs, dropped.builds);
        tracing::info!(target: "ci", "dropped {logs} logs and {builds} builds");
    }
    Ok(())
}
