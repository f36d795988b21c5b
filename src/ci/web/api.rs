//! What programs ask for: JSON, badges, counts, and whether all is well.

use axum::http::{HeaderValue, StatusCode, header};
use maud::html;
use serde::Serialize;

use super::auth::sessions::same;
use super::target;
use super::visit::{Answer, Failure, Visit, json as answer, whole};
use crate::ci::view::report::{MomentReport, TargetReport};
use crate::ci::view::{self, Look};
use crate::ci::{Pool, Target, Use};
use crate::forge::Repo;
use crate::metrics::metrics;
use crate::model::text::hex;

/// Moments of a history that are given at most.
const MOMENTS: u64 = 1000;

#[derive(Serialize)]
struct ProjectReport {
    project: String,
    targets: usize,
    success: usize,
    failure: usize,
    pending: usize,
}

#[derive(Serialize)]
struct PoolReport<'a> {
    name: &'a str,
    capacity: usize,
    running: Vec<UseReport>,
    waiting: Vec<UseReport>,
}

#[derive(Serialize)]
struct UseReport {
    target: String,
    job: String,
    branch: String,
    since: String,
}

/// Answers everything below `/api/v1`: the tree of what there is.
pub async fn json(visit: &Visit, rest: &[&str]) -> Result<Answer, Failure> {
    let app = &visit.app;
    let overview = app.keeper.overview().await;
    let project = |user: &str, repo: &str| {
        Repo::new(user, repo)
            .filter(|repo| overview.all_repos().contains(repo))
            .ok_or_else(|| Failure::not_found("No such project"))
    };
    match rest {
        [] => {
            let report = |repo: &Repo| {
                let looks: Vec<Look> = overview
                    .open(repo)
                    .map(|(_, entry)| entry.record.look())
                    .collect();
                let count = |of: &[Look]| looks.iter().filter(|look| of.contains(look)).count();
                ProjectReport {
                    project: repo.to_string(),
                    targets: looks.len(),
                    success: count(&[Look::Success]),
                    failure: count(&[Look::Failure]),
                    pending: count(&[Look::Pending, Look::Running]),
                }
            };
            let projects: Vec<_> = overview.all_repos().iter().map(report).collect();
            Ok(answer(&projects))
        }
        ["queue"] => {
            let Some(engine) = &app.engine else {
                return Err(Failure::not_found("The engine runs elsewhere"));
            };
            let one = |used: &Use| UseReport {
                target: used.target.to_string(),
                job: used.cell.clone(),
                branch: used.branch.to_string(),
                since: view::report::utc(used.since.seconds),
            };
            let report = engine.report();
            let pool = |pool: &'_ Pool| {
                (
                    pool.running.iter().map(one).collect(),
                    pool.waiting.iter().map(one).collect(),
                )
            };
            let pools: Vec<PoolReport<'_>> = report
                .pools
                .iter()
                .map(|known| {
                    let (running, waiting) = pool(known);
                    PoolReport {
                        name: &known.name,
                        capacity: known.capacity,
                        running,
                        waiting,
                    }
                })
                .collect();
            Ok(answer(&pools))
        }
        ["history", user, repo, rest @ ..] => {
            let target = target::read(user, repo, rest)?;
            project(user, repo)?;
            let limit: u64 = visit.query.text("limit").parse().unwrap_or(100);
            let moments = view::history(&*app.client, &target, None, limit.min(MOMENTS)).await?;
            let moments: Vec<_> = moments.iter().map(MomentReport::new).collect();
            Ok(answer(&moments))
        }
        [user, repo] => {
            let repo = project(user, repo)?;
            let targets: Vec<_> = overview
                .open(&repo)
                .map(|(target, entry)| {
                    TargetReport::new(target, &entry.record, entry.about.as_ref())
                })
                .collect();
            Ok(answer(&targets))
        }
        [user, repo, "commit", sha] => {
            let repo = project(user, repo)?;
            let known = view::of_commit(&*app.client, &repo, sha).await?;
            let records = view::records(&*app.client, known.into_iter().collect()).await?;
            let reports: Vec<_> = records
                .iter()
                .map(|(target, record)| TargetReport::new(target, record, None))
                .collect();
            match reports.is_empty() {
                true => Err(Failure::not_found("No builds of this commit are known")),
                false => Ok(answer(&reports)),
            }
        }
        [user, repo, rest @ ..] => {
            let target = target::read(user, repo, rest)?;
            let (record, about) = app.look_up(&target, visit.query.get("history")).await?;
            Ok(answer(&TargetReport::new(&target, &record, about.as_ref())))
        }
        _ => Err(Failure::not_found("Not found")),
    }
}

