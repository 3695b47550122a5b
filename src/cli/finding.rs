//! What `check` can find, by an id that stays the same, so that a page and a script can be about it.

use serde::Serialize;

use super::print;
use crate::failure::Failure;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It is as it should be.
    Ok,
    /// It works now, and somebody may be surprised later.
    Warning,
    /// It does not work.
    Failed,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failed => "failed",
        }
    }
}

/// What a finding is about. docs/checks.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Id {
    PasswordLive,
    Login,
    RoleCase,
    OneDatabase,
    OtherWriter,
    Clock,
    ServiceMissing,
    ServiceConfiguration,
    ServiceConnection,
    ServiceLastRun,
    ServiceStopped,
    ServiceDisabled,
    ServiceLogout,
    ServiceFile,
    Template,
    File,
    OnRotate,
    SecretFile,
    Federation,
    Pgpassword,
    Pgpassfile,
    HomeDirectory,
    PasswordFileMount,
    Proxy,
    LocalProxy,
    KubernetesSecret,
    UnusedSetting,
}

impl Id {
    #[cfg(test)]
    const ALL: [Id; 27] = [
        Id::PasswordLive,
        Id::Login,
        Id::RoleCase,
        Id::OneDatabase,
        Id::OtherWriter,
        Id::Clock,
        Id::ServiceMissing,
        Id::ServiceConfiguration,
        Id::ServiceConnection,
        Id::ServiceLastRun,
        Id::ServiceStopped,
        Id::ServiceDisabled,
        Id::ServiceLogout,
        Id::ServiceFile,
        Id::Template,
        Id::File,
        Id::OnRotate,
        Id::SecretFile,
        Id::Federation,
        Id::Pgpassword,
        Id::Pgpassfile,
        Id::HomeDirectory,
        Id::PasswordFileMount,
        Id::Proxy,
        Id::LocalProxy,
        Id::KubernetesSecret,
        Id::UnusedSetting,
    ];

    /// Its word, as in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Id::PasswordLive => "password-live",
            Id::Login => "login",
            Id::RoleCase => "role-case",
            Id::OneDatabase => "one-database",
            Id::OtherWriter => "other-writer",
            Id::Clock => "clock",
            Id::ServiceMissing => "service-missing",
            Id::ServiceConfiguration => "service-configuration",
            Id::ServiceConnection => "service-connection",
            Id::ServiceLastRun => "service-last-run",
            Id::ServiceStopped => "service-stopped",
            Id::ServiceDisabled => "service-disabled",
            Id::ServiceLogout => "service-logout",
            Id::ServiceFile => "service-file",
            Id::Template => "template",
            Id::File => "file",
            Id::OnRotate => "on-rotate",
            Id::SecretFile => "secret-file",
            Id::Federation => "federation",
            Id::Pgpassword => "pgpassword",
            Id::Pgpassfile => "pgpassfile",
            Id::HomeDirectory => "home-directory",
            Id::PasswordFileMount => "password-file-mount",
            Id::Proxy => "proxy",
            Id::LocalProxy => "local-proxy",
            Id::KubernetesSecret => "kubernetes-secret",
            Id::UnusedSetting => "unused-setting",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: Id,
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn new(id: Id, level: Level, message: impl Into<String>) -> Self {
        Finding { id, level, message: message.into(), hint: None }
    }

    pub(crate) fn ok(id: Id, message: impl Into<String>) -> Self {
        Self::new(id, Level::Ok, message)
    }

    pub(crate) fn warning(id: Id, message: impl Into<String>) -> Self {
        Self::new(id, Level::Warning, message)
    }

    pub(crate) fn failed(id: Id, message: impl Into<String>) -> Self {
        Self::new(id, Level::Failed, message)
    }

    /// The same with what to do next.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Finding { hint: Some(hint.into()), ..self }
    }

    /// The same with what a failure advises.
    #[must_use]
    pub(crate) fn hint_of(self, failure: &Failure) -> Self {
        Finding { hint: failure.hint.clone(), ..self }
    }

    /// A line for people, with the hint below it.
    pub(crate) fn line(&self) -> String {
        let line = print::line(&format!("{:<7}  {}: {}", self.level.word(), self.id.word(), self.message));
        let hint = self.hint.as_ref().map(|hint| print::line(&format!("         hint: {hint}")));
        line + &hint.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_has_one_word_and_a_row_on_its_page() {
        let page = include_str!("../../docs/checks.md");
        for id in Id::ALL {
            assert_eq!(serde_json::to_value(id).unwrap(), id.word());
            assert_eq!(page.matches(&format!("\n| `{}` |", id.word())).count(), 1, "{}", id.word());
        }
        assert_eq!(page.matches("\n| `").count(), Id::ALL.len());
    }

    #[test]
    fn a_finding_is_a_line_and_its_hint_another() {
        let finding = Finding::failed(Id::Login, "orders: refused\nnot a line of its own").hint("ask");
        assert_eq!(finding.line(), "failed   login: orders: refused\\nnot a line of its own\n         hint: ask\n");
        assert_eq!(Finding::ok(Id::Clock, "right").line(), "ok       clock: right\n");
    }
}
