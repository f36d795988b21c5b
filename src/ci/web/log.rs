//! The pages of a log: as it was saved, a window at a time; and while it grows.

use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use maud::{Markup, PreEscaped, html};

use super::live::{Batch, End, Reader};
use super::page::{Page, button, foot, head, icon, page, segment, short, size, span, time};
use super::target::read_id;
use super::visit::{Answer, Failure, Visit, redirect};
use super::window::{FOUND, Found, LINES, Window};
use super::{front, page as pieces};
use crate::ci::view::{self, Log, Look};
use crate::model::{BranchName, Kind, ObjectId};

/// A quiet connection says so after this long that it is still there.
const QUIET: Duration = Duration::from_secs(20);
/// Bytes of a raw log that are sent at a time.
const PIECE: u64 = 40 << 10;
/// Pieces that wait for a slow reader.
const WAITING: usize = 4;

fn branch_of(text: &str) -> Result<BranchName, Failure> {
    BranchName::new(text).map_err(|_| Failure::not_found(format!("{text:?} is not a branch")))
}

/// Tells whether a branch holds logs, so that no other branch of the store is
/// shown as one.
fn is_log(log: &Log) -> bool {
    log.ended || !log.parts.is_empty() || log.build.is_some()
}

/// Reads the log of a commit that is on a branch of results. Where the branch
/// has lost it, what the branch says instead: that it has expired.
async fn find(
    visit: &Visit,
    branch: &str,
    commit: &str,
) -> Result<(BranchName, ObjectId, Arc<Log>), Failure> {
    let branch = branch_of(branch)?;
    let commit = read_id(commit)?;
    let none = || Failure::not_found("There is no such log");
    let client = &*visit.app.client;
    let head = client.head(&branch).await?.ok_or_else(none)?;
    let on_branch = head == commit
        || match client.merge_bases(&head, &commit).await {
            Ok(bases) => bases.contains(&commit),
            Err(error) if error.kind() == Kind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
    let commit = if on_branch { commit } else { head };
    let log = visit.app.build(&commit).await?;
    match is_log(&log) {
        true => Ok((branch, commit, log)),
        false => Err(none()),
    }
}

fn line(number: u64, text: &str) -> Markup {
    html! {
        span.l id={ "L" (number) } {
            a href={ "#L" (number) } { (number) }
            // Made by `ansi`, which escapes.
            span { (PreEscaped(text)) } "\n"
        }
    }
}

fn told(log: &Log) -> String {
    let text = log.build.as_ref().and_then(|build| build.text.clone());
    match (&log.failure, log.look()) {
        (Some(failure), _) => failure.clone(),
        (None, Look::Success) => text.unwrap_or_else(|| "Success".into()),
        (None, _) if log.cancelled => "Cancelled".into(),
        (None, Look::Running) => "Running, or lost".into(),
        (None, _) => "Failure".into(),
    }
}

fn facts(branch: &BranchName, commit: Option<&ObjectId>, log: &Log, state: Option<&str>) -> Markup {
    let build = log.build.as_ref();
    let state = state.map(|url| url.trim_end_matches('/').to_owned());
    html! {
        dl.facts {
            @if let Some(build) = build {
                div { dt { "Of" } dd {
                    @match build.target.parse::<crate::ci::Target>() {
                        Ok(target) => a href={ (pieces::target_path(&target)) "?test=" (segment(&build.cell)) } { (build.target) },
                        Err(_) => (build.target),
                    }
                } }
                div { dt { "Commit" } dd.sha { (short(&build.commit)) } }
                div { dt { "Begun" } dd { (time(build.started)) } }
                @if let Some(finished) = build.finished { div { dt { "Took" } dd { (span(finished - build.started)) } } }
            }
            @if commit.is_some() { div { dt { "Size" } dd { (size(log.size())) } } }
            @if let (Some(state), Some(commit)) = (state, commit) {
                div { dt { "See" } dd { a href={ (state) "/commit/" (commit) } { "state repository" } } }
            }
            div { dt { "Branch" } dd.sha { (branch) } }
        }
    }
}

pub async fn saved(visit: &mut Visit, branch: &str, commit: &str) -> Result<Answer, Failure> {
    let (branch, commit, log) = find(visit, branch, commit).await?;
    let app = Arc::clone(&visit.app);
    let asked = visit.query.text("q").to_owned();
    let wanted = visit.query.get("line").map(|text| text.trim().to_owned());
    // Windows begin at fixed lines, so that there are few of them.
    let window_of = |line: u64| line.saturating_sub(1) / LINES * LINES + 1;
    let (mut window, mut found) = (Window::default(), None);
    if !asked.is_empty() {
        found = Some(app.windows.search(&log, &asked).await?);
    } else {
        window = match wanted.as_deref() {
            None | Some("") => app.windows.head(&log).await?,
            Some("end") => {
                let last = app.windows.lines(&log).await?;
                app.windows
                    .from(&log, last.saturating_sub(LINES / 2).max(1))
                    .await?
            }
            Some(line) => {
                let line = line
                    .parse()
                    .map_err(|_| Failure::bad("A line is a number, or \"end\""))?;
                app.windows.from(&log, window_of(line)).await?
            }
        };
    }
    let path = format!("/log/saved/{}/{commit}", segment(&branch.to_string()));
    let raw = format!("/log/raw/{}/{commit}", segment(&branch.to_string()));
    let title = log
        .build
        .as_ref()
        .map_or_else(|| branch.to_string(), |build| build.title.clone());
    let csrf = visit.may_build().then(|| visit.csrf());
    let rebuild = format!("/log/rebuild/{}", segment(&branch.to_string()));
    let state = app.settings.web.state_repo.as_deref();
    let windowed = window.first > 1 || window.more;
    let body = html! {
        div.head { h1 { (icon(log.look())) " " (title) } span class={ "word " (log.look().word()) } { (told(&log)) } }
        (facts(&branch, Some(&commit), &log, state))
        div.head {
            form.search role="search" method="get" action=(path) {
                label.sr for="q" { "Search the log" }
                input id="q" type="search" name="q" value=(asked) placeholder="Search: press /" autocomplete="off";
                button type="submit" { "Search" }
            }
            span.side {
                a.button href=(raw) { "Raw" }
                a.button href={ (raw) "?download=1" } { "Download" }
                @if let Some(csrf) = &csrf { (button(&rebuild, csrf, &[("redirect", &path)], "Rebuild", "")) }
            }
        }
        @match &found {
            Some(found) => (hits(found, &asked, &path)),
            None => {
                @if windowed { (steps(&window, &path)) }
                pre.log id="log" data-windows[windowed] aria-label="Log" {
                    @for (index, text) in window.lines.iter().enumerate() { (line(window.first + index as u64, text)) }
                }
                @if windowed { (steps(&window, &path)) }
                @if window.lines.is_empty() { p.faint { "The log is empty." } }
            }
        }
    };
    let about = Page {
        title: &title,
        ..Page::default()
    };
    let mut answer = page(visit, &about, body);
    if csrf.is_none() && log.ended {
        let kept = HeaderValue::from_static("private, max-age=60");
        answer.0.headers_mut().insert(header::CACHE_CONTROL, kept);
    }
    Ok(answer)
}

/// The way from one window to others.
fn steps(window: &Window, path: &str) -> Markup {
    let last = window.first + window.lines.len() as u64 - 1;
    html! {
        nav.pages aria-label="Parts of the log" {
            @if window.first > 1 {
                a.button href=(path) { "Beginning" }
                a.button href={ (path) "?line=" (window.first.saturating_sub(LINES).max(1)) } { "Earlier" }
            }
            span.small { "Lines " (window.first) " to " (last.max(window.first)) }
            @if window.more {
                a.button href={ (path) "?line=" (last + 1) "#L" (last + 1) } { "Later" }
                a.button href={ (path) "?line=end" } { "End" }
            }
        }
    }
}

fn hits(found: &Found, asked: &str, path: &str) -> Markup {
    html! {
        p.small role="status" {
            @if found.more { "The first " (FOUND) " lines" } @else { (found.lines.len()) " lines" }
            " with “" (asked) "”. " a href=(path) { "The whole log" }
        }
        @if !found.lines.is_empty() {
            pre.log aria-label="Lines found" {
                @for (number, text) in &found.lines {
                    span.l { a href={ (path) "?line=" (number) "#L" (number) } { (number) } span { (text) } "\n" }
                }
            }
        }
    }
}

/// The log as it is, byte for byte.
pub async fn raw(visit: &Visit, branch: &str, commit: &str) -> Result<Answer, Failure> {
    let (branch, commit, log) = find(visit, branch, commit).await?;
    let reader = view::open(&*visit.app.client, &log).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(WAITING);
    // It ends when it has read all, or the reader of the page has gone.
    tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        loop {
            let mut piece = Vec::new();
            let read = reader.by_ref().take(PIECE).read_to_end(&mut piece);
            let end = matches!(read, Ok(0) | Err(_));
            let sent = match read {
                Ok(0) => return,
                Ok(_) => sender.blocking_send(Ok(piece.into())),
                Err(error) => sender.blocking_send(Err(error)),
            };
            if end || sent.is_err() {
                return;
            }
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(log.size()));
    if visit.query.get("download").is_some() {
        let cell = log.build.as_ref().map_or("log", |build| &build.cell);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name: String = cell
            .chars()
            .map(|c| if plain(c) { c } else { '_' })
            .collect();
        let text = format!(
            "attachment; filename=\"{name}-{}.log\"",
            short(&commit.to_hex())
        );
        if let Ok(text) = HeaderValue::from_str(&text) {
            headers.insert(header::CONTENT_DISPOSITION, text);
        }
    }
    tracing::debug!(target: "ci", "the log of {branch} is sent");
    Ok(Answer(response))
}

/// Where a live log is when it does not grow: saved, or nowhere.
async fn not_growing(visit: &Visit, branch: &BranchName) -> Result<Option<Answer>, Failure> {
    let Some(head) = visit.app.client.head(branch).await? else {
        return Err(Failure::new(500, "Log finished, but wasn't saved!"));
    };
    let log = view::log(&*visit.app.client, &head).await?;
    if log.ended {
        let path = format!("/log/saved/{}/{head}", segment(&branch.to_string()));
        return Ok(Some(redirect(StatusCode::TEMPORARY_REDIRECT, &path)));
    }
    if !is_log(&log) {
        return Err(Failure::new(500, "Log finished, but wasn't saved!"));
    }
    Ok(None)
}

/// The page of a log that grows: all of it in one answer, which ends with the
/// log. A script takes the rest as events instead.
pub async fn live(visit: &mut Visit, branch: &str) -> Result<Answer, Failure> {
    let branch = branch_of(branch)?;
    if let Some(elsewhere) = not_growing(visit, &branch).await? {
        return Ok(elsewhere);
    }
    let app = Arc::clone(&visit.app);
    let log = match app.client.head(&branch).await? {
        Some(head) => view::log(&*app.client, &head).await?,
        None => Log::default(),
    };
    let title = log
        .build
        .as_ref()
        .map_or_else(|| branch.to_string(), |build| build.title.clone());
    let path = segment(&branch.to_string());
    let csrf = visit.may_build().then(|| visit.csrf());
    let back = log
        .build
        .as_ref()
        .and_then(|build| build.target.parse::<crate::ci::Target>().ok())
        .map_or_else(|| "/".to_owned(), |target| pieces::target_path(&target));
    let about = Page {
        title: &title,
        streams: true,
        ..Page::default()
    };
    let before = html! {
        (head(visit, &about))
        (PreEscaped("<main id=\"main\" tabindex=\"-1\">"))
        div.head { h1 { (title) } span id="status" role="status" { (icon(Look::Running)) " " span.word.running { "running" } } }
        (facts(&branch, None, &log, None))
        div.head {
            label.small { input id="follow" type="checkbox" checked; " Follow the end" }
            span.side {
                @if let Some(csrf) = &csrf { (button(&format!("/cancel/{path}"), csrf, &[("redirect", &back)], "Cancel", "")) }
            }
        }
        (PreEscaped("<pre class=\"log\" id=\"log\" aria-label=\"Log\" data-events=\""))
        (format!("/log/live/{path}/events"))
        (PreEscaped("\">"))
        // With a script nothing more of this answer is read.
        (pieces::script(false))
    };
    let after = html! { (PreEscaped("</main>")) (foot(visit)) }.into_string();
    let reader = app.tails.follow(&branch, 1);
    let rest = stream::unfold(Some((reader, after, path)), |state| async move {
        let (mut reader, after, path) = state?;
        match tokio::time::timeout(QUIET, reader.next()).await {
            // Seen by nobody; the connection lives on.
            Err(_) => Some((Bytes::from_static(b"<!-- -->"), Some((reader, after, path)))),
            Ok(Some(batch)) => {
                let mut text = rows(&batch);
                let ended = batch.end.is_some();
                if let Some(end) = &batch.end {
                    text += &ending(end, &path).into_string();
                    text += &after;
                }
                Some((Bytes::from(text), (!ended).then_some((reader, after, path))))
            }
            Ok(None) => Some((Bytes::from(after), None)),
        }
    });
    let whole = stream::once(async { Bytes::from(before.into_string()) }).chain(rest);
    let mut answer = front::stream_of(whole);
    let headers = answer.0.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    Ok(answer)
}

/// New lines, for a page that grows. A line that has not ended is hidden as
/// soon as something comes after it.
fn rows(batch: &Batch) -> String {
    let mut text = String::new();
    if batch.skipped > 0 {
        let _ = writeln!(
            text,
            "<span class='gap'>{} earlier lines are not shown here</span>",
            batch.skipped
        );
    }
    for (index, html) in batch.lines.iter().enumerate() {
        text += &line(batch.first + index as u64, html).into_string();
    }
    let number = batch.first + batch.lines.len() as u64;
    if let Some(begun) = &batch.begun {
        text += &html! { span.l.begun { a { (number) } span { (PreEscaped(&**begun)) } "\n" } }
            .into_string();
    }
    text
}

fn ending(end: &End, path: &str) -> Markup {
    html! {
        (PreEscaped("</pre>"))
        p.note role="status" {
            @match end {
                End::Saved { commit, failure } => {
                    @match failure {
                        Some(failure) => { "Failed: " (failure) ". " }
                        None => "Success. ",
                    }
                    a href={ "/log/saved/" (path) "/" (commit) } { "The whole log" }
                }
                End::Lost => "The log is not written any more.",
            }
        }
    }
}

/// New lines as server-sent events, from a line on.
pub async fn events(visit: &Visit, branch: &str) -> Result<Answer, Failure> {
    let branch = branch_of(branch)?;
    let last = header::HeaderName::from_static("last-event-id");
    let from = visit.header(last).or(visit.query.get("from"));
    let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or(1);
    let reader = visit.app.tails.follow(&branch, from);
    let path = segment(&branch.to_string());
    let events = stream::unfold(Some((reader, path)), |state| async move {
        let (mut reader, path): (Reader, String) = state?;
        match tokio::time::timeout(QUIET, reader.next()).await {
            Err(_) => Some((
                Bytes::from_static(b": still here\n\n"),
                Some((reader, path)),
            )),
            Ok(None) => None,
            Ok(Some(batch)) => {
                let ended = batch.end.is_some();
                let text = event(&batch, &path);
                Some((Bytes::from(text), (!ended).then_some((reader, path))))
            }
        }
    });
    Ok(front::stream_of(events))
}

fn event(batch: &Batch, path: &str) -> String {
    let mut text = String::new();
    let next = batch.first + batch.lines.len() as u64;
    if batch.skipped > 0 || !batch.lines.is_empty() || batch.begun.is_some() {
        let lines: Vec<&str> = batch.lines.iter().map(|line| &**line).collect();
        let data = serde_json::json!({
            "first": batch.first,
            "lines": lines,
            "begun": batch.begun.as_deref(),
            "skipped": batch.skipped,
        });
        text = format!("id: {next}\nevent: lines\ndata: {data}\n\n");
    }
    match &batch.end {
        Some(End::Saved { commit, failure }) => {
            let state = if failure.is_some() {
                "failure"
            } else {
                "success"
            };
            let data = serde_json::json!({
                "state": state,
                "text": failure.as_deref().unwrap_or("Success"),
                "saved": format!("/log/saved/{path}/{commit}"),
            });
            text += &format!("event: done\ndata: {data}\n\n");
        }
        // The browser asks again in a while.
        Some(End::Lost) => text += "retry: 5000\n\n",
        None => (),
    }
    text
}
