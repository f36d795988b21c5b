//! What has to be written for a branch to say something else, and nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::put::Puts;
use super::{Dirty, Put, REBUILD, Reader, pr_folder, ref_folder, status_folder};
use crate::forge::{Context, Difference, Id, Pr, Repo};

impl Reader {
    /// Returns the edits that make the branch say what `difference` brings, and
    /// nothing more: none where it says so already.
    pub fn edits(&self, difference: &Difference) -> Vec<Put> {
        let mut puts = Puts::default();
        for id in &difference.removed {
            match id {
                Id::Repo(repo) => self.drop(&mut puts, &format!("{repo}/.monitor")),
                Id::Commit(repo, sha) => self.drop(&mut puts, &format!("{repo}/commit/{sha}")),
                Id::Pr(repo, number) => self.drop(&mut puts, &pr_folder(repo, *number)),
                Id::Ref(repo, name) => self.drop(&mut puts, &ref_folder(repo, name)),
                Id::Status(repo, sha, context) => {
                    self.drop_status(&mut puts, &status_folder(repo, sha, context));
                }
            }
        }
        let new = &difference.updated;
        for ((repo, number), pr) in &new.prs {
            self.put_pr(&mut puts, &pr_folder(repo, *number), pr);
        }
        for ((repo, name), head) in &new.refs {
            self.put(&mut puts, &ref_folder(repo, name), "head", head);
        }
        for ((repo, sha, context), status) in &new.statuses {
            let folder = status_folder(repo, sha, context);
            self.put(&mut puts, &folder, "state", status.state.word());
            self.keep(
                &mut puts,
                &folder,
                "description",
                status.description.as_deref(),
            );
            self.keep(
                &mut puts,
                &folder,
                "target_url",
                status.target_url.as_deref(),
            );
        }
        for repo in new.repos.difference(&self.always) {
            self.write(&mut puts, format!("{repo}/.monitor"), Vec::new());
        }
        puts.list
    }

    /// Returns the edits that take marks away.
    pub fn cleaned(&self, done: &Dirty) -> Vec<Put> {
        let Dirty { repos, prs, refs } = done;
        let mut puts = Puts::default();
        for repo in repos {
            self.drop(&mut puts, &format!("{repo}/.dirty"));
        }
        for (repo, number) in prs {
            self.drop(&mut puts, &format!("{}/.dirty", pr_folder(repo, *number)));
        }
        for (repo, name) in refs {
            self.drop(&mut puts, &format!("{}/.dirty", ref_folder(repo, name)));
        }
        puts.list
    }

    /// Returns the edits that make an `.error` say why a repository or an
    /// account cannot be read, or that take it away.
    pub fn error(&self, place: &str, why: Option<&str>) -> Vec<Put> {
        let mut puts = Puts::default();
        let path = format!("{place}/.error");
        match why {
            Some(why) => self.write(&mut puts, path, format!("{why}\n").into_bytes()),
            None => self.drop(&mut puts, &path),
        }
        puts.list
    }

    /// Returns the edits that ask for a status to be made anew: one, or those
    /// of `contexts`. None for statuses that are not there.
    pub fn rebuild(&self, repo: &Repo, sha: &str, contexts: &[Context]) -> Vec<Put> {
        let mut puts = Puts::default();
        for context in contexts {
            let folder = status_folder(repo, sha, context);
            if self.text(&folder, "state").is_some() {
                self.write(&mut puts, format!("{folder}/{REBUILD}"), Vec::new());
            }
        }
        puts.list
    }

    /// Returns the edits that say that a status is being made anew, as was wanted.
    pub fn rebuilding(&self, repo: &Repo, sha: &str, context: &Context) -> Vec<Put> {
        let mut puts = Puts::default();
        let folder = status_folder(repo, sha, context);
        self.drop(&mut puts, &format!("{folder}/{REBUILD}"));
        puts.list
    }

