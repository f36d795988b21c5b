//! Whatever fails, fails in the same words, here and far away.

use std::sync::Arc;
use std::time::Duration;

use datakit::client::local::Local;
use datakit::client::*;
use datakit::model::*;
use futures_util::StreamExt as _;

use crate::client_contract::{Do, branch, edits, path, write};
use crate::remote::served::Served;

/// All that can be told of a failure.
fn told(error: &Error) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += &format!("\n  {cause}");
        next = cause.source();
    }
    if let Some(hint) = error.hint() {
        text += &format!("\n  hint: {hint}");
    }
    match error {
        Error::Conflict { paths, kinds } => text += &format!("\n  {paths:?} {kinds:?}"),
        Error::HeadMoved { actual, .. } => text += &format!("\n  {actual:?}"),
        Error::Edit(refused) => text += &format!("\n  number {}", refused.number),
        Error::NotFound { what } => text += &format!("\n  {what:?}"),
        Error::Other { .. } => {}
    }
    text
}

/// The same commits have the same ids on both sides.
fn default() -> CommitOptions {
    CommitOptions {
        message: Some(b"change".to_vec()),
        author: Some(author()),
        ..CommitOptions::default()
    }
}

fn author() -> Signature {
    datakit::model::text::read_signature(b"A <a> 7 +0000")
}

async fn commit(dk: &dyn Client, on: &str, list: Vec<Do>) -> ObjectId {
    dk.edit(&branch(on), edits(list), default()).await.unwrap()
}

