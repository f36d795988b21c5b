//! The pages of one target: its steps now or at some moment of its history,
//! that history, and the builds of a commit.

use maud::{Markup, html};

use super::page::{
    Page, button, icon, log_path, page, place_name, repo_path, segment, short, span, target_path,
    time, word,
};
use super::visit::{Answer, Failure, Visit, redirect};
use super::{App, graph};
use crate::ci::layout::{self, Place, Target};
use crate::ci::view::{self, About, Job, Log, LogAt, Look, Moment, Record};
use crate::forge::Repo;
use crate::model::{ObjectId, TreePath};

/// Moments on a target's page, and on one of its history's.
const RECENT: u64 = 10;
const MOMENTS: u64 = 100;

/// Returns the target that the rest of a path names.
pub fn read(user: &str, repo: &str, rest: &[&str]) -> Result<Target, Failure> {
    let none = || Failure::not_found("No such project");
    let repo = Repo::new(user, repo).ok_or_else(none)?;
    let place = match rest {
        ["pr", number] => Place::Pr(
            number
                .parse()
                .map_err(|_| Failure::not_found("No such pull request"))?,
        ),
        ["ref", name @ ..] if !name.is_empty() => {
            let name = TreePath::new(name.join("/"));
            Place::Ref(name.map_err(|_| Failure::not_found("No such ref"))?)
        }
        _ => return Err(Failure::not_found("Not found")),
    };
    Ok(Target { repo, place })
}

pub fn read_id(text: &str) -> Result<ObjectId, Failure> {
    ObjectId::from_hex(text.as_bytes())
        .ok_or_else(|| Failure::not_found(format!("{text:?} is not the id of a commit")))
}

impl App {
    /// Reads what a commit of a result branch says; what does not change is
    /// read once.
    pub async fn build(&self, commit: &ObjectId) -> crate::client::Result<std::sync::Arc<Log>> {
        if let Some(known) = self.builds.get(commit) {
            return Ok(known);
        }
        let log = std::sync::Arc::new(view::log(&*self.client, commit).await?);
        self.builds.insert(*commit, std::sync::Arc::clone(&log));
        Ok(log)
    }

    /// Returns a target as it is now, or as it was recorded at a commit.
    pub async fn look_up(
        &self,
        target: &Target,
        at: Option<&str>,
    ) -> Result<(Record, Option<About>), Failure> {
        let overview = self.keeper.overview().await;
        if !overview.all_repos().contains(&target.repo) {
            return Err(Failure::not_found("No such project"));
        }
        let known = overview.targets.get(target);
        let about = known.and_then(|entry| entry.about.clone());
        if let Some(at) = at {
            let commit = read_id(at)?;
            if !view::is_of(&*self.client, target, &commit).await? {
                return Err(Failure::not_found(
                    "No such moment in the history of this target",
                ));
            }
            return Ok((view::record(&*self.client, &commit).await?, about));
        }
        let entry = known.ok_or_else(|| Failure::not_found("Nothing is known of this target"))?;
        Ok(((*entry.record).clone(), about))
    }
}

/// A job with what is known of its logs.
struct Row<'a> {
    job: &'a Job,
    logs: Vec<(LogAt, Option<std::sync::Arc<Log>>)>,
}

async fn rows<'a>(app: &App, record: &'a Record) -> Vec<Row<'a>> {
    let order = graph::layers(&record.jobs);
    let mut rows = Vec::new();
    for (job, layer) in record.jobs.iter().zip(order) {
        let mut logs = Vec::new();
        for log in view::logs(&job.output.logs) {
            let commit = log
                .commit
                .as_deref()
                .and_then(|id| ObjectId::from_hex(id.as_bytes()));
            let build = match commit {
                // One that is gone has no more to say.
                Some(commit) => app.build(&commit).await.ok(),
                None => None,
            };
            logs.push((log, build));
        }
        rows.push((layer, Row { job, logs }));
    }
    rows.sort_by(|(a, x), (b, y)| (a, &x.job.name).cmp(&(b, &y.job.name)));
    rows.into_iter().map(|(_, row)| row).collect()
}

