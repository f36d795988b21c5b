//! The client tests of the ancestor (DataKit 1.0), case by case.

use super::*;

crate::every_client! {
    transaction watch make_dirs truncate parents merge differences merge_metadata
    merge_empty conflicting large_write remove create_or_replace
}

async fn transaction(dk: &dyn Client) {
    let id = begin(dk, "master").await;
    assert!(
        dk.transaction(id.as_str())
            .await
            .unwrap()
            .parents
            .is_empty()
    );
    tx(
        dk,
        &id,
        vec![Do::Mkdir("src"), write("src/Makefile", "all: build test")],
    )
    .await;
    dk.tx_set(&id, Some(b"My commit".to_vec()), None)
        .await
        .unwrap();
    assert_eq!(
        dk.head(&branch("master")).await.unwrap(),
        None,
        "not yet born"
    );
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(head(dk, "master").await, new);
    let stat = dk
        .stat(&At::Commit(new), &path("src/Makefile"))
        .await
        .unwrap();
    assert_eq!(stat.unwrap().size, 15);
    let commit = dk.commit(&new).await.unwrap();
    assert_eq!(commit.message, b"My commit");
    assert_eq!(commit.author.name, commit.committer.name);
    assert!(commit.parents.is_empty());
}

fn query(on: &str, at: &str, since: Since) -> WatchQuery {
    WatchQuery {
        branch: branch(on),
        path: path(at),
        since,
        latest: false,
        unchanged: false,
    }
}

async fn watch(dk: &dyn Client) {
    let mut root = dk.watch(query("master", "", Since::Beginning));
    let mut doc = dk.watch(query("master", "doc", Since::Beginning));
    let mut makefile = dk.watch(query("master", "src/Makefile", Since::Beginning));
    let changed = |event: Event| match event {
        Event::Commit {
            commit, changes, ..
        } => (
            commit.id,
            changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ),
        Event::Deleted { .. } => panic!("nothing was deleted"),
    };
    let first = commit(dk, "master", vec![write("src/Makefile", "all: build")]).await;
    assert_eq!(
        changed(next(&mut root).await),
        (first, vec!["+ src/Makefile".to_string()])
    );
    assert_eq!(changed(next(&mut makefile).await).0, first);
    let second = commit(dk, "master", vec![write("doc/README", "Instructions")]).await;
    assert_eq!(
        changed(next(&mut doc).await),
        (second, vec!["+ doc/README".to_string()])
    );
    assert_eq!(changed(next(&mut root).await).0, second);
    // The commit beside it woke nobody at src/Makefile: its next event is the chmod.
    let third = commit(dk, "master", vec![Do::Chmod("src/Makefile", true)]).await;
    assert_eq!(
        changed(next(&mut makefile).await),
        (third, vec!["* src/Makefile".to_string()])
    );
    assert_eq!(
        kind(dk, &At::Commit(third), "src/Makefile").await,
        Some(EntryKind::Exec)
    );
    let fourth = commit(
        dk,
        "master",
        vec![
            Do::Remove("src/Makefile"),
            Do::Link("src/Makefile", "my-target"),
        ],
    )
    .await;
    assert_eq!(changed(next(&mut makefile).await).0, fourth);
    assert_eq!(
        read(dk, &At::Commit(fourth), "src/Makefile").await,
        "my-target"
    );
    commit(dk, "master", vec![Do::Remove("src/Makefile")]).await;
    assert_eq!(changed(next(&mut makefile).await).1, ["- src/Makefile"]);
}

async fn make_dirs(dk: &dyn Client) {
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(dk, &id, vec![Do::Mkdir(""), Do::Mkdir("foo/bar/baz")]).await;
    assert_eq!(kind(dk, &at, "foo/bar/baz").await, Some(EntryKind::Dir));
    tx(
        dk,
        &id,
        vec![Do::Mkdir("foo/bar/baz/new"), Do::Mkdir("foo/bar/baz")],
    )
    .await;
    assert_eq!(kind(dk, &at, "foo/bar/baz/new").await, Some(EntryKind::Dir));
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    // Empty folders are never committed.
    assert!(names(dk, &At::Commit(new), "").await.is_empty());
}

