//! What people asked for, wherever they are: the branch of requests.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;

use crate::ci::cache::Store;
use crate::ci::layout::{self, Target};
use crate::ci::{files, request};
use crate::client::{At, CommitOptions, Error, Expect, Result};
use crate::forge::Sha;
use crate::model::{BranchName, Kind, ObjectId, TreePath};

/// Times a change begins anew because somebody else wrote the branch.
const TRIES: usize = 8;

/// The branch as it was read last.
#[derive(Default)]
pub(super) struct Inbox {
    at: Option<ObjectId>,
    /// The commit of each pull request that somebody approved.
    approved: BTreeMap<Target, Sha>,
}

/// What is new in it.
#[derive(Default)]
pub(super) struct Mail {
    pub requests: Vec<(BranchName, request::Wish)>,
    /// Pull requests whose approval changed.
    pub approved: Vec<Target>,
}

impl Inbox {
    pub(super) fn approved(&self, target: &Target) -> Option<&Sha> {
        self.approved.get(target)
    }

    /// Reads what came since the last time. Requests are there until they are
    /// [`Inbox::answered`].
    pub(super) async fn read(&mut self, client: &Store) -> Result<Mail> {
        let mut mail = Mail::default();
        let head = client.head(&request::room()).await?;
        if head == self.at {
            return Ok(mail);
        }
        let mut approved = BTreeMap::new();
        if let Some(head) = head {
            let mut items = client.walk(&At::Commit(head), &TreePath::root(), false);
            while let Some(item) = items.next().await {
                let path = item?.path;
                let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
                let content = async || -> Result<String> {
                    let content = files::read(&**client, &head, &path).await?;
                    let content = content.unwrap_or_default();
                    Ok(String::from_utf8_lossy(&content).trim().to_owned())
                };
                match path.split_once('/') {
                    Some((layout::REQUESTS, name)) => {
                        let branch = layout::read_request(name.as_bytes());
                        let wish = request::Wish::from_word(&content().await?);
                        if let (Some(branch), Some(wish)) = (branch, wish) {
                            mail.requests.push((branch, wish));
                        } else {
                            tracing::warn!(target: "ci", "{path}: not a request that is understood");
                        }
                    }
                    Some((layout::APPROVED, target)) => {
                        if let Ok(target) = target.parse::<Target>() {
                            approved.insert(target, content().await?);
                        }
                    }
                    _ => (),
                }
            }
        }
        for (target, sha) in &approved {
            if self.approved.get(target) != Some(sha) {
                mail.approved.push(target.clone());
            }
        }
        let gone = self.approved.keys();
        let gone = gone.filter(|target| !approved.contains_key(target));
        mail.approved.extend(gone.cloned());
        self.approved = approved;
        self.at = head;
        Ok(mail)
    }

    /// Takes away requests that were seen to.
    pub(super) async fn answered(
        &mut self,
        client: &Store,
        requests: &[(BranchName, request::Wish)],
    ) -> Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES {
            let Some(head) = client.head(&request::room()).await? else {
                return Ok(());
            };
            let mut puts = Vec::new();
            for (branch, wish) in requests {
                let path = layout::request_path(branch);
                let content = files::read(&**client, &head, &path).await?;
                // Another wish may have come meanwhile.
                if content.is_some_and(|content| content.trim_ascii() == wish.word().as_bytes()) {
                    puts.push(files::gone(path));
                }
            }
            if puts.is_empty() {
                return Ok(());
            }
            let options = CommitOptions {
                message: Some(b"Requests seen to".to_vec()),
                expect: Expect::Head(head),
                ..CommitOptions::default()
            };
            match client
                .edit(&request::room(), files::edits(puts), options)
                .await
            {
                Ok(commit) => {
                    if self.at == Some(head) {
                        self.at = Some(commit);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == Kind::HeadMoved => (),
                Err(error) => return Err(error),
            }
        }
        let message = format!("branch {} is written all the time", layout::ROOM);
        Err(Error::new(Kind::Busy, message))
    }
}
