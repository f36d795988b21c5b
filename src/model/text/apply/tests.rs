//! Whatever is printed is parsed again, however it is cut.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::model::request::{Content, Edit, Empty, Expect};
use crate::model::text::read_signature;
use crate::model::{Kind, Mode};

fn id(n: u8) -> ObjectId {
    ObjectId::from_bytes(&[n; 32]).expect("32 bytes")
}

/// Prints what was parsed, so that it can be compared.
fn parse(text: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Result<Vec<String>, String> {
    let mut parser = Parser::default();
    let mut rest = Bytes::copy_from_slice(text);
    let (mut told, mut content) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let piece = rest.split_to(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        let mut parts = Vec::new();
        let result = parser.push(piece, &mut parts);
        for part in parts {
            match part {
                Part::Data(data) => content.extend_from_slice(&data),
                Part::End => told.push(format!("{:?}", std::mem::take(&mut content))),
                other => told.push(format!("{other:?}")),
            }
        }
        if let Err(failure) = result {
            assert_eq!(failure.kind, Kind::Invalid);
            return Err(failure.message);
        }
    }
    assert!(parser.is_finished(), "{told:?}");
    Ok(told)
}

/// A request with everything in it, and what is to be read from it.
fn everything() -> (Vec<u8>, Vec<String>) {
    let path = |text: &[u8]| TreePath::new(text).expect("legal");
    let odd = TreePath::found(b"a/.git").expect("a path");
    let head = Head {
        options: CommitOptions {
            message: Some(b"commit\n\xff\n".to_vec()),
            author: Some(read_signature(b"A B <a@b> 7 -0330")),
            expect: Expect::Unborn,
            ff_only: true,
            empty: Empty::Refuse,
            force: true,
            keep: true,
        },
        parents: Some(vec![id(1), id(2)]),
        resolve: Some((Side::Theirs, vec![path(b"x\n\"y"), odd.clone()])),
        theirs: Some(id(3)),
        favour: Some(Side::Base),
        dry_run: true,
        from: Some(id(4)),
        name: TransactionId::new("t.1"),
        operation: Some(Operation::new()),
    };
    let mut out = Vec::new();
    write_head(&mut out, &head).expect("memory");
    let mut told = vec![format!("{:?}", Part::Head(Box::new(head)))];
    let begin = |edit, size| format!("{:?}", Part::Begin { edit, size });
    let long: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for (kind, name) in [
        (FileKind::Keep, &b" keep"[..]),
        (FileKind::Normal, b"normal "),
        (FileKind::Exec, b"\xff\\\""),
    ] {
        let (path, content) = (path(name), Content::Bytes(b"done\n"));
        let filled = Filled::Write {
            path: path.clone(),
            kind,
        };
        told.extend([begin(filled, Some(5)), format!("{:?}", b"done\n")]);
        let edit = Edit::Write {
            path,
            kind,
            content,
        };
        write_edit(&mut out, edit).expect("memory");
    }
    for size in [None, Some(long.len() as u64)] {
        let path = path(b"long");
        let filled = Filled::Append { path: path.clone() };
        told.extend([begin(filled, size), format!("{long:?}")]);
        let reader = &mut &long[..];
        let content = Content::Reader { reader, size };
        write_edit(&mut out, Edit::Append { path, content }).expect("memory");
    }
    for size in [None, Some(0)] {
        let path = path(b"empty");
        let filled = Filled::Append { path: path.clone() };
        told.extend([begin(filled, size), "[]".into()]);
        let reader = &mut std::io::empty();
        let content = Content::Reader { reader, size };
        write_edit(&mut out, Edit::Append { path, content }).expect("memory");
    }
    let link = Filled::Link { path: path(b"l") };
    told.extend([begin(link, Some(2)), format!("{:?}", b"\xff\n")]);
    let link = Edit::Link {
        path: path(b"l"),
        target: b"\xff\n",
    };
    write_edit(&mut out, link).expect("memory");
    let entry = Entry {
        mode: Mode::LINK,
        id: id(9),
    };
    let (from, to) = (odd, path(b"\"to\" x"));
    macro_rules! plain {
        ($($name:ident { $($field:ident: $value:expr),* })*) => {
            $(
                write_edit(&mut out, Edit::$name { $($field: $value),* }).expect("memory");
                told.push(format!("{:?}", Part::Edit(Plain::$name { $($field: $value),* })));
            )*
        };
    }
    plain! {
        Truncate { path: path(b"t t"), size: u64::MAX }
        Mkdir { path: TreePath::root() }
        Remove { path: from.clone() }
        Rename { from: from.clone(), to: to.clone() }
        Copy { from: path(b"a b"), to: to.clone() }
        Chmod { path: path(b"-x"), exec: true }
        Chmod { path: path(b"\n"), exec: false }
        Set { path: path(b"s"), entry: entry }
    }
    write_finish(&mut out, Finish::Commit).expect("memory");
    told.push(format!("{:?}", Part::Finish(Finish::Commit)));
    (out, told)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn requests_are_read_however_they_are_cut(
        sizes in prop::collection::vec(prop_oneof![1..20_usize, 1..100_000_usize], 1..50),
    ) {
        let (text, told) = everything();
        prop_assert_eq!(parse(&text, &mut sizes.iter().copied().cycle()), Ok(told));
    }

    #[test]
    fn anything_may_come(text: Vec<u8>, cut in 1..50_usize) {
        let mut parser = Parser::default();
        for piece in text.chunks(cut) {
            let _ = parser.push(Bytes::copy_from_slice(piece), &mut Vec::new());
        }
    }
}

#[test]
fn a_request_written_by_hand_is_read() {
    let text = b"message 2\nhi\nwrite keep a/b\n5\nhello\nrm x\ncommit\n";
    let told = parse(text, &mut std::iter::repeat(7)).expect("legal");
    assert_eq!(told.len(), 5, "{told:?}");
    let nothing = parse(b"done\n", &mut std::iter::repeat(7)).expect("legal");
    assert_eq!(nothing.len(), 2);
}

#[test]
fn what_is_wrong_is_refused() {
    for bad in [
        &b"nonsense\n"[..],
        b"done x\n",
        b"done\ndone\n",
        b"done\n\n",
        b"rm a\nkeep\n",
        b"write keep .git/x\n",
        b"write some x\n",
        b"write keep x\n-1\n",
        b"write keep x\n3\nabcd\n",
        b"write keep x\n+3\nabc\n4\n",
        b"append x\nnone\n",
        b"mv a b\n",
        b"mv \"a\" \"b\" \"c\"\n",
        b"cp \"a\" \"../b\"\n",
        b"rm \"a\n",
        b"path x\n",
        b"expect x\n",
        b"parents x\n",
        b"chmod x y\n",
        b"set 9 00 x\n",
        b"name ..\n",
        b"resolve all\n",
        b"message 99999999999\n",
        b"truncate +1 x\n",
    ] {
        let result = parse(bad, &mut std::iter::repeat(3));
        assert!(result.is_err(), "{}", bad.escape_ascii());
    }
    let mut parser = Parser::default();
    let long = Bytes::from(vec![b'x'; LINE]);
    assert!(parser.push(long, &mut Vec::new()).is_ok());
    assert!(
        parser
            .push(Bytes::from_static(b"x"), &mut Vec::new())
            .is_err()
    );
    assert!(
        parser
            .push(Bytes::from_static(b"\n"), &mut Vec::new())
            .is_err()
    );
}

#[test]
fn content_of_another_length_is_an_error() {
    for (size, given) in [(3, 2), (3, 4), (0, 1), (100_000, 99_999)] {
        let reader = &mut std::io::repeat(b'x').take(given);
        let content = Content::Reader {
            reader,
            size: Some(size),
        };
        let path = TreePath::new("p").expect("legal");
        let result = write_edit(&mut Vec::new(), Edit::Append { path, content });
        assert!(matches!(result, Err(PrintError::Length { .. })), "{size}");
    }
}
