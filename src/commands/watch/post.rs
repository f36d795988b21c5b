//! Posts what a watch sees: `dk watch --post`.
//!
//! A delivery looks like one of GitHub's webhooks, so what checks those checks
//! these: docs.github.com, "Validating webhook deliveries". It is sent until it
//! is taken; the same commit bears the same delivery id each time.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use sha2::Sha256;

use super::emit::Record;
use crate::model::BranchName;
use crate::model::text::{chain, hex};
use crate::ui::{Exit, Ui, Usage};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before a delivery is sent again: twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// A secret is not longer.
const SECRET: u64 = 4096;

/// Where commits are posted to.
pub(super) struct Post {
    client: Client,
    url: Url,
    secret: Option<Vec<u8>>,
    branch: BranchName,
}

/// What is posted.
#[derive(serde::Serialize)]
struct Delivery<'a> {
    branch: &'a BranchName,
    #[serde(flatten)]
    record: &'a Record,
}

/// What became of one try.
enum Tried {
    Taken,
    /// Perhaps it is taken later: why it was not, and when the receiver wants it.
    Later(String, Option<Duration>),
    Refused(StatusCode),
}

impl Post {
    pub fn new(url: &str, secret: Option<&Path>, branch: BranchName) -> anyhow::Result<Self> {
        let url = Url::parse(url).map_err(|error| Usage::new(format!("--post {url}: {error}")))?;
        let schemes: &[_] = match cfg!(feature = "https") {
            true => &["http", "https"],
            false => &["http"],
        };
        if !schemes.contains(&url.scheme()) {
            let why = format!("--post {url}: only {} is known", schemes.join(" and "));
            return Err(Usage::new(why).into());
        }
        crate::tls::provide();
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("dk/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            client,
            url,
            secret: secret.map(read).transpose()?,
            branch,
        })
    }

    /// Posts a record until it is taken.
    ///
    /// # Errors
    ///
    /// It was refused: any answer that is neither 2xx, 408, 429 nor 5xx.
    pub async fn deliver(&self, ui: &Ui, record: &Record) -> anyhow::Result<()> {
        let delivery = Delivery {
            branch: &self.branch,
            record,
        };
        let body = serde_json::to_vec(&delivery).context("cannot put the commit into JSON")?;
        let id = record.commit.id;
        let mut pause = FIRST;
        loop {
            match self.attempt(&id.to_string(), body.clone()).await {
                Tried::Taken => return Ok(()),
                Tried::Refused(status) => {
                    let why = anyhow::anyhow!("{} refused commit {id}: {status}", self.place());
                    return Err(Exit::with(1, why).into());
                }
                Tried::Later(why, asked) => {
                    let wait = asked.unwrap_or(pause).min(LONGEST);
                    ui.note(&format!(
                        "{} did not take commit {id}: {why}; again in {} s",
                        self.place(),
                        wait.as_secs()
                    ));
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    async fn attempt(&self, id: &str, body: Vec<u8>) -> Tried {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("X-Dk-Event", "commit")
            .header("X-Dk-Delivery", id);
        if let Some(secret) = &self.secret {
            request = request.header("X-Hub-Signature-256", signature(secret, &body));
        }
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Tried::Taken,
            Ok(answer) => match answer.status() {
                status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
                    Tried::Later(status.to_string(), retry_after(&answer))
                }
                status if status.is_server_error() => {
                    Tried::Later(status.to_string(), retry_after(&answer))
                }
                status => Tried::Refused(status),
            },
            // A URL may hold a password.
            Err(error) => Tried::Later(chain(&error.without_url()), None),
        }
    }

    /// Names the receiver without what may be secret in its URL.
    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// How long the receiver wants to be left alone, where it says so in seconds.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_secs)
}

fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key may have any length");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

/// Reads a secret: what the file holds, less the newline at its end.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let cannot = || format!("cannot read the secret in {}", file.display());
    let open = std::fs::File::open(file).with_context(cannot)?;
    let mut secret = Vec::new();
    open.take(SECRET + 1)
        .read_to_end(&mut secret)
        .with_context(cannot)?;
    anyhow::ensure!(
        secret.len() as u64 <= SECRET,
        "{} is too long a secret",
        file.display()
    );
    let length = secret.trim_ascii_end().len();
    secret.truncate(length);
    anyhow::ensure!(!secret.is_empty(), "{} holds no secret", file.display());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_github_s() {
        // The example of docs.github.com, "Validating webhook deliveries".
        assert_eq!(
            signature(b"It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
