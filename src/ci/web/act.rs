//! What one may ask for on the pages: that something is built again, ends, or
//! may run at all. Each is a file in the store, as `dk ci` writes it too.

use std::collections::BTreeSet;

use super::target::read_id;
use super::visit::{Answer, Failure, Visit, is_local, see_other};
use crate::ci::view::{self, Job, Look};
use crate::ci::{Target, request};
use crate::model::BranchName;

/// Returns where to go afterwards.
fn back(visit: &Visit) -> Result<String, Failure> {
    let given = visit.query.get("redirect").or(visit.form.get("redirect"));
    let path = given.ok_or_else(|| Failure::bad("Missing redirect"))?;
    match is_local(path) {
        true => Ok(path.to_owned()),
        false => Err(Failure::bad("A redirect is a path of this site")),
    }
}

/// Returns a branch on which a job of some target has a log.
async fn wanted(visit: &Visit, text: &str) -> Result<Option<BranchName>, Failure> {
    let overview = visit.app.keeper.overview().await;
    let mut jobs = overview
        .targets
        .values()
        .flat_map(|entry| &entry.record.jobs);
    let known = jobs.any(|job| job.output.logs.branches().contains(&text));
    Ok(known.then(|| BranchName::new(text).ok()).flatten())
}

pub async fn rebuild_branch(visit: &Visit, text: &str) -> Result<Answer, Failure> {
    let back = back(visit)?;
    let Some(branch) = wanted(visit, text).await? else {
        let why = format!("No job depends on {text:?}, so can't rebuild anything");
        return Err(Failure::not_found(why));
    };
    let by = Some(visit.signature());
    request::rebuild(&*visit.app.client, &branch, by).await?;
    Ok(see_other(&back))
}

pub async fn cancel_branch(visit: &Visit, text: &str) -> Result<Answer, Failure> {
    let back = match visit.query.get("redirect").or(visit.form.get("redirect")) {
        Some(_) => back(visit)?,
        None => "/".into(),
    };
    let not = || Failure::not_found(format!("Branch {text:?} is not currently building"));
    let branch = BranchName::new(text).map_err(|_| not())?;
    let head = visit.app.client.head(&branch).await?.ok_or_else(not)?;
    let log = view::log(&*visit.app.client, &head).await?;
    if log.ended || (log.build.is_none() && log.parts.is_empty()) {
        return Err(not());
    }
    let by = Some(visit.signature());
    request::cancel(&*visit.app.client, &branch, by).await?;
    Ok(see_other(&back))
}

/// Something about a whole target, or one step of it.
pub async fn target(visit: &Visit, what: &str) -> Result<Answer, Failure> {
    let back = back(visit)?;
    let target: Target = visit
        .form
        .text("target")
        .parse()
        .map_err(|error| Failure::bad(format!("{error}")))?;
    let client = &*visit.app.client;
    let by = || Some(visit.signature());
    if what == "approve" {
        let commit = read_id(visit.form.text("commit"))?;
        request::approve(client, &target, &commit, by()).await?;
        return Ok(see_other(&back));
    }
    let record = view::target(client, &target).await?;
    let record = record.ok_or_else(|| Failure::not_found("Nothing is known of this target"))?;
    let step = visit.form.text("step");
    let of = |job: &&Job| {
        step.is_empty() || job.name == step || job.name.starts_with(&format!("{step},"))
    };
    let jobs = record.jobs.iter().filter(of);
    let pending = |job: &&Job| matches!(job.look(), Look::Pending | Look::Running);
    match what {
        "rebuild" => {
            for branch in branches(jobs.filter(|job| !pending(job))) {
                request::rebuild(client, &branch, by()).await?;
            }
        }
        "rebuild-failed" => {
            for branch in branches(jobs.filter(|job| job.look() == Look::Failure)) {
                request::rebuild(client, &branch, by()).await?;
            }
        }
        "cancel" => {
            for branch in branches(jobs.filter(pending)) {
                request::cancel(client, &branch, by()).await?;
            }
        }
        _ => return Err(Failure::not_found("Not found")),
    }
    Ok(see_other(&back))
}

/// Returns the branches of the results, each once.
fn branches<'a>(jobs: impl Iterator<Item = &'a Job>) -> BTreeSet<BranchName> {
    let found = jobs.flat_map(|job| job.output.logs.branches());
    found
        .filter_map(|name| BranchName::new(name).ok())
        .collect()
}
