//! The file of local users: a line each, the name and the hash of the password
//! (argon2id, in the PHC string format).
//!
//! It is read at every login, so what `dk ci user` changes counts at once, and
//! replaced as a whole with mode 0600. A password is never kept nor printed.
//! Users of the ancestor's file come into it once, before there is one
//! ([`Passwords::take_over`]); their hashes are replaced when they log in.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, PasswordHash};

use super::ancestor;

/// The longest password; hashing more is work for nothing.
const LONGEST: usize = 1024;
/// The shortest that may be set.
pub const SHORTEST: usize = 8;

/// Why a user could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a name of a user: 1 to 64 letters, digits, '.', '_' and '-'")]
    Name(String),
    #[error("a password has {SHORTEST} to {LONGEST} bytes")]
    Length,
    #[error("no user is called {0}")]
    Unknown(String),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the password cannot be hashed")]
    Hash,
    #[error("{} is no file of users: {why}", .path.display())]
    Ancestor { path: PathBuf, why: String },
}

/// The file, whether it is there yet or not.
#[derive(Clone, Debug)]
pub struct Passwords {
    path: PathBuf,
}

impl Passwords {
    /// The file in a folder, which is made when it is needed.
    pub fn within(folder: &Path) -> Self {
        Self {
            path: folder.join("passwords"),
        }
    }

    /// Takes the users of the ancestor's file over, where there is one in the
    /// folder of secrets and none of our own; returns how many there were.
    pub fn take_over(&self, secrets: &Path) -> Result<usize, Error> {
        let path = secrets.join(ancestor::FILE);
        let failed = |source| Error::File {
            path: path.clone(),
            source,
        };
        if !path.exists() || self.path.exists() {
            return Ok(0);
        }
        let text = std::fs::read(&path).map_err(failed)?;
        let old = ancestor::users(&text).map_err(|why| Error::Ancestor {
            path: path.clone(),
            why,
        })?;
        let mut count = 0;
        self.change(|users| {
            // Somebody may have been faster.
            if users.is_empty() && !self.path.exists() {
                for (name, hash) in old {
                    check_name(&name)?;
                    users.push((name, hash));
                }
                users.sort();
                count = users.len();
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// Returns the names of the users, in order.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.read()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Sets a password, of a new user or of a known one.
    pub fn set(&self, name: &str, password: &str) -> Result<(), Error> {
        check_name(name)?;
        if !(SHORTEST..=LONGEST).contains(&password.len()) {
            return Err(Error::Length);
        }
        let hash = hash(password)?;
        self.change(|users| {
            users.retain(|(known, _)| known != name);
            users.push((name.into(), hash));
            users.sort();
            Ok(())
        })
    }

    /// Takes a user away.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.change(|users| {
            let before = users.len();
            users.retain(|(known, _)| known != name);
            match users.len() < before {
                true => Ok(()),
                false => Err(Error::Unknown(name.into())),
            }
        })
    }

    /// Tells whether the password is the user's. A name nobody has takes as
    /// long. It blocks, and takes tens of milliseconds and 19 MiB.
    pub fn check(&self, name: &str, password: &str) -> Result<bool, Error> {
        // Of no password anybody could type.
        const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$\
            8fo2FLTkYcUxAckKVUUkNBCJKoBQvbzUhgVCiBWDuuo";
        let users = self.read()?;
        let known = users.iter().find(|(known, _)| known == name);
        let line = known.map_or(NOBODY, |(_, hash)| hash);
        if password.len() > LONGEST {
            return Ok(false);
        }
        let Ok(parsed) = PasswordHash::new(line) else {
            tracing::error!(target: "ci", "{}: the line of {name} is not understood", self.path.display());
            return Ok(false);
        };
        if let Some(right) = ancestor::check(&parsed, password) {
            // Whether right or wrong, it takes no less than any other.
            let better = hash(password)?;
            if right {
                self.improve(name, line, better)?;
            }
            return Ok(right);
        }
        let verified = Argon2::default().verify_password(password.as_bytes(), &parsed);
        Ok(verified.is_ok() && known.is_some())
    }

    /// Replaces a hash, unless somebody else did.
    fn improve(&self, name: &str, old: &str, better: String) -> Result<(), Error> {
        self.change(|users| {
            let same = users
                .iter_mut()
                .find(|(known, hash)| known == name && hash == old);
            if let Some((_, hash)) = same {
                *hash = better;
            }
            Ok(())
        })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }

    fn read(&self) -> Result<Vec<(String, String)>, Error> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(|error| self.failed(error))?,
        };
        let line = |line: &str| {
            let (name, hash) = line.trim().split_once(':')?;
            Some((name.to_owned(), hash.to_owned()))
        };
        let mut users: Vec<_> = text.lines().filter_map(line).collect();
        users.sort();
        Ok(users)
    }

    /// Changes the file; of two who do at once, one waits.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<(String, String)>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |error| self.failed(error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        private_folder(folder).map_err(failed)?;
        let lock = std::fs::File::create(folder.join("passwords.lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut users = self.read()?;
        change(&mut users)?;
        let mut text = String::new();
        for (name, hash) in &users {
            text += &format!("{name}:{hash}\n");
        }
        replace(&self.path, text.as_bytes()).map_err(failed)
    }
}

