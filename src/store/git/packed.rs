//! `packed-refs`: Git's file of many refs, sorted by name.
//!
//! It is only ever replaced as a whole, so a copy in memory is good for as long
//! as the same file is there. The copy keeps the file open: its inode number
//! cannot come back for another file meanwhile. A look-up is a binary search in
//! the bytes; only lines that are looked at are parsed.
//! Format: git-pack-refs(1) and refs/packed-backend.c.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::model::{HashKind, ObjectId};
use crate::store::{Error, Result};

/// The refs of one `packed-refs` file.
pub struct Packed {
    /// Held open, see above; `None`: there is no such file.
    file: Option<(File, Stamp)>,
    bytes: Vec<u8>,
    /// Where the records begin.
    body: usize,
    hash: HashKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

/// One record: the name, the id, and the line of the object a tag leads to.
struct Record<'a> {
    name: &'a [u8],
    id: &'a [u8],
    /// The whole of it, line ends included.
    bytes: &'a [u8],
}

impl Packed {
    pub fn load(path: &Path, hash: HashKind) -> Result<Self> {
        let failed = || Error::io(format!("cannot read {}", path.display()));
        let mut bytes = Vec::new();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed()(error)),
            Ok(mut file) => {
                let stamp = file.metadata().map_err(failed())?;
                file.read_to_end(&mut bytes).map_err(failed())?;
                Some((file, Stamp::of(&stamp)))
            }
        };
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            return Err(damaged("its last line has no end"));
        }
        let mut packed = Self {
            file,
            body: header_end(&bytes),
            bytes,
            hash,
        };
        if !has_trait(&packed.bytes[..packed.body], b"sorted") {
            packed.sort()?;
        }
        Ok(packed)
    }

    /// Tells whether the file at `path` is still the one this was read from.
    pub fn is_current(&self, path: &Path) -> bool {
        let now = fs::metadata(path).ok().map(|file| Stamp::of(&file));
        now == self.file.as_ref().map(|(_, stamp)| *stamp)
    }

    /// Brings the records of an old file into order, and says so in its header.
    fn sort(&mut self) -> Result<()> {
        let mut records = self.from(b"").collect::<Result<Vec<_>>>()?;
        records.sort_by_key(|record| record.name);
        let header = &self.bytes[..self.body];
        let mut sorted = if header.is_empty() {
            b"# pack-refs with:".to_vec()
        } else {
            header.trim_ascii_end().to_vec()
        };
        sorted.extend_from_slice(b" sorted \n");
        let body = sorted.len();
        for record in records {
            sorted.extend_from_slice(record.bytes);
        }
        self.bytes = sorted;
        self.body = body;
        Ok(())
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<ObjectId>> {
        match self.from(name).next().transpose()? {
            Some(record) if record.name == name => self.id(&record).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns the refs whose names begin with `prefix`, in order.
    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<(&'a [u8], ObjectId)>> {
        self.from(prefix)
            .take_while(move |record| match record {
                Ok(record) => record.name.starts_with(prefix),
                Err(_) => true,
            })
            .map(|record| record.and_then(|record| Ok((record.name, self.id(&record)?))))
    }

    /// Returns the file's text without these refs (sorted); `None` where it has
    /// none of them.
    pub fn without(&self, names: &[&[u8]]) -> Result<Option<Vec<u8>>> {
        let mut text = self.bytes[..self.body].to_vec();
        let mut found = false;
        for record in self.from(b"") {
            let record = record?;
            if names.binary_search(&record.name).is_ok() {
                found = true;
            } else {
                text.extend_from_slice(record.bytes);
            }
        }
        Ok(found.then_some(text))
    }

    fn id(&self, record: &Record<'_>) -> Result<ObjectId> {
        ObjectId::from_hex(record.id)
            .filter(|id| id.hash_kind() == self.hash)
            .ok_or_else(|| damaged(&format!("{:?} has no object id", text(record.name))))
    }

    /// Returns the records from the first whose name is not less than `name`.
    fn from(&self, name: &[u8]) -> Records<'_> {
        // The first record lies in low..=high, both of which begin records.
        let (mut low, mut high) = (self.body, self.bytes.len());
        while !name.is_empty() && low < high {
            let start = self.record_start(low, low + (high - low) / 2);
            match record(&self.bytes[start..]) {
                Some(record) if record.name < name => low = start + record.bytes.len(),
                Some(_) => high = start,
                // `next` tells of it.
                None => {
                    low = start;
                    break;
                }
            }
        }
        Records {
            rest: &self.bytes[low..],
        }
    }

    /// Returns where the record begins that `at` is in, not before `low`.
    fn record_start(&self, low: usize, at: usize) -> usize {
        let line = |at: usize| {
            let before = &self.bytes[low..at];
            low + before
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |end| end + 1)
        };
        let start = line(at);
        if self.bytes[start] == b'^' && start > low {
            line(start - 1)
        } else {
            start
        }
    }
}

struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(record) = record(self.rest) else {
            let line = self.rest.split(|b| *b == b'\n').next().unwrap_or_default();
            self.rest = &[];
            return Some(Err(damaged(&format!("{:?} is no ref", text(line)))));
        };
        self.rest = &self.rest[record.bytes.len()..];
        Some(Ok(record))
    }
}

/// Parses the record at the start of `bytes`.
fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let line_end = |bytes: &[u8]| bytes.iter().position(|b| *b == b'\n');
    let end = line_end(bytes)?;
    let space = bytes[..end].iter().position(|b| *b == b' ')?;
    if (space != 40 && space != 64) || space + 1 == end {
        return None;
    }
    let mut length = end + 1;
    if bytes.get(length) == Some(&b'^') {
        length += line_end(&bytes[length..])? + 1;
    }
    Some(Record {
        name: &bytes[space + 1..end],
        id: &bytes[..space],
        bytes: &bytes[..length],
    })
}

fn header_end(bytes: &[u8]) -> usize {
    if !bytes.starts_with(b"#") {
        return 0;
    }
    let end = bytes.iter().position(|b| *b == b'\n');
    end.map_or(0, |end| end + 1)
}

fn has_trait(header: &[u8], wanted: &[u8]) -> bool {
    header
        .split(u8::is_ascii_whitespace)
        .any(|word| word == wanted)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn damaged(why: &str) -> Error {
    Error::Corrupt {
        id: "packed-refs".into(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> String {
        format!("{number:040x}")
    }

    fn packed(text: &str) -> Packed {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("packed-refs");
        fs::write(&path, text).unwrap();
        Packed::load(&path, HashKind::Sha1).unwrap()
    }

    fn names(packed: &Packed, prefix: &str) -> Vec<String> {
        packed
            .with_prefix(prefix.as_bytes())
            .map(|found| text(found.unwrap().0).into_owned())
            .collect()
    }

    #[test]
    fn every_name_is_found_among_peeled_tags_and_none_beside() {
        for count in [0, 1, 2, 3, 7, 100] {
            let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
            for number in 0..count {
                text += &format!("{} refs/tags/{:04}\n", id(number), number * 2);
                if number % 3 != 0 {
                    text += &format!("^{}\n", id(9));
                }
            }
            let packed = packed(&text);
            for number in 0..count * 2 + 2 {
                let found = packed
                    .find(format!("refs/tags/{number:04}").as_bytes())
                    .unwrap();
                let wanted = (number % 2 == 0 && number < count * 2).then(|| id(number / 2));
                assert_eq!(
                    found.map(|id| id.to_string()),
                    wanted,
                    "{number} of {count}"
                );
            }
            assert_eq!(names(&packed, "refs/tags/00").len(), count.min(50));
        }
    }

    #[test]
    fn unsorted_files_are_sorted_and_keep_their_peeled_lines() {
        let unsorted = packed(&format!(
            "# pack-refs with: peeled \n{} refs/tags/b\n^{}\n{} refs/heads/a\n",
            id(1),
            id(2),
            id(3)
        ));
        assert_eq!(names(&unsorted, ""), ["refs/heads/a", "refs/tags/b"]);
        let rest = unsorted.without(&[b"refs/heads/a"]).unwrap().unwrap();
        assert_eq!(
            text(&rest),
            format!(
                "# pack-refs with: peeled sorted \n{} refs/tags/b\n^{}\n",
                id(1),
                id(2)
            )
        );
        assert_eq!(unsorted.without(&[b"refs/heads/b"]).unwrap(), None);
    }

    #[test]
    fn damage_is_told_and_never_panics() {
        let header = "# pack-refs with: sorted \n";
        for bad in [
            "x\n",
            "^\n",
            &format!("{} \n", id(1)),
            &format!("{}\n", id(1)),
            "\n",
        ] {
            let packed = packed(&format!("{header}{bad}"));
            assert!(packed.find(b"refs/heads/a").is_err(), "{bad:?}");
            assert!(packed.with_prefix(b"").any(|it| it.is_err()), "{bad:?}");
        }
    }
}
