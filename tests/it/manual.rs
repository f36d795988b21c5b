//! What the documentation says is so: the README's commands are run, its
//! paths exist, every option says what it does, and every example is one.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use datakit::commands::Cli;

use crate::sandbox::Sandbox;

/// A fenced block of the README.
struct Block<'a> {
    kind: &'a str,
    text: String,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(kind), None) => {
                open = Some(Block {
                    kind,
                    text: String::new(),
                });
            }
            (None, Some(mut block)) => {
                writeln!(block.text, "{line}").unwrap();
                open = Some(block);
            }
            (None, None) => (),
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Tells whether what was printed is what was promised: ids, dates and times
/// may differ, blanks count as one, and `...` stands for anything.
fn alike(promised: &str, printed: &str) -> bool {
    let promised: Vec<&str> = promised.lines().collect();
    let printed: Vec<&str> = printed.lines().collect();
    promised.len() == printed.len()
        && promised.iter().zip(&printed).all(|(promised, printed)| {
            match promised.split_once("...") {
                Some((start, end)) => {
                    let printed = plain(printed);
                    printed.starts_with(&plain(start)) && printed.ends_with(&plain(end))
                }
                None => plain(promised) == plain(printed),
            }
        })
}

/// A line without what changes from run to run.
fn plain(line: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let word = |word: &str| {
        let hex = word.chars().filter(char::is_ascii_hexdigit).count();
        if word.len() >= 7 && hex == word.len() {
            "ID".into()
        } else if word.len() >= 8
            && word.contains([':', '-'])
            && !word.contains(|c| !digit(c) && c != ':' && c != '-')
        {
            "DATE".into()
        } else if word.len() == 5 && word.starts_with(['+', '-']) && word[1..].chars().all(digit) {
            "ZONE".into()
        } else {
            word.to_string()
        }
    };
    line.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_tour_of_the_readme_runs_as_it_stands() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let blocks = blocks(&readme);
    let sandbox = Sandbox::new();
    let steps: Vec<&Block> = blocks.iter().filter(|block| block.kind == "sh").collect();
    assert!(steps.len() >= 8, "the tour is in blocks of sh");
    // One shell runs them all, and marks where each ends.
    let mut script = String::from("set -euo pipefail\nexec 2>&1\n");
    for step in &steps {
        writeln!(script, "{}printf '\\036'", step.text).unwrap();
    }
    let mut shell = sandbox.program("bash", ["-c", &script]);
    // Each commit at its own time, as a reader will have it.
    shell.env_remove("GIT_AUTHOR_DATE");
    let output = shell.env_remove("GIT_COMMITTER_DATE").output().unwrap();
    assert!(output.status.success(), "{}", sandbox.shown(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.split('\u{1e}').collect();
    let mut number = 0;
    for (index, block) in blocks.iter().enumerate() {
        if block.kind != "sh" {
            continue;
        }
        if let Some(next) = blocks.get(index + 1)
            && next.kind == "output"
        {
            assert!(
                alike(&next.text, printed[number]),
                "after\n{}the README promises\n{}but it was\n{}",
                block.text,
                next.text,
                printed[number]
            );
        }
        number += 1;
    }
}

#[test]
fn the_readme_names_only_files_that_exist() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let known = ["src/", "tests/", "scripts/", "man/", "completions/", ".ci/"];
    let mut missing = Vec::new();
    for word in readme.split(|c: char| c.is_whitespace() || "`'\"()|,;<>".contains(c)) {
        let word = word.trim_end_matches(['.', ':']);
        let path = known.iter().any(|folder| word.starts_with(folder))
            || (word.ends_with(".md") && !word.contains("://"))
            || word == "LICENSE";
        if path && !Path::new(word).exists() {
            missing.push(word);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Calls `visit` for a command and all below it, with its full name.
fn each(command: &clap::Command, name: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
    visit(name, command);
    for below in command.get_subcommands() {
        each(below, &format!("{name} {}", below.get_name()), visit);
    }
}

#[test]
fn every_command_and_option_says_what_it_does() {
    let mut silent = Vec::new();
    // Commands are put together when they are asked for.
    let mut whole = Cli::command();
    whole.build();
    each(&whole, "dk", &mut |name, command| {
        if command.get_about().is_none() {
            silent.push(name.to_string());
        }
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            if argument.get_help().is_none() {
                silent.push(format!("{name} {}", argument.get_id()));
            }
        }
    });
    assert!(silent.is_empty(), "no help for {silent:#?}");
}

#[test]
fn every_example_is_a_command_line() {
    let mut wrong = Vec::new();
    let mut check = |place: &str, text: &str| {
        for words in commands(text) {
            if let Err(error) = Cli::try_parse_from(&words) {
                let expected = matches!(
                    error.kind(),
                    clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
                );
                if !expected {
                    wrong.push(format!("{place}: {}: {error}", words.join(" ")));
                }
            }
        }
    };
    check("README.md", &std::fs::read_to_string("README.md").unwrap());
    each(&Cli::command(), "dk", &mut |name, command| {
        for help in [command.get_after_help(), command.get_after_long_help()] {
            check(name, &help.map(ToString::to_string).unwrap_or_default());
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The command lines of dk in the indented or fenced lines of a text, as words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            fenced = !kind.is_empty() && kind != "output";
        } else if fenced || line.starts_with("  ") {
            simple_commands(line.trim(), &mut found);
        }
    }
    found.retain(|words| words[0] == "dk" && words.len() > 1);
    found
}

/// Takes a line of shell apart into simple commands, as words without their
/// quotes. What stands behind two blanks describes the line. A variable or what
/// a command prints becomes an id, which fits wherever one is used.
fn simple_commands(line: &str, found: &mut Vec<Vec<String>>) {
    const VALUE: &str = "0123456789012345678901234567890123456789";
    const BEFORE: &[&str] = &["while", "until", "if", "do", "then", "!"];
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let all = rest;
        rest = &rest[c.len_utf8()..];
        match c {
            _ if quote == Some(c) => quote = None,
            '$' if quote != Some('\'') => {
                let text = word.get_or_insert_default();
                text.push_str(VALUE);
                if let Some(inner) = rest.strip_prefix('(') {
                    let (inner, after) = inner.split_once(')').unwrap_or((inner, ""));
                    simple_commands(inner, found);
                    rest = after;
                } else {
                    rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                }
            }
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '\'' | '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' if all.starts_with("  ") => break,
            '#' if word.is_none() => break,
            ' ' => words.extend(word.take()),
            '|' | ';' | '&' | '>' | '<' => {
                words.extend(word.take());
                found.push(std::mem::take(&mut words));
            }
            '\\' => {
                let mut after = rest.chars();
                word.get_or_insert_default().extend(after.next());
                rest = after.as_str();
            }
            c => word.get_or_insert_default().push(c),
        }
        if word.is_none() && words.len() == 1 && BEFORE.contains(&words[0].as_str()) {
            words.clear();
        }
    }
    words.extend(word);
    found.push(words);
    found.retain(|words| !words.is_empty());
}

#[test]
fn lines_of_shell_are_taken_apart() {
    assert_eq!(
        commands(
            "```sh\ntx=$(dk tx begin 'a b')\nwhile dk ls x | dk cat - >y; do :; done # dk\n```\n  dk log m   what dk does\n  dk put --expect \"$head\" m:f\n"
        ),
        [
            vec!["dk", "tx", "begin", "a b"],
            vec!["dk", "ls", "x"],
            vec!["dk", "cat", "-"],
            vec!["dk", "log", "m"],
            vec!["dk", "put", "--expect", &"0123456789".repeat(4), "m:f"]
        ]
    );
}

#[test]
fn the_demonstration_runs() {
    let sandbox = Sandbox::new();
    let root = std::env::current_dir().unwrap();
    let output = sandbox
        .program(root.join("scripts/demo"), [] as [&str; 0])
        .env("DK", env!("CARGO_BIN_EXE_dk"))
        .envs(std::env::var("CARGO_HOME").map(|home| ("CARGO_HOME", home)))
        .output()
        .unwrap();
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("demo: everything as expected"), "{shown}");
    let left: Vec<_> = std::fs::read_dir(sandbox.path()).unwrap().collect();
    assert!(left.is_empty(), "it cleans up: {left:?}");
}

#[test]
fn scripts_are_shell_and_may_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in std::fs::read_dir("scripts").unwrap() {
        let path = script.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} is executable", path.display());
        let status = Command::new("bash").arg("-n").arg(&path).status().unwrap();
        assert!(status.success(), "{}", path.display());
    }
}

