//! The forge's nouns in a branch: what is written is read, step by step or at
//! once; and differences bring one snapshot to another.

use std::sync::Arc;

use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::*;
use datakit::model::*;

use crate::aftermath::seed;
use crate::stock::Dice;

fn repo(dice: &mut Dice) -> Repo {
    dice.pick(&["test/test", "a/b", "a/c", "moby/data.kit"])
        .parse()
        .unwrap()
}

fn sha(dice: &mut Dice) -> String {
    (*dice.pick(&["foo", "bar", "baz"])).into()
}

/// What a side may say at random.
pub fn random(dice: &mut Dice) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for _ in 0..dice.roll(3) {
        let repo = repo(dice);
        snapshot.add_repo(&repo);
        for _ in 0..dice.roll(3) {
            let state = *dice.pick(&[PrState::Open, PrState::Closed]);
            let mut pr = Pr::new(
                sha(dice),
                state,
                dice.pick::<&str>(&["", "a title", "ü"]),
                "master",
                "me",
            );
            pr.draft = dice.roll(2) == 0;
            pr.merged = dice.roll(4) == 0;
            if dice.roll(2) == 0 {
                pr.head_repo = Some("you/fork".into());
                pr.labels = vec!["bug".into(), "help wanted".into()];
                pr.review = Some("approved".into());
            }
            for id in 0..dice.roll(3) {
                pr.comments.push(Comment {
                    id: id as u64 * 7,
                    user: "you".into(),
                    body: (*dice.pick(&[&b""[..], b"  kept as it is \n\n", b"\xff"])).into(),
                });
            }
            snapshot.add_pr(&repo, dice.roll(4) as u64 + 1, pr);
        }
        for _ in 0..dice.roll(3) {
            let name = *dice.pick(&["heads/master", "heads/a/b", "tags/v1.0", "heads/fix#1+x"]);
            snapshot.add_ref(&repo, &TreePath::new(name).unwrap(), sha(dice));
        }
        for _ in 0..dice.roll(4) {
            let at =
                context(dice.pick::<&str>(&["", "foo", "foo/bar", "foo/bar/baz", "foo/bar/toto"]))
                    .unwrap();
            let status = Status::new(
                *dice.pick(&StatusState::ALL),
                *dice.pick(&[None, Some("said")]),
                *dice.pick(&[None, Some("https://example.org/1")]),
            );
            snapshot.add_status(&repo, &sha(dice), &at, status);
        }
    }
    snapshot.forget_commits();
    snapshot
}

async fn commit(dk: &dyn Client, puts: Vec<Put>) -> ObjectId {
    let branch = BranchName::new("github-metadata").unwrap();
    dk.edit(&branch, change(puts), CommitOptions::default())
        .await
        .unwrap()
}

async fn read(dk: &dyn Client, at: &ObjectId) -> Reader {
    let mut reader = Reader::default();
    reader.advance(dk, at).await.unwrap();
    reader
}

#[test]
fn a_difference_brings_one_snapshot_to_another() {
    let mut dice = Dice::new(seed());
    for _ in 0..300 {
        let (old, new) = (random(&mut dice), random(&mut dice));
        let difference = new.since(&old);
        let mut brought = old.clone();
        brought.apply(&difference);
        assert_eq!(brought, new);
        assert!(new.since(&new).is_empty());
        let named = |id: &Id| {
            let mut without = new.clone();
            without.remove(id);
            without != new
        };
        assert!(
            !difference.removed.iter().any(named),
            "what stays is not removed"
        );
    }
}

#[tokio::test]
async fn what_is_written_is_read_step_by_step_or_at_once() {
    let mut dice = Dice::new(seed());
    let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
    let first = commit(
        &*dk,
        vec![Put {
            path: "README.md".into(),
            content: Some(b"x".into()),
        }],
    )
    .await;
    let mut steps = read(&*dk, &first).await;
    let mut behind = read(&*dk, &first).await;
    for round in 0..60 {
        let wanted = random(&mut dice);
        let puts = steps.edits(&wanted.since(steps.snapshot()));
        if puts.is_empty() {
            assert_eq!(*steps.snapshot(), wanted);
            continue;
        }
        let head = commit(&*dk, puts).await;
        steps.advance(&*dk, &head).await.unwrap();
        let whole = read(&*dk, &head).await;
        assert_eq!(*whole.snapshot(), *steps.snapshot(), "round {round}");
        // An unfollowed repository keeps its files: following it again finds them.
        let mut seen = whole.snapshot().clone();
        for again in &wanted.repos {
            let known = seen.of(again);
            let asked = wanted.of(again);
            assert!(
                asked.since(&known).updated == Snapshot::default(),
                "round {round}"
            );
            seen.remove(&Id::Repo(again.clone()));
        }
        assert_eq!(seen, Snapshot::default(), "nothing else is followed");
        if round % 3 == 0 {
            behind.advance(&*dk, &head).await.unwrap();
            assert_eq!(
                *behind.snapshot(),
                *whole.snapshot(),
                "several commits at once"
            );
        }
    }
}

