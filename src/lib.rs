//! dk: orchestrate applications with a Git-like dataflow.
//!
//! The map of the house. Read downwards only: `tests/it/layering.rs` enforces
//! the arrows.
//!
//! ```text
//!         main -> commands -> ui
//!                    |
//!                    v
//!                  client
//!                    |   \
//!                    |    client/local
//!                    |          |
//!                    |          v
//!                    |        store
//!                    |          |
//!                    +-> model <+
//! ```
//!
//! A command asks the `client` trait; the trait answers from the local
//! [`store`]. Below `store/engine.rs` lies storage: a Git repository, or
//! memory. [`model`] has the nouns that all share.
//!
//! What stays true, said as what is absent:
//!
//! 1. Only `store` names gix.
//! 2. `client` and the commands cannot tell where a store lives.
//! 3. Only `ui` prints; only `main`, `commands` and `ui` name `anyhow`.
//! 4. A branch head changes in one place in `store`, by compare-and-swap with
//!    the expected head, and only after everything it reaches is as durable as
//!    it is going to be.
//! 5. Until commit, a transaction's content is visible to nobody but those who
//!    name it.
//! 6. No lock is held across `.await`. Blocking work leaves the async threads
//!    in one place, `client/local`.
//! 7. Every task has an owner that stops it. Every queue has a bound and says
//!    what happens at it.
//! 8. A text format is printed and parsed in `model/text` and nowhere else.

pub mod client;
pub mod commands;
pub mod model;
pub mod store;
pub mod ui;