/// The text between two lines of a page.
fn between<'a>(page: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != from).skip(1);
    lines.take_while(|line| *line != to).collect()
}

#[test]
fn dk_ci_5_names_every_key_and_no_other() {
    let page = std::fs::read_to_string("man/dk-ci.5").unwrap();
    // Under the headings of keys, each item is one.
    let mut lines = between(&page, ".SH THE ENGINE'S FILE", ".SH WHAT A STEP SEES").into_iter();
    let mut documented = std::collections::BTreeSet::new();
    while let Some(line) = lines.next() {
        if line == ".TP" {
            let item = lines.next().unwrap();
            documented.insert(item.strip_prefix(".B ").unwrap_or(item).to_owned());
        }
    }
    let schema = datakit::ci::config::schema();
    let mut keys = std::collections::BTreeSet::new();
    let tables = schema["definitions"].as_object().unwrap().values();
    for table in tables {
        let properties = table["properties"].as_object();
        keys.extend(properties.into_iter().flatten().map(|(key, _)| key.clone()));
    }
    assert_eq!(documented, keys);
}

#[test]
fn the_schema_of_the_ci_is_up_to_date() {
    let printed = Sandbox::new().ok(["ci", "check", "--schema"]);
    let kept = std::fs::read_to_string("man/dk-ci.schema.json").unwrap();
    assert!(kept.trim_end() == printed, "run scripts/generate");
}

#[test]
fn the_examples_of_configurations_are_right() {
    use datakit::ci::config::{self, FileKind, Reserved};
    let page = std::fs::read_to_string("man/dk-ci.5").unwrap();
    let mut examples: Vec<String> = page
        .split(".EX\n")
        .skip(1)
        .map(|example| example.split(".EE").next().unwrap().to_owned())
        .collect();
    assert_eq!(examples.len(), 2);
    let readme = std::fs::read_to_string("README.md").unwrap();
    let toml = blocks(&readme)
        .into_iter()
        .filter(|block| block.kind == "toml");
    examples.extend(toml.map(|block| block.text));
    examples.push(std::fs::read_to_string(".dk-ci.toml").unwrap());
    for example in examples {
        let read = match config::kind(&example) {
            FileKind::Engine => config::engine(&example).map(|_| ()),
            FileKind::Tree => config::tree(&example, &Reserved::new()).map(|_| ()),
        };
        if let Err(invalid) = read {
            panic!("{invalid}\n{example}");
        }
    }
}
