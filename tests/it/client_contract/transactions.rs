//! Transactions that outlive a process.

use super::*;

crate::every_client! {
    names_and_prefixes edits_pile_up a_moved_head_is_merged_with
    conflicts_stay_until_resolved resolving_with_each_side commit_answers_the_same_again
    kept_open expectations_of_a_commit from_any_commit parallel_edits_all_stand old_ones_are_dropped
    aborted_ones_are_gone empty_transactions
}

fn plain() -> CommitOptions {
    CommitOptions::default()
}

async fn names_and_prefixes(dk: &dyn Client) {
    let name = |text: &str| TransactionId::new(text).unwrap();
    let main = branch("main");
    dk.begin(&main, None, Some(&name("build-1")), None)
        .await
        .unwrap();
    let taken = dk
        .begin(&main, None, Some(&name("build-1")), None)
        .await
        .unwrap_err();
    assert_eq!(taken.kind(), Kind::Exists);
    dk.begin(&main, None, Some(&name("build-12")), None)
        .await
        .unwrap();
    assert_eq!(
        dk.transaction("build-1").await.unwrap().id,
        name("build-1"),
        "whole names first"
    );
    assert_eq!(
        dk.transaction("build-").await.unwrap_err().kind(),
        Kind::Ambiguous
    );
    dk.begin(&main, None, Some(&name("other")), None)
        .await
        .unwrap();
    assert_eq!(dk.transaction("o").await.unwrap().id, name("other"));
    for missing in ["x", "", "../..", "a b"] {
        let kind = dk.transaction(missing).await.unwrap_err().kind();
        assert!(
            matches!(kind, Kind::NotFound | Kind::Ambiguous),
            "{missing}: {kind:?}"
        );
    }
    let ids = dk.transactions().await.unwrap();
    assert_eq!(ids.len(), 3);
    let random = begin(dk, "main").await;
    assert_ne!(begin(dk, "main").await, random);
}

async fn edits_pile_up(dk: &dyn Client) {
    let base = commit(dk, "main", vec![write("a", "1")]).await;
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("b", "1")]).await;
    let now = tx(dk, &id, vec![write("c", "1"), Do::Remove("a")]).await;
    assert_eq!(
        (now.edits, now.base, now.state),
        (3, Some(base), State::Open)
    );
    assert_eq!(
        names(dk, &At::Transaction(id.clone()), "").await,
        ["b", "c"]
    );
    // Nobody else sees any of it.
    assert_eq!(
        names(dk, &At::Commit(head(dk, "main").await), "").await,
        ["a"]
    );
    let options = CommitOptions {
        message: Some(b"all".to_vec()),
        ..plain()
    };
    let new = dk.tx_commit(&id, options).await.unwrap();
    let commit = dk.commit(&new).await.unwrap();
    assert_eq!(
        (commit.parents, commit.message),
        (vec![base], b"all".to_vec())
    );
    let late = dk
        .tx_edit(&id, edits(vec![write("d", "")]))
        .await
        .unwrap_err();
    assert_eq!(late.kind(), Kind::Invalid);
}

async fn a_moved_head_is_merged_with(dk: &dyn Client) {
    commit(dk, "main", vec![write("a", "1")]).await;
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("b", "tx")]).await;
    let other = commit(dk, "main", vec![write("c", "other")]).await;
    let strict = CommitOptions {
        ff_only: true,
        ..plain()
    };
    assert_eq!(
        dk.tx_commit(&id, strict).await.unwrap_err().kind(),
        Kind::HeadMoved
    );
    let new = dk.tx_commit(&id, plain()).await.unwrap();
    assert_eq!(dk.commit(&new).await.unwrap().parents[0], other);
    assert_eq!(names(dk, &At::Commit(new), "").await, ["a", "b", "c"]);
}

async fn conflicts_stay_until_resolved(dk: &dyn Client) {
    commit(dk, "main", vec![write("a", "1")]).await;
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("a", "tx"), write("b", "tx")]).await;
    let other = commit(dk, "main", vec![write("a", "other")]).await;
    match dk.tx_commit(&id, plain()).await.unwrap_err() {
        Error::Conflict { paths, .. } => assert_eq!(paths, [path("a")]),
        error => panic!("{error}"),
    }
    assert_eq!(head(dk, "main").await, other, "nothing was committed");
    let open = dk.transaction(id.as_str()).await.unwrap();
    assert_eq!(
        (open.state.clone(), conflicts(&open)),
        (State::Open, vec!["a".to_string()])
    );
    let conflict = &open.conflicts[0];
    assert!(conflict.base.is_some() && conflict.ours.is_some() && conflict.theirs.is_some());
    assert_eq!(
        dk.tx_commit(&id, plain()).await.unwrap_err().kind(),
        Kind::Conflict
    );
    tx(dk, &id, vec![write("a", "both")]).await;
    let new = dk.tx_commit(&id, plain()).await.unwrap();
    assert_eq!(read(dk, &At::Commit(new), "a").await, "both");
    assert_eq!(read(dk, &At::Commit(new), "b").await, "tx");
    assert!(dk.commit(&new).await.unwrap().parents.contains(&other));
}

