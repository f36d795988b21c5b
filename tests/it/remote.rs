//! A store behind a server, over connections that are slow, cut and silent.

mod cuts;
mod failures;
pub mod proxy;
pub mod served;
mod stranger;
mod trips;
