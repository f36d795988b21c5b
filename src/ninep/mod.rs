//! 9P2000, 9P2000.u and 9P2000.L on the wire.

pub mod transport;
