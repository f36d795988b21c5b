//! How fast dk is, beside its peers.
//!
//! `scripts/bench [--quick] [--json] [NAME...]` runs the rows whose names begin
//! with one of NAMEs, or all. dk and its peer take turns on the same input in
//! the same run, so what else the machine does hits both. Times are medians
//! unless a row says otherwise. The exit status is 1 if a row misses its need.
//! `--github` measures nothing, but serves the GitHub of the tests ([`by_hand`]).

// Somebody reads this on a terminal, and a panic is the message.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod bridge;
mod bulk;
mod by_hand;
mod ci_pages;
mod ci_rounds;
mod commit;
#[allow(dead_code, unused_imports)]
#[path = "../it/github/mod.rs"]
mod github;
mod history;
mod inputs;
mod ninep;
mod ninep_far;
mod ninep_peers;
mod peers;
mod place;
mod process;
mod processors;
mod reading;
mod report;
mod scale;
mod watch;

use std::process::ExitCode;

use place::Place;
use report::Report;

type Run = fn(&Place, &mut Report);

/// What can be run: each prints one row or several whose names begin with its own.
const ROWS: &[(&str, Run)] = &[
    ("commit", commit::durable),
    ("clients", commit::clients),
    ("unsynced", commit::unsynced),
    ("growth", commit::growth),
    ("put", process::put),
    ("tx", process::tx),
    ("cat", process::cat),
    ("ls", reading::ls),
    ("log", reading::log),
    ("diff", history::diff),
    ("merge", history::merge),
    ("import", bulk::import),
    ("export", bulk::export),
    ("watch", watch::latency),
    ("foreign", watch::foreign),
    ("replay", watch::replay),
    ("branches", scale::branches),
    ("directory", scale::directory),
    ("huge", scale::huge),
    ("bridge-sync", bridge::syncs),
    ("bridge-webhook", bridge::webhook),
    ("9p-questions", ninep::questions),
    ("9p-sequential", ninep::sequential),
    ("9p-write-8k", ninep::appends),
    ("9p-stream", ninep::streams),
    ("9p-commit", ninep_far::commits),
    ("9p-far", ninep_far::far),
    ("9p-memory", ninep_far::memory),
    ("ci-page", ci_pages::pages),
    ("ci-log", ci_pages::log),
    ("ci-live", ci_pages::live),
    ("ci-round", ci_rounds::round),
    ("ci-push", ci_rounds::push),
];

fn main() -> ExitCode {
    let (mut quick, mut json) = (false, false);
    let mut names = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => json = true,
            // cargo bench adds it.
            "--bench" => (),
            "--github" => {
                by_hand::serve();
                return ExitCode::SUCCESS;
            }
            "--list" => {
                for (name, _) in ROWS {
                    println!("{name}");
                }
                return ExitCode::SUCCESS;
            }
            name if !name.starts_with('-') => names.push(argument),
            other => {
                eprintln!("{other}: the options are --quick, --json, --list and --github");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(name) = names
        .iter()
        .find(|name| !ROWS.iter().any(|(row, _)| row.starts_with(name.as_str())))
    {
        eprintln!("{name}: no row begins so; --list names them");
        return ExitCode::from(2);
    }
    let place = Place::new(quick);
    let mut report = Report::new(json);
    for (name, run) in ROWS {
        if names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted.as_str())) {
            run(&place, &mut report);
        }
    }
    report.finish()
}
