//! Which listings are asked for: those that take the fewest calls.

use datakit::forge::*;

use super::world::*;
use crate::bridge_github::world::{name, repo};

/// Ten pull requests with four comments each, and twelve annotated tags.
fn full() -> Snapshot {
    let mut is = Snapshot::default();
    for number in 1..=10 {
        let mut pr = described(&format!("c{number}"), "title");
        let said = (0..4).map(|id| Comment {
            // Not in the order of the pull requests.
            id: id * 100 + number,
            user: "you".into(),
            body: format!("said {id}").into_bytes(),
        });
        pr.comments.extend(said);
        is.add_pr(&repo(), number, pr);
    }
    for number in 1..=12 {
        let tag = name(&format!("tags/v{number}"));
        is.add_ref(&repo(), &tag, format!("tag-{number}"));
    }
    is.add_ref(&repo(), &name("tags/plain"), "c1".into());
    is
}

impl World {
    fn prs(&self) -> std::collections::BTreeMap<(Repo, u64), Pr> {
        self.hub.world().is.prs.clone()
    }

    /// The calls whose path has this in it.
    fn asked_for(&self, part: &str) -> usize {
        let hub = self.hub.world();
        let asked = hub.asked.iter();
        asked.filter(|call| call.path.contains(part)).count()
    }
}

#[tokio::test]
async fn what_a_listing_of_all_tells_is_asked_for_once() {
    let mut world = World::new("*:r").await;
    {
        let hub = &mut *world.hub.world();
        hub.is = full();
        for number in 1..=12 {
            let (kind, target) = match number {
                // A tag of a tag, and one of a tree, which is in no listing.
                1 => ("tag", "tag-2".to_owned()),
                12 => ("tree", "tree-1".to_owned()),
                number => ("commit", format!("t{number}")),
            };
            hub.objects.insert(format!("tag-{number}"), (kind, target));
        }
    }
    world.follow(&["test/test"]).await;
    world.sync().await;
    world.hub.assert_faithful();
    let whole = world.says().await;
    assert_eq!(whole.prs, world.prs());
    let refs = |says: &Snapshot| -> Vec<String> {
        let shown = says.refs.iter();
        shown
            .map(|((_, name), sha)| format!("{name} {sha}"))
            .collect()
    };
    assert_eq!(refs(&whole).len(), 12);
    assert!(refs(&whole).contains(&"tags/v1 t2".to_owned()));
    assert_eq!(
        ["/issues/", "/tags?", "/git/tags/"].map(|part| world.asked_for(part)),
        [1, 1, 1],
        "all at once, but for the tag of a tree"
    );
    // Pull requests, two of refs, the three above; reviews and statuses of each
    // pull request, and the statuses of what tags lead to.
    assert_eq!(world.hub.world().paid(), 3 + 3 + 2 * 10 + 10);
    let paid = world.hub.world().paid();
    let heads = world.heads().await;
    world.restart();
    world.everything().await;
    assert_eq!(world.hub.world().paid(), paid, "and then for nothing");
    assert_eq!(world.heads().await, heads);
    // One pull request is asked by itself, and so is what an event tells of.
    {
        let hub = &mut *world.hub.world();
        hub.asked.clear();
        hub.is.prs.retain(|(_, number), _| *number == 7);
    }
    world.everything().await;
    assert_eq!(world.asked_for("/issues/7/comments"), 1);
    assert_eq!(world.asked_for("/issues/"), 1);
    assert_eq!(world.says().await.prs, world.prs());
}

#[tokio::test]
async fn a_listing_that_is_too_long_is_not_read_to_its_end() {
    let mut world = World::new("*:r").await;
    {
        let hub = &mut *world.hub.world();
        hub.is = full();
        hub.is.refs.clear();
        // Forty comments on fourteen pages, and two pages each of the ten.
        hub.page = 3;
    }
    world.follow(&["test/test"]).await;
    world.sync().await;
    world.hub.assert_faithful();
    assert_eq!(world.says().await.prs, world.prs());
    assert_eq!(world.asked_for("/issues/comments?"), 1, "its first page");
    let hub = world.hub.world();
    let each = hub.asked.iter().filter(|call| {
        let path = &call.path;
        path.contains("/issues/") && !path.contains("/issues/comments")
    });
    assert_eq!(each.count(), 20);
}
