//! Entries of trees, differences and refs, as Git's own plumbing prints them.

use crate::model::request::Stat;
use crate::model::{Branch, BranchName, Change, Entry, EntryKind, Item, Mode, ObjectId, TreePath};

use super::{Malformed, Taken};

/// No record is longer: a path of that length cannot be written anyway.
const LONGEST: usize = 1 << 20;

/// Appends an entry as `git ls-tree -z -l` does: `MODE TYPE ID SIZE`, a tab, the
/// path, NUL. The size is `-` where it is not known.
pub fn write_item(out: &mut Vec<u8>, item: &Item) {
    entry(out, &item.entry, item.size, item.path.as_bytes());
}

/// As [`write_item`] for one path; a directory's size is its number of entries.
pub fn write_stat(out: &mut Vec<u8>, stat: &Stat, path: &TreePath) {
    let sized = stat.entry.mode.is_dir() || stat.entry.mode.is_blob();
    entry(
        out,
        &stat.entry,
        sized.then_some(stat.size),
        path.as_bytes(),
    );
}

fn entry(out: &mut Vec<u8>, entry: &Entry, size: Option<u64>, path: &[u8]) {
    let kind = match entry.mode.kind() {
        EntryKind::Dir => "tree",
        EntryKind::Submodule => "commit",
        _ => "blob",
    };
    let size = size.map_or_else(|| "-".into(), |size| size.to_string());
    let head = format!("{:06o} {kind} {} {size:>7}\t", entry.mode.0, entry.id);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(path);
    out.push(0);
}

/// Takes a record up to a NUL off the front of `text`.
fn take<'a>(text: &mut &'a [u8], what: &'static str) -> Taken<&'a [u8]> {
    match text.iter().take(LONGEST).position(|b| *b == 0) {
        Some(end) => {
            let record = &text[..end];
            *text = &text[end + 1..];
            Ok(Some(record))
        }
        None if text.len() < LONGEST => Ok(None),
        None => Err(Malformed(what)),
    }
}

fn mode(word: &str) -> Option<Mode> {
    u32::from_str_radix(word, 8).ok().map(Mode)
}

/// Takes a record of [`write_item`] or [`write_stat`] off the front of `text`.
pub fn take_item(text: &mut &[u8]) -> Taken<Item> {
    let what = "an entry";
    let Some(record) = take(text, what)? else {
        return Ok(None);
    };
    let read = || {
        let tab = record.iter().position(|b| *b == b'\t')?;
        let head = std::str::from_utf8(&record[..tab]).ok()?;
        let mut words = head.split_ascii_whitespace();
        let mode = mode(words.next()?)?;
        words.next()?;
        let id = ObjectId::from_hex(words.next()?.as_bytes())?;
        let size = match words.next()? {
            "-" => None,
            size => Some(size.parse().ok()?),
        };
        Some(Item {
            path: TreePath::found(&record[tab + 1..])?,
            entry: Entry { mode, id },
            size,
        })
    };
    read().map(Some).ok_or(Malformed(what))
}

/// Appends a difference as `git diff-tree -z --raw --no-abbrev` does:
/// `:OLDMODE NEWMODE OLDID NEWID S`, NUL, the path, NUL; S is A, D, M or T.
pub fn write_change(out: &mut Vec<u8>, change: &Change) {
    let mode = |side: &Option<Entry>| side.map_or(0, |entry| entry.mode.0);
    let digits = change
        .old
        .or(change.new)
        .map_or(40, |entry| entry.id.hash_kind().id_len() * 2);
    let id = |side: &Option<Entry>| match side {
        Some(entry) => entry.id.to_string(),
        None => "0".repeat(digits),
    };
    let status = match (&change.old, &change.new) {
        (None, _) => 'A',
        (_, None) => 'D',
        (Some(old), Some(new)) if (old.mode.0 ^ new.mode.0) & 0o170_000 != 0 => 'T',
        _ => 'M',
    };
    let head = format!(
        ":{:06o} {:06o} {} {} {status}\0",
        mode(&change.old),
        mode(&change.new),
        id(&change.old),
        id(&change.new)
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(change.path.as_bytes());
    out.push(0);
}

/// Takes a record of [`write_change`] off the front of `text`.
pub fn take_change(text: &mut &[u8]) -> Taken<Change> {
    let what = "a difference";
    let mut rest = *text;
    let (Some(head), Some(path)) = (take(&mut rest, what)?, take(&mut rest, what)?) else {
        return Ok(None);
    };
    let read = || {
        let head = std::str::from_utf8(head).ok()?.strip_prefix(':')?;
        let words: Vec<&str> = head.split(' ').collect();
        let &[old_mode, new_mode, old_id, new_id, status] = &words[..] else {
            return None;
        };
        let side = |word: &str, id: &str| {
            let id = ObjectId::from_hex(id.as_bytes())?;
            Some(Entry {
                mode: mode(word)?,
                id,
            })
        };
        let (old, new) = (side(old_mode, old_id)?, side(new_mode, new_id)?);
        Some(Change {
            path: TreePath::found(path)?,
            old: (status != "A").then_some(old),
            new: (status != "D").then_some(new),
        })
    };
    let change = read().ok_or(Malformed(what))?;
    *text = rest;
    Ok(Some(change))
}

/// The branches of a store, and those of remotes as last fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    pub branches: Vec<Branch>,
    pub fetched: Vec<Branch>,
}

