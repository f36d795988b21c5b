//! The `meta` file of a durable transaction.

use crate::model::{
    BranchName, Conflict, ConflictKind, Entry, Merge, Mode, ObjectId, Signature, State, Time,
    TreePath,
};

use super::{read_signature, unquote, write_signature};

/// The `meta` file of a durable transaction, in the style of a commit object:
/// one `key value` a line, a blank line, then the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub branch: BranchName,
    pub base: Option<ObjectId>,
    pub parents: Vec<ObjectId>,
    pub author: Signature,
    pub edited: Time,
    pub edits: u64,
    pub state: State,
    pub merge: Option<Merge>,
    pub conflicts: Vec<Conflict>,
    pub message: Vec<u8>,
}

/// Prints a `meta` file. Its first line is the version of the format.
pub fn write_meta(meta: &Meta) -> Vec<u8> {
    let mut out = b"transaction 1\nbranch ".to_vec();
    out.extend_from_slice(meta.branch.as_bytes());
    out.push(b'\n');
    let id = |id: &Option<ObjectId>| id.map_or_else(|| "0".to_string(), |id| id.to_string());
    let mut line = |text: String| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    };
    line(format!("base {}", id(&meta.base)));
    for parent in &meta.parents {
        line(format!("parent {parent}"));
    }
    line(format!(
        "edited {} {}",
        meta.edited.seconds, meta.edited.offset
    ));
    line(format!("edits {}", meta.edits));
    line(match &meta.state {
        State::Open => "state open".into(),
        State::Committing { new, expected } => format!("state committing {new} {}", id(expected)),
        State::Committed(head) => format!("state committed {head}"),
    });
    if let Some(merge) = &meta.merge {
        line(format!(
            "merge {} {} {}",
            id(&merge.base),
            merge.ours,
            merge.theirs
        ));
    }
    let side = |entry: &Option<Entry>| {
        entry.map_or_else(|| "0:0".to_string(), |e| format!("{:o}:{}", e.mode.0, e.id))
    };
    for conflict in &meta.conflicts {
        let number = ConflictKind::ALL
            .iter()
            .position(|kind| *kind == conflict.kind);
        line(format!(
            "conflict {} {} {} {} {}",
            number.unwrap_or_default(),
            side(&conflict.base),
            side(&conflict.ours),
            side(&conflict.theirs),
            conflict.path
        ));
    }
    out.extend_from_slice(b"author ");
    write_signature(&mut out, &meta.author);
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(&meta.message);
    out
}

/// Parses a `meta` file; `None` where it is not one, or of a later version.
pub fn read_meta(text: &[u8]) -> Option<Meta> {
    let split = text.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, message) = (&text[..split], &text[split + 2..]);
    let mut lines = head.split(|b| *b == b'\n');
    if lines.next()? != b"transaction 1" {
        return None;
    }
    let id = |word: &str| match word {
        "0" => Some(None),
        hex => ObjectId::from_hex(hex.as_bytes()).map(Some),
    };
    let side = |word: &str| {
        let (mode, hex) = word.split_once(':')?;
        let mode = u32::from_str_radix(mode, 8).ok()?;
        id(hex).map(|id| {
            id.map(|id| Entry {
                mode: Mode(mode),
                id,
            })
        })
    };
    let (mut branch, mut base, mut author) = (None, None, None);
    let (mut parents, mut conflicts, mut merge) = (Vec::new(), Vec::new(), None);
    let (mut edited, mut edits, mut state) = (
        Time {
            seconds: 0,
            offset: 0,
        },
        0,
        State::Open,
    );
    for line in lines {
        let blank = line.iter().position(|b| *b == b' ')?;
        let (key, value) = (&line[..blank], &line[blank + 1..]);
        if key == b"branch" {
            branch = Some(BranchName::new(value).ok()?);
            continue;
        }
        if key == b"author" {
            author = Some(read_signature(value));
            continue;
        }
        let value = std::str::from_utf8(value).ok()?;
        let words: Vec<&str> = value.splitn(5, ' ').collect();
        match (key, words.as_slice()) {
            (b"base", [word]) => base = id(word)?,
            (b"parent", [word]) => parents.push(id(word)??),
            (b"edited", [seconds, offset]) => {
                edited = Time {
                    seconds: seconds.parse().ok()?,
                    offset: offset.parse().ok()?,
                }
            }
            (b"edits", [count]) => edits = count.parse().ok()?,
            (b"state", ["open"]) => state = State::Open,
            (b"state", ["committing", new, expected]) => {
                state = State::Committing {
                    new: id(new)??,
                    expected: id(expected)?,
                }
            }
            (b"state", ["committed", head]) => state = State::Committed(id(head)??),
            (b"merge", [base, ours, theirs]) => {
                merge = Some(Merge {
                    base: id(base)?,
                    ours: id(ours)??,
                    theirs: id(theirs)??,
                })
            }
            (b"conflict", [kind, base, ours, theirs, path]) => conflicts.push(Conflict {
                path: TreePath::new(unquote(path.as_bytes())?).ok()?,
                kind: *ConflictKind::ALL.get(kind.parse::<usize>().ok()?)?,
                base: side(base)?,
                ours: side(ours)?,
                theirs: side(theirs)?,
            }),
            _ => return None,
        }
    }
    Some(Meta {
        branch: branch?,
        base,
        parents,
        author: author?,
        edited,
        edits,
        state,
        merge,
        conflicts,
        message: message.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_round_trips() {
        let id = |n: u8| ObjectId::from_bytes(&[n; 20]).expect("20 bytes");
        let entry = Entry {
            mode: Mode::EXEC,
            id: id(9),
        };
        let meta = Meta {
            branch: BranchName::new("a/b").expect("legal"),
            base: Some(id(1)),
            parents: vec![id(1), id(2)],
            author: read_signature(b"N <m> 7 +0100"),
            edited: Time {
                seconds: 8,
                offset: 60,
            },
            edits: 3,
            state: State::Committing {
                new: id(3),
                expected: None,
            },
            merge: Some(Merge {
                base: None,
                ours: id(4),
                theirs: id(5),
            }),
            conflicts: vec![Conflict {
                path: TreePath::new("a b/\u{7f} c").expect("legal"),
                kind: ConflictKind::AddDel,
                base: Some(entry),
                ours: None,
                theirs: Some(entry),
            }],
            message: b"hello\n\nworld".to_vec(),
        };
        assert_eq!(read_meta(&write_meta(&meta)), Some(meta));
        assert_eq!(read_meta(b"transaction 2\n\n"), None);
    }
}
