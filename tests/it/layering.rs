//! Which room may import which, and other rules one can read off the text.
//!
//! A new arrow is a design decision: agree on it first, then add it here. The
//! longest entry that names a file governs it, so one file may be allowed more
//! than its room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("logging", &[]),
    ("metrics", &[]),
    ("tls", &[]),
    ("store", &["metrics", "model", "tls"]),
    ("namespace", &["logging", "metrics", "model", "store"]),
    ("ninep", &["model"]),
    ("ninep/server", &["metrics", "model", "namespace", "ninep"]),
    ("client", &["model"]),
    ("client/local", &["client", "model", "store"]),
    ("client/remote", &["client", "model", "ninep"]),
    ("forge", &["client", "model"]),
    ("bridge", &["client", "forge", "metrics", "model", "tls"]),
    ("ci", &["client", "forge", "metrics", "model", "tls"]),
    ("ui", &["model"]),
    ("commands", &["client", "model", "ui"]),
    ("commands/daemon", &["logging", "ui"]),
    (
        "commands/watch",
        &["client", "commands", "model", "tls", "ui"],
    ),
    (
        "commands/bridge",
        &[
            "bridge", "client", "commands", "forge", "logging", "metrics", "model", "tls", "ui",
        ],
    ),
    (
        "commands/ci",
        &[
            "ci", "client", "commands", "forge", "logging", "metrics", "model", "ui",
        ],
    ),
    (
        "commands/serve",
        &[
            "client",
            "commands",
            "logging",
            "metrics",
            "model",
            "namespace",
            "ninep",
            "store",
            "ui",
        ],
    ),
    ("lib", &[]),
    ("main", &["commands", "ui"]),
];

/// Words that only some places may hold, and why.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("gix", &["store"]),
    ("rs9p", &["ninep"]),
    ("anyhow", &["main", "commands", "ui"]),
    ("dialoguer", &["ui"]),
    ("indicatif", &["ui"]),
    ("io::stdout", &["ui"]),
    ("io::stderr", &["ui"]),
    ("stdio::stdout", &["ui"]),
    (
        "client::local",
        &[
            "commands/bridge",
            "commands/ci",
            "commands/open",
            "commands/init",
            "client",
        ],
    ),
];

/// No file is longer, unit tests included.
const LINES: usize = 600;

#[test]
fn rooms_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let (place, allowed) = entry(&file);
        let own = place.split('/').next().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for import in imports(&text, "crate::").union(&imports(&text, "datakit::")) {
            if import != own && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the grain:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn some_words_have_a_home() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let place = place(&file);
        for (line, text) in code(&fs::read_to_string(&file).unwrap()) {
            for (word, homes) in ONLY_IN {
                if says(text, word) && !homes.iter().any(|home| place.starts_with(home)) {
                    wrong.push(format!("{}:{line} names {word}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not at home:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > LINES {
            wrong.push(format!("{} has {lines} lines", file.display()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{} does not begin with //!", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_file_is_listed() {
    let listed = fs::read_to_string("tests/it/main.rs").unwrap();
    for entry in fs::read_dir("tests/it").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module = path.is_dir() || path.extension().is_some_and(|end| end == "rs");
        assert!(
            !module || name == "main" || listed.contains(&format!("mod {name};")),
            "tests/it/main.rs does not list {name}"
        );
    }
}

/// The longest entry of the table that names `file` or a folder above it.
fn entry(file: &Path) -> (&'static str, &'static [&'static str]) {
    let place = place(file);
    MAY_IMPORT
        .iter()
        .filter(|(name, _)| place.starts_with(name))
        .max_by_key(|(name, _)| name.len())
        .map(|(name, allowed)| (*name, *allowed))
        .unwrap_or_else(|| panic!("{} is in no room of the table", file.display()))
}

fn place(file: &Path) -> PathBuf {
    file.strip_prefix("src").unwrap().with_extension("")
}

/// The lines of `text` that are no comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Tells whether `text` names `word`, or something that begins with it and `_`.
fn says(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '"';
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !text[..at].ends_with(inside) && after.is_some_and(|c| matches!(c, ':' | '(' | ';' | '_'))
    })
}

/// The first segment of every path in `text` that begins with `root`, groups included.
fn imports(text: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in text.match_indices(root) {
        let rest = &text[start + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let (mut depth, mut at_item) = (1, true);
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_item = true,
                _ if at_item && character.is_alphabetic() => {
                    found.insert(word(&group[index..]));
                    at_item = false;
                }
                _ => (),
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Every source file below `folder`.
fn sources(folder: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                collect(&path, files)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    collect(Path::new(folder), &mut files).unwrap();
    files.sort();
    files
}

#[test]
fn groups_are_seen() {
    let text = "use crate::{a::{x, y}, b, c::Z};\nuse crate::d::E;";
    assert_eq!(
        imports(text, "crate::"),
        ["a", "b", "c", "d"].map(String::from).into()
    );
}

#[test]
fn words_are_seen() {
    assert!(says("use gix::Repository;", "gix") && says("gix_hash::ObjectId", "gix"));
    assert!(says("io::stdout().lock()", "io::stdout"));
    assert!(!says("let digix = 1;", "gix") && !says("a(\"gix\")", "gix"));
}
