//! What other programs ask a server for over HTTP: its counts, and whether it
//! is well.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::listen::{self, lock};
use crate::commands::daemon::Guest;
use crate::metrics::metrics;
use crate::model::BranchName;
use crate::ninep::transport::{Endpoint, Error, Listener, Stream};
use crate::store::{Store, face};

/// How long one connection may last, which is for one request.
const LIFE: Duration = Duration::from_secs(10);

/// How many may be open.
const MOST: usize = 64;

/// How long the store may take to be read.
const SLOW: Duration = Duration::from_secs(5);

/// What `--metrics` takes: `HOST:PORT`, `:PORT` or `PORT`.
pub fn address(text: &str) -> Result<Endpoint, String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix("http://").unwrap_or(text);
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    let address = match digits(text) {
        true => format!("tcp://127.0.0.1:{text}"),
        false => format!("tcp://{text}"),
    };
    match text.rsplit_once(':') {
        Some((_, port)) if digits(port) => (),
        _ if digits(text) => (),
        _ => return Err("an address with a port, such as 127.0.0.1:9090".into()),
    }
    address.parse().map_err(|error| format!("{error}"))
}

/// What an answer is made of.
#[derive(Clone)]
pub struct Subject {
    pub store: Arc<Store>,
    pub states: Arc<Mutex<Vec<listen::State>>>,
}

/// Listens at an address until it is dropped, and answers. `first` is what came
/// of the first try; one that failed is repeated, and `told` is told when it
/// succeeds.
pub async fn serve(
    at: Endpoint,
    first: Result<Listener, Error>,
    subject: Subject,
    told: impl Fn(&Endpoint),
) {
    let mut wait = Duration::from_millis(250);
    let mut listener = first;
    let listener = loop {
        match listener {
            Ok(listener) => break listener,
            Err(error) => {
                let source = &error.source as &dyn std::error::Error;
                tracing::error!(target: "serve", error = source, "{error}");
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(15));
        listener = Listener::bind(&at).await;
        if let Ok(listener) = &listener {
            told(listener.endpoint());
        }
    };
    let router = Router::new()
        .route("/metrics", get(counts))
        .route("/healthz", get(health))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                [CLOSE],
                "there is /metrics and /healthz\n",
            )
        })
        .with_state(subject);
    let door = Door {
        listener,
        places: Arc::new(Semaphore::new(MOST)),
    };
    // It ends by being dropped.
    let _ = axum::serve(door, router).await;
}

const CLOSE: (header::HeaderName, &str) = (header::CONNECTION, "close");

async fn counts() -> impl IntoResponse {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, KIND), CLOSE], metrics().text())
}

/// 200 while the store can be read and a listener listens, else 503; a line
/// for each of them.
async fn health(State(subject): State<Subject>) -> impl IntoResponse {
    let mut well = true;
    let mut lines = String::new();
    let any = BranchName::new("master").expect("legal");
    let read = face::run(&subject.store, move |store| store.head(&any));
    let store = match timeout(SLOW, read).await {
        Ok(Ok(_)) => "ok".into(),
        Ok(Err(error)) => {
            well = false;
            error.to_string()
        }
        Err(_) => {
            well = false;
            "it does not answer".into()
        }
    };
    lines += &format!("store: {store}\n");
    let states = lock(&subject.states).clone();
    well &= states.iter().any(|state| matches!(state.now, Some(Ok(_))));
    for state in states {
        lines += &match state.now {
            Some(Ok(at)) => format!("{at}: ok\n"),
            Some(Err(why)) => format!("{}: {why}\n", state.asked),
            None => format!("{}: not yet\n", state.asked),
        };
    }
    let status = match well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    const KIND: &str = "text/plain; charset=utf-8";
    (status, [(header::CONTENT_TYPE, KIND), CLOSE], lines)
}

/// Lets in so many at a time, each for so long.
struct Door {
    listener: Listener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Door {
    type Io = Guest<Stream>;
    type Addr = String;

    async fn accept(&mut self) -> (Guest<Stream>, String) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            match (self.listener.accept().await, place) {
                (Ok((stream, peer)), Ok(place)) => {
                    let end = Instant::now() + LIFE;
                    return (Guest::new(stream, end, place), peer);
                }
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.endpoint().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_port() {
        for (text, parsed) in [
            ("9090", "tcp://127.0.0.1:9090"),
            (":9090", "tcp://:9090"),
            ("0.0.0.0:9090", "tcp://0.0.0.0:9090"),
            ("[::1]:9090", "tcp://[::1]:9090"),
            ("http://localhost:1", "tcp://localhost:1"),
        ] {
            assert_eq!(address(text).expect(text).to_string(), parsed);
        }
        for text in ["", "localhost", "localhost:", "[::1]", "1.2.3.4:http"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
