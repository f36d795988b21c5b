//! One request: who sends it, what it asks for, and what becomes of the answer.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};

use super::auth::sessions::{Access, Session, User, access, same};
use super::{App, Role, page};
use crate::client;
use crate::model::{Identity, Kind, Signature, Time};

/// The longest form.
const FORM: usize = 64 << 10;

/// What a route answers with.
pub struct Answer(pub Response);

/// Why a request is refused.
#[derive(Debug)]
pub enum Failure {
    Status(StatusCode, String),
    Method(&'static [&'static str]),
    Store(client::Error),
}

impl Failure {
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Status(status, text.into())
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(404, text)
    }

    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(403, text)
    }

    pub fn method(allowed: &'static [&'static str]) -> Self {
        Self::Method(allowed)
    }

    fn told(&self) -> (StatusCode, String) {
        match self {
            Self::Status(status, text) => (*status, text.clone()),
            Self::Method(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "This address does not take that method".into(),
            ),
            Self::Store(error) => {
                let status = match error.kind() {
                    Kind::NotFound | Kind::NotDirectory | Kind::IsDirectory => 404,
                    Kind::Invalid | Kind::Ambiguous => 400,
                    Kind::Conflict | Kind::HeadMoved | Kind::Exists => 409,
                    Kind::Denied | Kind::ReadOnly => 403,
                    Kind::Busy | Kind::Interrupted => 503,
                    _ => 500,
                };
                let status = StatusCode::from_u16(status).unwrap_or_default();
                if status.is_server_error() {
                    let error = error as &dyn std::error::Error;
                    tracing::error!(target: "ci", error, "a page cannot be made");
                    return (status, "The store cannot be read just now".into());
                }
                (status, error.to_string())
            }
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Store(error)
    }
}

/// Names with values: of a query or of a form.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a value, without blanks around it; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default().trim()
    }
}

/// One request.
pub struct Visit {
    pub app: Arc<App>,
    /// Of the path, each decoded by itself.
    pub segments: Vec<String>,
    pub query: Fields,
    pub form: Fields,
    /// Who sends it: an address.
    pub peer: String,
    pub now: Instant,
    pub headers: HeaderMap,
    /// Path and query as they came.
    pub target: String,
    method: Method,
    session: Option<Session>,
    /// The session is not the one the cookie names.
    renewed: bool,
}

