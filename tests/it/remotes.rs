//! Remotes, configuration, pushing and collecting, compared with stock git's.

use std::fs;
use std::time::{Duration, SystemTime};

use datakit::model::Kind;
use datakit::store::engine::{Engine as _, HeadName, Repository as _};

use crate::fetching::{Told, commit, fetch, id, open, short, text};
use crate::stock::Repo;

#[test]
fn remotes_are_those_of_git_line_for_line() {
    let (theirs, ours, like) = (Repo::new(), Repo::new(), Repo::new());
    let one = commit(&theirs, "main", "a");
    let git = open(&ours);
    let path = theirs.path().to_str().unwrap();
    let odd = "ssh://u@h/a \"b\" #c;d\\e";
    git.add_remote("origin", path).unwrap();
    git.add_remote("o.d/d", odd).unwrap();
    like.git(&["remote", "add", "origin", path]);
    like.git(&["remote", "add", "o.d/d", odd]);
    let config = |repo: &Repo| fs::read_to_string(repo.path().join("config")).unwrap();
    assert_eq!(config(&ours), config(&like));
    let listed: Vec<_> = git
        .remotes()
        .unwrap()
        .into_iter()
        .map(|it| (it.name, it.url))
        .collect();
    assert_eq!(
        listed,
        [
            ("o.d/d".to_owned(), odd.to_owned()),
            ("origin".to_owned(), path.to_owned())
        ]
    );

    assert_eq!(
        git.add_remote("origin", path).unwrap_err().to_string(),
        "remote origin exists already"
    );
    for bad in ["", "-x", "a b", "a..b", "a/", ".a", "x\n"] {
        assert_eq!(
            git.add_remote(bad, path).unwrap_err().kind(),
            Kind::Invalid,
            "{bad:?}"
        );
    }
    let got = fetch(&git, "origin", &[]);
    assert_eq!(
        short(&got),
        [format!("+refs/heads/main {one} refs/remotes/origin/main")]
    );

    // Removing takes along what belongs to it, and nothing else.
    for repo in [&ours, &like] {
        repo.git(&["fetch", "-q", "origin"]);
        repo.git(&["update-ref", "refs/heads/main", "refs/remotes/origin/main"]);
        repo.git(&["branch", "-q", "--set-upstream-to=origin/main", "main"]);
        repo.git(&[
            "symbolic-ref",
            "refs/remotes/origin/HEAD",
            "refs/remotes/origin/main",
        ]);
        repo.git(&["update-ref", "refs/remotes/origin2/x", "refs/heads/main"]);
        repo.git(&["config", "branch.main.description", "kept"]);
        repo.git(&["pack-refs", "--all"]);
    }
    git.remove_remote("origin").unwrap();
    like.git(&["remote", "remove", "origin"]);
    assert_eq!(config(&ours), config(&like));
    let refs = |repo: &Repo| text(repo.git(&["for-each-ref"]));
    assert_eq!(refs(&ours), refs(&like));
    assert!(refs(&ours).contains("origin2/x"));
    assert_eq!(
        git.remove_remote("origin").unwrap_err().to_string(),
        "remote origin does not exist"
    );
    assert!(!ours.path().join("config.lock").exists());
}

