//! What changed inside files: patches as `git apply` reads them, and counts.
//!
//! The text is that of `git diff --full-index`. A file that holds a NUL near
//! its beginning, or is longer than 64 MiB, counts as binary and is never held
//! in memory whole.

use std::io::{self, Read, Write};
use std::ops::Range;

use futures_util::stream::{self, Stream, StreamExt as _};
use imara_diff::{Algorithm, Diff, Hunk, InternedInput};

use crate::client::Client;
use crate::commands::blocking;
use crate::model::text::quote;
use crate::model::{Change, Entry, ObjectId, TreePath};
use crate::ui::{Look, Paint};

mod table;

pub(super) use table::write_table;

/// Longer files are not compared.
const LONGEST: u64 = 64 << 20;
/// A NUL among so many first bytes makes a file binary, as in Git.
const PROBE: usize = 8000;
/// Unchanged lines shown around a change.
const CONTEXT: u32 = 3;
/// Bytes of the line that names the place of a hunk.
const PLACE: usize = 80;

/// How one path changed.
pub(super) struct Patch {
    /// Lines that came and went; nothing where they are not counted.
    pub counts: Counts,
    /// The patch, headers included.
    pub text: Vec<u8>,
}

/// Lines that came and went; null for binary files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    pub added: Option<u64>,
    pub removed: Option<u64>,
}

/// Compares the two sides of a change.
pub(super) async fn compute(client: &dyn Client, change: &Change) -> anyhow::Result<Patch> {
    let (old, new) =
        futures_util::future::try_join(open(client, change.old), open(client, change.new)).await?;
    let change = change.clone();
    blocking(move || {
        let (old, new) = (old.load()?, new.load()?);
        Ok(patch(&change, &old, &new))
    })
    .await
}

/// Compares the two sides of changes, some ahead of those taken.
pub(super) fn all<'a>(
    client: &'a dyn Client,
    changes: &'a [Change],
) -> impl Stream<Item = anyhow::Result<Patch>> + 'a {
    /// A store may be far away.
    const AHEAD: usize = 4;
    stream::iter(changes)
        .map(move |change| compute(client, change))
        .buffered(AHEAD)
}

/// One side of a change, before it is read.
enum Source {
    Nothing,
    Text(Vec<u8>),
    Blob(Box<dyn Read + Send>),
}

/// One side of a change.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Text(Vec<u8>),
    Binary,
}

async fn open(client: &dyn Client, entry: Option<Entry>) -> anyhow::Result<Source> {
    Ok(match entry {
        None => Source::Nothing,
        Some(entry) if entry.mode.is_blob() => Source::Blob(client.open_blob(&entry.id).await?),
        // As Git shows the commit of a submodule.
        Some(entry) => Source::Text(format!("Subproject commit {}\n", entry.id).into_bytes()),
    })
}

impl Source {
    fn load(self) -> anyhow::Result<Side> {
        let blob = match self {
            Self::Nothing => return Ok(Side::Text(Vec::new())),
            Self::Text(text) => return Ok(Side::Text(text)),
            Self::Blob(blob) => blob,
        };
        let mut text = Vec::new();
        let mut blob = blob.take(LONGEST + 1);
        blob.by_ref().take(PROBE as u64).read_to_end(&mut text)?;
        if text.contains(&0) {
            return Ok(Side::Binary);
        }
        blob.read_to_end(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Ok(Side::Binary);
        }
        Ok(Side::Text(text))
    }
}

/// Compares two texts. A path that became something else altogether (a file a
/// link) is shown as removed and added, as Git does.
fn patch(change: &Change, old: &Side, new: &Side) -> Patch {
    const TYPE: u32 = 0o170_000;
    if let (Some(before), Some(after)) = (change.old, change.new)
        && before.mode.0 & TYPE != after.mode.0 & TYPE
    {
        let nothing = Side::Text(Vec::new());
        let half = |old, new| Change {
            path: change.path.clone(),
            old,
            new,
        };
        let mut gone = patch(&half(Some(before), None), old, &nothing);
        let came = patch(&half(None, Some(after)), &nothing, new);
        gone.text.extend_from_slice(&came.text);
        gone.counts.added = came.counts.added;
        return gone;
    }
    let mut text = Vec::new();
    let mut counts = Counts::default();
    // Writing to memory cannot fail.
    let _ = header(&mut text, change);
    match (old, new) {
        (Side::Text(old), Side::Text(new)) => {
            let same = change.old.map(|entry| entry.id) == change.new.map(|entry| entry.id);
            if !(same || old.is_empty() && new.is_empty()) {
                let _ = names(&mut text, change);
            }
            counts = lines(&mut text, old, new);
        }
        _ => {
            let [old, new] = sides(change);
            let _ = writeln!(text, "Binary files {old} and {new} differ");
        }
    }
    Patch { counts, text }
}

