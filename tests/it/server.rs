//! The 9P server, asked in raw messages: flush, order, walks, what each
//! dialect may do, and clients that mean no good.

mod flushing;
mod hostile;
mod linux;
mod model;
mod old;
mod order;
pub mod peer;
pub mod session;
mod starting;
pub mod toy;
