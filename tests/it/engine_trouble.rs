//! A Git repository in trouble: damaged objects, full disks, disks that cannot
//! be written. All is told, nothing panics, nothing is left behind.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use datakit::model::{HashKind, Kind, ObjectId};
use datakit::store::Error;
use datakit::store::engine::{Durability, Engine as _, Expected, Object, ObjectKind};
use datakit::store::git::Git;

use crate::engine_git::{MAIN, MIB, keep, loose_path, open, packs, subject};
use crate::engine_subject::{files_below, head_move, noise, note};

#[test]
fn a_damaged_loose_object_is_told_and_never_taken_for_whole() {
    let subject = subject();
    let whole = subject.blob([b"some content ".repeat(40), noise(300)].concat());
    subject.engine.write(std::slice::from_ref(&whole)).unwrap();
    let path = loose_path(&subject, &whole.id);
    let bytes = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let check = |what: &str| {
        let mut buffer = Vec::new();
        match subject.engine.find(&whole.id, &mut buffer) {
            Ok(Some(ObjectKind::Blob)) => assert!(buffer == whole.data, "{what}"),
            Ok(found) => panic!("{what}: {found:?}"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
                let start = format!("object {} is damaged: ", whole.id);
                assert!(error.to_string().starts_with(&start), "{what}: {error}");
                return true;
            }
        }
        // The header alone may be sound.
        let _ = subject.engine.header(&whole.id);
        false
    };
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let told = check(&format!("cut to {length}"));
        // The last bytes say that this is all, and a checksum.
        assert!(told || length >= bytes.len() - 8, "{length}");
    }
    let mut told = 0;
    for index in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[index] ^= flip;
            fs::write(&path, &damaged).unwrap();
            told += usize::from(check(&format!("byte {index} ^ {flip}")));
        }
    }
    assert!(told > bytes.len() * 3 - 60, "{told}");
    for other in [&b"blob 3\0abc"[..], b"", b"\0\0\0\0", &[0xff; 100]] {
        fs::write(&path, other).unwrap();
        assert!(check("not compressed"));
    }
    let other = subject.blob("another");
    subject.engine.write(std::slice::from_ref(&other)).unwrap();
    fs::write(&path, fs::read(loose_path(&subject, &other.id)).unwrap()).unwrap();
    assert!(check("another object"));
    fs::write(&path, &bytes).unwrap();
    assert!(!check("mended"));
}

#[test]
fn a_damaged_pack_is_told_and_never_panics() {
    let subject = subject();
    let blobs: Vec<_> = (0..20)
        .map(|number| subject.blob([noise(200 + number), vec![number as u8; 200]].concat()))
        .collect();
    keep(&subject, &blobs.iter().collect::<Vec<_>>());
    subject.stock(&["repack", "-adq", "--depth=10", "--window=20"]);
    let [pack] = &packs(&subject)[..] else {
        panic!("one pack")
    };
    let index = pack.with_extension("idx");
    for file in [pack, &index] {
        let bytes = fs::read(file).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        let mut damages: Vec<Vec<u8>> = (0..bytes.len())
            .step_by(bytes.len() / 300)
            .map(|index| {
                let mut damaged = bytes.clone();
                damaged[index] ^= 0x55;
                damaged
            })
            .collect();
        damages.extend(
            [0, 1, 10, 100, bytes.len() / 2, bytes.len() - 1].map(|cut| bytes[..cut].to_vec()),
        );
        for damaged in damages {
            fs::write(file, &damaged).unwrap();
            let engine = open(&subject.path().unwrap());
            let mut buffer = Vec::new();
            for blob in &blobs {
                match engine.find(&blob.id, &mut buffer) {
                    Ok(Some(_)) | Ok(None) => (),
                    Err(error) => assert_ne!(error.to_string(), ""),
                }
                let _ = engine.header(&blob.id);
            }
            let _ = engine.write(&blobs[..3]);
            for blob in &blobs[..3] {
                let _ = fs::remove_file(loose_path(&subject, &blob.id));
            }
        }
        fs::write(file, &bytes).unwrap();
    }
}

