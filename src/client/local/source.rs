//! What only who has a repository at hand can ask: all its refs, and to be
//! told that they moved.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::client::Result;
use crate::client::local::Local;
use crate::model::{ObjectId, TreePath};
use crate::store::rev;

use super::failure::error;

impl Local {
    /// Returns the commits that branches (`heads/…`) and tags (`tags/…`) lead
    /// to. What leads to none is left out, and so is a name no tree can hold.
    pub async fn refs(&self) -> Result<BTreeMap<TreePath, ObjectId>> {
        self.run(|store| {
            let mut found = BTreeMap::new();
            for prefix in ["refs/heads/", "refs/tags/"] {
                for (name, id) in store.engine.heads(prefix)? {
                    let short = name.as_bytes().strip_prefix(b"refs/").unwrap_or_default();
                    let Ok(path) = TreePath::new(short) else {
                        continue;
                    };
                    if let Some(commit) = rev::peel(&store.objects, &id)? {
                        found.insert(path, commit);
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// Returns a number that changes whenever a ref may have moved, by whomever.
    pub fn changes(&self) -> Result<watch::Receiver<u64>> {
        self.store.engine.changes().map_err(error)
    }
}