async fn resolving_with_each_side(dk: &dyn Client) {
    for (side, text) in [
        (Side::Ours, "tx"),
        (Side::Theirs, "other"),
        (Side::Base, "1"),
    ] {
        let on = text;
        commit(
            dk,
            on,
            vec![write("d/a", "1"), write("d/b", "1"), write("gone", "1")],
        )
        .await;
        let id = begin(dk, on).await;
        tx(
            dk,
            &id,
            vec![write("d/a", "tx"), write("d/b", "tx"), Do::Remove("gone")],
        )
        .await;
        commit(
            dk,
            on,
            vec![
                write("d/a", "other"),
                write("d/b", "other"),
                write("gone", "2"),
            ],
        )
        .await;
        dk.tx_commit(&id, plain()).await.unwrap_err();
        let missing = dk.tx_resolve(&id, &[path("none")], side).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        let left = dk.tx_resolve(&id, &[path("d/a")], side).await.unwrap();
        assert_eq!(conflicts(&left), ["d/b", "gone"]);
        let left = dk.tx_resolve(&id, &[], side).await.unwrap();
        assert!(left.conflicts.is_empty());
        let at = At::Commit(dk.tx_commit(&id, plain()).await.unwrap());
        assert_eq!(read(dk, &at, "d/a").await, text);
        assert_eq!(read(dk, &at, "d/b").await, text);
        assert_eq!(kind(dk, &at, "gone").await.is_none(), side == Side::Ours);
    }
}

async fn commit_answers_the_same_again(dk: &dyn Client) {
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("a", "1")]).await;
    let new = dk.tx_commit(&id, plain()).await.unwrap();
    let later = commit(dk, "main", vec![write("b", "1")]).await;
    assert_eq!(dk.tx_commit(&id, plain()).await.unwrap(), new);
    assert_eq!(head(dk, "main").await, later, "nothing was committed twice");
    let state = dk.transaction(id.as_str()).await.unwrap().state;
    assert_eq!(state, State::Committed(new));
}

async fn kept_open(dk: &dyn Client) {
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("a", "1")]).await;
    let keep = || CommitOptions {
        keep: true,
        ..plain()
    };
    let one = dk.tx_commit(&id, keep()).await.unwrap();
    tx(dk, &id, vec![write("b", "1")]).await;
    let two = dk.tx_commit(&id, keep()).await.unwrap();
    assert_eq!(dk.commit(&two).await.unwrap().parents, [one]);
    let open = dk.transaction(id.as_str()).await.unwrap();
    assert_eq!(
        (open.state, open.base, open.edits),
        (State::Open, Some(two), 0)
    );
}

async fn expectations_of_a_commit(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let id = begin(dk, "main").await;
    tx(dk, &id, vec![write("b", "1")]).await;
    let with = |expect| CommitOptions { expect, ..plain() };
    let refused = dk.tx_commit(&id, with(Expect::Unborn)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::HeadMoved);
    let two = dk.tx_commit(&id, with(Expect::Head(one))).await.unwrap();
    assert_eq!(head(dk, "main").await, two);
}

async fn from_any_commit(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let two = commit(dk, "main", vec![write("b", "1")]).await;
    let begun = dk
        .begin(&branch("main"), Some(&one), None, None)
        .await
        .unwrap();
    assert_eq!(
        names(dk, &At::Transaction(begun.id.clone()), "").await,
        ["a"]
    );
    tx(dk, &begun.id, vec![write("c", "1")]).await;
    let new = dk.tx_commit(&begun.id, plain()).await.unwrap();
    assert_eq!(dk.commit(&new).await.unwrap().parents[0], two);
    assert_eq!(names(dk, &At::Commit(new), "").await, ["a", "b", "c"]);
}

async fn parallel_edits_all_stand(dk: &dyn Client) {
    let id = begin(dk, "main").await;
    let (a, b, c, d) = tokio::join!(
        dk.tx_edit(&id, edits(vec![write("a", "1")])),
        dk.tx_edit(&id, edits(vec![write("b", "1")])),
        dk.tx_edit(&id, edits(vec![write("c", "1")])),
        dk.tx_set(&id, Some(b"message".to_vec()), None),
    );
    for done in [a, b, c, d] {
        done.unwrap();
    }
    let new = dk.tx_commit(&id, plain()).await.unwrap();
    assert_eq!(names(dk, &At::Commit(new), "").await, ["a", "b", "c"]);
    assert_eq!(dk.commit(&new).await.unwrap().message, b"message");
}

async fn old_ones_are_dropped(dk: &dyn Client) {
    let id = begin(dk, "main").await;
    let week = Duration::from_secs(7 * 24 * 3600);
    assert!(dk.tx_collect(week, false).await.unwrap().is_empty());
    assert_eq!(dk.tx_collect(Duration::ZERO, true).await.unwrap().len(), 1);
    assert_eq!(
        dk.tx_collect(Duration::ZERO, false).await.unwrap()[0].id,
        id
    );
    assert!(dk.transactions().await.unwrap().is_empty());
}

async fn aborted_ones_are_gone(dk: &dyn Client) {
    let id = begin(dk, "main").await;
    dk.tx_abort(&id).await.unwrap();
    let gone = dk.tx_abort(&id).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    let gone = dk.tx_commit(&id, plain()).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

async fn empty_transactions(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let id = begin(dk, "main").await;
    let refuse = CommitOptions {
        empty: Empty::Refuse,
        ..plain()
    };
    assert_eq!(
        dk.tx_commit(&id, refuse).await.unwrap_err().kind(),
        Kind::Invalid
    );
    let skip = CommitOptions {
        empty: Empty::Skip,
        ..plain()
    };
    assert_eq!(dk.tx_commit(&id, skip).await.unwrap(), one);
    // An emptied folder stays in the transaction and is not committed.
    let id = begin(dk, "main").await;
    tx(
        dk,
        &id,
        vec![write("d/x", "1"), Do::Remove("d/x"), write("e/f/g", "1")],
    )
    .await;
    assert_eq!(
        names(dk, &At::Transaction(id.clone()), "").await,
        ["a", "d", "e"]
    );
    let new = dk.tx_commit(&id, plain()).await.unwrap();
    assert_eq!(names(dk, &At::Commit(new), "").await, ["a", "e"]);
}
