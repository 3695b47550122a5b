//! What a rotation says, in the words that the Python original documented and that people's scripts look for.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::auth::AccessToken;
use crate::auth::token::fingerprint;
use crate::failure::Failure;
use crate::pgpass::{Published, Severity};
use secrecy::ExposeSecret;

pub(crate) fn start() {
    tracing::info!("Starting OAuth token rotation cycle");
}

/// `now` is the workspace's time.
pub(crate) fn obtained(token: &AccessToken, now: Timestamp) {
    tracing::info!("Successfully obtained token via {}", token.method);
    tracing::info!("New token details:");
    tracing::info!("  - Subject: {}", token.subject().unwrap_or("unknown"));
    let local = token.expires_at.to_zoned_datetime(jiff::tz::TimeZone::system());
    tracing::info!("  - Expires at: {}", local.strftime("%Y-%m-%dT%H:%M:%S"));
    tracing::info!("  - Valid for: {}", valid_for(token.expires_at.duration_since(now)));
    tracing::debug!("  - SHA-256 begins with: {}", fingerprint(token.secret.expose_secret()));
}

fn valid_for(left: SignedDuration) -> String {
    match left.as_secs() {
        seconds if seconds < 120 => format!("{} seconds", seconds.max(0)),
        // Half a minute of the answer's way must not make 59 of 60 minutes.
        seconds => format!("{} minutes", (seconds + 30) / 60),
    }
}

/// `is_news` is false where the present credential was only kept.
pub(crate) fn published(path: &Path, published: &Published, is_news: bool) {
    for warning in &published.warnings {
        match warning.severity() {
            Severity::Warning => tracing::warn!("{}: {warning}", path.display()),
            Severity::Detail => tracing::debug!("{}: {warning}", path.display()),
        }
    }
    for note in &published.notes {
        tracing::warn!("{}: {note}", path.display());
    }
    if published.changed {
        tracing::info!("Successfully updated {}", path.display());
    } else {
        tracing::debug!("{} already holds it: nothing to write", path.display());
    }
    if is_news {
        tracing::info!("Token rotation completed successfully");
    }
}

/// `next` is how long until it is tried again, where this run will.
pub(crate) fn failed(failure: &Failure, next: Option<SignedDuration>) {
    let hint = failure.hint.as_deref().map(|hint| format!(" - {hint}")).unwrap_or_default();
    match next {
        Some(next) if failure.is_transient() => {
            tracing::warn!("{failure}{hint} (next try in {:.1} s)", next.as_secs_f64());
        }
        _ => tracing::error!("{failure}{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_hour_is_60_minutes() {
        assert_eq!(valid_for(SignedDuration::from_secs(3_599)), "60 minutes");
        assert_eq!(valid_for(SignedDuration::from_secs(20)), "20 seconds");
        assert_eq!(valid_for(SignedDuration::from_secs(-4)), "0 seconds");
    }
}
