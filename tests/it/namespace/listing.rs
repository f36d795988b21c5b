//! The whole tree listed, with what each entry is, against `tests/data/tree.txt`.

use std::fmt::Write as _;

use super::*;

/// A tree with something everywhere.
async fn full() -> Walker {
    let walker = memory();
    walker
        .store("main", &[("dir/file", "text"), ("run", "x")], "one")
        .await;
    let tx = walker.begin("main", "edit").await;
    walker.put(&format!("{tx}/rw/new"), "new").await.unwrap();
    walker.store("side", &[("other", "x")], "two").await;
    let tx = walker.begin("main", "merge").await;
    let theirs = walker.head("side").await;
    walker.write(&format!("{tx}/merge"), theirs).await.unwrap();
    walker.mkdir("branch/main/tx/lasting").await.unwrap();
    walker.mkdir("remotes/origin").await.unwrap();
    walker
}

/// Lists a directory and what is below it.
async fn list(walker: &Walker, path: &str, text: &mut String) {
    for name in walker.ls(path).await.unwrap() {
        let path = format!("{path}/{name}");
        let node = walker.walk(&path).await.unwrap();
        let attr = node.attr(&walker.call).await.unwrap();
        assert_eq!(attr.id.path, node.id().path, "{path}");
        let kind = match attr.id.shape {
            Shape::Dir => 'd',
            Shape::Link => 'l',
            Shape::File => '-',
        };
        let write = if attr.writable { 'w' } else { '-' };
        writeln!(text, "{kind}{write} {path}").unwrap();
        if kind == 'd' {
            Box::pin(list(walker, &path, text)).await;
        }
    }
}

