//! How the bridge shows who it is: a token, or a GitHub App.
//!
//! Nothing here is ever printed: not in a message, a log or a process list.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::api::{Error, Result};
use super::http::Of;
use crate::model::text::chain;

/// Who asks.
pub enum Auth {
    /// Nobody: public repositories, few calls.
    Anonymous,
    Token(String),
    App(Box<App>),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Token(_) => "Token",
            Self::App(_) => "App",
        })
    }
}

/// The file of git-jar, the ancestor's way to keep a token.
const COOKIE: &str = "datakit-github-cookie";

#[derive(Deserialize)]
struct Cookie {
    token: String,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error(
        "no token for GitHub: neither DK_GITHUB_TOKEN nor --token-file gives one, nor does \
         {COOKIE} in $HOME/.github/jar or /run/secrets"
    )]
    Nowhere,
    #[error("DK_GITHUB_TOKEN holds no token")]
    Variable,
    #[error("cannot read the token in {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no token", .0.display())]
    Empty(PathBuf),
}

impl Auth {
    /// Looks for a token: what `variable` (`DK_GITHUB_TOKEN`) says, a file that
    /// is named, git-jar's in `$HOME/.github/jar`, or one in `/run/secrets`, the
    /// first that is there.
    pub fn find(
        variable: Option<String>,
        file: Option<&Path>,
        home: Option<&Path>,
    ) -> Result<Self, Missing> {
        if let Some(file) = file {
            return read(file).map(Self::Token);
        }
        if let Some(text) = variable.filter(|text| !text.trim().is_empty()) {
            return token(&text).map(Self::Token).ok_or(Missing::Variable);
        }
        let jar = home.map(|home| home.join(".github/jar"));
        let folders = [jar, Some("/run/secrets".into())];
        let mut cookies = folders.into_iter().flatten().map(|dir| dir.join(COOKIE));
        match cookies.find(|cookie| cookie.exists()) {
            Some(cookie) => read(&cookie).map(Self::Token),
            None => Err(Missing::Nowhere),
        }
    }

    /// Returns what to send for calls about a repository or an account.
    pub(super) async fn token(
        &self,
        client: &reqwest::Client,
        url: &str,
        of: Of<'_>,
    ) -> Result<Option<String>> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Token(token) => Ok(Some(token.clone())),
            Self::App(app) => app.token(client, url, of).await.map(Some),
        }
    }

    /// Forgets a token that GitHub does not know any more. `false`: there is no
    /// other.
    pub(super) fn forget(&self, of: Of<'_>) -> bool {
        match self {
            Self::Anonymous | Self::Token(_) => false,
            Self::App(app) => app.forget(of),
        }
    }
}

/// Reads a token, as it is or in git-jar's JSON.
fn read(path: &Path) -> Result<String, Missing> {
    let text = std::fs::read_to_string(path).map_err(|source| Missing::Unreadable {
        path: path.into(),
        source,
    })?;
    let text = match serde_json::from_str::<Cookie>(&text) {
        Ok(cookie) => cookie.token,
        Err(_) => text,
    };
    token(&text).ok_or_else(|| Missing::Empty(path.into()))
}

/// Returns the token a text is. What is none would end up in a header, or in a
/// message about one.
fn token(text: &str) -> Option<String> {
    let text = text.trim();
    let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    legal.then(|| text.to_owned())
}

/// A GitHub App, which has a token for each account that installed it.
pub struct App {
    id: String,
    key: Key,
    state: Mutex<Tokens>,
}

#[derive(Default)]
struct Tokens {
    /// The installation of each user or organisation.
    installations: HashMap<String, u64>,
    tokens: HashMap<u64, (String, SystemTime)>,
}

/// A token is renewed so long before it ends (it lives an hour).
const EARLY: Duration = Duration::from_secs(300);
/// Where GitHub does not say when it ends.
const LIFE: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: Option<String>,
}

