//! Any bytes, taken for a message of every dialect, both ways.
//!
//! `cd tests/fuzz && cargo +nightly fuzz run decode`; without a nightly
//! compiler, `DK_FUZZ_SECONDS=600 cargo nextest run decoding` tries noise.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../it/wire/noise.rs"]
mod noise;

fuzz_target!(|bytes: &[u8]| noise::decode(bytes));
