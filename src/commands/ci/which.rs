//! Which results a command is about.

use crate::ci::{Target, request};
use crate::commands::completions;
use crate::model::BranchName;

/// A target, and perhaps a step of it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub target: Target,
    pub step: Option<String>,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Neither repositories nor refs hold a colon.
        let (target, step) = match text.split_once(':') {
            Some((target, step)) => (target, Some(step)),
            None => (text, None),
        };
        if step.is_some_and(str::is_empty) {
            return Err("the step is missing after the colon".into());
        }
        let target: Target = target
            .parse()
            .map_err(|error: crate::ci::layout::BadTarget| error.to_string())?;
        Ok(Self {
            target,
            step: step.map(str::to_owned),
        })
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct Which {
    /// A target: USER/REPO/heads/NAME, USER/REPO/tags/NAME or USER/REPO/pr/NUMBER; and a step of it
    #[arg(value_name = "TARGET[:STEP]")]
    pub target: Option<Named>,
    /// The branch that tells which targets there are
    #[arg(long, value_name = "BRANCH", default_value = "github-metadata", add = completions::branch())]
    pub metadata_branch: BranchName,
}

impl Which {
    /// Returns whose results are meant, and of which step. Without a target:
    /// those of the commit, if there is one, else all.
    pub(super) fn chosen(&self, commit: Option<String>) -> (request::Which, Option<String>) {
        match (&self.target, commit) {
            (Some(named), _) => {
                let which = request::Which::Target(named.target.clone());
                (which, named.step.clone())
            }
            (None, Some(commit)) => (request::Which::Commit(commit), None),
            (None, None) => (request::Which::All, None),
        }
    }
}

/// Returns a branch's name as it is.
pub(super) fn written(branch: &BranchName) -> String {
    String::from_utf8_lossy(branch.as_bytes()).into_owned()
}
