//! `dk gc` and `dk fsck`.

use insta::assert_snapshot;

use crate::sandbox::Sandbox;

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    for number in 0..5 {
        sandbox.ok_with(format!("{number}"), ["put", "master:d/a"]);
    }
    sandbox
}

fn loose(sandbox: &Sandbox) -> String {
    let counted = sandbox.git(["-C", "db.git", "count-objects"]);
    counted.split(' ').next().unwrap().into()
}

#[test]
fn gc_packs_what_is_loose() {
    let sandbox = store();
    let before = loose(&sandbox);
    let counted = sandbox.dk(["gc", "-q", "--dry-run"]);
    assert!(
        counted.starts_with(&format!("{before}\tloose objects\n")),
        "{counted}"
    );
    assert_eq!(loose(&sandbox), before, "only counted");
    let json = sandbox.dk(["gc", "-q", "--json", "--dry-run"]);
    assert!(
        json.starts_with(&format!("{{\"loose_objects\":{before},")),
        "{json}"
    );
    sandbox.dk(["gc", "-q"]);
    assert_eq!(loose(&sandbox), "0");
    assert_eq!(sandbox.ok(["cat", "master~4:d/a"]), "0");
    assert_eq!(sandbox.git(["-C", "db.git", "fsck", "--strict"]), "");
    assert_eq!(sandbox.dk(["fsck", "-q"]), "");
}

#[test]
fn gc_keeps_open_transactions() {
    let sandbox = store();
    let tx = sandbox.ok(["tx", "begin", "master"]);
    sandbox.ok_with("kept", ["tx", "write", &tx, "new"]);
    sandbox.git(["-C", "db.git", "gc", "-q", "--prune=now"]);
    sandbox.dk(["gc", "-q"]);
    assert_eq!(sandbox.ok(["tx", "cat", &tx, "new"]), "kept");
    sandbox.ok(["tx", "commit", &tx]);
    assert_eq!(sandbox.ok(["cat", "master:new"]), "kept");
}

#[test]
fn fsck_finds_damage() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["fsck"]), @"! checked 20 objects");
    let blob = sandbox.git(["-C", "db.git", "rev-parse", "master~1:d/a"]);
    let file = format!("db.git/objects/{}/{}", &blob[..2], &blob[2..]);
    std::fs::remove_file(sandbox.join(&file)).unwrap();
    assert_snapshot!(sandbox.dk(["fsck"]), @"
    e440e5c842586965a7fb77deda2eca68612b1f53	it is missing, and 8f4e78d039c21f50b9bf39c3c99781a738879f96 names it
    ! checked 20 objects
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["fsck", "-q", "--json"]), @r#"
    {"what":"e440e5c842586965a7fb77deda2eca68612b1f53","message":"it is missing, and 8f4e78d039c21f50b9bf39c3c99781a738879f96 names it"}
    exit status 1
    "#);
    sandbox.write(&file, "rubbish");
    let said = sandbox.dk(["fsck", "-q"]);
    assert!(
        said.starts_with(&blob) && said.ends_with("exit status 1\n"),
        "{said}"
    );
    assert_snapshot!(sandbox.dk(["cat", "master:d/a"]), @"4%");
}
