//! The file that remembers how far a watch has come.
//!
//! It holds the id of the last commit that was handled, and is always whole:
//! a new file takes the old one's place. `0` stands for the time before the
//! branch's first commit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::model::ObjectId;

/// Longer than any spelling of a commit: more is not a cursor.
const LIMIT: u64 = 4096;

#[derive(Clone, Debug)]
pub(super) struct Cursor {
    file: PathBuf,
}

impl Cursor {
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns what the file says; nothing where there is none, or an empty
    /// one (as mktemp leaves it).
    pub fn read(&self) -> anyhow::Result<Option<String>> {
        let failed = || format!("cannot read the cursor {}", self.file.display());
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(failed),
        };
        let mut text = Vec::new();
        file.take(LIMIT)
            .read_to_end(&mut text)
            .with_context(failed)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Ok((!text.is_empty()).then_some(text))
    }

    /// Records a commit (`None`: before the first). When it returns, the file
    /// holds it, whatever happens to this machine.
    pub fn write(&self, at: Option<&ObjectId>) -> anyhow::Result<()> {
        let text = at.map_or_else(|| "0\n".to_string(), |id| format!("{id}\n"));
        self.replace(text.as_bytes())
            .with_context(|| format!("cannot write the cursor {}", self.file.display()))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        // The file a link points to is what is to be replaced, not the link.
        let target = fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let mut new = OsString::from(".");
        new.push(name);
        new.push(format!(".{}", std::process::id()));
        let new = folder.join(new);
        let written = write_new(&new, &target, text).and_then(|()| fs::rename(&new, &target));
        if written.is_err() {
            // The failure that matters is known.
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(folder)?.sync_all()
    }
}

/// Writes a file that is not there yet, with the rights of the one whose
/// place it is to take.
fn write_new(new: &Path, old: &Path, text: &[u8]) -> io::Result<()> {
    let create = || File::options().write(true).create_new(true).open(new);
    let mut file = match create() {
        // Left by a process of this number that died.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(new)?;
            create()?
        }
        result => result?,
    };
    if let Ok(old) = fs::metadata(old) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_replaced_whole_and_links_are_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("seen");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("seen", &link).expect("a link");
        let cursor = Cursor::new(file.clone());
        assert_eq!(cursor.read().expect("absent is no failure"), None);
        fs::write(&file, " \n").expect("written");
        assert_eq!(cursor.read().expect("empty is no failure"), None);
        let id = ObjectId::from_bytes(&[0xab; 20]).expect("20 bytes");
        Cursor::new(link.clone()).write(Some(&id)).expect("written");
        assert_eq!(
            fs::read_to_string(&file).expect("there"),
            format!("{id}\n"),
            "an id and a newline"
        );
        assert!(link.is_symlink());
        assert_eq!(cursor.read().expect("there"), Some(id.to_string()));
        cursor.write(None).expect("written");
        assert_eq!(cursor.read().expect("there").as_deref(), Some("0"));
        let left = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 2, "no temporary file stays");
    }

    #[test]
    fn a_cursor_that_cannot_be_written_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let cursor = Cursor::new(folder.path().join("missing/seen"));
        let error = cursor.write(None).expect_err("no such folder");
        assert!(error.to_string().contains("missing/seen"), "{error}");
    }
}
