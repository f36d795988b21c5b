//! dk: orchestrate applications with a Git-like dataflow.
//!
//! The map of the house. Read downwards only: `tests/it/layering.rs` enforces
//! the arrows.
//!
//! ```text
//!            main -> commands -> ui
//!                       |
//!        +--------------+----------+
//!        v              |          v
//!   bridge, ci          |    commands/serve
//!        |   \          |          |
//!        |   forge      |          |
//!        |     |        |          |
//!        +-----+-----> client      |
//!                      /    \      |
//!          client/local  client/remote
//!               |            |     v
//!               |            |  ninep/server
//!               |            v     |
//!               |   ninep/client   v
//!               |            |  namespace
//!               v            |     |
//!             store <--------|-----+
//!               |            v
//!               +--------> model
//! ```
//!
//! A command asks the `client` trait; the trait answers from the local
//! [`store`], or from a server over 9P. `ninep/server` asks the [`namespace`],
//! the file tree with no wire in it, and that asks the store. Below
//! `store/engine.rs` lies storage: a Git repository, or memory. [`model`] has
//! the nouns that all share; [`logging`] and [`metrics`] are for daemons; [`tls`]
//! says which cryptography there is. The [`bridge`]s and the [`ci`] are clients
//! like any other; what a forge is made of is in [`forge`].
//!
//! What stays true, said as what is absent:
//!
//! 1. Only `store` names gix.
//! 2. Only `ninep` knows tags, fids, qids, error numbers and dialects.
//! 3. `namespace` can be walked in a test with no socket.
//! 4. `client` and the commands cannot tell where a store lives.
//! 5. Only `ui` prints; only `main`, `commands` and `ui` name `anyhow`.
//! 6. A branch head changes in one place in `store`, by compare-and-swap with
//!    the expected head, and only after everything it reaches is as durable as
//!    it is going to be.
//! 7. Until commit, a transaction's content is visible to nobody but those who
//!    name it.
//! 8. No lock is held across `.await`. Blocking work leaves the async threads
//!    in one place, `store/face`.
//! 9. Every task has an owner that stops it. Every queue has a bound and says
//!    what happens at it.
//! 10. A text format is printed and parsed in `model/text` and nowhere else.

pub mod bridge;
pub mod ci;
pub mod client;
pub mod commands;
pub mod forge;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod namespace;
pub mod ninep;
pub mod store;
pub mod tls;
pub mod ui;