#[test]
fn large_blobs_are_streamed_from_loose_files_and_packs() {
    let subject = subject();
    let path = subject.path().unwrap();
    let large = subject.blob([noise(5 * MIB), vec![7; 5 * MIB]].concat());
    let put = subject.engine.put(&mut &large.data[..], None).unwrap();
    assert_eq!(put, large.id);
    let read = |engine: &Git| -> Result<bool, String> {
        let mut stream = engine.open(&large.id).unwrap().unwrap();
        let mut data = Vec::new();
        match stream.read_to_end(&mut data) {
            Ok(_) => Ok(data == large.data),
            Err(error) => Err(error.to_string()),
        }
    };
    assert_eq!(read(&open(&path)), Ok(true));
    let loose = loose_path(&subject, &large.id);
    let bytes = fs::read(&loose).unwrap();
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&loose, &bytes[..bytes.len() - 3]).unwrap();
    let error = read(&open(&path)).unwrap_err();
    assert!(error.contains(&large.id.to_hex()), "{error}");
    fs::write(&loose, &bytes).unwrap();

    keep(&subject, &[&large]);
    let before = open(&path);
    assert_eq!(read(&before), Ok(true));
    subject.stock(&["-c", "core.bigFileThreshold=1m", "repack", "-adq"]);
    assert!(!loose.exists());
    assert_eq!(read(&open(&path)), Ok(true));
    assert_eq!(read(&before), Ok(true), "opened before the pack was there");
    let [pack] = &packs(&subject)[..] else {
        panic!("one pack")
    };
    let bytes = fs::read(pack).unwrap();
    fs::set_permissions(pack, fs::Permissions::from_mode(0o644)).unwrap();
    let mut damaged = bytes.clone();
    let inside = bytes.len() / 2;
    damaged[inside] ^= 1;
    fs::write(pack, &damaged).unwrap();
    let error = read(&open(&path)).unwrap_err();
    assert!(error.contains(&large.id.to_hex()), "{error}");
    fs::write(pack, &bytes).unwrap();
}

/// Runs one test of this file again where `mount` has mounted something at
/// the path in `DK_TEST_MOUNT`; `None` inside, and where it cannot be done.
fn mounted(test: &str, mount: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("DK_TEST_MOUNT") {
        return Some(path.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let script =
        format!("{mount} || exit 77; exec \"$0\" --exact engine_trouble::{test} --nocapture");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("DK_TEST_MOUNT", dir.path())
        .output();
    match output {
        Ok(output) if output.status.success() => (),
        Ok(output) if matches!(output.status.code(), Some(1 | 77)) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => panic!(
            "{}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        ),
        Err(error) => println!("skipped: unshare: {error}"),
    }
    None
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let mount = "mount -t tmpfs -o size=3m,nr_inodes=700 none \"$DK_TEST_MOUNT\"";
    let Some(dir) = mounted("a_full_disk_is_told_and_nothing_is_left", mount) else {
        return;
    };
    let path = dir.join("store.git");
    let engine = Git::init(&path, HashKind::Sha1).unwrap();
    let before = files_below(&path);
    let large = noise(5 * MIB);
    let small: Vec<_> = (0..100_000_u32)
        .map(|number| number.to_le_bytes())
        .collect();
    let mut attempts: Vec<Error> = Vec::new();
    attempts.push(engine.put(&mut &large[..], None).unwrap_err());
    attempts.push(
        engine
            .put(&mut &large[..], Some(large.len() as u64))
            .unwrap_err(),
    );
    let mut bulk = engine.bulk().unwrap();
    attempts.push(
        bulk.add_stream(&mut &large[..], Some(large.len() as u64))
            .unwrap_err(),
    );
    assert!(bulk.finish().is_err());
    let mut bulk = engine.bulk().unwrap();
    let failed = small.iter().try_for_each(|data| {
        bulk.add(ObjectKind::Blob, &[&data[..], &noise(100)].concat())
            .map(|_| ())
    });
    attempts.extend(failed.err());
    assert!(bulk.finish().is_err());
    let one = Object {
        id: ObjectId::from_bytes(&[1; 20]).unwrap(),
        kind: ObjectKind::Blob,
        data: large,
    };
    attempts.push(engine.write(std::slice::from_ref(&one)).unwrap_err());
    for error in attempts {
        assert_eq!(error.kind(), Kind::NoSpace, "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    assert_eq!(files_below(&path), before);
    // Smaller things still go in.
    let id = engine.put(&mut &b"small"[..], None).unwrap();
    assert!(engine.header(&id).unwrap().is_some());
}

#[test]
fn what_cannot_be_written_is_read() {
    let mount = "mount -t tmpfs none \"$DK_TEST_MOUNT\"";
    let Some(dir) = mounted("what_cannot_be_written_is_read", mount) else {
        return;
    };
    let path = dir.join("store.git");
    let engine = Git::init(&path, HashKind::Sha1).unwrap();
    assert!(!engine.is_read_only());
    let id = engine.put(&mut &b"kept"[..], None).unwrap();
    drop(engine);
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&dir)
        .status();
    assert!(remount.unwrap().success());
    let engine = Git::open(&path, Durability::Strict, false).unwrap();
    assert!(engine.is_read_only());
    let mut buffer = Vec::new();
    engine.find(&id, &mut buffer).unwrap();
    assert_eq!(buffer, b"kept");
    assert_eq!(engine.heads("refs/").unwrap(), []);
    engine.changes().unwrap();
    for error in [
        engine.put(&mut &b"new"[..], None).unwrap_err(),
        engine.put(&mut &noise(2 * MIB)[..], None).unwrap_err(),
        engine
            .move_heads(&[head_move(MAIN, Expected::Any, None)], &note(), &[])
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::ReadOnly, "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}
