//! What people ask of the engine, wherever it runs: files in the store.
//!
//! A mark on a result branch says what is wanted, and stays true while no
//! engine runs; a file in the branch of requests tells a running one where to
//! look. Asking twice is asking once.

use crate::ci::layout::{self, Place, Target};
use crate::client::{
    Client, CommitOptions, Content, Edit, Edits, Empty, Error, FileKind, Result, Sink,
};
use crate::model::{BranchName, Kind, ObjectId, Signature, TreePath};

/// Lets a pull request of a fork run at this commit, and at no other. `by` says
/// who and when: the commit that is made and returned says so for ever.
pub async fn approve(
    client: &dyn Client,
    target: &Target,
    commit: &ObjectId,
    by: Option<Signature>,
) -> Result<ObjectId> {
    let Place::Pr(number) = target.place else {
        let message = format!("{target} is no pull request: it needs no approval");
        return Err(Error::new(Kind::Invalid, message));
    };
    let path = TreePath::new(layout::approval_path(&target.repo, number))?;
    let content = commit.to_hex();
    let edits: Edits = Box::new(move |sink: &mut dyn Sink| {
        sink.edit(Edit::Write {
            path,
            kind: FileKind::Normal,
            content: Content::Bytes(content.as_bytes()),
        })
    });
    let options = CommitOptions {
        message: Some(format!("Approve {target} at {commit}").into_bytes()),
        author: by,
        empty: Empty::Skip,
        ..CommitOptions::default()
    };
    client.edit(&room(), edits, options).await
}

/// The branch of requests and approvals.
pub(super) fn room() -> BranchName {
    BranchName::new(layout::ROOM).expect("a legal name")
}

/// Temporary.
pub async fn rebuild(
    client: &dyn Client,
    branch: &BranchName,
    by: Option<Signature>,
) -> Result<()> {
    mark(
        client,
        branch,
        layout::REBUILD_REQUESTED,
        "Marked for rebuild",
        by,
    )
    .await
}

/// Temporary.
pub async fn cancel(client: &dyn Client, branch: &BranchName, by: Option<Signature>) -> Result<()> {
    mark(
        client,
        branch,
        layout::CANCEL_REQUESTED,
        "Marked to be cancelled",
        by,
    )
    .await
}

async fn mark(
    client: &dyn Client,
    branch: &BranchName,
    file: &str,
    message: &str,
    by: Option<Signature>,
) -> Result<()> {
    for (branch, path, message) in [
        (branch.clone(), TreePath::new(file)?, message.to_owned()),
        (
            room(),
            TreePath::new(layout::request_path(branch))?,
            format!("{message}: {branch}"),
        ),
    ] {
        let edits: Edits = Box::new(move |sink: &mut dyn Sink| {
            sink.edit(Edit::Write {
                path,
                kind: FileKind::Normal,
                content: Content::Bytes(b""),
            })
        });
        let options = CommitOptions {
            message: Some(message.into_bytes()),
            author: by.clone(),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        client.edit(&branch, edits, options).await?;
    }
    Ok(())
}
