//! The pages of users: set-up, login, profile, and how GitHub is asked.

use axum::http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};

use super::auth::github::Application;
use super::auth::passwords::SHORTEST;
use super::auth::sessions::{User, same};
use super::page::{self, Page, button};
use super::visit::{Answer, Failure, Visit, is_local, see_other};
use crate::metrics::metrics;

/// Answers everything below `/auth`.
pub async fn auth(visit: &mut Visit, post: bool, rest: &[&str]) -> Result<Answer, Failure> {
    match (rest, post) {
        (["intro", token], _) => introduce(visit, token),
        (["setup"], false) => set_up_form(visit, &[]),
        (["setup"], true) => set_up(visit).await,
        (["login"], false) => login_form(visit, None, ""),
        (["login"], true) => login(visit).await,
        (["logout"], _) => {
            visit.renew(None);
            Ok(see_other("/"))
        }
        (["github-callback"], _) => callback(visit).await,
        _ => Err(Failure::not_found("Not found")),
    }
}

/// A page with a form, which nobody keeps.
fn form(visit: &mut Visit, status: u16, title: &str, here: &str, body: Markup) -> Answer {
    let about = Page {
        title,
        here,
        ..Page::default()
    };
    let mut answer = page::page(visit, &about, body);
    *answer.0.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let kept = HeaderValue::from_static("no-store");
    answer.0.headers_mut().insert(header::CACHE_CONTROL, kept);
    answer
}

/// A field with what is wrong about it.
fn field(
    name: &str,
    label: &str,
    kind: &str,
    value: &str,
    hint: &str,
    errors: &[(&str, String)],
) -> Markup {
    let wrong: Vec<&str> = errors
        .iter()
        .filter(|(field, _)| *field == name)
        .map(|(_, text)| text.as_str())
        .collect();
    let described = format!("{name}-error");
    html! {
        label {
            (label)
            input type=(kind) id=(name) name=(name) value=(value) autocomplete=(hint)
                aria-invalid=[(!wrong.is_empty()).then_some("true")]
                aria-describedby=[(!wrong.is_empty()).then_some(&described)];
            @if !wrong.is_empty() { span.error.small id=(described) { (wrong.join(" ")) } }
        }
    }
}

fn introduce(visit: &mut Visit, token: &str) -> Result<Answer, Failure> {
    if visit.app.auth.is_set_up() {
        return Err(Failure::forbidden("Already initialised - log in as admin"));
    }
    if !visit.app.auth.introduce(token) {
        return Err(Failure::forbidden("Bad token"));
    }
    visit.renew(Some(User {
        name: "admin".into(),
        ..User::default()
    }));
    Ok(see_other("/auth/setup"))
}

fn set_up_form(visit: &mut Visit, errors: &[(&str, String)]) -> Result<Answer, Failure> {
    if visit.app.auth.is_set_up() {
        return Err(Failure::bad("Already configured!"));
    }
    let csrf = visit.csrf();
    let body = html! {
        h1 { "Choose the password of admin" }
        form.fields method="post" action="/auth/setup" {
            input type="hidden" name="CSRFToken" value=(csrf);
            (field("password1", "Password", "password", "", "new-password", errors))
            (field("password2", "The same again", "password", "", "new-password", errors))
            div { button.main type="submit" { "Set the password" } }
        }
    };
    let status = if errors.is_empty() { 200 } else { 400 };
    Ok(form(visit, status, "Set-up", "", body))
}

async fn set_up(visit: &mut Visit) -> Result<Answer, Failure> {
    if visit.app.auth.is_set_up() {
        return Err(Failure::bad("Already configured!"));
    }
    let (first, second) = (visit.form.get("password1"), visit.form.get("password2"));
    let errors = match (first, second) {
        (None, _) => vec![("password1", "Missing field".to_owned())],
        (_, None) => vec![("password2", "Missing field".into())],
        (Some(""), _) => vec![("password1", "Cannot be empty".into())],
        (Some(first), Some(second)) if first != second => {
            vec![("password2", "Values don't match!".into())]
        }
        (Some(first), _) if first.len() < SHORTEST => {
            vec![("password1", format!("At least {SHORTEST} characters"))]
        }
        _ => Vec::new(),
    };
    if !errors.is_empty() {
        return set_up_form(visit, &errors);
    }
    let password = first.unwrap_or_default().to_owned();
    visit
        .app
        .auth
        .set("admin", &password)
        .await
        .map_err(broken)?;
    visit.renew(None);
    let id = visit.session().id.clone();
    visit.app.auth.sessions.want(&id, "/");
    Ok(see_other("/auth/login"))
}