impl Visit {
    /// Returns the visit, and the body that came with it.
    pub fn new(app: Arc<App>, peer: String, request: Request<Body>) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let decode = |segment: &str| {
            let bytes = percent_encoding::percent_decode_str(segment);
            bytes.decode_utf8_lossy().into_owned()
        };
        let segments = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(decode)
            .collect();
        let now = Instant::now();
        let session =
            cookie(&parts.headers, &app.auth.cookie).and_then(|id| app.auth.sessions.get(&id, now));
        let visit = Self {
            segments,
            query: Fields::parse(parts.uri.query().unwrap_or_default().as_bytes()),
            form: Fields::default(),
            peer,
            now,
            target: parts
                .uri
                .path_and_query()
                .map_or_else(|| "/".into(), ToString::to_string),
            headers: parts.headers,
            method: parts.method,
            session,
            renewed: false,
            app,
        };
        (visit, body)
    }

    /// Reads the form of a POST.
    pub async fn read_form(&mut self, body: Body) -> Result<(), Failure> {
        if self.method != Method::POST {
            return Ok(());
        }
        let kind = self
            .header(header::CONTENT_TYPE)
            .unwrap_or_default()
            .to_owned();
        let bytes = to_bytes(body, FORM)
            .await
            .map_err(|_| Failure::new(413, "That form is too long"))?;
        let none = bytes.is_empty() && kind.is_empty();
        if !none && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(Failure::new(
                415,
                "A form is application/x-www-form-urlencoded",
            ));
        }
        self.form = Fields::parse(&bytes);
        Ok(())
    }

    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Tells whether a program asks rather than a browser.
    pub fn is_api(&self) -> bool {
        self.segments.first().is_some_and(|first| first == "api")
    }

    pub fn user(&self) -> Option<&User> {
        self.session.as_ref()?.user.as_ref()
    }

    /// Tells whether whoever it is may do something.
    pub fn may(&self, role: Role) -> Access {
        let web = &self.app.settings.web;
        let yes = |yes| if yes { Access::Yes } else { Access::No };
        match role {
            Role::Anyone => Access::Yes,
            Role::Reader => access(self.user(), &web.can_read),
            Role::Builder => access(self.user(), &web.can_build),
            Role::LoggedIn => yes(self.user().is_some()),
            Role::Admin => yes(self.user().is_some_and(User::is_admin)),
        }
    }

    pub fn may_build(&self) -> bool {
        self.may(Role::Builder) == Access::Yes
    }

    /// Lets pass who has the role; others are sent somewhere.
    pub fn gate(&mut self, role: Role) -> Result<Option<Answer>, Failure> {
        let told = self.may(role);
        if told == Access::Yes {
            return Ok(None);
        }
        if self.is_api() || self.segments.first().is_some_and(|first| first == "events") {
            let status = if self.user().is_some() { 403 } else { 401 };
            return Err(Failure::new(status, "Not allowed"));
        }
        if told == Access::Unknown {
            return Ok(Some(see_other("/error/logout-needed")));
        }
        if self.user().is_some() {
            return Ok(Some(see_other("/error/permission-denied")));
        }
        let wanted = self.target.clone();
        let back = self.method == Method::GET && is_local(&wanted);
        let id = self.session().id.clone();
        if back {
            self.app.auth.sessions.want(&id, &wanted);
        }
        Ok(Some(see_other("/auth/login")))
    }

    /// Returns the session, which is begun where there is none.
    pub fn session(&mut self) -> &Session {
        let (app, now, renewed) = (&self.app, self.now, &mut self.renewed);
        self.session.get_or_insert_with(|| {
            *renewed = true;
            app.auth.sessions.begin(now)
        })
    }

    /// What forms of a page have to bring.
    pub fn csrf(&mut self) -> String {
        self.session().csrf.clone()
    }

    /// Ends the session and begins another: of a user, or of nobody.
    pub fn renew(&mut self, user: Option<User>) -> Option<String> {
        let old = self.session.take().map(|session| session.id);
        let session = self
            .app
            .auth
            .sessions
            .renew(&old.unwrap_or_default(), user, self.now);
        self.renewed = true;
        let wanted = session.wanted.clone();
        self.session = Some(session);
        wanted
    }

    /// Refuses a POST that does not come from a page of this session.
    pub fn check_token(&self) -> Result<(), Failure> {
        let given = self.query.get("CSRFToken").or(self.form.get("CSRFToken"));
        let Some(given) = given else {
            return Err(Failure::forbidden("Missing CSRFToken"));
        };
        match &self.session {
            Some(session) if same(&session.csrf, given) => Ok(()),
            _ => Err(Failure::forbidden("Incorrect CSRFToken")),
        }
    }

    /// Who asked, for a commit.
    pub fn signature(&self) -> Signature {
        let name = self.user().map_or("anonymous", |user| &user.name);
        let who = match name.strip_prefix("github:") {
            Some(login) => Identity {
                name: name.into(),
                email: format!("{login}@users.noreply.github.com"),
            },
            None => Identity {
                name: name.into(),
                email: format!("{name}@dk-ci"),
            },
        };
        Signature {
            name: who.name.into_bytes(),
            email: who.email.into_bytes(),
            time: Time::now(),
        }
    }

    /// Makes the response: the page of a failure, the cookie, and what every
    /// response says.
    pub fn finish(&mut self, answer: Result<Answer, Failure>) -> Response {
        let mut response = match answer {
            Ok(Answer(response)) => response,
            Err(failure) => self.refusal(&failure),
        };
        let https = self.app.settings.is_https();
        let headers = response.headers_mut();
        let mut say = |name: header::HeaderName, value: &'static str| {
            headers
                .entry(name)
                .or_insert(HeaderValue::from_static(value));
        };
        say(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        );
        say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        say(header::REFERRER_POLICY, "same-origin");
        say(header::CACHE_CONTROL, "private, no-cache");
        say(
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        );
        if https {
            say(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
        }
        if let Some(session) = self.session.as_ref().filter(|_| self.renewed) {
            let secure = if https { "; Secure" } else { "" };
            let name = &self.app.auth.cookie;
            let cookie = format!(
                "{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
                session.id
            );
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        response
    }

    fn refusal(&mut self, failure: &Failure) -> Response {
        let (status, text) = failure.told();
        let mut response = if self.is_api() {
            json(&serde_json::json!({ "error": text })).0
        } else {
            page::message(self, status, &text).0
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Failure::Method(methods) = failure
            && let Ok(allow) = HeaderValue::from_str(&methods.join(", "))
        {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

/// Returns the value of a cookie.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut pairs = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.to_owned())
}

/// Tells whether something is a path of this site, and nothing else.
pub fn is_local(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 4096
        && path
            .bytes()
            .all(|b| (0x21..0x7f).contains(&b) && b != b'\\')
}

/// An answer of some kind.
pub fn whole(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::from(body.into()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Answer(response)
}

/// A page.
pub fn document(markup: Markup) -> Answer {
    whole("text/html; charset=utf-8", markup.into_string())
}

pub fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => whole("application/json", text),
        Err(_) => {
            let mut answer = whole("application/json", "{}");
            *answer.0.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    }
}

/// Sends a browser to another address, with a GET.
pub fn see_other(to: &str) -> Answer {
    redirect(StatusCode::SEE_OTHER, to)
}

pub fn redirect(status: StatusCode, to: &str) -> Answer {
    let body = html! { "See " a href=(to) { (to) } };
    let mut answer = document(body);
    *answer.0.status_mut() = status;
    match HeaderValue::from_str(to) {
        Ok(to) => {
            answer.0.headers_mut().insert(header::LOCATION, to);
        }
        Err(_) => *answer.0.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_local() {
        for good in ["/", "/a/b?c=d#e", "/%2f%2fx"] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//x",
            "/\\x",
            "https://x/",
            "javascript:x",
            "/a b",
            "/a\n",
            "/\u{e4}",
        ] {
            assert!(!is_local(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; b=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=3=4"));
        assert_eq!(cookie(&headers, "b").as_deref(), Some("2"));
        assert_eq!(cookie(&headers, "c").as_deref(), Some("3=4"));
        assert_eq!(cookie(&headers, "d"), None);
    }
}
