//! The program that tells a person that a login is needed. It is started once for each login that ends: the record says whether that
//! is news.

use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::foreign;
use crate::model::Workspace;
use crate::os::child::keep_going;
use crate::outputs::hook::{self, Notice};

use super::record::ConnectionRecord;

/// Whether this failure needs a person to log in, and the one before did not.
pub(super) fn is_news(past: Option<&ConnectionRecord>, failure: &Failure) -> bool {
    let is_one = |failure: &Failure| failure.code == Code::LoginNeeded && !failure.is_transient();
    is_one(failure) && !past.and_then(|past| past.last_error.as_ref()).is_some_and(is_one)
}

/// Starts the program, if one is set. Nothing waits for it but the end of this process.
pub(super) fn tell(config: &Config, workspace: &Workspace, failure: &Failure) {
    let Some(command) = config.notify_command.clone() else { return };
    let environment = config.environment.clone();
    if hook::is_inside(&environment) {
        tracing::warn!("notify_command is not run: this rotation was started by such a program");
        return;
    }
    let notice = Notice {
        workspace: workspace.name().to_owned(),
        host: workspace.host().origin().to_owned(),
        message: foreign::line(&failure.message).into_owned(),
        hint: foreign::line(failure.hint.as_deref().unwrap_or_default()).into_owned(),
    };
    keep_going(async move {
        if let Err(failure) = hook::notify(&command, &notice, &environment).await {
            tracing::warn!("{failure}; {}", failure.hint.as_deref().unwrap_or_default());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_login_is_news_once() {
        let ended = Failure::permanent(Code::LoginNeeded, "ended");
        let other = Failure::transient(Code::Unavailable, "network");
        let past =
            |error: Option<&Failure>| ConnectionRecord { last_error: error.cloned(), ..ConnectionRecord::default() };
        assert!(
            is_news(None, &ended) && is_news(Some(&past(None)), &ended) && is_news(Some(&past(Some(&other))), &ended)
        );
        assert!(!is_news(Some(&past(Some(&ended))), &ended) && !is_news(None, &other));
    }
}
