//! How much clients may have of everything.

use crate::namespace;
use crate::ninep::server;

/// What is beyond a limit is refused; nobody else is held up by it.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// The longest 9P message, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20,
          value_parser = clap::value_parser!(u32).range(4096..=16 << 20))]
    max_msize: u32,
    /// How many connections may be open
    #[arg(long, value_name = "N", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_connections: u32,
    /// How many nodes of the tree a connection may hold
    #[arg(long, value_name = "N", default_value_t = 1 << 18,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_fids: u32,
    /// How many requests of a connection may wait
    #[arg(long, value_name = "N", default_value_t = 1 << 14,
          value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_requests: u32,
    /// How many transactions of its own a connection may have open
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_transactions: u32,
    /// How many streams may be open, of all connections together
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_streams: u32,
}

impl Limits {
    pub fn of_server(&self) -> server::Limits {
        server::Limits {
            msize: self.max_msize,
            fids: self.max_fids as usize,
            outstanding: self.max_requests as usize,
            ..server::Limits::default()
        }
    }

    pub fn of_tree(&self) -> namespace::Options {
        namespace::Options {
            transactions: self.max_transactions as usize,
            streams: self.max_streams as usize,
            ..namespace::Options::default()
        }
    }
}