fn broken(error: super::auth::passwords::Error) -> Failure {
    tracing::error!(target: "ci", "users cannot be read or written: {error}");
    Failure::new(500, "The file of users cannot be read or written")
}

fn application(visit: &Visit) -> Result<Option<Application>, Failure> {
    visit.app.auth.github.application().map_err(|error| {
        tracing::error!(target: "ci", "the application at GitHub cannot be read: {error}");
        Failure::new(500, "How GitHub is asked cannot be read")
    })
}

fn login_form(
    visit: &mut Visit,
    wrong: Option<(u16, String)>,
    name: &str,
) -> Result<Answer, Failure> {
    let csrf = visit.csrf();
    let application = application(visit)?;
    let github = application.map(|application| {
        let scopes = &visit.app.settings.web.scopes;
        visit.app.auth.github.authorize(&application, scopes, &csrf)
    });
    let set_up = visit.app.auth.is_set_up();
    let (status, errors) = match wrong {
        Some((status, text)) => (status, vec![("user", text)]),
        None => (200, Vec::new()),
    };
    let body = html! {
        h1 { "Log in" }
        @if !set_up {
            p.note.wait { "Nobody can log in with a password yet: the log of this CI says where to choose that of admin." }
        }
        @if let Some(github) = github {
            p { a.button href=(github) { "Log in with GitHub" } }
        }
        form.fields method="post" action="/auth/login" {
            input type="hidden" name="CSRFToken" value=(csrf);
            (field("user", "User", "text", name, "username", &errors))
            (field("password", "Password", "password", "", "current-password", &errors))
            div { button.main type="submit" { "Log in" } }
        }
    };
    Ok(form(visit, status, "Log in", "/auth/login", body))
}

async fn login(visit: &mut Visit) -> Result<Answer, Failure> {
    let name = visit.form.text("user").to_owned();
    let password = visit.form.get("password").unwrap_or_default().to_owned();
    let app = std::sync::Arc::clone(&visit.app);
    // By address, and by name from anywhere.
    let keys = [format!("from {}", visit.peer), format!("as {name}")];
    let wait = keys
        .iter()
        .filter_map(|key| app.auth.throttle.wait(key, visit.now))
        .max();
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + 1;
        let text = format!("Too many tries: wait {seconds} seconds");
        let mut answer = login_form(visit, Some((429, text)), &name)?;
        answer
            .0
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return Ok(answer);
    }
    for key in &keys {
        app.auth.throttle.failed(key, visit.now);
    }
    if !app.auth.check(&name, &password).await.map_err(broken)? {
        metrics().ci.web_logins_rejected.inc();
        tracing::warn!(target: "ci", "a login from {} was rejected", visit.peer);
        return login_form(
            visit,
            Some((400, "Invalid username/password".into())),
            &name,
        );
    }
    metrics().ci.web_logins.inc();
    for key in &keys {
        app.auth.throttle.passed(key);
    }
    let user = User {
        name,
        ..User::default()
    };
    Ok(logged_in(visit, user))
}

fn logged_in(visit: &mut Visit, user: User) -> Answer {
    let wanted = visit.renew(Some(user)).filter(|path| is_local(path));
    let id = visit.session().id.clone();
    visit.app.auth.sessions.want(&id, "/");
    see_other(wanted.as_deref().unwrap_or("/"))
}

/// GitHub sends somebody back.
async fn callback(visit: &mut Visit) -> Result<Answer, Failure> {
    let refused = |text: &str| {
        metrics().ci.web_logins_rejected.inc();
        Failure::forbidden(text)
    };
    let Some(state) = visit.query.get("state").map(str::to_owned) else {
        return Err(refused("Missing state"));
    };
    if !same(&visit.csrf(), &state) {
        return Err(refused("Incorrect state"));
    }
    let Some(code) = visit.query.get("code").map(str::to_owned) else {
        return Err(refused("Missing code"));
    };
    let application =
        application(visit)?.ok_or_else(|| refused("GitHub auth is not configured!"))?;
    let app = std::sync::Arc::clone(&visit.app);
    let repos = app.settings.asked_repos();
    let user = app.auth.github.user(&application, &code, &repos).await;
    let user = user.map_err(|why| refused(&why))?;
    metrics().ci.web_logins.inc();
    Ok(logged_in(visit, user))
}

