//! The pages of many targets: the front page, the lists, a project, the queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use maud::{Markup, html};

use super::page::{
    Page, button, icon, icon_of, page, place_name, repo_path, segment, short, span, target_path,
    time,
};
use super::visit::{Answer, Failure, Visit};
use crate::ci::layout::{Place, Target};
use crate::ci::view::{self, Look, Overview};
use crate::ci::{Pool, Use};
use crate::forge::Repo;

/// Targets of a page.
const ROWS: usize = 500;
/// Jobs of a target that are shown one by one.
const ICONS: usize = 16;
/// Branches on the front page, where nobody says which.
const USUAL: [&str; 2] = ["master", "main"];

/// Says that what is shown may be old.
fn trouble(overview: &Overview) -> Markup {
    html! {
        @if let Some(trouble) = &overview.trouble {
            p.note.bad role="alert" { "The store cannot be read just now, so this may be old: " (trouble) }
        }
    }
}

pub async fn home(visit: &mut Visit) -> Result<Answer, Failure> {
    let overview = visit.app.keeper.overview().await;
    let settings = &visit.app.settings;
    let mut repos: BTreeSet<Repo> = overview.all_repos();
    repos.extend(settings.dashboards.keys().cloned());
    let usual: Vec<String> = USUAL.map(String::from).to_vec();
    let sections: Vec<Markup> = repos
        .iter()
        .map(|repo| {
            let branches = settings.dashboards.get(repo).unwrap_or(&usual);
            dashboard(&overview, repo, branches)
        })
        .collect();
    let name = settings.web.name.clone();
    let pools = pools(visit);
    let body = html! {
        h1.sr { (name) }
        (trouble(&overview))
        @for section in &sections { (section) }
        @if sections.is_empty() {
            h2 { "Nothing is tested yet" }
            p { "As soon as the bridge tells of a branch or a pull request, it is shown here." }
        }
        @if let Some(pools) = pools { (pools) }
    };
    let about = Page {
        title: &name,
        here: "/",
        version: Some(overview.version),
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

/// One project of the front page.
fn dashboard(overview: &Overview, repo: &Repo, branches: &[String]) -> Markup {
    let named = |target: &Target| {
        let branch = target.branch().map(String::from_utf8_lossy);
        branch.is_some_and(|branch| branches.iter().any(|name| *name == branch))
    };
    let (mut open, mut tiles) = (Vec::new(), Vec::new());
    for (target, entry) in overview.open(repo) {
        open.push(entry.record.look());
        if named(target) {
            tiles.push((target, entry));
        }
    }
    let count = |of: &[Look]| open.iter().filter(|look| of.contains(look)).count();
    let counts = [
        (Look::Failure, count(&[Look::Failure]), "failing"),
        (
            Look::Pending,
            count(&[Look::Pending, Look::Running]),
            "pending",
        ),
        (Look::Success, count(&[Look::Success]), "passing"),
    ];
    html! {
        section aria-label=(repo) {
            div.head {
                h2 { a href=(repo_path(repo)) { (repo) } }
                span.small.faint {
                    @for (index, (_, number, text)) in counts.iter().filter(|(_, number, _)| *number > 0).enumerate() {
                        @if index > 0 { ", " }
                        (number) " " (text)
                    }
                    @if open.is_empty() { "no builds yet" }
                }
            }
            @if !tiles.is_empty() {
                ul.tiles {
                    @for (target, entry) in tiles {
                        @let look = entry.record.look();
                        li {
                            a class=(look.word()) href=(target_path(target)) {
                                (icon(look)) strong { (place_name(&target.place)) }
                                em { (entry.record.summary()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The kinds of targets: the path of their list, and what it is called.
fn is_of(kind: &str, place: &Place) -> bool {
    match place {
        Place::Pr(_) => kind == "pr",
        Place::Ref(name) => {
            (kind == "tag") == name.as_bytes().starts_with(b"tags/") && kind != "pr"
        }
    }
}

fn title(kind: &str) -> &'static str {
    match kind {
        "pr" => "Pull requests",
        "tag" => "Tags",
        _ => "Branches",
    }
}

/// Tells whether a target is asked for: every word stands somewhere in it.
fn is_wanted(words: &[String], text: &str) -> bool {
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word))
}

/// What is looked for in a target.
fn item_text(target: &Target, entry: &view::Entry) -> String {
    let title = entry
        .about
        .as_ref()
        .and_then(|about| about.title.as_deref());
    let summary = entry.record.summary();
    let look = entry.record.look().word();
    format!("{} {} {look} {summary}", target, title.unwrap_or_default())
}

pub async fn list(visit: &mut Visit, kind: &str, of: Option<&Repo>) -> Result<Answer, Failure> {
    let overview = visit.app.keeper.overview().await;
    let asked = visit.query.text("q").to_owned();
    let first: usize = visit
        .query
        .text("page")
        .parse()
        .unwrap_or(1)
        .clamp(1, 100_000);
    let words: Vec<String> = asked
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut found: Vec<(&Target, &view::Entry)> = overview
        .targets
        .iter()
        .map(|(target, entry)| (target, &**entry))
        .filter(|(target, entry)| entry.about.is_some() && is_of(kind, &target.place))
        .filter(|(target, _)| of.is_none_or(|repo| target.repo == *repo))
        .collect();
    if !words.is_empty() {
        found.retain(|(target, entry)| is_wanted(&words, &item_text(target, entry)));
    }
    // The newest pull request is first.
    found.sort_by(|(a, _), (b, _)| match (&a.place, &b.place) {
        (Place::Pr(x), Place::Pr(y)) => (&a.repo, y).cmp(&(&b.repo, x)),
        _ => a.cmp(b),
    });
    let total = found.len();
    let pages = total.div_ceil(ROWS).max(1);
    let shown: Vec<_> = found
        .into_iter()
        .skip((first - 1) * ROWS)
        .take(ROWS)
        .collect();
    let repos: BTreeSet<&Repo> = shown.iter().map(|(target, _)| &target.repo).collect();
    let heading = title(kind);
    let path = format!("/{kind}");
    let body = html! {
        (trouble(&overview))
        div.head {
            h1 { (heading) }
            span.faint { span data-shown { (total) } }
            form.search.side role="search" method="get" action=(path) {
                label.sr for="q" { "Filter" }
                // With several pages it is the server that knows all of them.
                input id="q" type="search" name="q" value=(asked) placeholder="Filter: press /" autocomplete="off" data-filter[pages == 1 && words.is_empty()];
                button type="submit" { "Filter" }
            }
        }
        @if shown.is_empty() { p.faint { "There are none" @if !words.is_empty() { " with that" } "." } }
        @for repo in repos {
            section aria-label=(repo) {
                h2 { a href=(repo_path(repo)) { (repo) } }
                (rows(shown.iter().filter(|(target, _)| target.repo == *repo).copied()))
            }
        }
        @if pages > 1 {
            nav.pages aria-label="Pages" {
                @if first > 1 { a.button href={ (path) "?q=" (segment(&asked)) "&page=" (first - 1) } { "Previous" } }
                span { "Page " (first) " of " (pages) }
                @if first < pages { a.button href={ (path) "?q=" (segment(&asked)) "&page=" (first + 1) } { "Next" } }
            }
        }
    };
    let about = Page {
        title: heading,
        here: &path,
        version: Some(overview.version),
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

/// The rows of some targets.
fn rows<'a>(targets: impl Iterator<Item = (&'a Target, &'a view::Entry)>) -> Markup {
    html! {
        ul.rows.targets {
            @for (target, entry) in targets {
                @let look = entry.record.look();
                @let title = entry.about.as_ref().and_then(|about| about.title.as_deref());
                li data-item=(item_text(target, entry)) {
                    span.name {
                        (icon(look))
                        a href=(target_path(target)) {
                            (place_name(&target.place))
                            @if let Some(title) = title { " " (title) }
                        }
                    }
                    (icons(entry))
                    span.text { (entry.record.summary()) }
                    span.text.sha { (short(entry.record.source.as_deref().unwrap_or_default())) }
                }
            }
        }
    }
}

/// The jobs of a target: one sign each, or numbers where they are many.
fn icons(entry: &view::Entry) -> Markup {
    let jobs = &entry.record.jobs;
    let count = |look: Look| jobs.iter().filter(|job| job.look() == look).count();
    html! {
        span.icons {
            @if jobs.len() <= ICONS {
                @for job in jobs { (icon_of(job.look(), &job.name)) }
            } @else {
                @for look in [Look::Failure, Look::Running, Look::Pending, Look::Success] {
                    @let number = count(look);
                    @if number > 0 { (icon(look)) span.small { (number) } }
                }
            }
        }
    }
}

pub async fn project(visit: &mut Visit, user: &str, repo: &str) -> Result<Answer, Failure> {
    let overview = visit.app.keeper.overview().await;
    let known = Repo::new(user, repo).filter(|repo| overview.all_repos().contains(repo));
    let Some(repo) = known else {
        return Err(Failure::not_found("No such project"));
    };
    let groups: Vec<(&str, Vec<_>)> = ["branch", "pr", "tag"]
        .into_iter()
        .map(|kind| {
            let of = |(target, _): &(&Target, _)| is_of(kind, &target.place);
            (kind, overview.open(&repo).filter(of).collect())
        })
        .collect();
    let text = repo.to_string();
    let body = html! {
        (trouble(&overview))
        div.head {
            h1 { (text) }
            @if let Some((name, url)) = visit.app.settings.elsewhere(&repo, "") {
                a.side href=(url) { (name) }
            }
        }
        @for (kind, targets) in &groups {
            @if !targets.is_empty() {
                section aria-label=(title(kind)) {
                    div.head { h2 { (title(kind)) } span.faint { (targets.len()) } }
                    (rows(targets.iter().take(ROWS).copied()))
                    @if targets.len() > ROWS {
                        p { a href={ "/" (kind) "?q=" (segment(&format!("{text}/"))) } { "All " (targets.len()) } }
                    }
                }
            }
        }
        @if groups.iter().all(|(_, targets)| targets.is_empty()) { p.faint { "There are no builds yet." } }
    };
    let about = Page {
        title: &text,
        here: "",
        version: Some(overview.version),
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

pub fn queue(visit: &mut Visit) -> Result<Answer, Failure> {
    let version = visit.app.keeper.changes().borrow().version;
    let pools = pools(visit);
    let trouble = visit
        .app
        .engine
        .as_ref()
        .and_then(|engine| engine.report().trouble);
    let body = html! {
        h1 { "Queue" }
        @if let Some(trouble) = trouble { p.note.bad role="alert" { (trouble) } }
        @match pools {
            Some(pools) => (pools),
            None => p { "The engine runs elsewhere; only it knows what waits." },
        }
    };
    let about = Page {
        title: "Queue",
        here: "/queue",
        version: Some(version),
        ..Page::default()
    };
    Ok(page(visit, &about, body))
}

/// What runs and what waits, where the engine is in this process.
fn pools(visit: &mut Visit) -> Option<Markup> {
    let report = visit.app.engine.as_ref()?.report();
    let now = crate::model::Time::now().seconds;
    let csrf = visit.may_build().then(|| visit.csrf());
    let name = |pool: &Pool| match pool.name.as_str() {
        "" => "All builds".to_owned(),
        name => format!("Pool {name}"),
    };
    let row = |used: &Use, runs: bool| {
        let branch = used.branch.to_string();
        let path = format!("/log/live/{}", segment(&branch));
        html! {
            li {
                span.name {
                    (icon(if runs { Look::Running } else { Look::Pending }))
                    a href=(target_path(&used.target)) { (used.target) }
                }
                span.text { (used.cell) ", " @if runs { "for " } @else { "waits for " } (span(now - used.since.seconds)) }
                span.acts {
                    @if runs { a.button href=(path) { "Log" span.sr { " of " (used.cell) " of " (used.target) } } }
                    @if let Some(csrf) = &csrf {
                        (button(&format!("/cancel/{}", segment(&branch)), csrf, &[("redirect", "/queue")], "Cancel", &format!("{} of {}", used.cell, used.target)))
                    }
                }
            }
        }
    };
    Some(html! {
        @for pool in &report.pools {
            section aria-label=(name(pool)) {
                div.head {
                    h2 { (name(pool)) }
                    span.faint.small { (pool.running.len()) " of " (pool.capacity) " in use, " (pool.waiting.len()) " waiting" }
                }
                @if !pool.running.is_empty() || !pool.waiting.is_empty() {
                    ul.rows.jobs {
                        @for used in &pool.running { (row(used, true)) }
                        @for used in &pool.waiting { (row(used, false)) }
                    }
                }
            }
        }
        @if report.pools.is_empty() { p.faint { "Nothing runs and nothing waits." } }
        @if let Some(moment) = report.pools.iter().flat_map(|pool| &pool.running).map(|used| used.since.seconds).min() {
            p.small.faint { "The longest has run since " (time(moment)) "." }
        }
    })
}

/// Tells, as server-sent events, of every overview after a version.
pub async fn events(visit: &Visit) -> Result<Answer, Failure> {
    let from: u64 = visit.query.text("from").parse().unwrap_or(0);
    let mut changes = visit.app.keeper.changes();
    // The first look is at what is there now.
    changes.mark_changed();
    let next = |(mut changes, seen): (tokio::sync::watch::Receiver<Arc<Overview>>, u64)| async move {
        loop {
            match tokio::time::timeout(Duration::from_secs(20), changes.changed()).await {
                Err(_) => {
                    return Some((Bytes::from_static(b": still here\n\n"), (changes, seen)));
                }
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {
                    let overview = changes.borrow_and_update().clone();
                    if overview.version != seen {
                        let text = format!("event: change\ndata: {}\n\n", overview.version);
                        let seen = overview.version;
                        return Some((Bytes::from(text), (changes, seen)));
                    }
                }
            }
        }
    };
    Ok(stream_of(stream::unfold((changes, from), next)))
}

/// An answer of server-sent events.
pub fn stream_of(events: impl futures_core::Stream<Item = Bytes> + Send + 'static) -> Answer {
    use futures_util::StreamExt as _;
    let body = Body::from_stream(events.map(Ok::<_, std::convert::Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Answer(response)
}