/// Writes what Git calls the extended header.
fn header(out: &mut Vec<u8>, change: &Change) -> io::Result<()> {
    let (a, b) = (prefixed("a/", &change.path), prefixed("b/", &change.path));
    writeln!(out, "diff --git {a} {b}")?;
    let none = |like: ObjectId| "0".repeat(like.as_bytes().len() * 2);
    match (change.old, change.new) {
        (Some(old), Some(new)) if old.mode == new.mode => {
            writeln!(out, "index {}..{} {:06o}", old.id, new.id, new.mode.0)
        }
        (Some(old), Some(new)) => {
            writeln!(
                out,
                "old mode {:06o}\nnew mode {:06o}",
                old.mode.0, new.mode.0
            )?;
            if old.id != new.id {
                writeln!(out, "index {}..{}", old.id, new.id)?;
            }
            Ok(())
        }
        (None, Some(new)) => {
            writeln!(out, "new file mode {:06o}", new.mode.0)?;
            writeln!(out, "index {}..{}", none(new.id), new.id)
        }
        (Some(old), None) => {
            writeln!(out, "deleted file mode {:06o}", old.mode.0)?;
            writeln!(out, "index {}..{}", old.id, none(old.id))
        }
        (None, None) => Ok(()),
    }
}

/// Writes the two lines that say which file is patched.
fn names(out: &mut Vec<u8>, change: &Change) -> io::Result<()> {
    for (sign, name) in ["---", "+++"].iter().zip(sides(change)) {
        // A tab ends a name that holds blanks.
        let end = if name.contains(' ') && !name.starts_with('"') {
            "\t"
        } else {
            ""
        };
        writeln!(out, "{sign} {name}{end}")?;
    }
    Ok(())
}

fn sides(change: &Change) -> [String; 2] {
    [("a/", change.old), ("b/", change.new)].map(|(prefix, entry)| match entry {
        Some(_) => prefixed(prefix, &change.path),
        None => "/dev/null".into(),
    })
}

fn prefixed(prefix: &str, path: &TreePath) -> String {
    quote(&[prefix.as_bytes(), path.as_bytes()].concat()).to_string()
}

/// Writes the hunks, and counts their lines.
fn lines(out: &mut Vec<u8>, old: &[u8], new: &[u8]) -> Counts {
    let input = InternedInput::new(old, new);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let mut group: Vec<Hunk> = Vec::new();
    for hunk in diff.hunks() {
        if let Some(last) = group.last()
            && hunk.before.start - last.before.end > 2 * CONTEXT
        {
            write_group(out, &input, &group);
            group.clear();
        }
        group.push(hunk);
    }
    if !group.is_empty() {
        write_group(out, &input, &group);
    }
    Counts {
        added: Some(diff.count_additions().into()),
        removed: Some(diff.count_removals().into()),
    }
}

/// Writes changes so near to one another that they share their context.
fn write_group(out: &mut Vec<u8>, input: &InternedInput<&[u8]>, group: &[Hunk]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return;
    };
    let above = first.before.start.min(CONTEXT);
    let below = (input.before.len() as u32 - last.before.end).min(CONTEXT);
    let before = first.before.start - above..last.before.end + below;
    let after = first.after.start - above..last.after.end + below;
    let place = place(input, before.start);
    let blank = if place.is_empty() { "" } else { " " };
    // Writing to memory cannot fail.
    let _ = write!(out, "@@ -{} +{} @@{blank}", span(&before), span(&after));
    out.extend_from_slice(place);
    out.push(b'\n');
    let mut at = before.start;
    for hunk in group {
        for index in at..hunk.before.start {
            line(out, b' ', input.interner[input.before[index as usize]]);
        }
        for index in hunk.before.clone() {
            line(out, b'-', input.interner[input.before[index as usize]]);
        }
        for index in hunk.after.clone() {
            line(out, b'+', input.interner[input.after[index as usize]]);
        }
        at = hunk.before.end;
    }
    for index in at..before.end {
        line(out, b' ', input.interner[input.before[index as usize]]);
    }
}

fn line(out: &mut Vec<u8>, sign: u8, text: &[u8]) {
    out.push(sign);
    out.extend_from_slice(text);
    if !text.ends_with(b"\n") {
        out.extend_from_slice(b"\n\\ No newline at end of file\n");
    }
}

/// `line,count`; an empty range names the line before it.
fn span(lines: &Range<u32>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// Returns the nearest line above that looks like the head of a section.
fn place<'a>(input: &InternedInput<&'a [u8]>, start: u32) -> &'a [u8] {
    let begins = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$');
    let above = input.before[..start as usize].iter().rev();
    let found = above
        .map(|token| input.interner[*token])
        .find(|line| line.first().is_some_and(begins));
    let line = found.unwrap_or_default();
    line[..line.len().min(PLACE)].trim_ascii_end()
}

