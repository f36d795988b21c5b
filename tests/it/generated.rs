//! `completions/` and `man/` hold what the code generates: `scripts/generate`
//! writes them anew.

use std::collections::BTreeSet;
use std::fs;

use crate::sandbox::Sandbox;

const STALE: &str = "run scripts/generate";

#[test]
fn completions_are_up_to_date() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let path = format!("completions/dk.{shell}");
        let output = sandbox.command(["completions", shell]).output().unwrap();
        let kept = fs::read(&path).unwrap_or_default();
        assert!(kept == output.stdout, "{path} is stale: {STALE}");
    }
}

#[test]
fn man_pages_are_up_to_date() {
    let sandbox = Sandbox::new();
    let names = sandbox.ok(["man", "--list"]);
    let mut wanted = BTreeSet::new();
    for name in names.lines() {
        let path = format!("man/{name}.1");
        let output = sandbox.command(["man", name]).output().unwrap();
        let kept = fs::read(&path).unwrap_or_default();
        assert!(kept == output.stdout, "{path} is stale: {STALE}");
        wanted.insert(format!("{name}.1"));
    }
    for entry in fs::read_dir("man").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Pages of other sections are written by hand.
        assert!(
            wanted.contains(&name) || !name.ends_with(".1"),
            "man/{name} is the page of no command: {STALE}"
        );
    }
}

#[test]
fn dk_1_says_what_scripts_rely_on() {
    let page = Sandbox::new().ok(["man"]);
    for heading in [
        "STORES",
        "REVISIONS",
        "OUTPUT",
        "EXIT STATUS",
        "DURABILITY",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
    ] {
        let line = format!(".SH {heading}");
        let quoted = format!(".SH \"{heading}\"");
        assert!(
            page.lines().any(|found| found == line || found == quoted),
            "{heading}\n{page}"
        );
    }
}
