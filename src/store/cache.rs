//! Caches of what is known of objects, which never change.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::ObjectId;

/// Makes a cache of about so many items, together of no more than this weight,
/// that so many threads use at a time without waiting for each other.
pub fn cache<V: Clone, W: Weighter<ObjectId, V> + Clone>(
    items: usize,
    weight: u64,
    threads: usize,
    weighter: W,
) -> Cache<ObjectId, V, W> {
    let options = quick_cache::OptionsBuilder::new()
        .estimated_items_capacity(items)
        .weight_capacity(weight)
        // By default the processors are counted, which takes a while.
        .shards(threads)
        .build()
        .expect("both capacities are given");
    Cache::with_options(options, weighter, Default::default(), Default::default())
}
