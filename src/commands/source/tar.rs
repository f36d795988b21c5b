//! A tar stream as a source of files: ustar, GNU and pax.
//!
//! An archive that ends without its end-of-archive block is refused, as is
//! what a tree cannot hold. Paths lose a leading `/` and every `.`; one with
//! `..` is refused. Nothing is ever written to the file system.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use tar::{Archive, Entry, EntryType};

use super::ahead::{Found, Outlet};
use crate::model::TreePath;
use crate::model::text::quote;
use crate::ui::Ui;

/// Gives everything in the archive, below `at` in the tree.
pub(super) fn read(
    stream: impl Read,
    at: &TreePath,
    ui: &Ui,
    outlet: &Outlet,
) -> anyhow::Result<()> {
    let ended = Rc::new(Cell::new(false));
    let mut stream = Noting {
        inner: io::BufReader::with_capacity(64 * 1024, stream),
        ended: Rc::clone(&ended),
    };
    refuse_compressed(&mut stream.inner)?;
    let mut archive = Archive::new(stream);
    let mut skipped = Vec::new();
    for entry in archive.entries().context("cannot read the archive")? {
        let entry = entry.context("cannot read the archive")?;
        one(entry, at, &mut skipped, ui, outlet)?;
    }
    if ended.get() {
        bail!("the archive is truncated: it has no end-of-archive block");
    }
    // What follows the end is padding; whoever writes it is let finish.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).context("cannot read the archive")?;
    Ok(())
}

/// The stream, with a note of whether its end was met.
struct Noting<R> {
    inner: R,
    ended: Rc<Cell<bool>>,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.ended.set(true);
        }
        Ok(count)
    }
}

fn refuse_compressed(stream: &mut impl io::BufRead) -> anyhow::Result<()> {
    const MAGIC: [(&[u8], &str); 4] = [
        (b"\x1f\x8b", "gzip -d"),
        (b"BZh", "bzip2 -d"),
        (b"\xfd7zXZ", "xz -d"),
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
    ];
    let start = stream.fill_buf().context("cannot read the archive")?;
    match MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, program)) => bail!("the archive is compressed: pass it through {program} first"),
        None => Ok(()),
    }
}

fn one<R: Read>(
    mut entry: Entry<'_, R>,
    at: &TreePath,
    skipped: &mut Vec<Vec<u8>>,
    ui: &Ui,
    outlet: &Outlet,
) -> anyhow::Result<()> {
    let kind = entry.header().entry_type();
    // A comment for all that follows; a name for the whole archive.
    if kind.is_pax_global_extensions() || kind.as_byte() == b'V' {
        return Ok(());
    }
    let raw = entry.path_bytes().into_owned();
    let name = quote(&raw).to_string();
    let path = match inside(&raw).with_context(|| format!("cannot import {name}"))? {
        Place::At(path) if path.is_root() => return Ok(()),
        Place::At(path) => at.append(&path),
        Place::Git(above) => {
            if !skipped.contains(&above) {
                ui.note(&format!("skipped {}", quote(&above)));
                skipped.push(above);
            }
            return Ok(());
        }
    };
    let link_name = entry.link_name_bytes().map(|name| name.into_owned());
    let linked =
        || link_name.with_context(|| format!("{name} in the archive is a link to nothing"));
    match kind {
        EntryType::Directory => outlet.give(Found::Dir(path)),
        // Before ustar, only the slash told.
        EntryType::Regular if raw.ends_with(b"/") => outlet.give(Found::Dir(path)),
        EntryType::Regular | EntryType::Continuous => {
            if is_sparse(&mut entry).with_context(|| format!("cannot read {name}"))? {
                bail!("cannot import {name}: it is a sparse entry");
            }
            let mode = entry.header().mode();
            let exec = mode.with_context(|| format!("cannot read {name}"))? & 0o100 != 0;
            let size = entry.size();
            let odd = format!("the archive is truncated in {name}");
            outlet.file((path, exec), size, (&name, odd), entry)
        }
        EntryType::Symlink => outlet.give(Found::Link {
            path,
            target: linked()?,
        }),
        EntryType::Link => {
            let target = linked()?;
            match inside(&target).with_context(|| format!("cannot import {name}"))? {
                Place::At(from) => outlet.give(Found::Copy {
                    from: at.append(&from),
                    to: path,
                }),
                Place::Git(_) => bail!("cannot import {name}: it is a link into .git"),
            }
        }
        EntryType::GNUSparse => bail!("cannot import {name}: it is a sparse entry"),
        EntryType::Fifo => bail!("cannot import {name}: it is a named pipe"),
        EntryType::Char | EntryType::Block => bail!("cannot import {name}: it is a device"),
        other => bail!(
            "cannot import {name}: a tree cannot hold an entry of type {}",
            quote(&[other.as_byte()])
        ),
    }
}

/// Where an entry belongs.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    At(TreePath),
    /// In or at this `.git`, which is passed over.
    Git(Vec<u8>),
}

fn inside(raw: &[u8]) -> anyhow::Result<Place> {
    let mut path = TreePath::root();
    for step in raw.split(|b| *b == b'/') {
        match step {
            b"" | b"." => (),
            b".git" => return Ok(Place::Git(path.join(step).as_bytes().to_vec())),
            step => {
                TreePath::new(step)?;
                path.push(step);
            }
        }
    }
    Ok(Place::At(path))
}

/// Tells whether an entry is written in one of pax's forms of sparse files,
/// whose content would come out wrong.
fn is_sparse<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<bool> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(false);
    };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let at = |path: &str| Place::At(TreePath::new(path).unwrap());
        for (raw, place) in [
            ("a/b", at("a/b")),
            ("./a/./b/", at("a/b")),
            ("/etc/x", at("etc/x")),
            ("./", at("")),
            ("a/.git/config", Place::Git(b"a/.git".to_vec())),
        ] {
            assert_eq!(inside(raw.as_bytes()).unwrap(), place, "{raw}");
        }
        for bad in ["../x", "a/../../x", "a/.GIT/x"] {
            assert!(inside(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