/// `/badge/U/R/heads/master.svg`: a picture of a state.
pub async fn badge(visit: &Visit, rest: &[&str]) -> Result<Answer, Failure> {
    let path = rest.join("/");
    let Some(name) = path.strip_suffix(".svg") else {
        return Err(Failure::not_found("A badge ends with .svg"));
    };
    let target: Target = name
        .parse()
        .map_err(|error| Failure::not_found(format!("No such badge: {error}")))?;
    let overview = visit.app.keeper.overview().await;
    let look = overview
        .targets
        .get(&target)
        .map(|entry| entry.record.look());
    // White on each of them has the contrast that WCAG asks for.
    let (word, colour) = match look {
        Some(Look::Success) => ("passing", "#177533"),
        Some(Look::Failure) => ("failing", "#c11f2b"),
        Some(Look::Running | Look::Pending) => ("pending", "#855800"),
        None => ("unknown", "#59636e"),
    };
    let label: &str = &match visit.query.text("label") {
        "" => "build".to_owned(),
        label => label.chars().take(40).collect(),
    };
    let wide = |text: &str| text.chars().count() * 7 + 12;
    let (left, right) = (wide(label), wide(word));
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(left + right) height="20" role="img" aria-label={ (label) ": " (word) } {
            title { (label) ": " (word) }
            rect width=(left + right) height="20" rx="3" fill=(colour) {}
            path fill="#3d444d" d={ "M3 0h" (left - 3) "v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" } {}
            g fill="#ffffff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle" {
                text x=(left / 2) y="14" textLength=(left - 12) { (label) }
                text x=(left + right / 2) y="14" textLength=(right - 12) { (word) }
            }
        }
    };
    let mut answer = whole("image/svg+xml", picture.into_string());
    let headers = answer.0.headers_mut();
    // Those who show it for others are to ask again.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(answer)
}

/// The counts of the process, for who has the token.
pub fn counts(visit: &Visit) -> Result<Answer, Failure> {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let given = visit
        .header(header::AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer "));
    let digest = |token: &str| {
        use sha2::Digest as _;
        hex(&sha2::Sha256::digest(token.trim()))
    };
    let wanted = visit.app.settings.web.metrics_token.as_deref();
    match (wanted, given) {
        (Some(wanted), Some(given)) if same(&wanted.to_ascii_lowercase(), &digest(given)) => {
            Ok(whole(KIND, metrics().text()))
        }
        _ => Err(Failure::forbidden("Bad token")),
    }
}

/// 200 while the store can be read and the engine, if it is here, serves it.
pub async fn health(visit: &Visit) -> Result<Answer, Failure> {
    let app = &visit.app;
    let head = app.client.head(&app.settings.metadata);
    let store = match tokio::time::timeout(std::time::Duration::from_secs(5), head).await {
        Ok(Ok(_)) => "ok",
        Ok(Err(_)) => "it cannot be read",
        Err(_) => "it does not answer",
    };
    let engine = match app.engine.as_ref().map(|engine| engine.report()) {
        None => "elsewhere",
        Some(report) if report.connected => "ok",
        Some(_) => "it does not serve the store",
    };
    let well = store == "ok" && engine != "it does not serve the store";
    let mut answer = whole(
        "text/plain; charset=utf-8",
        format!("store: {store}\nengine: {engine}\n"),
    );
    if !well {
        *answer.0.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(answer)
}