pub async fn page_of(visit: &mut Visit, target: &Target) -> Result<Answer, Failure> {
    let at = visit.query.get("history").map(str::to_owned);
    let chosen = visit.query.text("test").to_owned();
    let app = std::sync::Arc::clone(&visit.app);
    let (record, about) = app.look_up(target, at.as_deref()).await?;
    let moments = view::history(&*app.client, target, Some(&record.commit), RECENT + 1).await?;
    let rows = rows(&app, &record).await;
    let path = target_path(target);
    let acts = at.is_none() && visit.may_build();
    let csrf = acts.then(|| visit.csrf());
    // Of one that was, what was before it.
    let earlier = &moments[usize::from(at.is_some()).min(moments.len())..];
    let title = target.to_string();
    let version = app.keeper.changes().borrow().version;
    let body = html! {
        (heading(target, &record, about.as_ref(), at.is_some()))
        (facts(&app, target, &record, about.as_ref(), moments.first()))
        @if let (Some(csrf), Some(about)) = (&csrf, &about) { (actions(target, &record, about, csrf, &path)) }
        @if let Some(drawing) = graph::graph(&record.jobs) { (drawing) }
        section aria-labelledby="steps" {
            h2 id="steps" { "Steps" }
            ul.rows.jobs {
                @for row in &rows { (job(row, csrf.as_deref(), &path, &chosen)) }
            }
            @if rows.is_empty() { p.faint { "There are none." } }
        }
        section aria-labelledby="history" {
            h2 id="history" { @if at.is_some() { "Before" } @else { "History" } }
            @if earlier.is_empty() { p.faint { "There was nothing." } }
            @else { (moments_of(target, earlier.iter().take(RECENT as usize))) }
            p.small { a href={ "/history" (path) } { "The whole history" } }
        }
    };
    let about = Page {
        title: &title,
        version: at.is_none().then_some(version),
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

pub async fn show(
    visit: &mut Visit,
    user: &str,
    repo: &str,
    rest: &[&str],
) -> Result<Answer, Failure> {
    let target = read(user, repo, rest)?;
    page_of(visit, &target).await
}

fn crumbs(target: &Target) -> Markup {
    html! {
        nav.path aria-label="Where this is" {
            a href=(repo_path(&target.repo)) { (target.repo) }
            span aria-hidden="true" { "/" }
            @match &target.place {
                Place::Pr(_) => a href="/pr" { "pull requests" },
                Place::Ref(name) if name.as_bytes().starts_with(b"tags/") => a href="/tag" { "tags" },
                Place::Ref(_) => a href="/branch" { "branches" },
            }
        }
    }
}

fn heading(target: &Target, record: &Record, about: Option<&About>, old: bool) -> Markup {
    let look = record.look();
    let title = about.and_then(|about| about.title.as_deref());
    html! {
        (crumbs(target))
        div.head {
            h1 { (icon(look)) " " (place_name(&target.place)) @if let Some(title) = title { " " (title) } }
            (word(look))
        }
        @if old { p.note.wait { "This is how it was once. " a href=(target_path(target)) { "How it is now" } } }
        @if about.is_none() { p.note { "The forge does not have this any more; its builds are kept." } }
    }
}

fn facts(
    app: &App,
    target: &Target,
    record: &Record,
    about: Option<&About>,
    moment: Option<&Moment>,
) -> Markup {
    let repo = &target.repo;
    let path = match &target.place {
        Place::Pr(number) => format!("/pull/{number}"),
        Place::Ref(_) => {
            let name = place_name(&target.place);
            let steps: Vec<String> = name.split('/').map(segment).collect();
            format!("/tree/{}", steps.join("/"))
        }
    };
    let forge = app.settings.elsewhere(repo, &path);
    let state = app
        .settings
        .web
        .state_repo
        .as_deref()
        .map(|url| url.trim_end_matches('/'));
    let branch = layout::status_branch(target).ok();
    let state = state.zip(branch);
    html! {
        dl.facts {
            @if let Some(source) = &record.source {
                div { dt { "Commit" } dd { a.sha href={ (repo_path(repo)) "/commit/" (source) } { (short(source)) } } }
            }
            @if let Some(about) = about {
                @if record.source.as_ref() != Some(&about.head) {
                    div { dt { "Newest" } dd.sha { (short(&about.head)) } }
                }
                @if let Some(owner) = &about.owner { div { dt { "By" } dd { (owner) @if about.fork { " (a fork)" } } } }
                @if let Some(base) = &about.base { div { dt { "Into" } dd { (base) } } }
            }
            @if let Some(moment) = moment { div { dt { "Since" } dd { (time(moment.time.seconds)) } } }
            @if forge.is_some() || state.is_some() {
                div { dt { "See" } dd {
                    @if let Some((name, url)) = &forge { a href=(url) { (name) } }
                    @if forge.is_some() && state.is_some() { ", " }
                    @if let Some((state, branch)) = &state {
                        a href={ (state) "/commits/" (branch) } { "state repository" }
                    }
                } }
            }
        }
    }
}

fn actions(target: &Target, record: &Record, about: &About, csrf: &str, path: &str) -> Markup {
    let text = target.to_string();
    let any = |look: Look| record.jobs.iter().any(|job| job.look() == look);
    let fields = [("target", text.as_str()), ("redirect", path)];
    let approval = [fields[0], fields[1], ("commit", about.head.as_str())];
    html! {
        div.acts.head {
            @if any(Look::Failure) { (button("/act/rebuild-failed", csrf, &fields, "Rebuild what failed", "")) }
            (button("/act/rebuild", csrf, &fields, "Rebuild all", ""))
            @if any(Look::Running) || any(Look::Pending) { (button("/act/cancel", csrf, &fields, "Cancel", "all steps")) }
            @if about.fork {
                (button("/act/approve", csrf, &approval, &format!("Let {} run", short(&about.head)), "although it comes from a fork"))
            }
        }
    }
}

fn job(row: &Row<'_>, csrf: Option<&str>, path: &str, chosen: &str) -> Markup {
    let Row { job, logs } = row;
    let told = logs.last().is_some_and(|(log, _)| log.title == job.text());
    let name = &job.name;
    html! {
        li id={ "job-" (segment(name)) } class=[(name == chosen).then_some("chosen")] {
            span.name { (icon(job.look())) span { (name) } }
            span.text {
                @if !told { (job.text()) }
                @if !job.needs.is_empty() { span.small { " (needs " (job.needs.join(", ")) ")" } }
            }
            span.acts {
                @for (log, build) in logs {
                    @let of = if log.title.is_empty() { name } else { &log.title };
                    @let took = build.as_ref().and_then(|build| build.build.as_ref()).and_then(|build| Some(span(build.finished? - build.started)));
                    @if let Some(took) = took { span.small.faint { (took) } }
                    a.button href=(log_path(log)) {
                        @if log.commit.is_some() { "Log" } @else { "Live log" }
                        span.sr { " of " (of) }
                    }
                    @if let Some(csrf) = csrf {
                        @let branch = segment(&log.branch);
                        @if log.commit.is_some() {
                            (button(&format!("/log/rebuild/{branch}"), csrf, &[("redirect", path)], "Rebuild", of))
                        } @else {
                            (button(&format!("/cancel/{branch}"), csrf, &[("redirect", path)], "Cancel", of))
                        }
                    }
                }
            }
        }
    }
}

fn moments_of<'a>(target: &Target, moments: impl Iterator<Item = &'a Moment>) -> Markup {
    let path = target_path(target);
    html! {
        ul.rows.builds {
            @for moment in moments {
                li {
                    span.small { (time(moment.time.seconds)) }
                    a.sha href={ (path) "?history=" (moment.commit) } { (short(&moment.commit.to_hex())) }
                    span.text { (moment.message.lines().next().unwrap_or_default()) }
                }
            }
        }
    }
}

pub async fn history(
    visit: &mut Visit,
    user: &str,
    repo: &str,
    rest: &[&str],
) -> Result<Answer, Failure> {
    let target = read(user, repo, rest)?;
    let app = std::sync::Arc::clone(&visit.app);
    let from = match visit.query.get("from") {
        Some(from) => {
            let from = read_id(from)?;
            if !view::is_of(&*app.client, &target, &from).await? {
                return Err(Failure::not_found(
                    "No such moment in the history of this target",
                ));
            }
            Some(from)
        }
        None => None,
    };
    let mut moments = view::history(&*app.client, &target, from.as_ref(), MOMENTS + 1).await?;
    if moments.is_empty() {
        return Err(Failure::not_found("Nothing is known of this target"));
    }
    let rest = (moments.len() as u64 > MOMENTS)
        .then(|| moments.pop())
        .flatten();
    let path = target_path(&target);
    let title = format!("History of {target}");
    let body = html! {
        (crumbs(&target))
        div.head { h1 { "History of " a href=(path) { (place_name(&target.place)) } } }
        (moments_of(&target, moments.iter()))
        @if let Some(rest) = rest {
            nav.pages aria-label="Pages" {
                a.button href={ "/history" (path) "?from=" (rest.commit) } { "Older" }
            }
        }
    };
    let about = Page {
        title: &title,
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

/// The builds of a source commit.
pub async fn commit(
    visit: &mut Visit,
    user: &str,
    repo: &str,
    sha: &str,
) -> Result<Answer, Failure> {
    let repo = Repo::new(user, repo).ok_or_else(|| Failure::not_found("No such project"))?;
    if sha.is_empty() || sha.len() > 64 || !sha.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Failure::not_found("No such commit"));
    }
    let app = std::sync::Arc::clone(&visit.app);
    let overview = app.keeper.overview().await;
    let indexed = view::of_commit(&*app.client, &repo, sha).await?;
    let live: Vec<&Target> = overview
        .open(&repo)
        .filter(|(_, entry)| entry.record.source.as_deref() == Some(sha))
        .map(|(target, _)| target)
        .collect();
    let archived: Vec<(&Target, &ObjectId)> = indexed
        .iter()
        .filter(|(target, _)| !live.contains(target))
        .collect();
    let test = visit.query.text("test");
    let query = match test {
        "" => String::new(),
        test => format!("test={}", segment(test)),
    };
    if let ([target], []) = (&live[..], &archived[..]) {
        let mut to = target_path(target);
        if !query.is_empty() {
            to = format!("{to}?{query}");
        }
        return Ok(redirect(axum::http::StatusCode::TEMPORARY_REDIRECT, &to));
    }
    if live.is_empty() && archived.is_empty() {
        return Err(Failure::not_found("No builds of this commit are known"));
    }
    let and = if query.is_empty() { "" } else { "&" };
    let of = repo.to_string();
    let title = format!("{of} {}", short(sha));
    let body = html! {
        nav.path aria-label="Where this is" { a href=(repo_path(&repo)) { (of) } }
        div.head {
            h1 { "Builds of " span.sha { (short(sha)) } }
            @if let Some((name, url)) = visit.app.settings.elsewhere(&repo, &format!("/commit/{sha}")) {
                a.side href=(url) { (name) }
            }
        }
        @if !live.is_empty() {
            section aria-labelledby="now" {
                h2 id="now" { "Now" }
                ul.rows {
                    @for target in &live {
                        li { span.name { @if let Some(entry) = overview.targets.get(*target) { (icon(entry.record.look())) } a href={ (target_path(target)) "?" (query) } { (target) } } }
                    }
                }
            }
        }
        @if !archived.is_empty() {
            section aria-labelledby="earlier" {
                h2 id="earlier" { "Earlier" }
                ul.rows {
                    @for (target, id) in &archived {
                        li { span.name { a href={ (target_path(target)) "?history=" (id) (and) (query) } { (target) } } }
                    }
                }
            }
        }
    };
    let about = Page {
        title: &title,
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}
