//! An engine behind which nothing can be changed, whatever the storage would allow.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::model::request::{Collected, Progress, RemoteInfo};
use crate::model::{HashKind, ObjectId};

use super::Error;
use super::engine::{
    Advertised, Bulk, Engine, HeadName, Heads, Object, ObjectKind, ObjectStream, Repository,
    Result, Step,
};

/// Any engine, for reading only. Pushing reads.
pub struct ReadOnly(pub Arc<dyn Engine>);

fn refused<T>() -> Result<T> {
    Err(Error::ReadOnly("this store".into()))
}

impl ReadOnly {
    fn inner(&self) -> Result<&dyn Repository> {
        self.0
            .repository()
            .ok_or_else(|| Error::Unsupported("this store is not a Git repository".into()))
    }
}

impl Engine for ReadOnly {
    fn hash_kind(&self) -> HashKind {
        self.0.hash_kind()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        self.0.find(id, buffer)
    }

    fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>> {
        self.0.header(id)
    }

    fn is_shallow(&self, id: &ObjectId) -> bool {
        self.0.is_shallow(id)
    }

    fn open(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>> {
        self.0.open(id)
    }

    fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>> {
        self.0.with_prefix(hex, limit)
    }

    fn write(&self, _: &[Object]) -> Result<()> {
        refused()
    }

    fn put(&self, _: &mut dyn Read, _: Option<u64>) -> Result<ObjectId> {
        refused()
    }

    fn bulk(&self) -> Result<Box<dyn Bulk + '_>> {
        refused()
    }

    fn head(&self, name: &HeadName) -> Result<Option<ObjectId>> {
        self.0.head(name)
    }

    fn quick_head(&self, name: &HeadName) -> Option<Option<ObjectId>> {
        self.0.quick_head(name)
    }

    fn heads(&self, prefix: &str) -> Result<Heads> {
        self.0.heads(prefix)
    }

    fn move_in_steps(
        &self,
        _: &[Step<'_>],
        _: &[Object],
        _: &mut dyn FnMut(&Step<'_>),
    ) -> Result<()> {
        refused()
    }

    fn turn(&self) -> Result<Box<dyn Send + '_>> {
        refused()
    }

    fn is_checked_out(&self, name: &HeadName) -> Result<bool> {
        self.0.is_checked_out(name)
    }

    fn changes(&self) -> Result<tokio::sync::watch::Receiver<u64>> {
        self.0.changes()
    }

    fn repository(&self) -> Option<&dyn Repository> {
        self.0.repository().map(|_| self as &dyn Repository)
    }
}

impl Repository for ReadOnly {
    fn path(&self) -> &Path {
        self.0.repository().map_or(Path::new(""), Repository::path)
    }

    fn id(&self) -> Result<String> {
        self.inner()?.id()
    }

    fn identity(&self) -> Result<(Option<String>, Option<String>)> {
        self.inner()?.identity()
    }

    fn peel(&self, name: &str) -> Result<Option<ObjectId>> {
        self.inner()?.peel(name)
    }

    fn config(&self, key: &str) -> Result<Option<String>> {
        self.inner()?.config(key)
    }

    fn set_config(&self, _: &str, _: &str) -> Result<()> {
        refused()
    }

    fn hide_refs(&self, _: &str) -> Result<()> {
        refused()
    }

    fn remotes(&self) -> Result<Vec<RemoteInfo>> {
        self.inner()?.remotes()
    }

    fn add_remote(&self, _: &str, _: &str) -> Result<()> {
        refused()
    }

    fn remove_remote(&self, _: &str) -> Result<()> {
        refused()
    }

    fn fetch(&self, _: &str, _: &[String], _: &dyn Progress) -> Result<Vec<Advertised>> {
        refused()
    }

    fn push(&self, remote: &str, refspecs: &[String], progress: &dyn Progress) -> Result<()> {
        self.inner()?.push(remote, refspecs, progress)
    }

    fn gc(&self, dry_run: bool, progress: &dyn Progress) -> Result<Collected> {
        match dry_run {
            true => self.inner()?.gc(true, progress),
            false => refused(),
        }
    }

    fn all_refs(&self) -> Result<Vec<(Vec<u8>, ObjectId)>> {
        self.inner()?.all_refs()
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{BranchName, HashKind};
    use crate::store::memory::Memory;

    use super::*;

    #[test]
    fn nothing_is_written() {
        let inner: Arc<dyn Engine> = Arc::new(Memory::new(HashKind::Sha1));
        let id = inner.put(&mut &b"text"[..], Some(4)).expect("writes");
        let sealed = ReadOnly(inner);
        assert!(sealed.is_read_only());
        assert_eq!(
            sealed.header(&id).expect("reads"),
            Some((ObjectKind::Blob, 4))
        );
        assert!(sealed.write(&[]).is_err());
        assert!(sealed.put(&mut &b""[..], None).is_err());
        assert!(sealed.bulk().is_err());
        let name = HeadName::branch(&BranchName::new("a").expect("legal"));
        assert_eq!(sealed.head(&name).expect("reads"), None);
        assert!(sealed.repository().is_none());
    }
}
