//! The tests of dk, one binary.

// In a test a panic is the message, and a skipped part says so.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod aftermath;
mod cli_branch;
mod cli_completions;
mod cli_diff;
mod cli_gc;
mod cli_import;
mod cli_init;
mod cli_log;
mod cli_ls;
mod cli_merge;
mod cli_put;
mod cli_remote;
mod cli_run;
mod cli_shell;
mod cli_tx;
mod cli_tx_conflicts;
mod cli_watch;
mod client_contract;
mod damage;
mod diff;
mod engine_contract;
mod engine_git;
mod engine_subject;
mod engine_trouble;
mod faults;
mod fetching;
mod fsck;
mod generated;
mod history;
mod killed;
mod killed_at_random;
mod layering;
mod manual;
mod merge;
mod odd_repositories;
mod power_loss;
mod races;
mod refs;
mod refs_races;
mod remote_connection;
mod remotes;
mod sandbox;
mod stock;
