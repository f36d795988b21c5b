//! Comments that are there already: another text goes the way it came.

use datakit::forge::*;

use super::world::*;
use crate::bridge_github::world::repo;

/// A pull request with a description and two comments.
fn discussed() -> Snapshot {
    let mut is = both_described();
    let pr = is.prs.get_mut(&(repo(), 1)).unwrap();
    pr.comments.extend([(7, "first"), (8, "second")].map(said));
    is
}

fn said((id, body): (u64, &str)) -> Comment {
    Comment {
        id,
        user: "you".into(),
        body: body.into(),
    }
}

/// Where the texts of comments are in the branch.
const FOLDER: &str = "test/test/pr/1/comments";

fn at(index: usize) -> String {
    format!("{FOLDER}/{index}/body")
}

impl World {
    /// The texts at GitHub, which the branch has too.
    async fn texts(&self) -> Vec<String> {
        let there = self.hub.world().is.prs[&(repo(), 1)].comments.clone();
        let here = self.says().await.prs[&(repo(), 1)].comments.clone();
        assert_eq!(here, there);
        let text = |comment: Comment| String::from_utf8(comment.body).unwrap();
        here.into_iter().map(text).collect()
    }

    fn rewrite(&self, index: usize, text: &str) {
        let mut hub = self.hub.world();
        let pr = hub.is.prs.get_mut(&(repo(), 1)).unwrap();
        pr.comments[index].body = text.into();
    }
}

#[tokio::test]
async fn a_comment_that_is_edited_here_is_edited_there() {
    let mut world = World::new("*:r,comment:rw").await;
    world.hub.world().is = discussed();
    world.follow(&["test/test"]).await;
    world.sync().await;
    world.write(&[(&at(1), "better\n")]).await;
    let outcome = world.sync().await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(
        world.hub.world().changes(),
        ["PATCH /repos/test/test/issues/comments/7 200"]
    );
    assert_eq!(
        world.texts().await,
        ["what it is for", "better\n", "second"]
    );
    // It is told once.
    for _ in 0..2 {
        world.everything().await;
        assert_eq!(world.hub.world().changes().len(), 1);
        world.restart();
    }
    // What is edited there is edited here, and where both are GitHub wins.
    world.rewrite(2, "theirs");
    world.write(&[(&at(1), "best")]).await;
    world.everything().await;
    assert_eq!(world.texts().await, ["what it is for", "best", "theirs"]);
    world.rewrite(1, "no");
    world.write(&[(&at(1), "perfect")]).await;
    world.everything().await;
    assert_eq!(world.texts().await, ["what it is for", "no", "theirs"]);
    // One that was posted from here is like any other.
    world
        .write(&[(&format!("{FOLDER}/mine/body"), "third")])
        .await;
    world.sync().await;
    world.write(&[(&at(3), "fourth")]).await;
    world.sync().await;
    assert_eq!(world.texts().await[3], "fourth");
    let changes = world.hub.world().changes().len();
    // Nothing is removed there, nor is the description touched.
    let before = world.texts().await;
    for index in [1, 2, 3] {
        world.remove(&format!("{FOLDER}/{index}")).await;
        world.sync().await;
        assert_eq!(world.texts().await, before);
    }
    world.remove(FOLDER).await;
    world.sync().await;
    world.write(&[(&at(0), "mine"), (&at(1), "\n")]).await;
    world.sync().await;
    assert_eq!(world.texts().await, before);
    assert_eq!(world.hub.world().changes().len(), changes);
    // What is gone there is gone here, edited or not.
    world.write(&[(&at(2), "too late")]).await;
    let pr = |world: &World| {
        let mut hub = world.hub.world();
        let pr = hub.is.prs.get_mut(&(repo(), 1)).unwrap();
        pr.comments.remove(2);
    };
    pr(&world);
    world.everything().await;
    assert_eq!(world.texts().await, ["what it is for", "no", "fourth"]);
    assert_eq!(world.hub.world().changes().len(), changes);
    world.hub.assert_faithful();
}

#[tokio::test]
async fn who_may_not_edit_comments_has_them_put_back() {
    let mut world = World::new("*:rw,comment:r").await;
    world.hub.world().is = discussed();
    world.follow(&["test/test"]).await;
    world.sync().await;
    world.write(&[(&at(1), "better")]).await;
    world.sync().await;
    assert_eq!(world.texts().await[1], "first");
    assert!(world.hub.world().changes().is_empty());
}

#[tokio::test]
async fn what_is_refused_of_a_pull_request_holds_up_nothing_else_of_it() {
    let mut world = World::new("*:rw,comment:rw").await;
    world.hub.world().is = discussed();
    world.follow(&["test/test"]).await;
    world.sync().await;
    let no = crate::github::Fault::Status(403, "Resource not accessible");
    world.hub.world().faults = [no.clone(), no.clone(), no].map(Some).into();
    world
        .write(&[
            ("test/test/pr/1/title", "mine"),
            (&at(1), "better"),
            (&format!("{FOLDER}/mine/body"), "third"),
        ])
        .await;
    let outcome = world.sync().await;
    assert_eq!(outcome.failed.len(), 3);
    // A new head is seen all the same, and what was said is kept.
    {
        let mut hub = world.hub.world();
        let pr = hub.is.prs.get_mut(&(repo(), 1)).unwrap();
        (pr.head, pr.base) = ("bar".into(), "next".into());
    }
    let no = crate::github::Fault::Status(403, "Resource not accessible");
    world.write(&[("test/test/pr/1/.dirty", "")]).await;
    let (shown, asked) = (world.hub.world().asked.len(), 3);
    // The reading of the pull request, its comments and reviews goes through.
    let through = std::iter::repeat_n(None, asked);
    let faults = through.chain(std::iter::repeat_n(Some(no), 3));
    world.hub.world().faults = faults.collect();
    world.sync().await;
    let says = world.says().await;
    let pr = &says.prs[&(repo(), 1)];
    assert!(world.hub.world().asked.len() >= shown + asked);
    assert_eq!((&*pr.head, &*pr.base, &*pr.title), ("bar", "next", "mine"));
    assert_eq!(pr.comments[1].body, b"better");
    assert_eq!(pr.drafts, [b"third"]);
    // Once it may be, all of it is told.
    world.hub.world().faults.clear();
    world.everything().await;
    world.everything().await;
    let is = world.hub.world().is.prs[&(repo(), 1)].clone();
    assert_eq!(is.title, "mine");
    assert_eq!(is.comments[1].body, b"better");
    assert!(is.comments[3].body.starts_with(b"third\n"));
    assert_eq!(world.says().await.prs[&(repo(), 1)], is);
    world.hub.assert_faithful();
}

#[tokio::test]
async fn a_comment_whose_answer_was_lost_is_posted_once() {
    let mut world = World::new("*:r,comment:rw").await;
    world.hub.world().is = discussed();
    world.follow(&["test/test"]).await;
    world.sync().await;
    world
        .write(&[(&format!("{FOLDER}/mine/body"), "once")])
        .await;
    world.hub.world().faults = [Some(crate::github::Fault::Cut)].into();
    assert_eq!(world.sync().await.failed.len(), 1);
    // Nothing is posted while it cannot be told whether it is there.
    let down = crate::github::Fault::Status(502, "Bad Gateway");
    world.hub.world().faults = [Some(down)].into();
    world.sync().await;
    for _ in 0..2 {
        assert!(world.sync().await.failed.is_empty());
        assert_eq!(world.texts().await.len(), 4);
    }
    assert_eq!(world.hub.world().changes().len(), 1);
    world.hub.assert_faithful();
}