pub fn profile(visit: &mut Visit) -> Result<Answer, Failure> {
    let csrf = visit.csrf();
    let name = visit
        .user()
        .map(|user| user.name.clone())
        .unwrap_or_default();
    let can = if visit.may_build() {
        "read, rebuild, cancel and approve"
    } else {
        "read"
    };
    let body = html! {
        h1 { (name) }
        p { "You may " (can) "." }
        div { (button("/auth/logout", &csrf, &[], "Log out", "")) }
    };
    Ok(form(visit, 200, "Profile", "/user/profile", body))
}

pub fn settings(visit: &mut Visit) -> Result<Answer, Failure> {
    let body = html! {
        h1 { "Settings" }
        ul { li { a href="/settings/github-auth" { "GitHub authentication" } } }
        p.faint.small { "Users with a password are added with " code { "dk ci user" } "." }
    };
    Ok(form(visit, 200, "Settings", "/settings", body))
}

pub fn github(visit: &mut Visit, post: bool) -> Result<Answer, Failure> {
    let known = application(visit)?;
    if !post {
        let known = known.unwrap_or_else(|| Application {
            client_id: String::new(),
            client_secret: String::new(),
            callback: None,
        });
        let callback = known.callback.unwrap_or_default();
        return Ok(github_form(visit, &known.client_id, &callback, &[]));
    }
    let text = |name: &str| visit.form.text(name).to_owned();
    let (id, secret, callback) = (text("client-id"), text("client-secret"), text("callback"));
    let application = match Application::entered(&id, &secret, &callback) {
        Ok(application) => application,
        Err(errors) => {
            let told = |(field, why): (&'static str, &str)| (field, why.to_owned());
            let errors: Vec<_> = errors.into_iter().map(told).collect();
            return Ok(github_form(visit, &id, &callback, &errors));
        }
    };
    let github = &visit.app.auth.github;
    github.configure(application.as_ref()).map_err(|error| {
        tracing::error!(target: "ci", "the application at GitHub cannot be written: {error}");
        Failure::new(500, "The settings cannot be written")
    })?;
    Ok(see_other("/auth/login"))
}

fn github_form(visit: &mut Visit, id: &str, callback: &str, errors: &[(&str, String)]) -> Answer {
    let csrf = visit.csrf();
    let body = html! {
        h1 { "GitHub authentication" }
        p { "Register an OAuth application at GitHub and copy what it is given here. Leave all empty to switch it off. The secret is never shown: it is entered again at each change." }
        form.fields method="post" action="/settings/github-auth" {
            input type="hidden" name="CSRFToken" value=(csrf);
            (field("client-id", "Client id", "text", id, "off", errors))
            (field("client-secret", "Client secret", "password", "", "off", errors))
            (field("callback", "Callback URL, if not the registered one", "url", callback, "off", errors))
            div { button.main type="submit" { "Save" } }
        }
    };
    let status = if errors.is_empty() { 200 } else { 400 };
    form(visit, status, "GitHub authentication", "/settings", body)
}

pub fn explain(visit: &mut Visit, id: &str) -> Result<Answer, Failure> {
    let (title, text) = match id {
        "no-state-repo" => (
            "No state repository",
            "It is not configured where the store of this CI can be browsed (state-repo).",
        ),
        "permission-denied" => (
            "Permission denied",
            "You are logged in, but may not do that.",
        ),
        "logout-needed" => (
            "Log in again",
            "Who may see this depends on a repository that was not asked about when you logged in. Log out, and in again.",
        ),
        _ => return Err(Failure::not_found("Unknown code")),
    };
    let csrf = visit.user().is_some().then(|| visit.csrf());
    let body = html! {
        h1 { (title) }
        p { (text) }
        @if let Some(csrf) = csrf { div { (button("/auth/logout", &csrf, &[], "Log out", "")) } }
    };
    Ok(form(visit, 200, title, "", body))
}