#[tokio::test]
async fn everything() {
    let walker = full().await;
    let head = walker.head("main").await;
    let mut text = String::new();
    list(&walker, "", &mut text).await;
    for path in [
        format!("/snapshots/{head}"),
        format!("/trees/D-{}", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
        format!("/branch/main/diff/{head}"),
        format!("/branch/main/since/{head}"),
        format!("/commits/{head}"),
        "/resolve/main".into(),
        "/log/main".into(),
        format!("/ls/{head}"),
        format!("/diff/{head}..{head}"),
    ] {
        let node = walker.walk(&path).await.unwrap();
        let attr = node.attr(&walker.call).await.unwrap();
        let dir = attr.id.shape == Shape::Dir;
        let kind = if dir { 'd' } else { '-' };
        let shown = path.replace(&head, "COMMIT");
        writeln!(text, "{kind}- {shown}").unwrap();
        if dir {
            let mut below = String::new();
            list(&walker, &path, &mut below).await;
            text += &below.replace(&head, "COMMIT");
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tree.txt");
    if std::env::var_os("UPDATE_TREE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(path).unwrap();
    assert!(
        text == wanted,
        "the tree is not as in tests/data/tree.txt (UPDATE_TREE=1 writes it):\n{text}"
    );
}

#[tokio::test]
async fn an_entry_listed_is_the_one_found() {
    let walker = full().await;
    let mut left = vec![String::new()];
    while let Some(path) = left.pop() {
        let folder = walker.walk(&path).await.unwrap();
        let handle = folder.open(&walker.call, Open::default()).await.unwrap();
        let listing = handle.list(&walker.call).await.unwrap();
        for index in 0..listing.len() {
            let (name, id) = listing.entry(index);
            let node = folder.lookup(&walker.call, &name).await.unwrap();
            let name = String::from_utf8(name).unwrap();
            assert_eq!(
                (id.path, id.shape),
                (node.id().path, node.id().shape),
                "{path}/{name}"
            );
            assert_eq!(node.name(), name.as_bytes());
            let parent = node.parent().unwrap();
            assert_eq!(parent.id().path, folder.id().path, "{path}/{name}");
            if id.shape == Shape::Dir {
                left.push(format!("{path}/{name}"));
            }
        }
    }
}

#[tokio::test]
async fn immutable_paths_are_the_same_on_every_connection() {
    let one = full().await;
    let two = one.another();
    let head = one.head("main").await;
    let path = format!("snapshots/{head}/ro/dir/file");
    let id = async |walker: &Walker, path: &str| walker.walk(path).await.unwrap().id();
    assert_eq!(id(&one, &path).await, id(&two, &path).await);
    assert_ne!(id(&one, &path).await.version, 0);
    let run = format!("snapshots/{head}/ro/run");
    assert_ne!(id(&one, &path).await.path, id(&one, &run).await.path);
    // Content that is read anew each time must not be kept.
    for path in [
        "branch/main/head",
        "branch/main/head.live",
        "branch/main/reset",
    ] {
        assert_eq!(id(&one, path).await.version, 0, "{path}");
    }
    let tx = "branch/main/transactions/edit";
    fails(two.walk(tx).await, Kind::NotFound);
    two.mkdir(tx).await.unwrap();
    assert_ne!(id(&one, tx).await.path, id(&two, tx).await.path);
}

#[tokio::test]
async fn attach_finds_directories() {
    let walker = full().await;
    let attach = async |path: &[u8]| walker.session.attach(&walker.call, path).await;
    for path in [&b""[..], b"/", b"/branch/main/ro", b"branch/../branch/."] {
        assert_eq!(attach(path).await.unwrap().id().shape, Shape::Dir);
    }
    fails(attach(b"/none").await, Kind::NotFound);
    fails(attach(b"/branch/main/head").await, Kind::NotDirectory);
}

#[tokio::test]
async fn directories_of_the_tree_refuse_changes() {
    let walker = full().await;
    let head = walker.head("main").await;
    let root = walker.walk("").await.unwrap();
    refused(
        root.rename(&walker.call, &root, b"x").await,
        "Can't rename /",
    );
    let snapshot = format!("snapshots/{head}");
    for path in [
        "",
        "branch/main",
        "branch/main/watch",
        "branch/main/watch/dir.node",
        "branch/main/diff",
        "branch/main/ro",
        "branch/main/ro/dir",
        "branch/main/transactions/edit",
        "trees",
        "commits",
        "snapshots",
        &snapshot,
        "debug",
        "debug/src",
        "debug/src/store",
        "resolve",
        "maintenance",
    ] {
        let text = "Directory is read-only";
        refused(walker.mkdir(&format!("{path}/x")).await, text);
        refused(walker.create(&format!("{path}/x"), FILE).await, text);
        if !path.is_empty() && path != "branch/main" {
            refused(walker.rename(path, "x").await, text);
        }
        if !matches!(path, "branch/main" | "branch/main/diff") {
            refused(walker.rm(path).await, text);
        }
    }
    // What is there is there, whoever may write.
    for path in ["branch", "branch/main/ro/dir", "snapshots", "debug/src"] {
        let taken = walker.mkdir(path).await;
        fails(taken, Kind::Exists);
        refused(walker.mkdir(path).await, "Directory is read-only");
        fails(walker.create(path, FILE).await, Kind::Exists);
        fails(walker.mkdir(&format!("{path}x")).await, Kind::ReadOnly);
    }
    refused(walker.rm("branch/main/diff").await, "Read-only file");
    refused(walker.rm("branch").await, "Directory is read-only");
    refused(
        walker.rm("branch/main/transactions").await,
        "Directory is read-only",
    );
    for path in ["branch/x", "branch/main/transactions/x", "remotes/x"] {
        refused(
            walker.create(path, FILE).await,
            "Can only contain directories",
        );
    }
    refused(
        walker.create("branch/main/head/x", FILE).await,
        "\"head\" is not a directory",
    );
    refused(
        walker.walk("branch/main/head/x").await,
        "Can't walk from a file",
    );
    refused(walker.walk("nothing").await, "No such file or directory");
    let tree = walker.walk("branch/main/ro").await.unwrap();
    let dir = Set {
        size: None,
        kind: Some(Create::Dir),
    };
    refused(tree.set(&walker.call, dir).await, "Operation not permitted");
    let file = Set {
        size: None,
        kind: Some(FILE),
    };
    refused(
        tree.set(&walker.call, file).await,
        "Incorrect is_directory flag for chmod",
    );
    let size = |size| Set {
        size: Some(size),
        kind: None,
    };
    tree.set(&walker.call, size(0)).await.unwrap();
    refused(
        tree.set(&walker.call, size(1)).await,
        "Can't set length of a directory",
    );
}

/// The tags of the paragraphs of a manual page, by section, words of each.
fn tags(page: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let (mut section, mut tag) = (String::new(), false);
    for line in page.lines() {
        if let Some(title) = line.strip_prefix(".SH ") {
            section = title.to_owned();
        }
        if std::mem::take(&mut tag) {
            let words = line.split(' ').skip(1);
            let plain = |word: &str| word.trim_matches(['"', ',']).replace('\\', "");
            found.push((section.clone(), words.map(plain).collect()));
        }
        tag = line == ".TP";
    }
    found
}

#[test]
fn the_manual_page_has_every_entry_and_nothing_else() {
    let page = include_str!("../../../man/dk-tree.5");
    let tree = include_str!("../../data/tree.txt");
    let tags = tags(page);
    let documented = |section: &str| -> Vec<&str> {
        let within = tags.iter().filter(|(title, _)| title == section);
        within
            .flat_map(|(_, words)| words)
            .map(String::as_str)
            .collect()
    };
    // Where a directory's entries are described; below some of them the names
    // are the user's.
    for (folder, section) in [
        ("/", "THE ROOT"),
        ("/branch/main/", "BRANCHES"),
        ("/branch/main/transactions/merge/", "TRANSACTIONS"),
        ("/branch/main/transactions/edit/", "TRANSACTIONS"),
        ("/tx/lasting/", "TRANSACTIONS"),
        ("/snapshots/COMMIT/", "SNAPSHOTS"),
        ("/remotes/origin/", "REMOTES"),
        ("/maintenance/", "MAINTENANCE"),
        ("/debug/", "DEBUGGING"),
    ] {
        let documented = documented(section);
        let mut names = tree
            .lines()
            .filter_map(|line| line.get(3..)?.strip_prefix(folder))
            .filter(|name| !name.contains('/'))
            .peekable();
        assert!(names.peek().is_some(), "{folder}");
        for name in names {
            let told = match (folder, name) {
                ("/debug/", "src") => documented.contains(&"src/"),
                _ => documented.contains(&name),
            };
            assert!(told, "{folder}{name} is not in section {section}");
        }
    }
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .collect();
    for section in [
        "THE ROOT",
        "BRANCHES",
        "TRANSACTIONS",
        "SNAPSHOTS",
        "REMOTES",
        "MAINTENANCE",
        "DEBUGGING",
    ] {
        for word in documented(section) {
            let known = names.contains(&word) || matches!(word, "src/" | "TARGET" | "");
            assert!(known, "{word:?} of section {section} is no entry");
        }
    }
}

#[test]
fn the_manual_page_has_every_text() {
    let page = include_str!("../../../man/dk-tree.5");
    let source = include_str!("../../../src/namespace/failure.rs");
    let plain: String = page.replace("\\(dq", "\"").replace(['\\', '"'], "");
    // Each text that is told as it is stands in quotes behind `text(Kind`, or
    // is one of the constants.
    let mut texts = Vec::new();
    for line in source.lines().map(str::trim) {
        let fixed = line.contains("Error::text(Kind::") || line.starts_with("const ");
        if fixed && let Some(text) = line.split('"').nth(1) {
            texts.push(text);
        }
    }
    assert!(texts.len() > 15, "{texts:?}");
    for text in texts {
        // Programs know this one from the kernel.
        let known = text == "Invalid cross-device link";
        assert!(known || plain.contains(text), "{text:?} is not in the page");
    }
}