/// Many ways to fail, by name; what is done instead counts too.
async fn failures(dk: &dyn Client) -> Vec<(&'static str, String)> {
    let mut seen = Vec::new();
    macro_rules! fails {
        ($($name:literal: $call:expr;)*) => {$(
            match $call.await {
                Err(error) => seen.push(($name, told(&error))),
                Ok(_) => seen.push(($name, "done".into())),
            }
        )*};
    }
    async fn first<T>(mut records: Records<T>) -> Result<T> {
        records.next().await.expect("something")
    }
    let rev = |text: &str| Rev::new(text).unwrap();
    let one = commit(dk, "main", vec![write("a", "1"), write("d/b", "1")]).await;
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    dk.move_head(&branch("side"), &one, MoveOptions::default())
        .await
        .unwrap();
    let three = commit(dk, "side", vec![write("a", "3"), write("c\n", "3")]).await;
    let (main, side, none) = (branch("main"), branch("side"), branch("none"));
    let unknown = ObjectId::from_bytes(&[7; 20]).unwrap();
    let at = At::Commit(two);
    let tree = dk.commit(&two).await.unwrap().tree;
    let blob = dk.stat(&at, &path("a")).await.unwrap().unwrap().entry.id;
    let root = TreePath::root();
    let expect = |head| MoveOptions {
        expect: Expect::Head(head),
        ..MoveOptions::default()
    };
    let forward = MoveOptions {
        ff_only: true,
        ..MoveOptions::default()
    };
    let tx = |name: &str| TransactionId::new(name).unwrap();
    let missing = At::Commit(unknown);
    let gone = At::Transaction(tx("gone"));
    let log = |from, hidden| {
        dk.log(LogQuery {
            from: vec![from],
            hidden,
            ..LogQuery::default()
        })
    };
    let watch = |since| {
        dk.watch(WatchQuery {
            branch: main.clone(),
            path: TreePath::root(),
            since,
            latest: false,
            unchanged: false,
        })
    };
    fails! {
        "resolve": dk.resolve(&rev("nothing"));
        "resolve an id": dk.resolve(&unknown.into());
        "resolve a parent": dk.resolve(&rev("main~9"));
        "resolve a second parent": dk.resolve(&rev("main^2"));
        "resolve slashes": dk.resolve(&rev("a/b%2F c"));
        "commit": dk.commit(&unknown);
        "a tree as a commit": dk.commit(&tree);
        "a blob as a commit": dk.commit(&blob);
        "move to nothing": dk.move_head(&main, &unknown, MoveOptions::default());
        "move to a tree": dk.move_head(&main, &tree, MoveOptions::default());
        "move when elsewhere": dk.move_head(&main, &one, expect(one));
        "move an unborn one": dk.move_head(&none, &one, expect(one));
        "move a born one": dk.move_head(&main, &one, MoveOptions { expect: Expect::Unborn, ..forward });
        "move back": dk.move_head(&main, &one, forward);
        "move within": dk.move_head(&branch("main/x"), &one, MoveOptions::default());
        "delete nothing": dk.delete_branch(&none, MoveOptions::default());
        "delete when elsewhere": dk.delete_branch(&main, expect(one));
        "rename nothing": dk.rename_branch(&none, &branch("x"), false);
        "rename to one there is": dk.rename_branch(&main, &side, false);
        "rename within": dk.rename_branch(&main, &branch("side/x"), false);
        "stat in nothing": dk.stat(&missing, &root);
        "stat in no transaction": dk.stat(&gone, &path("x"));
        "list nothing": dk.list(&at, &path("x/y"), false);
        "list a file": dk.list(&at, &path("a"), true);
        "list in nothing": dk.list(&missing, &path("a"), true);
        "walk nothing": first(dk.walk(&at, &path("x \u{fc}"), false));
        "walk in nothing": first(dk.walk(&missing, &root, false));
        "open nothing": dk.open(&at, &path("d/x"));
        "open through a file": dk.open(&at, &path("a/x"));
        "open a folder": dk.open(&at, &path("d"));
        "open in nothing": dk.open(&gone, &path("d"));
        "open no blob": dk.open_blob(&unknown);
        "open a tree": dk.open_blob(&tree);
        "diff with nothing": dk.diff(&at, &missing, &root);
        "diff of nothing": dk.diff(&gone, &at, &root);
        "log of nothing": first(log(unknown, vec![]));
        "log without nothing": first(log(one, vec![unknown]));
        "bases with nothing": dk.merge_bases(&one, &unknown);
        "edit a folder": dk.edit(&main, edits(vec![Do::Mkdir("x"), write("d", "x")]), default());
        "edit below a file": dk.edit(&main, edits(vec![write("a/x", "x")]), default());
        "remove nothing": dk.edit(&main, edits(vec![Do::Remove("x")]), default());
        "rename into itself": dk.edit(&main, edits(vec![Do::Rename("d", "d/e")]), default());
        "rename onto a folder": dk.edit(&main, edits(vec![Do::Rename("a", "d")]), default());
        "copy nothing": dk.edit(&main, edits(vec![Do::Copy("x", "y")]), default());
        "truncate nothing": dk.edit(&main, edits(vec![Do::Truncate("x", 3)]), default());
        "chmod a folder": dk.edit(&main, edits(vec![Do::Chmod("d", true)]), default());
        "link to nothing": dk.edit(&main, edits(vec![Do::Link("l", "")]), default());
        "set nothing": dk.edit(&main, edits(vec![Do::Set("s", Entry { mode: Mode::FILE, id: unknown })]), default());
        "set a tree as a file": dk.edit(&main, edits(vec![Do::Set("s", Entry { mode: Mode::FILE, id: tree })]), default());
        "write the root": dk.edit(&main, edits(vec![write("", "x")]), default());
        "edit within": dk.edit(&branch("main/x"), edits(vec![write("a", "x")]), default());
        "edit when elsewhere": dk.edit(&main, edits(vec![write("a", "x")]), CommitOptions { expect: Expect::Head(one), ..default() });
        "edit when born": dk.edit(&main, edits(vec![write("a", "x")]), CommitOptions { expect: Expect::Unborn, ..default() });
        "edit for nothing": dk.edit(&main, edits(vec![write("a", "2")]), CommitOptions { empty: Empty::Refuse, ..default() });
        "merge": dk.merge(&main, &three, MergeOptions { commit: default(), ..MergeOptions::default() });
        "merge nothing": dk.merge(&main, &unknown, MergeOptions::default());
        "merge forward": dk.merge(&main, &three, MergeOptions { commit: CommitOptions { ff_only: true, ..default() }, ..MergeOptions::default() });
        "begin from nothing": dk.begin(&main, Some(&unknown), None, None);
        "no transaction": dk.transaction("gone");
        "no prefix": dk.transaction("");
        "an odd prefix": dk.transaction("a/../b");
        "a dotted prefix": dk.transaction("..");
        "edit no transaction": dk.tx_edit(&tx("gone"), edits(vec![write("a", "x")]));
        "merge into no transaction": dk.tx_merge(&tx("gone"), &one);
        "resolve in no transaction": dk.tx_resolve(&tx("gone"), &[], Side::Ours);
        "set of no transaction": dk.tx_set(&tx("gone"), None, None);
        "commit no transaction": dk.tx_commit(&tx("gone"), default());
        "abort no transaction": dk.tx_abort(&tx("gone"));
        "watch from nothing": first(watch(Since::Commit(unknown)));
        "watch from a tree": first(watch(Since::Commit(tree)));
    }
    let (a, ab) = (tx("ab1"), tx("ab2"));
    for id in [&a, &ab] {
        let begun = dk.begin(&main, Some(&one), Some(id), Some(author()));
        begun.await.unwrap();
    }
    fails! {
        "begin once more": dk.begin(&main, None, Some(&a), None);
        "an ambiguous prefix": dk.transaction("ab");
        "a prefix that is no name": dk.tx_edit(&tx("ab"), edits(vec![write("a", "x")]));
        "a prefix for a name": dk.tx_abort(&tx("ab"));
        "edit wrongly": dk.tx_edit(&a, edits(vec![write("x", "1"), Do::Remove("nothing")]));
        "merge nothing into it": dk.tx_merge(&a, &unknown);
        "parents that are none": dk.tx_set(&a, None, Some(vec![unknown]));
        "resolve what is settled": dk.tx_resolve(&a, &[path("a")], Side::Ours);
        "not forward": dk.tx_commit(&a, CommitOptions { ff_only: true, ..default() });
        "elsewhere": dk.tx_commit(&a, CommitOptions { expect: Expect::Head(one), ..default() });
    }
    dk.tx_edit(&a, edits(vec![write("a", "9")])).await.unwrap();
    let merged = dk.tx_merge(&ab, &three).await.unwrap();
    assert!(merged.conflicts.is_empty());
    fails! {
        "conflicts": dk.tx_commit(&a, default());
        "unresolved": dk.tx_commit(&a, default());
        "merge while unresolved": dk.tx_merge(&a, &three);
        "a settled path": dk.tx_resolve(&a, &[path("d/b")], Side::Base);
    }
    let begun = dk.begin(&main, None, None, Some(author())).await;
    let id = begun.unwrap().id;
    let refused = dk
        .tx_commit(
            &id,
            CommitOptions {
                empty: Empty::Refuse,
                ..default()
            },
        )
        .await;
    seen.push(("empty", told(&refused.unwrap_err())));
    dk.tx_commit(&id, default()).await.unwrap();
    fails! {
        "edit what is committed": dk.tx_edit(&id, edits(vec![write("a", "x")]));
        "merge into what is committed": dk.tx_merge(&id, &three);
        "set of what is committed": dk.tx_set(&id, Some(b"m".to_vec()), None);
    }
    // Ids that the system picked differ; nothing else does.
    for (_, text) in &mut seen {
        *text = text.replace(id.as_str(), "TX");
    }
    let repository = [
        dk.gc(true, Arc::new(())).await.err(),
        dk.fetch("nowhere", &[], Arc::new(())).await.err(),
        dk.push("nowhere", &[], Arc::new(())).await.err(),
    ];
    for error in repository.into_iter().flatten() {
        seen.push(("without a repository", told(&error)));
    }
    let dropped = dk.tx_collect(Duration::ZERO, true).await.unwrap();
    assert!(!dropped.is_empty());
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_read_the_same_on_both_sides() {
    let served = Served::memory();
    let remote = served.remote().await;
    let local = Local::memory(HashKind::Sha1);
    let (here, there) = (failures(&local).await, failures(&remote).await);
    assert_eq!(here.len(), there.len());
    let differ: Vec<String> = here
        .iter()
        .zip(&there)
        .filter(|(here, there)| here != there)
        .map(|(here, there)| format!("{}\n  here:  {}\n  there: {}\n", here.0, here.1, there.1))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
