//! How `dk` is linked on Linux with the GNU C library: as a program is that
//! starts many times a second in a shell's loop.
//!
//! A position-independent program of this size has 48,000 addresses put into
//! it, over 190 pages that no two processes share, each time it starts: 0.4 of
//! 2 ms. Without them the program itself stays where it was linked; the
//! stack, the heap and the libraries still move. `DK_PIE=1` keeps it moving.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DK_PIE");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let gnu = target("OS") == "linux" && target("ENV") == "gnu";
    if gnu && std::env::var_os("DK_PIE").is_none() {
        println!("cargo::rustc-link-arg-bin=dk=-no-pie");
    }
}
