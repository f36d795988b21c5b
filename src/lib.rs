pub mod client;
pub mod commands;
pub mod model;
pub mod store;
pub mod ui;