#[test]
fn configuration_is_read_as_it_is_now_and_keeps_its_shape() {
    use std::os::unix::fs::PermissionsExt as _;
    let repo = Repo::new();
    let git = open(&repo);
    let path = repo.path().join("config");
    let shape =
        "# mine\n[core]\n\trepositoryformatversion = 0 ; so\n\tbare = true\n[dk \"x\"]\n  a=1\n";
    fs::write(&path, shape).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(git.config("dk.denyCurrentBranch").unwrap(), None);
    git.set_config("dk.denyCurrentBranch", "ignore").unwrap();
    git.set_config("dk.x.a", "2 \" # 3").unwrap();
    assert_eq!(
        git.config("dk.denycurrentbranch").unwrap().as_deref(),
        Some("ignore")
    );
    assert_eq!(
        text(repo.git(&["config", "dk.denyCurrentBranch"])),
        "ignore"
    );
    assert_eq!(text(repo.git(&["config", "dk.x.a"])), "2 \" # 3");
    let now = fs::read_to_string(&path).unwrap();
    assert!(
        now.starts_with(
            "# mine\n[core]\n\trepositoryformatversion = 0 ; so\n\tbare = true\n[dk \"x\"]\n"
        ),
        "{now}"
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    repo.git(&["config", "user.name", " Ada "]);
    repo.git(&["config", "user.email", "ada@example.org"]);
    assert_eq!(
        git.identity().unwrap(),
        (Some("Ada".into()), Some("ada@example.org".into()))
    );
    for bad in ["nonsense", "", "a.", ".a", "a.b c", "a b.c"] {
        let error = git.set_config(bad, "1").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
    }
    assert_eq!(git.config("nonsense").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fs::read_to_string(&path).unwrap().matches(" b").count(), 0);
}

#[test]
fn names_are_peeled_to_commits() {
    let repo = Repo::new();
    let one = commit(&repo, "main", "a");
    let hex = one.to_hex();
    for (name, of) in [("t1", hex.as_str()), ("t2", "t1"), ("tree", "main^{tree}")] {
        repo.git(&[
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@b",
            "tag",
            "-a",
            "-m",
            "t",
            name,
            of,
        ]);
    }
    repo.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    let git = open(&repo);
    for name in ["HEAD", "refs/heads/main", "refs/tags/t1", "refs/tags/t2"] {
        assert_eq!(git.peel(name).unwrap(), Some(one), "{name}");
    }
    for name in ["refs/tags/tree", "refs/heads/absent"] {
        assert_eq!(git.peel(name).unwrap(), None, "{name}");
    }
}

#[test]
fn pushing_is_done_by_git_and_its_words_are_passed_on() {
    let (theirs, ours) = (Repo::new(), Repo::new());
    let one = commit(&ours, "main", "a");
    let git = open(&ours);
    let path = theirs.path().to_str().unwrap();
    let told = Told::default();
    git.push(path, &["main".into(), "main:refs/heads/copy".into()], &told)
        .unwrap();
    assert_eq!((id(&theirs, "main"), id(&theirs, "copy")), (one, one));
    let lines = told.lines();
    assert!(
        lines.contains(&"[Writing objects Some(3)]".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("[new branch]") && line.contains("copy")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line.contains('%')), "{lines:?}");

    commit(&theirs, "main", "b");
    commit(&ours, "main", "c");
    let error = git.push(path, &["main".into()], &()).unwrap_err();
    assert_eq!(error.kind(), Kind::HeadMoved);
    let why = error.to_string();
    assert!(
        why.contains("rejected") && why.contains("main -> main"),
        "{why}"
    );
    // A configured remote's relative path begins at the repository.
    let relative = format!(
        "../{}",
        theirs.path().file_name().unwrap().to_str().unwrap()
    );
    git.add_remote("near", &relative).unwrap();
    git.push("near", &["main:refs/heads/other".into()], &())
        .unwrap();
    assert_eq!(id(&theirs, "other"), id(&ours, "main"));
    assert_eq!(fetch(&git, "near", &["other"])[0].id, id(&ours, "main"));
    let error = git
        .push("--upload-pack=touch /tmp/x", &["main".into()], &())
        .unwrap_err();
    assert_eq!(error.to_string(), "git push failed with status 128");
}

#[test]
fn collecting_counts_packs_and_clears_away_what_the_dead_left() {
    let repo = Repo::new();
    for n in 0..5 {
        let id = repo.feed(&["hash-object", "-w", "--stdin"], format!("{n}").as_bytes());
        assert_eq!(id.len(), 41);
    }
    let head = commit(&repo, "main", "a");
    let git = open(&repo);
    let locks = repo.path().join("dk/locks");
    fs::create_dir_all(&locks).unwrap();
    fs::write(locks.join("dead"), "").unwrap();
    fs::write(locks.join("dead.0"), "").unwrap();
    fs::hard_link(
        locks.join("dead.0"),
        repo.path().join("refs/heads/main.lock"),
    )
    .unwrap();
    let forgotten = repo.path().join("objects/tmp_obj_dk123456");
    fs::write(&forgotten, "x").unwrap();
    let fresh = repo.path().join("objects/tmp_obj_dk654321");
    fs::write(&fresh, "x").unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    fs::File::open(&forgotten)
        .unwrap()
        .set_modified(old)
        .unwrap();

    let counted = git.gc(true, &()).unwrap();
    assert_eq!(
        (counted.loose_objects, counted.packs, counted.leftovers),
        (8, 0, 2)
    );
    assert!(counted.loose_bytes > 0 && forgotten.exists());
    assert_eq!(git.gc(false, &()).unwrap(), counted);
    assert!(!forgotten.exists() && fresh.exists());
    assert!(!repo.path().join("refs/heads/main.lock").exists());
    let after = git.gc(true, &()).unwrap();
    assert_eq!((after.leftovers, after.packs > 0), (0, true));
    let name = HeadName::from_full(b"refs/heads/main").unwrap();
    assert_eq!(git.head(&name).unwrap(), Some(head));
    assert!(git.header(&head).unwrap().is_some());
    repo.git(&["fsck", "--strict"]);
}

#[test]
fn hidden_refs_are_added_to_those_that_are_hidden_already() {
    let repo = Repo::new();
    let git = open(&repo);
    git.set_config("transfer.hideRefs", "refs/mine").unwrap();
    git.hide_refs("refs/dk").unwrap();
    let text = || fs::read_to_string(repo.path().join("config")).unwrap();
    let once = text();
    assert!(
        once.contains("refs/mine") && once.contains("refs/dk"),
        "{once}"
    );
    git.hide_refs("refs/dk").unwrap();
    assert_eq!(text(), once);
}
