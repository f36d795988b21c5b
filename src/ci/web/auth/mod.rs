//! Who may do what: users with a password here, users of GitHub, and their
//! sessions.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::Settings;

mod ancestor;
pub mod github;
pub mod passwords;
pub mod sessions;

pub use github::Endpoints;
use github::GitHub;
use passwords::Passwords;
use sessions::{Sessions, Throttle, same, token};

/// The folder of the secrets' folder that is the page's.
pub const FOLDER: &str = "web";
/// Passwords that are checked at the same time: each needs 19 MiB.
const AT_ONCE: usize = 2;

/// All that is known of users.
pub struct Auth {
    pub passwords: Passwords,
    pub sessions: Sessions,
    pub throttle: Throttle,
    pub github: GitHub,
    /// The name of the cookie.
    pub cookie: String,
    /// Opens the set-up, once.
    introduction: Mutex<Option<String>>,
    turns: Semaphore,
}

impl Auth {
    pub fn new(settings: &Settings) -> Self {
        let folder: &Path = &settings.secrets.join(FOLDER);
        let passwords = Passwords::within(folder);
        match passwords.take_over(&settings.secrets) {
            Ok(0) => (),
            Ok(count) => {
                tracing::info!(target: "ci", "{count} users are taken over from {}", ancestor::FILE)
            }
            Err(error) => tracing::error!(target: "ci", "{error}"),
        }
        let known = passwords
            .names()
            .is_ok_and(|names| names.iter().any(|name| name == "admin"));
        // What a cookie's name may not hold is written as in a URL.
        let name = percent_encoding::utf8_percent_encode(
            &settings.web.name,
            percent_encoding::NON_ALPHANUMERIC,
        );
        Self {
            passwords,
            sessions: Sessions::default(),
            throttle: Throttle::default(),
            github: GitHub::within(folder, settings.github.clone()),
            cookie: format!("__ci_session:{}", name.to_string().replace("%2D", "-")),
            introduction: Mutex::new((!known).then(token::<24>)),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Tells whether the administrator has a password.
    pub fn is_set_up(&self) -> bool {
        let names = self.passwords.names().unwrap_or_default();
        names.iter().any(|name| name == "admin")
    }

    /// Returns the token that opens the set-up, while it does.
    pub fn introduction(&self) -> Option<String> {
        let token = self
            .introduction
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    /// Takes the token, if it is the right one: it opens once.
    pub fn introduce(&self, given: &str) -> bool {
        let mut token = self
            .introduction
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let right = token.as_ref().is_some_and(|token| same(token, given));
        if right {
            *token = None;
        }
        right
    }

    /// Tells whether a password is the user's.
    pub async fn check(&self, name: &str, password: &str) -> Result<bool, passwords::Error> {
        let users = self.passwords.clone();
        let (name, password) = (name.to_owned(), password.to_owned());
        self.work(move || users.check(&name, &password)).await
    }

    pub async fn set(&self, name: &str, password: &str) -> Result<(), passwords::Error> {
        let users = self.passwords.clone();
        let (name, password) = (name.to_owned(), password.to_owned());
        self.work(move || users.set(&name, &password)).await
    }

    /// Hashing takes time and memory: few do so at a time, elsewhere.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, passwords::Error> + Send + 'static,
    ) -> Result<T, passwords::Error> {
        let _turn = self.turns.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(_) => Err(passwords::Error::Hash),
        }
    }
}
