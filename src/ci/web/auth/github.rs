//! Logging in through GitHub: its OAuth flow, and what is asked for then.
//!
//! The access token is used for those questions and thrown away. The client's
//! secret is in a file of the secrets' folder and never on a page.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::passwords;
use super::sessions::User;
use crate::forge::Repo;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const LONGEST: usize = 1 << 20;
/// Pages of organisations that are read.
const PAGES: usize = 20;

/// How this CI is known at GitHub.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Application {
    pub client_id: String,
    pub client_secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Application({})", self.client_id)
    }
}

impl Application {
    /// Checks what somebody entered: all of it, or nothing for no application.
    /// The errors are told by the name of the field.
    pub fn entered(
        id: &str,
        secret: &str,
        callback: &str,
    ) -> Result<Option<Self>, Vec<(&'static str, &'static str)>> {
        let mut errors = Vec::new();
        if id.is_empty() && !(secret.is_empty() && callback.is_empty()) {
            errors.push(("client-id", "Cannot be empty"));
        }
        if !id.is_empty() && secret.is_empty() {
            errors.push(("client-secret", "Cannot be empty"));
        }
        let url = callback.starts_with("https://") || callback.starts_with("http://");
        if !callback.is_empty() && !url {
            errors.push(("callback", "Not a URL"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok((!id.is_empty()).then(|| Self {
            client_id: id.to_owned(),
            client_secret: secret.to_owned(),
            callback: (!callback.is_empty()).then(|| callback.to_owned()),
        }))
    }

    /// What a code is exchanged for a token with.
    fn exchange(&self, code: &str) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", &self.client_id);
        form.append_pair("client_secret", &self.client_secret);
        form.append_pair("code", code);
        if let Some(callback) = &self.callback {
            form.append_pair("redirect_uri", callback);
        }
        form.finish()
    }
}

/// Where GitHub is.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The site, where users log in.
    pub site: String,
    pub api: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            site: "https://github.com".into(),
            api: "https://api.github.com".into(),
        }
    }
}

/// GitHub as those who log in need it.
#[derive(Clone, Debug)]
pub struct GitHub {
    file: PathBuf,
    endpoints: Endpoints,
}

impl GitHub {
    /// The application is in a file of this folder, if it is configured.
    pub fn within(folder: &Path, endpoints: Endpoints) -> Self {
        Self {
            file: folder.join("github.json"),
            endpoints,
        }
    }

    /// Returns the application; nothing where none is configured.
    pub fn application(&self) -> io::Result<Option<Application>> {
        match std::fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(serde_json::from_slice(&text?)?)),
        }
    }

    /// Configures the application, or that there is none.
    pub fn configure(&self, application: Option<&Application>) -> io::Result<()> {
        match application {
            Some(application) => {
                let text = serde_json::to_vec(application)?;
                passwords::private_folder(self.file.parent().unwrap_or(Path::new(".")))?;
                passwords::replace(&self.file, &text)
            }
            None => match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            },
        }
    }

    /// Returns where a browser is sent to log in.
    pub fn authorize(&self, application: &Application, scopes: &[String], state: &str) -> String {
        let scopes = scopes.join(",");
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", &application.client_id);
        query.append_pair("scope", &scopes);
        query.append_pair("state", state);
        if let Some(callback) = &application.callback {
            query.append_pair("redirect_uri", callback);
        }
        let site = &self.endpoints.site;
        format!("{site}/login/oauth/authorize?{}", query.finish())
    }

    /// Returns who it is that came back with `code`, and which of `repos` they
    /// can read. The error is a sentence for the page.
    pub async fn user(
        &self,
        application: &Application,
        code: &str,
        repos: &[Repo],
    ) -> Result<User, String> {
        crate::tls::provide();
        let client = reqwest::Client::builder()
            .user_agent(concat!("dk/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| failed(&error))?;
        let request = client
            .post(format!("{}/login/oauth/access_token", self.endpoints.site))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(application.exchange(code));
        let exchanged: Exchanged = ask(request).await?.ok_or("GitHub refused the exchange")?;
        let Some(token) = exchanged.access_token else {
            let why = exchanged.error_description.or(exchanged.error);
            let why = why.unwrap_or_else(|| "it gave no token".into());
            return Err(format!("GitHub refused the exchange: {why}"));
        };
        let api = |path: &str| {
            client
                .get(format!("{}{path}", self.endpoints.api))
                .bearer_auth(&token)
        };
        let login: Login = ask(api("/user")).await?.ok_or("GitHub does not say who")?;
        let mut organisations = Vec::new();
        for page in 1..=PAGES {
            let path = format!("/user/orgs?per_page=100&page={page}");
            let more: Vec<Login> = ask(api(&path)).await?.unwrap_or_default();
            let last = more.len() < 100;
            let name = |organisation: Login| organisation.login.to_ascii_lowercase();
            organisations.extend(more.into_iter().map(name));
            if last {
                break;
            }
        }
        let mut readable = BTreeMap::new();
        for repo in repos {
            let found: Option<serde::de::IgnoredAny> = ask(api(&format!("/repos/{repo}"))).await?;
            readable.insert(repo.clone(), found.is_some());
        }
        Ok(User {
            name: format!("github:{}", login.login),
            organisations,
            repos: readable,
        })
    }
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    login: String,
}

/// Returns the answer, or nothing where GitHub says that there is nothing for
/// this user.
async fn ask<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<Option<T>, String> {
    let request = request.header("accept", "application/json");
    let mut answer = request.send().await.map_err(|error| failed(&error))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > LONGEST {
            return Err("GitHub's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    match status.as_u16() {
        200..=299 => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|_| "GitHub's answer is not understood".into()),
        401 | 403 | 404 | 451 => Ok(None),
        status => Err(format!("GitHub answered {status}")),
    }
}

/// An error without the URL, which may hold what nobody is to see.
fn failed(error: &reqwest::Error) -> String {
    let why = match () {
        () if error.is_timeout() => "it does not answer",
        () if error.is_connect() => "it cannot be reached",
        () if error.is_builder() => "this dk was built without https",
        () => "the connection broke",
    };
    tracing::warn!(target: "ci", "a login through GitHub failed: {why}");
    format!("GitHub cannot be asked: {why}")
}
