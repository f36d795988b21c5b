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
//!
//! What small commands run is put side by side in the program: the kernel maps
//! 64 KiB around each page that is touched, and what they run would lie in over
//! a hundred places otherwise. That takes a third off the memory of a small
//! command, and 0.1 ms. `scripts/layout` finds out what that is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The functions that stand together: patterns of their names in the objects.
const LAYOUT: &str = "src/layout.txt";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={LAYOUT}");
    println!("cargo::rerun-if-env-changed=DK_PIE");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    if std::env::var_os("DK_PIE").is_none() {
        println!("cargo::rustc-link-arg-bin=dk=-no-pie");
    }
    if std::env::var_os("HOST") != std::env::var_os("TARGET") {
        return;
    }
    if has_archive("libgcc_eh.a") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
    if let Some(script) = layout() {
        println!("cargo::rustc-link-arg-bin=dk=-Wl,-T,{}", script.display());
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

/// Writes the layout as a script for the linker, in a release build whose
/// linker is the usual one and takes it: lld and GNU's do, others refuse.
fn layout() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if std::env::var("PROFILE").ok()? != "release"
        || set("RUSTC_LINKER")
        || set("CARGO_ENCODED_RUSTFLAGS")
    {
        return None;
    }
    let names = std::fs::read_to_string(LAYOUT).ok()?;
    // What seldom runs (a buffer that grows, say) is in sections of its own.
    let sections: String = names
        .lines()
        .map(|name| format!(" *(.text.{name} .text.unlikely.{name})\n"))
        .collect();
    let folder = PathBuf::from(std::env::var_os("OUT_DIR")?);
    let script = folder.join("layout.ld");
    let text = format!("SECTIONS {{ .text.start : {{\n{sections}}} }}\nINSERT BEFORE .text;\n");
    std::fs::write(&script, text).ok()?;
    let source = folder.join("probe.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").ok()?;
    let linked = Command::new("cc")
        .arg(format!("-Wl,-T,{}", script.display()))
        .arg("-o")
        .arg(folder.join("probe"))
        .arg(&source)
        .output();
    linked
        .is_ok_and(|linked| linked.status.success())
        .then_some(script)
}
