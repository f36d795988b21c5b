//! Commit objects, and the records that `git cat-file --batch` makes of them.

use crate::model::{Commit, ObjectId, Signature};

use super::{Malformed, Taken, read_signature, signature, take_object, write_signature};

/// Prints a commit object.
pub fn write_commit(commit: &Commit) -> Vec<u8> {
    print(commit, write_signature)
}

fn print(commit: &Commit, name: fn(&mut Vec<u8>, &Signature)) -> Vec<u8> {
    let mut raw = format!("tree {}\n", commit.tree).into_bytes();
    for parent in &commit.parents {
        raw.extend_from_slice(format!("parent {parent}\n").as_bytes());
    }
    raw.extend_from_slice(b"author ");
    name(&mut raw, &commit.author);
    raw.extend_from_slice(b"\ncommitter ");
    name(&mut raw, &commit.committer);
    raw.extend_from_slice(b"\n\n");
    raw.extend_from_slice(&commit.message);
    raw
}

/// Parses a commit object; headers dk does not know are passed over.
pub fn read_commit(id: ObjectId, raw: &[u8]) -> Result<Commit, &'static str> {
    let mut rest = raw;
    let (mut tree, mut parents, mut author, mut committer) = (None, Vec::new(), None, None);
    loop {
        let end = rest
            .iter()
            .position(|b| *b == b'\n')
            .ok_or("the commit ends within its header")?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        if let Some(hex) = line.strip_prefix(b"tree ") {
            tree = ObjectId::from_hex(hex);
        } else if let Some(hex) = line.strip_prefix(b"parent ") {
            parents.push(ObjectId::from_hex(hex).ok_or("a parent of the commit is not an id")?);
        } else if let Some(who) = line.strip_prefix(b"author ") {
            author = Some(read_signature(who));
        } else if let Some(who) = line.strip_prefix(b"committer ") {
            committer = Some(read_signature(who));
        }
        // An empty message may leave the blank line out.
        if rest.is_empty() {
            break;
        }
    }
    let author = author.ok_or("the commit has no author")?;
    Ok(Commit {
        id,
        tree: tree.ok_or("the commit has no tree")?,
        parents,
        committer: committer.unwrap_or_else(|| author.clone()),
        author,
        message: rest.to_vec(),
    })
}

/// Appends `ID commit SIZE\n`, what is known of the commit as an object would
/// hold it, and a newline.
pub fn write_commit_record(out: &mut Vec<u8>, commit: &Commit) {
    // As it was read, so that reading it again gives the same.
    let raw = print(commit, signature);
    out.extend_from_slice(format!("{} commit {}\n", commit.id, raw.len()).as_bytes());
    out.extend_from_slice(&raw);
    out.push(b'\n');
}

/// Takes a record of [`write_commit_record`] off the front of `text`.
pub fn take_commit_record(text: &mut &[u8]) -> Taken<Commit> {
    match take_object(text, "commit")? {
        Some((id, raw)) => Ok(Some(read_commit(id, raw).map_err(|_| Malformed("commit"))?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ObjectId {
        ObjectId::from_bytes(&[n; 20]).expect("20 bytes")
    }

    #[test]
    fn commits_round_trip_and_unknown_headers_are_passed_over() {
        let who = read_signature(b"A <a@b> 1 +0200");
        let commit = Commit {
            id: id(0),
            tree: id(1),
            parents: vec![id(3), id(2)],
            author: who.clone(),
            committer: who,
            message: b"x\n\ny".to_vec(),
        };
        let raw = write_commit(&commit);
        assert_eq!(read_commit(id(0), &raw), Ok(commit.clone()));
        let signed = String::from_utf8(raw)
            .expect("text")
            .replace("\n\nx", "\ngpgsig -----BEGIN\n tree 0000\n -----END\n\nx");
        assert_eq!(read_commit(id(0), signed.as_bytes()), Ok(commit));
        assert!(read_commit(id(0), b"tree 0\n\n").is_err());
    }

    #[test]
    fn records_keep_what_was_read() {
        for author in [
            &b"A <a@b> 1 +0200"[..],
            b"\xff <> -5 -0530",
            b"A <a<b>> 1 +9999",
            b"garbage > more",
            b"",
        ] {
            let commit = Commit {
                id: id(7),
                tree: id(1),
                parents: Vec::new(),
                author: read_signature(author),
                committer: read_signature(b"C <c> 9 +0000"),
                message: b"\xff\n\0".to_vec(),
            };
            let mut text = Vec::new();
            write_commit_record(&mut text, &commit);
            write_commit_record(&mut text, &commit);
            for end in 0..text.len() / 2 {
                assert_eq!(take_commit_record(&mut &text[..end]), Ok(None), "{end}");
            }
            let mut rest = &text[..];
            assert_eq!(take_commit_record(&mut rest), Ok(Some(commit.clone())));
            assert_eq!(take_commit_record(&mut rest), Ok(Some(commit)));
            assert!(rest.is_empty());
        }
        assert!(take_commit_record(&mut &b"nonsense 1\nx\n"[..]).is_err());
        assert!(take_commit_record(&mut &[b'x'; 300][..]).is_err());
    }
}
