//! The pages of the CI, over HTTP: what they show, to whom, and what one may
//! ask for there.

mod api;
mod auth;
mod browser;
mod commands;
mod driver;
mod live;
mod pages;
mod site;
mod tls;
