//! What watches over an engine asks it: `/metrics` and `/healthz`.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ci::Status;
use crate::metrics::metrics;
use crate::ui::Ui;

/// Answers at an address until what it returns is dropped.
pub(super) async fn serve(ui: &Ui, at: &str, status: Arc<Status>) -> anyhow::Result<JoinSet<()>> {
    let listener = TcpListener::bind(at).await;
    let listener = listener.with_context(|| format!("cannot listen at {at}"))?;
    let at = listener.local_addr().context("cannot tell the port")?;
    ui.note(&format!("dk: metrics at http://{at}/metrics"));
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let counts = move || async move { ([(header::CONTENT_TYPE, text)], metrics().text()) };
    let health = move || async move {
        let report = status.report();
        match (report.connected, report.trouble) {
            (true, _) => (StatusCode::OK, "ok\n".to_owned()),
            (false, Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            (false, None) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        }
    };
    let router = Router::new()
        .route("/metrics", get(counts))
        .route("/healthz", get(health));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(target: "ci", "metrics: {error}");
        }
    });
    Ok(tasks)
}
