//! Each command as a person types it, and the files and programs besides it. Needs nothing of the system.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod completions;
mod configuration;
mod databricks_cli;
mod exec;
mod fragments;
mod from_python;
mod launchd;
mod libpq_variables;
mod log_streams;
mod messages;
mod mistakes;
mod outputs;
mod quiet;
mod sdk;
mod secret_sources;
mod secret_streams;
mod status;
mod templates;
mod token_stdin;
mod unexpanded_paths;
mod words;