impl App {
    /// `pem` is the private key that GitHub gave for the App.
    pub fn new(id: &str, pem: &str) -> Result<Self, BadKey> {
        Ok(Self {
            id: id.into(),
            key: Key::read(pem)?,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, of: Of<'_>) -> bool {
        let state = &mut *self.state();
        let Some(installation) = state.installations.remove(of.account()) else {
            return false;
        };
        state.tokens.remove(&installation).is_some()
    }

    /// Returns the installation of an account.
    async fn installation(
        &self,
        client: &reqwest::Client,
        url: &str,
        of: Of<'_>,
    ) -> Result<Installation> {
        let ask = async |path: String| self.ask(client.get(path)).await;
        match of {
            Of::Repo(repo) => ask(format!("{url}/repos/{repo}/installation")).await,
            Of::Account(account) => match ask(format!("{url}/orgs/{account}/installation")).await {
                Err(Error::Missing(_)) => ask(format!("{url}/users/{account}/installation")).await,
                found => found,
            },
        }
    }

    async fn token(&self, client: &reqwest::Client, url: &str, of: Of<'_>) -> Result<String> {
        let known = self.state().installations.get(of.account()).copied();
        let installation = match known {
            Some(id) => id,
            None => {
                let found = self.installation(client, url, of).await?;
                self.state()
                    .installations
                    .insert(of.account().into(), found.id);
                found.id
            }
        };
        if let Some((token, until)) = self.state().tokens.get(&installation)
            && SystemTime::now() + EARLY < *until
        {
            return Ok(token.clone());
        }
        let path = format!("{url}/app/installations/{installation}/access_tokens");
        let granted: Granted = self.ask(client.post(path)).await?;
        let ends = granted
            .expires_at
            .and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let until = ends.map_or_else(|| SystemTime::now() + LIFE, SystemTime::from);
        self.state()
            .tokens
            .insert(installation, (granted.token.clone(), until));
        Ok(granted.token)
    }

    /// Asks as the App itself.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T> {
        let jwt = self
            .jwt(SystemTime::now())
            .map_err(|error| Error::Forbidden(error.to_string()))?;
        let failed = |error: reqwest::Error| Error::Unreachable(chain(&error.without_url()));
        let answer = request
            .header("accept", "application/vnd.github+json")
            .bearer_auth(jwt)
            .send()
            .await
            .map_err(failed)?;
        let status = answer.status();
        if !status.is_success() {
            let why = format!("the App got no token: {status}");
            return Err(match status.as_u16() {
                404 => Error::Missing("an installation of the App".into()),
                401 | 403 => Error::Forbidden(why),
                _ => Error::Unreachable(why),
            });
        }
        let body = answer.text().await.map_err(failed)?;
        serde_json::from_str(&body)
            .map_err(|error| Error::Unreachable(format!("not understood: {error}")))
    }

    /// Returns a JWT for ten minutes, a minute old for clocks that differ.
    fn jwt(&self, now: SystemTime) -> Result<String, BadKey> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims =
            serde_json::json!({ "iat": now.saturating_sub(60), "exp": now + 540, "iss": self.id });
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!(
            "{}.{}",
            encode(r#"{"alg":"RS256","typ":"JWT"}"#),
            encode(&claims.to_string())
        );
        let signature = self.key.sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Why a private key is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("it is no RSA private key in PEM")]
    Unreadable,
    #[error("this dk was built without https, and cannot be a GitHub App")]
    Unsupported,
}

/// Returns the bytes of a PEM file, and whether they are PKCS#8 (RFC 7468).
fn pem(text: &str) -> Option<(Vec<u8>, bool)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (kind, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.split_whitespace().collect();
    let pkcs8 = match kind {
        "PRIVATE KEY" => true,
        "RSA PRIVATE KEY" => false,
        _ => return None,
    };
    Some((STANDARD.decode(body).ok()?, pkcs8))
}

#[cfg(feature = "https")]
struct Key(ring::rsa::KeyPair);

#[cfg(feature = "https")]
impl Key {
    fn read(text: &str) -> Result<Self, BadKey> {
        let (bytes, pkcs8) = pem(text).ok_or(BadKey::Unreadable)?;
        let pair = match pkcs8 {
            true => ring::rsa::KeyPair::from_pkcs8(&bytes),
            false => ring::rsa::KeyPair::from_der(&bytes),
        };
        pair.map(Self).map_err(|_| BadKey::Unreadable)
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, BadKey> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.0
            .sign(
                &ring::signature::RSA_PKCS1_SHA256,
                &random,
                text,
                &mut signature,
            )
            .map_err(|_| BadKey::Unreadable)?;
        Ok(signature)
    }
}

#[cfg(not(feature = "https"))]
struct Key;

#[cfg(not(feature = "https"))]
impl Key {
    fn read(text: &str) -> Result<Self, BadKey> {
        pem(text).ok_or(BadKey::Unreadable)?;
        Err(BadKey::Unsupported)
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, BadKey> {
        Err(BadKey::Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_they_lie() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path();
        let token = |variable: Option<&str>, file: Option<&Path>| match Auth::find(
            variable.map(Into::into),
            file,
            Some(home),
        ) {
            Ok(Auth::Token(token)) => token,
            other => format!("{other:?}"),
        };
        assert_eq!(token(Some(" a \n"), None), "a");
        assert_eq!(token(None, None), "Err(Nowhere)");
        assert_eq!(token(Some("two words"), None), "Err(Variable)");
        assert_eq!(token(Some(" \n"), None), "Err(Nowhere)");
        let jar = home.join(".github/jar");
        std::fs::create_dir_all(&jar).expect("a folder");
        std::fs::write(jar.join(COOKIE), r#"{"token":"b","scopes":["repo"]}"#).expect("a file");
        assert_eq!(token(None, None), "b");
        let file = home.join("token");
        std::fs::write(&file, "c\n").expect("a file");
        assert_eq!(token(Some("a"), Some(&file)), "c", "what is named wins");
        std::fs::write(&file, "two words\n").expect("a file");
        assert!(token(None, Some(&file)).starts_with("Err(Empty("));
        assert!(token(None, Some(&home.join("none"))).starts_with("Err(Unreadable"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert_eq!(format!("{:?}", Auth::Token("secret".into())), "Token");
    }

    #[test]
    fn other_keys_are_refused() {
        for bad in [
            "",
            "no PEM",
            "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----",
        ] {
            assert!(App::new("1", bad).is_err(), "{bad}");
        }
    }
}