const HEADS: &[u8] = b"refs/heads/";
const REMOTES: &[u8] = b"refs/remotes/";

/// Appends a ref as `git show-ref` does; with `fetched`, one of a remote.
pub fn write_ref(out: &mut Vec<u8>, branch: &Branch, fetched: bool) {
    out.extend_from_slice(branch.head.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(if fetched { REMOTES } else { HEADS });
    out.extend_from_slice(branch.name.as_bytes());
    out.push(b'\n');
}

/// Parses lines of [`write_ref`].
pub fn read_refs(text: &[u8]) -> Option<Refs> {
    let mut refs = Refs::default();
    let Some(text) = text.strip_suffix(b"\n") else {
        return text.is_empty().then_some(refs);
    };
    for line in text.split(|b| *b == b'\n') {
        let blank = line.iter().position(|b| *b == b' ')?;
        let head = ObjectId::from_hex(&line[..blank])?;
        let name = &line[blank + 1..];
        let (list, name) = match name.strip_prefix(HEADS) {
            Some(name) => (&mut refs.branches, name),
            None => (&mut refs.fetched, name.strip_prefix(REMOTES)?),
        };
        let name = BranchName::new(name).ok()?;
        list.push(Branch { name, head });
    }
    Some(refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ObjectId {
        ObjectId::from_bytes(&[n; 20]).expect("20 bytes")
    }

    #[test]
    fn entries_are_gits() {
        let item = |path: &[u8], mode, size| Item {
            path: TreePath::found(path).expect("a path"),
            entry: Entry { mode, id: id(0xab) },
            size,
        };
        let long = ObjectId::from_bytes(&[3; 32]).expect("32 bytes");
        let mut items = vec![
            item(b"a b", Mode::FILE, Some(5)),
            item(b"", Mode::DIR, None),
            item(b"\xff\n\t\"/.git", Mode::SUBMODULE, None),
            item(b"odd", Mode(0o100_664), Some(u64::MAX)),
        ];
        items[3].entry.id = long;
        let mut text = Vec::new();
        for item in &items {
            write_item(&mut text, item);
        }
        let hex = "ab".repeat(20);
        assert!(
            text.starts_with(format!("100644 blob {hex}       5\ta b\0040000 tree").as_bytes())
        );
        let mut rest = &text[..];
        for item in items {
            assert_eq!(take_item(&mut rest), Ok(Some(item)));
        }
        assert_eq!(take_item(&mut rest), Ok(None));
        assert_eq!(take_item(&mut &text[..20]), Ok(None));
        for bad in [&b"x\0"[..], b"100644 blob\tx\0", b"100644 blob 00 5\tx\0"] {
            assert!(take_item(&mut &*bad).is_err());
        }
    }

    #[test]
    fn differences_are_gits() {
        let side = |mode, n| Some(Entry { mode, id: id(n) });
        let change = |path: &[u8], old, new| Change {
            path: TreePath::found(path).expect("a path"),
            old,
            new,
        };
        let changes = [
            change(b"a\n", None, side(Mode::FILE, 1)),
            change(b"b/\xfe", side(Mode::EXEC, 1), None),
            change(b"c", side(Mode::EXEC, 1), side(Mode::FILE, 1)),
            change(b"", side(Mode::FILE, 1), side(Mode::LINK, 2)),
        ];
        let mut text = Vec::new();
        for change in &changes {
            write_change(&mut text, change);
        }
        let first = format!(
            ":000000 100644 {} {} A\0a\n\0:100755 000000",
            "0".repeat(40),
            "01".repeat(20)
        );
        assert!(text.starts_with(first.as_bytes()));
        let mut rest = &text[..];
        for (change, status) in changes.into_iter().zip([" A\0", " D\0", " M\0", " T\0"]) {
            assert!(rest[96..].starts_with(status.as_bytes()));
            assert_eq!(take_change(&mut rest), Ok(Some(change)));
        }
        assert!(rest.is_empty());
        assert_eq!(take_change(&mut &text[..101]), Ok(None));
        assert!(take_change(&mut &b"x\0y\0"[..]).is_err());
    }

    #[test]
    fn refs_round_trip() {
        let branch = |name: &[u8]| Branch {
            name: BranchName::new(name).expect("legal"),
            head: id(4),
        };
        let refs = Refs {
            branches: vec![branch(b"a/b"), branch(b"\xff")],
            fetched: vec![branch(b"origin/x")],
        };
        let mut text = Vec::new();
        for branch in &refs.branches {
            write_ref(&mut text, branch, false);
        }
        write_ref(&mut text, &refs.fetched[0], true);
        assert_eq!(read_refs(&text), Some(refs));
        assert_eq!(read_refs(b""), Some(Refs::default()));
        for bad in [&b"x\n"[..], b"\n", b"00 refs/heads/x\n", b"x"] {
            assert_eq!(read_refs(bad), None);
        }
    }
}
