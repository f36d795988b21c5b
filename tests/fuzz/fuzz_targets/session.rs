//! Sessions of valid requests against a model, from a seed.
//!
//! `cd tests/fuzz && cargo +nightly fuzz run session`; without a nightly
//! compiler, `DK_FUZZ_SECONDS=600 cargo nextest run random_sessions`.

#![no_main]
// What only the tests use is not used here.
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../it/wire"]
mod wire {
    pub mod any;
}

#[path = "../../it/server"]
mod server {
    pub mod model;
    pub mod peer;
    pub mod session;
    pub mod toy;
}

fuzz_target!(|input: (u64, u8)| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(server::session::session(input.0, usize::from(input.1)));
});
