//! The web page of `dk ci serve`: where it is, and for how long.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ci::Status;
use crate::ci::config::Config;
use crate::ci::web::{self, App, Certificate, Door, Settings};
use crate::commands::Session;
use crate::ui::Usage;

/// What is said of the page on the command line.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Serve the web page at HOST:PORT, :PORT or PORT
    #[arg(long, value_name = "ADDR", value_parser = address)]
    web: Option<String>,
    /// The address at which people see the page; also for the links of statuses
    #[arg(long, value_name = "URL")]
    pub web_url: Option<String>,
    /// The certificate chain for the page, as PEM: it is served over https
    #[arg(long, value_name = "FILE", requires_all = ["web", "web_key"], value_hint = clap::ValueHint::FilePath)]
    web_cert: Option<PathBuf>,
    /// The key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "web_cert", value_hint = clap::ValueHint::FilePath)]
    web_key: Option<PathBuf>,
}

/// Reads `HOST:PORT`, `:PORT` (every address of the machine) or `PORT` (this
/// machine only).
fn address(text: &str) -> Result<String, String> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    match text.rsplit_once(':') {
        None if is_port(text) => Ok(format!("127.0.0.1:{text}")),
        Some(("", port)) if is_port(port) => Ok(format!("[::]:{port}")),
        Some((_, port)) if is_port(port) => Ok(text.into()),
        _ => Err("an address with a port, such as 127.0.0.1:8080".into()),
    }
}

/// The page before it is served: all that can be wrong about it has been found.
pub struct Site(Option<Bound>);

struct Bound {
    door: Door,
    settings: Settings,
}

impl Site {
    /// Listens, where a page is wanted.
    pub async fn bind(
        options: &Options,
        secrets: Option<&Path>,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let Some(at) = &options.web else {
            return Ok(Self(None));
        };
        let Some(secrets) = secrets else {
            let why = "the page keeps its users in the folder of secrets";
            return Err(Usage::new(why).hint("use --secrets-dir DIR").into());
        };
        let certificate = match (&options.web_cert, &options.web_key) {
            (Some(chain), Some(key)) => {
                let read = Certificate::read(chain, key);
                Some(read.context("the page cannot be served over https")?)
            }
            _ => None,
        };
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let listener = listen(at).await?;
        let door = Door::open(listener, certificate)?;
        let url = match &options.web_url {
            Some(url) => url.clone(),
            None => format!("{scheme}://{}/", shown(door.address())),
        };
        let settings = Settings::new(config, &url, secrets.to_owned());
        let settings = settings.map_err(|error| Usage::new(error.to_string()))?;
        Ok(Self(Some(Bound { door, settings })))
    }

    /// Returns the address at which people see the page.
    pub fn url(&self) -> Option<String> {
        Some(self.0.as_ref()?.settings.url.clone())
    }

    /// Answers until what it returns is dropped.
    pub fn serve(self, session: &Session, engine: Arc<Status>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let Some(Bound { door, settings }) = self.0 else {
            return tasks;
        };
        let url = settings.url.clone();
        let app = App::new(session.client.clone(), settings, Some(engine));
        session.ui.note(&format!("dk: page at {url}"));
        if let Some(link) = app.introduction() {
            // Whoever reads this is who may set it up.
            session
                .ui
                .line(&format!(">>> Configure the CI by visiting\n{link}"));
        }
        tasks.spawn(async move {
            if let Err(error) = web::serve(Arc::new(app), door).await {
                tracing::error!(target: "ci", "the page is served no more: {error}");
            }
        });
        tasks
    }
}

/// Listens at an address; a machine without IPv6 has IPv4.
async fn listen(at: &str) -> anyhow::Result<TcpListener> {
    let listener = match (TcpListener::bind(at).await, at.strip_prefix("[::]:")) {
        (Err(_), Some(port)) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        (listener, _) => listener,
    };
    listener.with_context(|| format!("cannot listen at {at}"))
}

/// The address as a browser on this machine takes it.
fn shown(at: SocketAddr) -> String {
    match at.ip().is_unspecified() {
        true => format!("127.0.0.1:{}", at.port()),
        false => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(address("8080").as_deref(), Ok("127.0.0.1:8080"));
        assert_eq!(address(":8080").as_deref(), Ok("[::]:8080"));
        assert_eq!(address("[::1]:80").as_deref(), Ok("[::1]:80"));
        for bad in ["", "localhost", "a:", "a:b", "99999"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