/// Writes a patch, its lines in colour.
pub(super) fn write(out: &mut dyn Write, text: &[u8], paint: Paint) -> io::Result<()> {
    if paint == Paint::NONE {
        return out.write_all(text);
    }
    let mut heading = true;
    for line in text.split_inclusive(|b| *b == b'\n') {
        heading = match line {
            [b'@', ..] => false,
            _ if line.starts_with(b"diff --git ") => true,
            _ => heading,
        };
        let look = match line.first() {
            _ if heading => Some(Look::Strong),
            Some(b'@') => Some(Look::Hunk),
            Some(b'+') => Some(Look::Added),
            Some(b'-') => Some(Look::Removed),
            _ => None,
        };
        let end = line.len() - usize::from(line.ends_with(b"\n"));
        let (text, newline) = line.split_at(end);
        match look {
            Some(look) => {
                out.write_all(paint.begin(look).as_bytes())?;
                out.write_all(text)?;
                out.write_all(paint.end().as_bytes())?;
            }
            None => out.write_all(text)?,
        }
        out.write_all(newline)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn change(old: Option<(Mode, u8)>, new: Option<(Mode, u8)>) -> Change {
        let entry = |(mode, byte): (Mode, u8)| Entry {
            mode,
            id: ObjectId::from_bytes(&[byte; 20]).expect("20 bytes"),
        };
        Change {
            path: TreePath::new("a b").expect("legal"),
            old: old.map(entry),
            new: new.map(entry),
        }
    }

    fn shown(change: &Change, old: &str, new: &str) -> String {
        let side = |text: &str| Side::Text(text.into());
        let patch = patch(change, &side(old), &side(new));
        String::from_utf8(patch.text).expect("UTF-8")
    }

    fn hunks(old: &str, new: &str) -> String {
        let mut out = Vec::new();
        lines(&mut out, old.as_bytes(), new.as_bytes());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn hunks_have_three_lines_of_context_and_merge_when_near() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let near = old.replace("5\n6\n", "5\nx\n").replace("12\n", "y\n");
        assert_eq!(
            hunks(&old, &near).matches("@@ ").count(),
            1,
            "six unchanged lines are context of both"
        );
        let far = old.replace("2\n3\n", "2\nx\n").replace("19\n", "");
        let far = hunks(&old, &far);
        assert!(
            far.starts_with("@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+x\n 4\n 5\n 6\n"),
            "{far}"
        );
        assert!(
            far.ends_with("@@ -16,5 +16,4 @@\n 16\n 17\n 18\n-19\n 20\n"),
            "{far}"
        );
    }

    #[test]
    fn ends_of_files() {
        assert_eq!(hunks("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(hunks("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        assert_eq!(
            hunks("a", "a\n"),
            "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"
        );
        assert_eq!(hunks("a", "a"), "");
    }

    #[test]
    fn the_place_of_a_hunk_is_named() {
        let old = "fn main() {\n    1\n    2\n    3\n    4\n    5\n}\n";
        let new = old.replace('5', "6");
        let shown = hunks(old, &new);
        assert!(
            shown.starts_with("@@ -3,5 +3,5 @@ fn main() {\n"),
            "{shown}"
        );
    }

    #[test]
    fn headers_are_gits() {
        let zero = "0".repeat(40);
        let (one, two) = ("01".repeat(20), "02".repeat(20));
        assert_eq!(
            shown(&change(None, Some((Mode::EXEC, 1))), "", "x\n"),
            format!(
                "diff --git a/a b b/a b\nnew file mode 100755\nindex {zero}..{one}\n\
                 --- /dev/null\n+++ b/a b\t\n@@ -0,0 +1 @@\n+x\n"
            )
        );
        assert_eq!(
            shown(
                &change(Some((Mode::FILE, 1)), Some((Mode::EXEC, 1))),
                "x",
                "x"
            ),
            "diff --git a/a b b/a b\nold mode 100644\nnew mode 100755\n"
        );
        let became = shown(
            &change(Some((Mode::FILE, 1)), Some((Mode::LINK, 2))),
            "x\n",
            "t",
        );
        assert!(became.contains(&format!("deleted file mode 100644\nindex {one}..{zero}\n")));
        assert!(became.contains(&format!("new file mode 120000\nindex {zero}..{two}\n")));
    }

    #[test]
    fn files_with_nul_are_binary() {
        let blob = |bytes: &'static [u8]| Source::Blob(Box::new(bytes)).load().expect("memory");
        assert_eq!(blob(b"a\0b"), Side::Binary);
        assert_eq!(blob(b"ab"), Side::Text(b"ab".to_vec()));
        let change = change(Some((Mode::FILE, 1)), Some((Mode::FILE, 2)));
        let patch = patch(&change, &Side::Binary, &Side::Text(Vec::new()));
        assert!(
            patch
                .text
                .ends_with(b"Binary files a/a b and b/a b differ\n")
        );
        assert_eq!(patch.counts, Counts::default());
    }
}
