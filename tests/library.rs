//! The library as used by an application that pools connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use dbx_rotator::{Code, Outcome, Rotator};
use secrecy::ExposeSecret;
use support::{Fault, Home, Workspace};

fn rotator(home: &Home, workspace: &Workspace) -> Rotator {
    let authority = workspace.ca_file().display().to_string();
    let config = home.write("config.toml", format!("[[workspace]]\nca_file = '{authority}'\n"), 0o600);
    Rotator::builder()
        .without_environment()
        .config(config)
        .state_directory(home.path("state"))
        .workspace_url(workspace.url())
        .client_id(workspace.client_id())
        .client_secret(workspace.client_secret())
        .pg_host("db.example")
        .pgpass_file(home.path(".pgpass"))
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_opens_fifty_connections_at_once_costs_one_token() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let rotator = rotator(&home, &workspace);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let rotator = rotator.clone();
        tasks.spawn(async move { rotator.credential("default").await.unwrap() });
    }
    let credentials = tasks.join_all().await;
    assert_eq!(workspace.token_requests(), 1);
    for credential in credentials {
        assert!(home.pgpass().trim_end().ends_with(credential.password().expose_secret()));
        assert_eq!(credential.subject(), Some(workspace.client_id()));
        assert!(credential.valid_for() > Duration::from_secs(3_500));
        assert!(!format!("{credential:?}").contains("eyJ"), "a credential that is logged by mistake tells nothing");
    }
}

#[test]
fn a_blocking_program_rotates_with_a_small_runtime() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let rotator = rotator(&home, &workspace);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(rotator.run_once());
    assert!(report.succeeded());
    assert!(matches!(report.outcomes().next(), Some(("default", Outcome::Rotated { .. }))));
    let report = runtime.block_on(rotator.run_if_due());
    assert!(matches!(report.outcomes().next(), Some(("default", Outcome::NotDue { .. }))));
    assert_eq!(workspace.token_requests(), 1);
}

#[tokio::test]
async fn run_keeps_a_credential_live_beside_the_application_and_can_be_dropped_at_any_time() {
    let workspace = Workspace::builder().token_life(Duration::from_secs(14)).start();
    let home = Home::new();
    let rotator = rotator(&home, &workspace);
    let keeper = tokio::spawn({
        let rotator = rotator.clone();
        async move { rotator.run(std::future::pending::<()>()).await }
    });
    let issued = tokio::task::spawn_blocking(move || {
        assert!(workspace.wait_for_tokens_issued(2, Duration::from_secs(30)));
        workspace
    });
    let workspace = issued.await.unwrap();
    workspace.fail_next(Fault::Stall);
    keeper.abort();
    assert!(keeper.await.unwrap_err().is_cancelled());
    let credential = rotator.credential_valid_for("default", Duration::from_secs(1)).await.unwrap();
    assert!(credential.valid_for() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_unknown_name_and_a_refusal_are_typed() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let rotator = rotator(&home, &workspace);
    assert_eq!(rotator.credential("orders").await.unwrap_err().code, Code::Configuration);
    workspace.set_client(workspace.client_id(), "another-0000000000");
    let refused = rotator.credential("default").await.unwrap_err();
    assert_eq!(refused.code, Code::SignInRefused);
    assert!(!refused.is_transient() && refused.hint.is_some());
}

#[test]
fn a_builder_that_lacks_something_says_what() {
    let home = Home::new();
    let config = home.write("config.toml", "", 0o600);
    let fault = Rotator::builder().without_environment().config(config).build().err().unwrap();
    assert!(fault.to_string().contains("the workspace's address is not set"), "{fault}");
}

#[tokio::test]
async fn an_application_keeps_its_own_choice_of_cryptography() {
    let (workspace, home) = (Workspace::start(), Home::new());
    assert!(rotator(&home, &workspace).run_once().await.succeeded());
    assert!(
        rustls::crypto::CryptoProvider::get_default().is_none(),
        "the library has chosen a provider for the whole process"
    );
}

/// A subscriber of the application with a fault: it panics the first time that a rotation begins.
struct Faulty(std::sync::atomic::AtomicBool);

impl tracing::Subscriber for Faulty {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| text += &format!("{value:?}"));
        let is_first = text.contains("Starting") && !self.0.swap(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!is_first, "a fault of the application");
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

/// In a process of its own: tracing remembers for the whole process whether anybody listens to a message, and a test on
/// another thread that says the message first, where nobody listens, decides that for all.
#[test]
fn a_panic_costs_one_renewal_and_not_those_after_it() {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "renewals_go_on_after_a_panic", "--ignored"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
#[ignore = "started by a_panic_costs_one_renewal_and_not_those_after_it"]
async fn renewals_go_on_after_a_panic() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let _faulty = tracing::subscriber::set_default(Faulty(std::sync::atomic::AtomicBool::new(false)));
    let rotator = rotator(&home, &workspace);
    let lost = rotator.credential("default").await.unwrap_err();
    assert!(lost.is_transient() && lost.message.contains("the renewal ended unexpectedly"), "{lost}");
    assert!(rotator.credential("default").await.unwrap().valid_for() > Duration::from_secs(3_500));
}