async fn truncate(dk: &dyn Client) {
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(dk, &id, vec![Do::Exec("file", "Hello")]).await;
    for (size, expected) in [(4, "Hell"), (4, "Hell"), (6, "Hell\0\0"), (0, "")] {
        tx(dk, &id, vec![Do::Truncate("file", size)]).await;
        assert_eq!(read(dk, &at, "file").await, expected);
    }
    assert_eq!(kind(dk, &at, "file").await, Some(EntryKind::Exec));
    dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
}

async fn parents(dk: &dyn Client) {
    let first = commit(dk, "master", vec![write("file", "1")]).await;
    let second = commit(dk, "master", vec![write("file", "2")]).await;
    let of = async |id: &ObjectId| dk.commit(id).await.unwrap().parents;
    assert!(of(&first).await.is_empty());
    assert_eq!(of(&second).await, [first]);

    let id = begin(dk, "dev").await;
    dk.tx_set(&id, None, Some(vec![second])).await.unwrap();
    let dev = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(of(&dev).await, [second]);

    let unknown = ObjectId::from_bytes(&vec![0xab; first.hash_kind().id_len()]).unwrap();
    let id = begin(dk, "dev").await;
    let refused = dk.tx_set(&id, None, Some(vec![unknown])).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
    assert_eq!(head(dk, "dev").await, dev, "nothing was committed");

    // Two overlapping transactions; the outer one names a further parent.
    let outer = begin(dk, "master").await;
    tx(dk, &outer, vec![write("outer", "o")]).await;
    let inner = begin(dk, "master").await;
    tx(dk, &inner, vec![write("inner", "i")]).await;
    let inner = dk
        .tx_commit(&inner, CommitOptions::default())
        .await
        .unwrap();
    dk.tx_set(
        &outer,
        Some(b"From outer".to_vec()),
        Some(vec![second, dev]),
    )
    .await
    .unwrap();
    let merged = dk
        .tx_commit(&outer, CommitOptions::default())
        .await
        .unwrap();
    let both = of(&merged).await;
    assert_eq!(both[0], inner, "the branch's former head comes first");
    let ours = dk.commit(&both[1]).await.unwrap();
    assert_eq!(ours.message, b"From outer");
    assert_eq!(ours.parents, [second, dev]);
    assert_eq!(dk.commit(&merged).await.unwrap().message, b"Merge");
    assert_eq!(
        names(dk, &At::Commit(merged), "").await,
        ["file", "inner", "outer"]
    );
}

async fn merge(dk: &dyn Client) {
    let base = commit(dk, "master", vec![write("file", "from-master")]).await;
    let forward = MoveOptions {
        ff_only: true,
        ..MoveOptions::default()
    };
    let unknown = ObjectId::from_bytes(&vec![0xab; base.hash_kind().id_len()]).unwrap();
    let refused = dk
        .move_head(&branch("pr"), &unknown, forward)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
    dk.move_head(&branch("pr"), &base, forward).await.unwrap();
    let theirs = commit(dk, "pr", vec![write("file", "from-master+pr")]).await;

    let id = begin(dk, "master").await;
    tx(dk, &id, vec![write("mine", "mine")]).await;
    let merging = dk.tx_merge(&id, &theirs).await.unwrap();
    assert!(merging.conflicts.is_empty());
    let sides = merging.merge.unwrap();
    assert_eq!(read(dk, &At::Commit(sides.ours), "mine").await, "mine");
    assert_eq!(
        read(dk, &At::Commit(sides.theirs), "file").await,
        "from-master+pr"
    );
    assert_eq!(
        read(dk, &At::Commit(sides.base.unwrap()), "file").await,
        "from-master"
    );
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(dk.commit(&new).await.unwrap().parents, [base, theirs]);
    assert_eq!(read(dk, &At::Commit(new), "file").await, "from-master+pr");
}

