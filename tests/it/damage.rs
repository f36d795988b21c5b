//! Objects that are damaged, and such as no honest program writes.
//!
//! The error names the object, nothing is changed, and whatever is in a tree,
//! nothing is written outside of the folder that was asked for.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::aftermath::{files, head, is_whole, leftovers};
use crate::sandbox::{Sandbox, feed};

const NOTHING: [PathBuf; 0] = [];

/// What becomes of an object's file.
type Damage = (&'static str, fn(&Path));
const DAMAGES: [Damage; 4] = [
    ("cut in half", |file| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("with another byte", |file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(file, bytes).unwrap();
    }),
    ("empty", |file| fs::write(file, "").unwrap()),
    ("missing", |file| fs::remove_file(file).unwrap()),
];

#[test]
fn a_damaged_object_is_named() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "one", &[("d/a", "one\n"), ("other", "other\n")]);
    let numbers: String = (0..2000).map(|number| format!("{number}\n")).collect();
    sandbox.commit("master", "two", &[("d/a", &numbers)]);
    sandbox.commit("side", "side", &[("d/b", "side\n"), ("top", "top\n")]);
    sandbox.write("f", "f\n");
    let whole = sandbox.join("whole");
    // Loose objects, and a copy of all.
    sandbox.sh("mv db.git/objects/pack/*.pack . ; rm -f db.git/objects/pack/*");
    sandbox.sh("for pack in *.pack; do git -C db.git unpack-objects -q < $pack; rm $pack; done");
    sandbox.sh("cp -a db.git whole");
    is_whole(&sandbox);
    let commands = [
        ("log master", "commit parent"),
        ("log master -- d/a", "commit parent tree dir"),
        ("ls master", "commit tree"),
        ("ls -r master", "commit tree dir"),
        ("cat master:d/a", "commit tree dir blob"),
        ("tree master", "commit tree dir"),
        ("show master", "commit tree dir"),
        ("export master out", "commit tree dir blob"),
        ("export master -", "commit tree dir blob"),
        ("put master:d/c f", "commit tree dir"),
        ("rm master:d/a", "commit tree dir"),
        ("merge master side", "commit parent tree dir"),
        ("merge side master", "commit parent tree dir"),
        ("tx begin master", "commit"),
        ("branch create new --from master", "commit"),
        ("log master~1", "commit parent"),
    ];
    let objects = [
        ("commit", "master"),
        ("parent", "master~1"),
        ("tree", "master^{tree}"),
        ("dir", "master:d"),
        ("blob", "master:d/a"),
    ];
    for (object, revision) in objects {
        let id = head(&sandbox, revision).unwrap();
        let place = format!("objects/{}/{}", &id[..2], &id[2..]);
        for (how, damage) in DAMAGES {
            for (line, reads) in commands {
                let reads = reads.split(' ').any(|it| it == object);
                // What a file never looks at, it need not notice.
                if !reads {
                    continue;
                }
                let file = sandbox.join("db.git").join(&place);
                fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
                damage(&file);
                let shown = sandbox.dk(line.split(' '));
                let clear = shown.contains(&id) && shown.ends_with("exit status 1\n");
                assert!(clear, "{object} {id} {how}: dk {line}: {shown}");
                let _ = fs::remove_dir_all(sandbox.join("out"));
                let _ = fs::remove_file(&file);
                fs::copy(whole.join(&place), &file).unwrap();
            }
        }
    }
    is_whole(&sandbox);
    assert_eq!(leftovers(&sandbox), NOTHING);
}

#[test]
fn a_tar_stream_that_ends_early_does_not_look_complete() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "one", &[("a", "1\n"), ("b", "2\n")]);
    sandbox.sh("mv db.git/objects/pack/*.pack . ; rm -f db.git/objects/pack/*");
    sandbox.sh("git -C db.git unpack-objects -q < *.pack");
    let id = head(&sandbox, "master:b").unwrap();
    let file = format!("db.git/objects/{}/{}", &id[..2], &id[2..]);
    fs::remove_file(sandbox.join(file)).unwrap();
    let shown = sandbox.sh("dk export master - | dk import copy -");
    assert!(shown.contains("the archive is truncated"), "{shown}");
    assert_eq!(head(&sandbox, "copy"), None);
}