    fn put_pr(&self, puts: &mut Puts, folder: &str, pr: &Pr) {
        self.put(puts, folder, "head", &pr.head);
        self.keep(puts, folder, "head-repo", pr.head_repo.as_deref());
        self.put(puts, folder, "state", pr.state.word());
        self.put(puts, folder, "title", &pr.title);
        self.put(puts, folder, "base", &pr.base);
        self.put(puts, folder, "owner", &pr.owner);
        self.keep(puts, folder, "draft", pr.draft.then_some("true"));
        self.keep(puts, folder, "merged", pr.merged.then_some("true"));
        self.keep(puts, folder, "closed-at", pr.closed_at.as_deref());
        let labels = pr.labels.join("\n");
        self.keep(
            puts,
            folder,
            "labels",
            (!labels.is_empty()).then_some(&labels),
        );
        self.keep(puts, folder, "review", pr.review.as_deref());
        let mut index = 0;
        for comment in &pr.comments {
            let folder = format!("{folder}/comments/{index}");
            self.put(puts, &folder, "id", &comment.id.to_string());
            self.put(puts, &folder, "user", &comment.user);
            self.write(puts, format!("{folder}/body"), comment.body.clone());
            index += 1;
        }
        self.drop_comments(puts, &format!("{folder}/comments"), index, &pr.drafts);
    }

    /// Takes away what is no comment: all but the first `count`, and `drafts`
    /// not posted yet.
    fn drop_comments(&self, puts: &mut Puts, folder: &str, count: usize, drafts: &[Vec<u8>]) {
        let mut kept: Vec<&[u8]> = drafts.iter().map(Vec::as_slice).collect();
        let mut folders: BTreeMap<&str, Option<&[u8]>> = BTreeMap::new();
        for (path, content) in self.below(folder) {
            let rest = std::str::from_utf8(&path[folder.len() + 1..]).unwrap_or_default();
            let (name, file) = rest.split_once('/').unwrap_or((rest, ""));
            let body = folders.entry(name).or_default();
            if file == "body" {
                *body = Some(content);
            }
        }
        for (name, body) in folders {
            let is_comment = name.parse().is_ok_and(|number: usize| number < count);
            let waits = kept.iter().position(|draft| Some(*draft) == body);
            match (is_comment, waits) {
                (true, _) => (),
                (false, Some(place)) => _ = kept.swap_remove(place),
                (false, None) => self.drop(puts, &format!("{folder}/{name}")),
            }
        }
        // Those whose folder a comment has taken.
        for (number, draft) in kept.into_iter().enumerate() {
            let path = format!("{folder}/waiting-{number}/body");
            self.write(puts, path, draft.to_vec());
        }
    }

    /// A context goes with all below it, unless another context is there.
    fn drop_status(&self, puts: &mut Puts, folder: &str) {
        let nested = |path: &Vec<u8>| {
            let rest = &path[folder.len() + 1..];
            rest.ends_with(b"/state")
        };
        if !self.below(folder).any(|(path, _)| nested(path)) {
            return self.drop(puts, folder);
        }
        for name in ["state", "description", "target_url", REBUILD] {
            self.drop(puts, &format!("{folder}/{name}"));
        }
    }

    fn put(&self, puts: &mut Puts, folder: &str, name: &str, text: &str) {
        self.write(
            puts,
            format!("{folder}/{name}"),
            format!("{text}\n").into_bytes(),
        );
    }

    fn keep(&self, puts: &mut Puts, folder: &str, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.put(puts, folder, name, text),
            None => self.drop(puts, &format!("{folder}/{name}")),
        }
    }

    fn write(&self, puts: &mut Puts, path: String, content: Vec<u8>) {
        let same = |there: &Arc<[u8]>| **there == *content;
        if !self.files.get(path.as_bytes()).is_some_and(same) {
            puts.list.push(Put {
                path,
                content: Some(content),
            });
        }
    }

    fn drop(&self, puts: &mut Puts, path: &str) {
        // What is above it may have gone already.
        let gone = |end: usize| puts.gone.contains(&path[..end]);
        if self.has(path) && !path.match_indices('/').any(|(end, _)| gone(end)) {
            puts.gone.insert(path.into());
            puts.list.push(Put {
                path: path.into(),
                content: None,
            });
        }
    }
}
