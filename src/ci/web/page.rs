//! The frame of every page, and the pieces that many have.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::visit::{Answer, Visit, document};
use super::{Role, fixed};
use crate::ci::layout::{Place, Target};
use crate::ci::view::{LogAt, Look};
use crate::forge::Repo;

/// What a page is.
#[derive(Default)]
pub struct Page<'a> {
    pub title: &'a str,
    /// The entry of the navigation it belongs to.
    pub here: &'a str,
    /// Its content changes with the overview, which had this version.
    pub version: Option<u64>,
    /// It is sent in pieces, the last of which may take its time: it says
    /// itself where the script is to begin.
    pub streams: bool,
}

/// What a part of a URL holds as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b',')
    .remove(b'=');

/// Returns a text as one segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Returns the path of a target's page.
pub fn target_path(target: &Target) -> String {
    let repo = &target.repo;
    match &target.place {
        Place::Pr(number) => format!("/{repo}/pr/{number}"),
        Place::Ref(name) => {
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            let steps: Vec<String> = name.split('/').map(segment).collect();
            format!("/{repo}/ref/{}", steps.join("/"))
        }
    }
}

pub fn repo_path(repo: &Repo) -> String {
    format!("/{repo}")
}

/// Returns the path of a log's page.
pub fn log_path(log: &LogAt) -> String {
    let branch = segment(&log.branch);
    match &log.commit {
        Some(commit) => format!("/log/saved/{branch}/{}", segment(commit)),
        None => format!("/log/live/{branch}"),
    }
}

/// Returns a target's name inside its repository.
pub fn place_name(place: &Place) -> String {
    let text = place.to_string();
    let name = text.strip_prefix("heads/").or(text.strip_prefix("tags/"));
    match place {
        Place::Pr(number) => format!("#{number}"),
        Place::Ref(_) => name.unwrap_or(&text).to_owned(),
    }
}

/// The sign of a state.
pub fn icon(look: Look) -> Markup {
    html! { i class={ "s " (look.word()) } role="img" aria-label=(look.word()) title=(look.word()) {} }
}

/// The sign of a state, with something it is the state of.
pub fn icon_of(look: Look, what: &str) -> Markup {
    html! { i class={ "s " (look.word()) } role="img" aria-label={ (what) ": " (look.word()) } title={ (what) ": " (look.word()) } {} }
}

pub fn word(look: Look) -> Markup {
    html! { span class={ "word " (look.word()) } { (look.word()) } }
}

/// The beginning of a commit's id.
pub fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// A moment, in UTC.
pub fn time(seconds: i64) -> Markup {
    let stamp = crate::ci::view::report::utc(seconds);
    let shown = stamp.get(..16).unwrap_or(&stamp).replace('T', " ");
    html! { time datetime=(stamp) { (shown) " UTC" } }
}

/// A span of time, in two units.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1048576 => format!("{} KiB", bytes >> 10),
        1048576..1073741824 => format!("{:.1} MiB", bytes as f64 / 1048576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1073741824.0),
    }
}

/// A button that does something, and what it brings along.
pub fn button(
    action: &str,
    csrf: &str,
    fields: &[(&str, &str)],
    label: &str,
    about: &str,
) -> Markup {
    html! {
        form.inline method="post" action=(action) {
            input type="hidden" name="CSRFToken" value=(csrf);
            @for (name, value) in fields {
                input type="hidden" name=(name) value=(value);
            }
            button type="submit" { (label) @if !about.is_empty() { span.sr { " " (about) } } }
        }
    }
}

/// Returns a whole page.
pub fn page(visit: &mut Visit, page: &Page<'_>, body: Markup) -> Answer {
    document(html! {
        (head(visit, page))
        main id="main" tabindex="-1" { (body) }
        (foot(visit))
    })
}

/// Returns the tag of the script, which runs where it stands or `later`.
pub fn script(later: bool) -> Markup {
    let version = fixed::version();
    html! { script src={ "/static/script.js?v=" (version) } defer[later] {} }
}

/// Returns the beginning of a page, up to its content.
pub fn head(visit: &mut Visit, page: &Page<'_>) -> Markup {
    let name = visit.app.settings.web.name.clone();
    let version = fixed::version();
    let links = [
        ("/branch", "Branches"),
        ("/pr", "Pull requests"),
        ("/tag", "Tags"),
        ("/queue", "Queue"),
    ];
    let reader = visit.may(Role::Reader) == super::auth::sessions::Access::Yes;
    let admin = visit.may(Role::Admin) == super::auth::sessions::Access::Yes;
    let user = visit.user().map(|user| user.name.clone());
    html! {
            (DOCTYPE)
            // Tags whose end may be left out are written by hand: the page may be
            // sent in pieces.
            (maud::PreEscaped("<html lang=\"en\">"))
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) @if page.title != name { " · " (name) } }
                link rel="stylesheet" href={ "/static/style.css?v=" (version) };
                link rel="icon" type="image/svg+xml" href={ "/static/icon.svg?v=" (version) };
    @if !page.streams { (script(true)) }
            }
            (maud::PreEscaped("<body"))
            @if let Some(version) = page.version {
                (maud::PreEscaped(" data-state=\"")) (version) (maud::PreEscaped("\""))
            }
            (maud::PreEscaped(">"))
            a.skip href="#main" { "Skip to the content" }
            header.bar {
                div {
                    a.brand href="/" aria-current=[(page.here == "/").then_some("page")] { (name) }
                    nav aria-label="Main" {
                        @if reader {
                            @for (path, label) in links {
                                a href=(path) aria-current=[(page.here == path).then_some("page")] { (label) }
                            }
                        }
                        @if admin {
                            a href="/settings" aria-current=[(page.here == "/settings").then_some("page")] { "Settings" }
                        }
                    }
                    @match user {
                        Some(user) => a href="/user/profile" aria-current=[(page.here == "/user/profile").then_some("page")] { (user) },
                        None => a href="/auth/login" aria-current=[(page.here == "/auth/login").then_some("page")] { "Log in" },
                    }
                }
            }
        }
}

/// Returns the end of a page.
pub fn foot(visit: &Visit) -> Markup {
    let state = visit.app.settings.web.state_repo.clone();
    html! {
        footer.foot {
            div {
                span { "dk " (env!("CARGO_PKG_VERSION")) }
                @if let Some(state) = state { a href=(state) { "State repository" } }
                a href="/api/v1" { "JSON" }
            }
        }
    }
}

/// A page that says one thing.
pub fn message(visit: &mut Visit, status: StatusCode, text: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = html! {
        @if text.eq_ignore_ascii_case(title) { h1 { (text) } }
        @else { h1 { (title) } p { (text) } }
        p { a href="/" { "To the front page" } }
    };
    let title = format!("{} {title}", status.as_u16());
    let page = Page {
        title: &title,
        ..Page::default()
    };
    self::page(visit, &page, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_of_encoded_parts() {
        let path = |text: &str| target_path(&text.parse().expect("a target"));
        assert_eq!(path("u/r/pr/7"), "/u/r/pr/7");
        assert_eq!(path("u/r/heads/a/b c?"), "/u/r/ref/heads/a/b%20c%3F");
        let log = LogAt {
            branch: "test/log".into(),
            commit: None,
            title: String::new(),
            failed: false,
        };
        assert_eq!(log_path(&log), "/log/live/test%2Flog");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3599), "59 min 59 s");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(100 << 20), "100.0 MiB");
    }
}