/// Mode, name and id.
type Entry<'a> = (&'a str, &'a [u8], &'a str);

/// Writes a tree object with entries no command would write.
fn tree(sandbox: &Sandbox, entries: &[Entry]) -> String {
    let mut raw = Vec::new();
    for (mode, name, id) in entries {
        raw.extend_from_slice(mode.as_bytes());
        raw.push(b' ');
        raw.extend_from_slice(name);
        raw.push(0);
        let digit = |at| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
        raw.extend((0..40).step_by(2).map(digit));
    }
    let hash = "hash-object -t tree -w --literally --stdin";
    let mut hash = sandbox.program("git", ["-C", "db.git"].into_iter().chain(hash.split(' ')));
    let output = feed(&mut hash, &raw);
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

#[test]
fn hostile_names_harm_nobody() {
    let sandbox = Sandbox::with_store();
    let start = sandbox.commit(
        "master",
        "start",
        &[("ok", "evil\n"), ("link", "../outside")],
    );
    let blob = head(&sandbox, "master:ok").unwrap();
    let link = head(&sandbox, "master:link").unwrap();
    let inner = tree(&sandbox, &[("100644", b"pwned", &blob)]);
    let control = b"a\x1b[31mred\nline";
    let cases: [(&str, Vec<Entry>); 9] = [
        ("dot-dot-slash", vec![("100644", b"../pwned", &blob)]),
        ("dot-dot", vec![("40000", b"..", &inner)]),
        ("dot", vec![("40000", b".", &inner)]),
        ("dot-git", vec![("40000", b".git", &inner)]),
        ("disguised", vec![("40000", b".GiT", &inner)]),
        ("absolute", vec![("100644", b"/pwned", &blob)]),
        ("empty", vec![("100644", b"", &blob)]),
        (
            "through-a-link",
            vec![("120000", b"l", &link), ("40000", b"l", &inner)],
        ),
        ("control", vec![("100644", control, &blob)]),
    ];
    fs::create_dir(sandbox.join("outside")).unwrap();
    for (name, entries) in &cases {
        let tree = tree(&sandbox, entries);
        let commit = [
            "-C",
            "db.git",
            "commit-tree",
            &tree,
            "-p",
            &start,
            "-m",
            name,
        ];
        let commit = sandbox.git(commit);
        sandbox.git([
            "-C",
            "db.git",
            "update-ref",
            &format!("refs/heads/{name}"),
            &commit,
        ]);
        for line in [
            format!("ls -r {name}"),
            format!("tree {name}"),
            format!("log -p {name}"),
            format!("diff master {name}"),
            format!("diff --patch master {name}"),
            format!("show {name}"),
            format!("watch --current {name}"),
            format!("watch --since {start} {name}"),
            "fsck".into(),
        ] {
            let output = sandbox.command(line.split(' ')).output().unwrap();
            let status = output.status.code();
            assert!(
                matches!(status, Some(0 | 1)),
                "{line}: {}",
                sandbox.shown(&output)
            );
            // watch prints paths for programs, a terminal or not.
            let raw = output.stdout.contains(&0x1b) && !line.starts_with("watch");
            assert!(!raw && !output.stderr.contains(&0x1b), "{line}");
        }
        let out = sandbox.join("in/side");
        let shown = sandbox.dk(["export", name, out.to_str().unwrap()]);
        if *name == "control" {
            assert_eq!(shown, "");
            let file = OsString::from_vec(control.to_vec());
            assert_eq!(fs::read(out.join(file)).unwrap(), b"evil\n");
        } else {
            assert!(shown.ends_with("exit status 1\n"), "{name}: {shown}");
        }
        let pwned = files(sandbox.path(), &|path| {
            path.ends_with("pwned") && !path.starts_with(&out)
        });
        assert_eq!(pwned, NOTHING, "{name}");
        let shown = sandbox.sh(&format!("dk export {name} - | tar t"));
        assert!(
            *name == "control" || shown.contains("exit status"),
            "{name}: {shown}"
        );
        fs::remove_dir_all(sandbox.join("in")).unwrap_or_default();
    }
}
