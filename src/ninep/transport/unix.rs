//! Unix sockets to listen at: made, taken over when stale, removed.
//!
//! A folder's lock is held while a socket in it is looked at and replaced, so
//! that of two servers that start together one is told that the other is there.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// A socket's file that this process made. Dropping this removes it, unless
/// somebody has put something else there.
#[derive(Debug)]
pub(super) struct Owned {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Without the lock, a socket put there in between could be taken away.
        let _lock = lock(&self.path);
        let still = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if still {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path, which only those who `mode` lets in can connect to. A
/// socket of this user that nobody listens at any more is replaced.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, Owned)> {
    let path = std::path::absolute(path)?;
    let _lock = lock(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On Linux the file gets the permissions the socket has, without what the
    // umask takes away; elsewhere this fails.
    let _ = rustix::fs::fchmod(socket.as_fd(), Mode::from_raw_mode(mode as _));
    let address = SockAddr::unix(&path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(&path)?;
            socket.bind(&address)?;
        }
        done => done?,
    }
    let made = fs::symlink_metadata(&path)?;
    let owned = Owned {
        device: made.dev(),
        inode: made.ino(),
        path,
    };
    fs::set_permissions(&owned.path, fs::Permissions::from_mode(mode))?;
    socket.listen(super::BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into())?, owned))
}

/// Locks the folder a socket is in, for a moment.
fn lock(path: &Path) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = File::open(folder).map_err(|error| {
        let text = format!("{}: {error}", folder.display());
        io::Error::new(error.kind(), text)
    })?;
    match flock(&folder, FlockOperation::LockExclusive) {
        // Some file systems know no locks.
        Ok(()) | Err(rustix::io::Errno::NOLCK | rustix::io::Errno::OPNOTSUPP) => Ok(folder),
        Err(error) => Err(error.into()),
    }
}

/// Removes a socket of this user that nobody listens at; anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(ErrorKind::AddrInUse, why));
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return refuse("something that is no socket is there");
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server whose queue is full would make a connection wait.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => (),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
        _ => return refuse("another server listens there"),
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return refuse("a socket of another user is there, which nobody listens at");
    }
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, Listener};
    use super::*;

    fn at(path: &Path, mode: u32) -> Endpoint {
        Endpoint::Unix {
            path: path.into(),
            mode,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_is_made_private_and_removed_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dk");
        for bits in [0o600, 0o660, 0o666] {
            let listener = Listener::bind(&at(&path, bits)).await.expect("listens");
            assert_eq!(mode(&path), bits);
            let to = at(&path, bits);
            let (accepted, connected) = tokio::join!(listener.accept(), super::super::connect(&to));
            connected.expect("is in");
            let (_, peer) = accepted.expect("accepts");
            let uid = rustix::process::geteuid().as_raw();
            assert!(peer.starts_with(&format!("unix: uid {uid}")), "{peer}");
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dk");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("listens"));
        assert!(path.exists(), "its file is left behind");
        let first = Listener::bind(&at(&path, 0o600)).await.expect("replaces");

        let error = Listener::bind(&at(&path, 0o600))
            .await
            .expect_err("is live");
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
        assert!(error.source.to_string().contains("another server"));
        super::super::connect(&at(&path, 0))
            .await
            .expect("still in");

        // What took its place is not removed with it.
        fs::remove_file(&path).expect("removes");
        fs::write(&path, "a file").expect("writes");
        drop(first);
        assert_eq!(fs::read(&path).expect("still there"), b"a file");

        let error = Listener::bind(&at(&path, 0o600)).await.expect_err("a file");
        assert!(error.source.to_string().contains("no socket"), "{error:?}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("none/dk");
        let error = Listener::bind(&at(&path, 0o600)).await.expect_err("fails");
        assert!(error.source.to_string().contains("/none: "), "{error:?}");
        assert!(error.may_pass());
    }
}
