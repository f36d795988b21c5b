//! What one may ask for on the pages: that something is built again, ends, or
//! may run at all. Each is a file in the store, as `dk ci` writes it too.

use super::target::read_id;
use super::visit::{Answer, Failure, Visit, is_local, see_other};
use crate::ci::request::{self, Chosen, Which};
use crate::ci::{Target, layout};
use crate::client;
use crate::model::{BranchName, Kind};

/// Returns where to go afterwards.
fn back(visit: &Visit) -> Result<String, Failure> {
    let given = visit.query.get("redirect").or(visit.form.get("redirect"));
    let path = given.ok_or_else(|| Failure::bad("Missing redirect"))?;
    match is_local(path) {
        true => Ok(path.to_owned()),
        false => Err(Failure::bad("A redirect is a path of this site")),
    }
}

pub async fn rebuild_branch(visit: &Visit, text: &str) -> Result<Answer, Failure> {
    let back = back(visit)?;
    let none = || {
        let why = format!("No job depends on {text:?}, so can't rebuild anything");
        Failure::not_found(why)
    };
    let branch = BranchName::new(text).map_err(|_| none())?;
    if !layout::is_result_branch(&branch) {
        return Err(none());
    }
    let by = Some(visit.signature());
    request::rebuild_branch(&*visit.app.client, &branch, by).await?;
    Ok(see_other(&back))
}

pub async fn cancel_branch(visit: &Visit, text: &str) -> Result<Answer, Failure> {
    let back = match visit.query.get("redirect").or(visit.form.get("redirect")) {
        Some(_) => back(visit)?,
        None => "/".into(),
    };
    let not = || Failure::not_found(format!("Branch {text:?} is not currently building"));
    let branch = BranchName::new(text).map_err(|_| not())?;
    if !layout::is_result_branch(&branch) {
        return Err(not());
    }
    let by = Some(visit.signature());
    request::cancel_branch(&*visit.app.client, &branch, by).await?;
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
    let metadata = &visit.app.settings.metadata;
    let by = Some(visit.signature());
    let step = visit.form.text("step");
    let chosen = Chosen {
        which: Which::Target(target.clone()),
        step: (!step.is_empty()).then(|| step.to_owned()),
        failed: what == "rebuild-failed",
    };
    let overview = visit.app.keeper.overview().await;
    if !overview.targets.contains_key(&target) {
        return Err(Failure::not_found("Nothing is known of this target"));
    }
    match what {
        "approve" => {
            let commit = read_id(visit.form.text("commit"))?;
            request::approve(client, &target, &commit, by).await?;
        }
        "rebuild" | "rebuild-failed" => {
            nothing_is_fine(request::rebuild(client, metadata, &chosen, by).await)?;
        }
        "cancel" => nothing_is_fine(request::cancel(client, metadata, &chosen, by).await)?,
        _ => return Err(Failure::not_found("Not found")),
    }
    Ok(see_other(&back))
}

/// What somebody asks for may have happened while the page was looked at.
fn nothing_is_fine(asked: client::Result<Vec<BranchName>>) -> Result<(), Failure> {
    match asked {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        asked => Ok(asked.map(drop)?),
    }
}