#[tokio::test]
async fn the_layout_is_the_ancestors() {
    let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
    let repo: Repo = "test/test".parse().unwrap();
    let mut wanted = Snapshot::default();
    let mut pr = Pr::new("foo", PrState::Open, " t ", "master", "me");
    pr.comments.push(Comment {
        id: 0,
        user: "me".into(),
        body: b"no newline".into(),
    });
    wanted.add_pr(&repo, 12, pr);
    wanted.add_ref(&repo, &TreePath::new("heads/a/b").unwrap(), "bar".into());
    let status = Status::new(StatusState::Pending, Some("said"), None);
    wanted.add_status(&repo, "bar", &context("ci/x").unwrap(), status);
    let puts = Reader::default().edits(&wanted.since(&Snapshot::default()));
    let mut lines: Vec<String> = puts
        .iter()
        .map(|put| {
            let content = String::from_utf8_lossy(put.content.as_deref().unwrap());
            format!("{} {content:?}", put.path)
        })
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    test/test/.monitor ""
    test/test/commit/bar/status/ci/x/description "said\n"
    test/test/commit/bar/status/ci/x/state "pending\n"
    test/test/pr/12/base "master\n"
    test/test/pr/12/comments/0/body "no newline"
    test/test/pr/12/comments/0/id "0\n"
    test/test/pr/12/comments/0/user "me\n"
    test/test/pr/12/head "foo\n"
    test/test/pr/12/owner "me\n"
    test/test/pr/12/state "open\n"
    test/test/pr/12/title "t\n"
    test/test/ref/heads/a/b/head "bar\n"
    "#);
    let head = commit(&*dk, puts).await;
    assert_eq!(*read(&*dk, &head).await.snapshot(), wanted);
}

#[tokio::test]
async fn odd_files_are_passed_over_and_marks_are_found() {
    let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
    let put = |path: &str, content: &str| Put {
        path: path.into(),
        content: Some(content.into()),
    };
    let head = commit(
        &*dk,
        vec![
            put("u/r/.monitor", ""),
            put("u/r/notes", "mine"),
            put("u/r/pr/seven/head", "not a number"),
            put("u/r/pr/1/head", "no state, no owner"),
            put("u/r/pr/2/head", " foo \n"),
            put("u/r/pr/2/state", "merged?\n"),
            put("u/r/pr/2/owner", "me"),
            put("u/r/pr/2/.dirty", ""),
            put("u/r/ref/heads/x/.dirty", ""),
            put("u/r/commit/foo/status/ci/state", "what"),
            put("other/r/.dirty", ""),
            put("other/r/pr/1/.dirty", ""),
            put("bad name/r/.monitor", ""),
        ],
    )
    .await;
    let reader = read(&*dk, &head).await;
    let repo: Repo = "u/r".parse().unwrap();
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.repos, [repo.clone()].into());
    let pr = &snapshot.prs[&(repo.clone(), 2)];
    assert_eq!(
        (pr.head.as_str(), pr.state, pr.base.as_str()),
        ("foo", PrState::Closed, "master")
    );
    assert_eq!(snapshot.prs.len(), 1);
    let status = snapshot.statuses.values().next().unwrap();
    assert_eq!(status.state, StatusState::Failure);
    let dirty = reader.dirty();
    assert_eq!(dirty.repos, ["other/r".parse().unwrap()].into());
    assert_eq!(
        dirty.prs,
        [(repo.clone(), 2)].into(),
        "of followed repositories only"
    );
    assert_eq!(
        dirty.refs,
        [(repo, TreePath::new("heads/x").unwrap())].into()
    );
    let cleaned = commit(&*dk, reader.cleaned(reader.dirty())).await;
    assert!(read(&*dk, &cleaned).await.dirty().is_empty());
}
