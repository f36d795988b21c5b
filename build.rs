//! How `dk` is linked on Linux with the GNU C library: as a program is that
//! starts many times a second in a shell's loop.
//!
//! A position-independent program of this size has 48,000 addresses put into
//! it, over 190 pages that no two processes share, each time it starts: 0.4 of
//! 2 ms. Without them the program itself stays where it was linked; the
//! stack, the heap and the libraries still move. `DK_PIE=1` keeps it moving.
//!
//! What unwinds a panic comes from GCC's archive, where there is one: a shared
//! library less to find, map and prepare is 0.15 ms less.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DK_PIE");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    if std::env::var_os("DK_PIE").is_none() {
        println!("cargo::rustc-link-arg-bin=dk=-no-pie");
    }
    if std::env::var_os("HOST") == std::env::var_os("TARGET") && has_archive("libgcc_eh.a") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Tells whether the C compiler, which links, knows an archive of this name.
fn has_archive(name: &str) -> bool {
    let asked = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output();
    asked.is_ok_and(|answer| {
        let path = String::from_utf8_lossy(&answer.stdout);
        Path::new(path.trim()).is_absolute()
    })
}
