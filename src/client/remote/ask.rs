//! Asking: once, or again where a connection was lost.

use std::future::Future;
use std::sync::Arc;

use crate::client::*;
use crate::model::text::{
    LsQuery, LsShape, Refs, Reset, Taken, percent_encode, read_refs, take_item,
};
use crate::ninep::client as ninep;

use super::failure::{self, Context, missing_path};
use super::link::Session;
use super::{Remote, WHOLE};

impl Remote {
    /// Asks something that only reads, again where the connection was lost.
    pub(super) async fn ask<T, F>(
        &self,
        what: impl Into<Context>,
        op: impl Fn(Arc<Session>) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = ninep::Result<T>> + Send,
    {
        self.core.ask(what.into(), op).await
    }

    /// Does something that must not be done twice.
    pub(super) async fn once<T, F>(
        &self,
        what: impl Into<Context>,
        op: impl FnOnce(Arc<Session>) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = ninep::Result<T>> + Send,
    {
        let session = self.core.session().await?;
        match op(session).await {
            Err(error) if error.lost => Err(self.core.unknown(&what.into(), &error)),
            result => result.map_err(|error| self.core.error(&what.into(), error)),
        }
    }

    pub(super) async fn query(&self, dir: &'static str, element: Vec<u8>) -> Result<Vec<u8>> {
        let what = Context::file(dir, &element);
        let element = Arc::new(element);
        self.ask(what, move |session| {
            let element = element.clone();
            async move {
                let file = session.open(dir, &[&element], 0).await?;
                file.pull(0, None).rest(WHOLE).await
            }
        })
        .await
    }

    pub(super) async fn resolved(&self, element: Vec<u8>) -> Result<Vec<u8>> {
        let what = Context::file("resolve", &element);
        let element = Arc::new(element);
        self.ask(what, move |session| {
            let element = element.clone();
            async move {
                let file = session.open("resolve", &[&element], 0).await?;
                file.whole(0, WHOLE).await
            }
        })
        .await
    }

    /// Returns the first record of an answer; nothing where it has none.
    pub(super) async fn first<T: Send>(
        &self,
        dir: &'static str,
        element: Vec<u8>,
        take: fn(&mut &[u8]) -> Taken<T>,
    ) -> Result<Option<T>> {
        let what = Context::file(dir, &element);
        let element = Arc::new(element);
        self.ask(what, move |session| {
            let element = element.clone();
            async move { session.first(dir, &[&element], take).await }
        })
        .await
    }

    /// Returns the element of `branch` that names a branch.
    pub(super) fn element(branch: &BranchName) -> Vec<u8> {
        percent_encode(branch.as_bytes(), b"")
    }

    pub(super) async fn reset(
        &self,
        branch: &BranchName,
        reset: Reset,
        make: bool,
    ) -> Result<Vec<u8>> {
        let name = Self::element(branch);
        let what = Context::change(format!("{branch} was moved"), failure::log(branch));
        self.once(what, |session| async move {
            session
                .command("branch", &name, make, "reset", reset.write().into())
                .await
        })
        .await
    }

    pub(super) async fn entry(&self, at: &At, path: &TreePath) -> Result<Option<Stat>> {
        let query = LsQuery {
            at: at.clone(),
            path: path.clone(),
            shape: LsShape::Own,
            sizes: false,
        };
        let item = match self.first("ls", query.write(), take_item).await {
            Err(error) if missing_path(&error, path) => None,
            item => item?,
        };
        Ok(item.map(|item| Stat {
            entry: item.entry,
            size: item.size.unwrap_or(0),
        }))
    }

    /// Returns what signs when nobody is named.
    pub(super) fn author(&self, author: Option<Signature>) -> Option<Signature> {
        author.or_else(|| {
            let identity = self.identity.as_ref()?;
            Some(Signature {
                name: identity.name.clone().into_bytes(),
                email: identity.email.clone().into_bytes(),
                time: crate::model::Time::now(),
            })
        })
    }

    pub(super) async fn refs(&self) -> Result<Refs> {
        let text = self
            .ask("refs", |session| async move {
                let file = session.open_root(&[b"refs"], 0).await?;
                file.pull(0, None).rest(WHOLE).await
            })
            .await?;
        read_refs(&text).ok_or_else(|| failure::nonsense("refs"))
    }
}
