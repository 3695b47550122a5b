//! What a test sees of the workspace: what has arrived, what was issued, what must stay secret.

use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Workspace};

impl Workspace {
    /// Requests to the token endpoint that have arrived, answered or not.
    pub fn token_requests(&self) -> usize {
        self.requests_to(Endpoint::Token)
    }

    /// Requests to this endpoint that have arrived, answered or not.
    pub fn requests_to(&self, endpoint: Endpoint) -> usize {
        self.shared.state().arrived(endpoint)
    }

    /// Waits until `n` requests to this endpoint have arrived since the start; false if the time runs out first.
    pub fn wait_for_requests_to(&self, endpoint: Endpoint, n: usize, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.arrived(endpoint) >= n)
    }

    /// Tokens that the token endpoint issued.
    pub fn tokens_issued(&self) -> usize {
        self.shared.state().tokens_issued
    }

    /// Method and path of every request, in order; no query, no header, no body.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// TCP connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Waits until `n` token requests have arrived since the start; false if the time runs out first.
    pub fn wait_for_token_requests(&self, n: usize, limit: Duration) -> bool {
        self.wait_for_requests_to(Endpoint::Token, n, limit)
    }

    /// Waits until the token endpoint has issued `n` tokens since the start; false if the time runs out first.
    pub fn wait_for_tokens_issued(&self, n: usize, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.tokens_issued >= n)
    }

    /// All that must never appear in any output: client secrets, refresh tokens, the newest few thousand tokens.
    pub fn secrets(&self) -> Vec<String> {
        self.secret_source()()
    }

    /// The same for later use, perhaps after the workspace is gone.
    pub fn secret_source(&self) -> impl Fn() -> Vec<String> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let state = shared.state();
            state.clients.values().chain(state.refresh_tokens.values()).chain(&state.issued).cloned().collect()
        }
    }
}
