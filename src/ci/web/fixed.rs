//! The files that come with the pages: looks, script, icons.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};

use super::visit::{Answer, Failure, Visit, whole};
use crate::model::text::hex;

const FILES: &[(&str, &str, &str)] = &[
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("static/style.css"),
    ),
    (
        "script.js",
        "text/javascript; charset=utf-8",
        include_str!("static/script.js"),
    ),
    ("icon.svg", SVG, include_str!("static/icon.svg")),
    (
        "icon-success.svg",
        SVG,
        include_str!("static/icon-success.svg"),
    ),
    (
        "icon-failure.svg",
        SVG,
        include_str!("static/icon-failure.svg"),
    ),
    (
        "icon-pending.svg",
        SVG,
        include_str!("static/icon-pending.svg"),
    ),
    (
        "icon-running.svg",
        SVG,
        include_str!("static/icon-running.svg"),
    ),
    ("icon-none.svg", SVG, include_str!("static/icon-none.svg")),
];

const SVG: &str = "image/svg+xml";

/// Changes with the files, so that browsers may keep them.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        for (_, _, text) in FILES {
            hash.update(text);
        }
        let digest = hash.finalize();
        hex(&digest[..6])
    });
    &VERSION
}

pub fn file(visit: &Visit, name: &str) -> Result<Answer, Failure> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let Some((_, kind, text)) = found else {
        return Err(Failure::not_found("No such static resource"));
    };
    let mut answer = whole(kind, *text);
    // One asked for by its version never changes.
    let kept = match visit.query.get("v") == Some(version()) {
        true => "public, max-age=31536000, immutable",
        false => "public, max-age=300",
    };
    let headers = answer.0.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    Ok(answer)
}
