//! 9P messages as bytes: golden frames of each message in each dialect, both
//! ways; random messages come back as they were; random bytes are refused in
//! peace; and `rs9p`'s codec agrees about the messages it has right.

mod agreement;
pub mod any;
mod golden;
mod golden_linux;
mod noise;
mod random;