async fn differences(dk: &dyn Client) {
    let first = commit(
        dk,
        "master",
        vec![write("file", "from-master"), write("src/Makefile", "all")],
    )
    .await;
    let second = commit(
        dk,
        "master",
        vec![write("foo", "foo"), Do::Append("file", "+pr")],
    )
    .await;
    let (first, second) = (At::Commit(first), At::Commit(second));
    assert_eq!(diff(dk, &first, &second).await, ["* file", "+ foo"]);
    assert_eq!(diff(dk, &second, &first).await, ["* file", "- foo"]);
    assert!(diff(dk, &second, &second).await.is_empty());
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(dk, &id, vec![write("file", "from-master")]).await;
    assert_eq!(diff(dk, &first, &at).await, ["+ foo"]);
    assert_eq!(diff(dk, &second, &at).await, ["* file"]);
    tx(dk, &id, vec![write("file", "from-master+pr")]).await;
    assert!(diff(dk, &second, &at).await.is_empty());
    dk.tx_abort(&id).await.unwrap();
}

async fn merge_metadata(dk: &dyn Client) {
    let base = commit(
        dk,
        "master",
        vec![
            Do::Exec("a", "from-master"),
            Do::Link("b", "from-master"),
            Do::Exec("c", "from-master"),
        ],
    )
    .await;
    // Into an unborn branch.
    let id = begin(dk, "pr").await;
    let at = At::Transaction(id.clone());
    dk.tx_merge(&id, &base).await.unwrap();
    assert_eq!(kind(dk, &at, "a").await, Some(EntryKind::Exec));
    tx(
        dk,
        &id,
        vec![Do::Chmod("b", true), Do::Remove("c"), Do::Link("c", "foo")],
    )
    .await;
    let theirs = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();

    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(dk, &id, vec![Do::Chmod("c", false)]).await;
    let merging = dk.tx_merge(&id, &theirs).await.unwrap();
    let ours = At::Commit(merging.merge.clone().unwrap().ours);
    assert_eq!(kind(dk, &ours, "a").await, Some(EntryKind::Exec));
    assert_eq!(kind(dk, &ours, "b").await, Some(EntryKind::Link));
    assert_eq!(
        kind(dk, &At::Commit(theirs), "b").await,
        Some(EntryKind::Exec)
    );
    assert_eq!(kind(dk, &at, "b").await, Some(EntryKind::Exec));
    assert_eq!(kind(dk, &at, "c").await, Some(EntryKind::File));
    assert_eq!(
        read(dk, &at, "c").await,
        "** Conflict **\nChanged on both branches\n"
    );
    tx(dk, &id, vec![write("c", "Resolved"), Do::Chmod("c", true)]).await;
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(kind(dk, &At::Commit(new), "c").await, Some(EntryKind::Exec));
}

async fn merge_empty(dk: &dyn Client) {
    let first = commit(dk, "master", vec![write("file", "from-master")]).await;
    let id = begin(dk, "new").await;
    dk.tx_merge(&id, &first).await.unwrap();
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(names(dk, &At::Commit(new), "").await, ["file"]);
}