/// Makes a folder that only its owner may open.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Replaces a file that only its owner may read, as a whole or not at all.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

fn hash(password: &str) -> Result<String, Error> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|_| Error::Hash)?.to_string())
}

fn check_name(name: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match (1..=64).contains(&name.len()) && name.chars().all(legal) {
        true => Ok(()),
        false => Err(Error::Name(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_is_right() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let users = Passwords::within(&folder.path().join("web"));
        assert!(!users.check("admin", "").expect("no file"));
        users.set("admin", "fred-and-wilma").expect("set");
        for (name, password, right) in [
            ("admin", "fred-and-wilma", true),
            ("admin", "fred-and-wilma!", false),
            ("admin", "", false),
            ("fred", "fred-and-wilma", false),
            ("", "", false),
        ] {
            let told = users.check(name, password).expect("readable");
            assert_eq!(told, right, "{name}");
        }
        let file = folder.path().join("web/passwords");
        let mode = std::fs::metadata(&file)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(file).expect("text");
        assert!(
            text.starts_with("admin:$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        users.set("bob", "another one").expect("set");
        users.set("admin", "replaced it").expect("set");
        assert!(users.check("admin", "replaced it").expect("readable"));
        assert_eq!(users.names().expect("readable"), ["admin", "bob"]);
        users.remove("bob").expect("known");
        assert!(matches!(users.remove("bob"), Err(Error::Unknown(_))));
        assert!(matches!(users.set("a:b", "12345678"), Err(Error::Name(_))));
        assert!(matches!(users.set("a", "1234567"), Err(Error::Length)));
    }

    #[test]
    fn users_of_the_ancestor_are_taken_over_once() {
        let secrets = tempfile::tempdir().expect("a folder");
        let users = Passwords::within(&secrets.path().join("web"));
        assert_eq!(users.take_over(secrets.path()).expect("none"), 0);
        let file = secrets.path().join(ancestor::FILE);
        std::fs::write(&file, ancestor::EXAMPLE).expect("written");
        assert_eq!(users.take_over(secrets.path()).expect("read"), 1);
        assert_eq!(users.names().expect("readable"), ["admin"]);
        let line = || users.read().expect("readable")[0].1.clone();
        assert!(line().starts_with("$pbkdf2-sha1$i=5000$"), "{}", line());
        for (name, password, right) in [
            ("foo", "bar", false),
            ("admin", "fred!", false),
            ("admin", "fred", true),
        ] {
            let told = users.check(name, password).expect("readable");
            assert_eq!(told, right, "{name} {password}");
        }
        // From now on it is hashed as any other.
        assert!(line().starts_with("$argon2id$"), "{}", line());
        assert!(users.check("admin", "fred").expect("readable"));
        assert!(!users.check("admin", "fred!").expect("readable"));
        // Whoever was removed does not come back.
        users.remove("admin").expect("known");
        assert_eq!(users.take_over(secrets.path()).expect("readable"), 0);
        assert!(users.names().expect("readable").is_empty());
    }

    #[test]
    fn a_broken_file_of_the_ancestors_is_told() {
        let secrets = tempfile::tempdir().expect("a folder");
        let users = Passwords::within(&secrets.path().join("web"));
        std::fs::write(secrets.path().join(ancestor::FILE), "((admin").expect("written");
        let error = users.take_over(secrets.path()).expect_err("broken");
        let told = error.to_string();
        assert!(
            told.ends_with("passwords.sexp is no file of users: it ends too early"),
            "{told}"
        );
        assert!(!secrets.path().join("web/passwords").exists());
    }
}
