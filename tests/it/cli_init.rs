//! `dk init`, and how a store is found.

use insta::assert_snapshot;

use crate::sandbox::Sandbox;

#[test]
fn a_store_is_made_once() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.dk(["init", "a/db.git"]), @"$DIR/a/db.git");
    assert_snapshot!(sandbox.dk(["init", "--json", "a/db.git"]), @r#"{"path":"$DIR/a/db.git"}"#);
    assert_eq!(
        sandbox.git(["-C", "a/db.git", "rev-parse", "--is-bare-repository"]),
        "true"
    );
    assert_snapshot!(sandbox.dk(["init", "--object-format", "sha256", "new"]), @"$DIR/new");
    assert_eq!(
        sandbox.git(["-C", "new", "rev-parse", "--show-object-format"]),
        "sha256"
    );
}

#[test]
fn the_store_of_the_command_line_is_made() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.dk(["-C", "db.git", "init"]), @"$DIR/db.git");
    sandbox.write("file", "");
    assert!(sandbox.dk(["init", "file"]).ends_with("exit status 1\n"));
}

#[test]
fn the_nearest_repository_is_the_store() {
    let mut sandbox = Sandbox::new();
    sandbox.git(["init", "--quiet", "--bare", "-b", "master", "db.git"]);
    sandbox.commit("master", "first", &[("a", "1")]);
    assert_snapshot!(sandbox.dk(["ls", "master"]), @"
    ! dk: no store: $DIR is in no Git repository, and neither -C nor DK_STORE names one
    ! hint: name a store with -C, or make one with 'dk init'
    exit status 1
    ");
    assert_snapshot!(sandbox.sh("cd db.git/refs && dk ls master"), @"a");
    assert_snapshot!(sandbox.sh("git clone -q db.git work && mkdir work/d && cd work/d && dk ls master"), @"a");
    assert_snapshot!(sandbox.dk(["-C", "db.git", "ls", "master"]), @"a");
    assert_snapshot!(sandbox.dk(["ls", "master", "--store=file://db.git"]), @"a");
    sandbox.set("GIT_DIR", "db.git");
    assert_snapshot!(sandbox.dk(["ls", "master"]), @"a");
    sandbox.set("DK_STORE", "nowhere");
    assert_snapshot!(sandbox.dk(["ls", "master"]), @"
    ! dk: no store: there is no Git repository at nowhere
    ! hint: to make one: dk init nowhere
    exit status 1
    ");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.dk(["-C", "unix://none", "ls", "master"]), @"
    ! dk: cannot connect to unix://none
    ! caused by: No such file or directory (os error 2)
    ! hint: is 'dk serve' running there?
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["-C", "gopher://db", "ls", "master"]), @"
    ! dk: cannot open gopher://db: no store is named that way
    ! hint: name a Git repository by its path, or a server as tcp://HOST:PORT or unix:///PATH
    exit status 2
    ");
}