async fn conflicting(dk: &dyn Client) {
    let base: Vec<Do> = ["a", "b", "c", "d", "e", "f", "dir/a", "dir2/b"]
        .map(|at| Do::Write(at, format!("{at}-base").into()))
        .to_vec();
    let base = commit(dk, "master", base).await;
    dk.move_head(&branch("theirs"), &base, MoveOptions::default())
        .await
        .unwrap();
    let theirs = commit(
        dk,
        "theirs",
        vec![
            write("a", "a-theirs"),
            write("b", "b-theirs"),
            Do::Remove("e"),
            write("f", "f-theirs"),
            write("g", "g-same"),
            write("h", "h-theirs"),
            write("dir/a", "a-theirs"),
            Do::Remove("dir2"),
            write("dir2", "theirs-now-file"),
        ],
    )
    .await;
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(
        dk,
        &id,
        vec![
            write("a", "a-ours"),
            write("c", "c-ours"),
            Do::Remove("d"),
            Do::Remove("f"),
            write("g", "g-same"),
            write("h", "h-ours"),
            Do::Remove("dir"),
            write("dir", "ours-now-file"),
            write("dir2/b", "b-ours"),
        ],
    )
    .await;
    let merging = dk.tx_merge(&id, &theirs).await.unwrap();
    assert_eq!(conflicts(&merging), ["a", "dir", "dir2", "f", "h"]);
    let refused = dk
        .tx_commit(&id, CommitOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict);
    assert_eq!(
        dk.tx_merge(&id, &theirs).await.unwrap_err().kind(),
        Kind::Conflict
    );
    assert_eq!(
        names(dk, &at, "").await,
        ["a", "b", "c", "dir", "dir2", "f", "g", "h"]
    );
    for (at_path, text) in [
        ("a", "** Conflict **\nChanged on both branches\n"),
        ("b", "b-theirs"),
        ("c", "c-ours"),
        ("f", "** Conflict **\noption: add/del\n"),
        ("g", "g-same"),
        (
            "h",
            "** Conflict **\ndefault: add/add and no common ancestor\n",
        ),
        ("dir", "** Conflict **\nFile vs dir\n"),
        ("dir2", "** Conflict **\nFile vs dir\n"),
    ] {
        assert_eq!(read(dk, &at, at_path).await, text, "{at_path}");
    }
    let left = tx(
        dk,
        &id,
        vec![
            Do::Remove("a"),
            Do::Remove("dir"),
            Do::Remove("dir2"),
            write("f", "f-theirs"),
        ],
    )
    .await;
    assert_eq!(conflicts(&left), ["h"]);
    tx(dk, &id, vec![Do::Remove("h")]).await;
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(names(dk, &At::Commit(new), "").await, ["b", "c", "f", "g"]);
    assert_eq!(dk.commit(&new).await.unwrap().parents, [base, theirs]);
}

async fn large_write(dk: &dyn Client) {
    let new = commit(dk, "master", vec![Do::Write("zeros", vec![0; 1 << 20])]).await;
    let stat = dk.stat(&At::Commit(new), &path("zeros")).await.unwrap();
    assert_eq!(stat.unwrap().size, 1 << 20);
    assert_eq!(read(dk, &At::Commit(new), "zeros").await.len(), 1 << 20);
}

async fn remove(dk: &dyn Client) {
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    tx(
        dk,
        &id,
        vec![
            Do::Mkdir("foo/bar/baz"),
            write("foo/file1", "1"),
            write("foo/bar/file2", "2"),
        ],
    )
    .await;
    tx(dk, &id, vec![Do::Remove("foo/bar")]).await;
    assert_eq!(names(dk, &at, "foo").await, ["file1"]);
    let missing = dk
        .tx_edit(&id, edits(vec![Do::Remove("foo/bar")]))
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    dk.tx_abort(&id).await.unwrap();
    assert_eq!(dk.head(&branch("master")).await.unwrap(), None);
    assert_eq!(
        dk.transaction(id.as_str()).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

async fn create_or_replace(dk: &dyn Client) {
    let id = begin(dk, "master").await;
    let at = At::Transaction(id.clone());
    assert_eq!(kind(dk, &at, "file").await, None);
    tx(dk, &id, vec![write("file", "Data1")]).await;
    assert_eq!(kind(dk, &at, "file").await, Some(EntryKind::File));
    tx(dk, &id, vec![write("file", "Data2")]).await;
    let new = dk.tx_commit(&id, CommitOptions::default()).await.unwrap();
    assert_eq!(read(dk, &At::Commit(new), "file").await, "Data2");
}
