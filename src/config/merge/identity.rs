//! Who signs in where: what each source says about it, and what may be combined.
//!
//! Invariants: what a source says about an identity applies to the host that this source names. If another host is in use, it is
//! ignored, with a message. A secret from a source without a host is used only if a person gave the host for this run, or if the
//! service manager handed the secret over; a secret is never used with another client's id.

use super::super::origin::{Origin, Sourced};
use super::sign_in::OIDC_TOKEN;
use crate::config::fault::ConfigError;
use crate::config::secret::bare;
use crate::config::unified::{Key, Said, name_of, row_of};
use crate::model::{AuthMethod, SecretSource, WorkspaceHost};

/// The places that can describe a workspace, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    Flags,
    Environment,
    /// One `[[workspace]]`.
    Table,
    Profile,
}

/// What one source says about a workspace and its identity.
#[derive(Clone)]
pub(super) struct WorkspaceSource {
    pub(super) kind: SourceKind,
    pub(super) host: Option<Sourced<String>>,
    pub(super) client_id: Option<Sourced<String>>,
    pub(super) secret: Option<Sourced<SecretSource>>,
    pub(super) auth: Option<Sourced<String>>,
    pub(super) workspace_id: Option<Sourced<String>>,
    pub(super) account_id: Option<Sourced<String>>,
    /// What it says besides.
    pub(super) more: Said,
    /// The profile in use was named here, so that its host is this source's own.
    pub(super) named_profile: bool,
}

impl WorkspaceSource {
    pub(super) fn nothing(kind: SourceKind) -> Self {
        let (host, client_id, secret, auth, workspace_id, account_id) = (None, None, None, None, None, None);
        let (more, named_profile) = (Said::new(), false);
        WorkspaceSource { kind, host, client_id, secret, auth, workspace_id, account_id, more, named_profile }
    }

    /// Notes what it says about one setting.
    pub(super) fn say(&mut self, key: Key, value: Sourced<SecretSource>) {
        let text = crate::config::unified::text(&value);
        match key {
            Key::Host => self.host = text,
            Key::ClientId => self.client_id = text,
            Key::ClientSecret => self.secret = Some(value),
            Key::AuthType => self.auth = text,
            Key::WorkspaceId => self.workspace_id = text,
            Key::AccountId => self.account_id = text,
            other => drop(self.more.insert(other, value)),
        }
    }

    /// Whether it says where or as whom to sign in. How alone does not keep the default profile from saying the rest, as in the
    /// vendor's SDKs (databricks-sdk-py, config.py, `_known_file_config_loader`).
    pub(super) fn says_something(&self) -> bool {
        let of_method = |key: &Key| row_of(*key).is_some_and(|row| row.family.is_some());
        self.host.is_some() || self.client_id.is_some() || self.secret.is_some() || self.more.keys().any(of_method)
    }

    /// What it says about the identity, in words for a message.
    fn identity(&self) -> Vec<String> {
        let shown = |key: &str, origin: Option<&Origin>| origin.map(|origin| format!("{key} ({origin})"));
        let keys = [
            shown("client_id", self.client_id.as_ref().map(|value| &value.origin)),
            self.secret.as_ref().map(|secret| format!("{} ({})", secret.value.key(), secret.origin)),
            shown("auth", self.auth.as_ref().map(|value| &value.origin)),
            shown("workspace_id", self.workspace_id.as_ref().map(|value| &value.origin)),
            shown("account_id", self.account_id.as_ref().map(|value| &value.origin)),
        ];
        let more = self.more.iter().map(|(key, value)| format!("{} ({})", name_of(*key), value.origin));
        keys.into_iter().flatten().chain(more).collect()
    }

    /// Takes out what would be sent to the workspace itself; what goes to another place stays (Microsoft's, Google's).
    fn take_secrets(&mut self) -> Vec<(&'static str, Sourced<SecretSource>)> {
        let more = [Key::Token, Key::OidcToken, Key::OidcTokenEnv, Key::OidcTokenFile, Key::MetadataServiceUrl];
        let own = self.secret.take().map(|secret| (secret.value.key(), secret));
        let more = more.into_iter().filter_map(|key| Some((name_of(key), self.more.remove(&key)?)));
        own.into_iter().chain(more).collect()
    }

    fn forget_identity(&mut self) {
        *self = WorkspaceSource {
            host: self.host.take(),
            named_profile: self.named_profile,
            ..WorkspaceSource::nothing(self.kind)
        };
    }
}

/// What will be used.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) host: Option<Sourced<String>>,
    pub(super) client_id: Option<Sourced<String>>,
    pub(super) secret: Option<Sourced<SecretSource>>,
    pub(super) auth: Option<Sourced<String>>,
    pub(super) workspace_id: Option<Sourced<String>>,
    pub(super) account_id: Option<Sourced<String>>,
    pub(super) more: Said,
    /// The profile is the host's own.
    pub(super) profile_is_used: bool,
    /// What was ignored and why, one sentence each.
    pub(super) aside: Vec<String>,
}

impl Chosen {
    /// Whether a service principal can sign in with this.
    pub(super) fn is_complete(&self) -> bool {
        self.host.is_some() && self.client_id.is_some() && self.secret.is_some() && self.may_be_client()
    }

    /// Whether a file asks for the token of a variable, and so for the usual one where none is named.
    pub(super) fn asks_for_a_variable(&self) -> bool {
        let is_in_a_file = |origin: &Origin| matches!(origin, Origin::File(..) | Origin::Profile(..));
        self.auth.as_ref().is_some_and(|auth| auth.value == AuthMethod::EnvOidc.word() && is_in_a_file(&auth.origin))
    }

    /// Whether no other method is set than that of a client with a secret.
    fn may_be_client(&self) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.value == AuthMethod::OauthM2m.word())
    }
}

/// Combines the sources, best first. `handed_over` is the service manager's secret, which takes precedence over a
/// profile's.
///
/// # Errors
/// The secret that would be used belongs to another client than the id.
pub(super) fn choose(
    mut sources: Vec<WorkspaceSource>,
    handed_over: Option<Sourced<SecretSource>>,
) -> Result<Chosen, ConfigError> {
    let mut chosen = Chosen::default();
    let in_use = sources.iter().find_map(|said| Some((said.kind, said.host.clone()?)));
    if let Some((whose, host)) = &in_use {
        leave_aside(&mut sources, *whose, host, &mut chosen);
    }
    chosen.host = in_use.map(|(_, host)| host);
    for said in &sources {
        let before = handed_over.as_ref().filter(|_| said.kind == SourceKind::Profile);
        if chosen.secret.is_none() {
            chosen.secret = before.cloned();
        }
        chosen.client_id = chosen.client_id.or_else(|| said.client_id.clone());
        chosen.secret = chosen.secret.or_else(|| said.secret.clone());
        chosen.auth = chosen.auth.or_else(|| said.auth.clone());
        chosen.workspace_id = chosen.workspace_id.or_else(|| said.workspace_id.clone());
        chosen.account_id = chosen.account_id.or_else(|| said.account_id.clone());
        for (key, value) in &said.more {
            chosen.more.entry(*key).or_insert_with(|| value.clone());
        }
    }
    chosen.secret = chosen.secret.or(handed_over);
    if chosen.asks_for_a_variable() && !chosen.more.contains_key(&Key::OidcTokenEnv) {
        let ignored = format!("ignored: {OIDC_TOKEN} (");
        chosen.aside.retain(|sentence| !sentence.starts_with(&ignored));
    }
    refuse_another_clients(&chosen, &sources)?;
    Ok(chosen)
}

/// Drops what belongs to another host than the one in use, and secrets that belong to no host.
fn leave_aside(sources: &mut [WorkspaceSource], whose: SourceKind, host: &Sourced<String>, chosen: &mut Chosen) {
    // An unreadable address matches nothing. If it is the one in use, it is refused later.
    let parse = |host: &Sourced<String>| WorkspaceHost::parse(&host.value).ok();
    let wanted = parse(host);
    let of_profile = sources.iter().find(|said| said.kind == SourceKind::Profile).and_then(|said| said.host.clone());
    let namer = sources.iter().find(|said| said.named_profile).map(|said| said.kind);
    // If the host comes from a profile, the source that named the profile counts as naming the host.
    let whose = if whose == SourceKind::Profile { namer.unwrap_or(whose) } else { whose };
    let shown = wanted.as_ref().map_or("not an address", |host| host.origin());
    for said in sources.iter_mut() {
        let own = said.host.clone().or_else(|| of_profile.clone().filter(|_| said.named_profile));
        let fits = own.as_ref().map(|own| {
            let own = parse(own);
            own.is_some() && own.as_ref().map(WorkspaceHost::origin) == wanted.as_ref().map(WorkspaceHost::origin)
        });
        let in_use = format!("the host in use is {shown} ({})", host.origin);
        let theirs = own.as_ref().map(|own| {
            let address = parse(own).map_or_else(|| "not an address".to_owned(), |host| host.origin().to_owned());
            format!("its host is {address} ({})", own.origin)
        });
        let identity = said.identity();
        match (said.kind, fits) {
            // Flags are typed for this run.
            (SourceKind::Flags, _) => {}
            (SourceKind::Profile, Some(true)) => chosen.profile_is_used = true,
            (SourceKind::Profile, _) => {
                let why = theirs.unwrap_or_else(|| "it has no host".to_owned());
                chosen.aside.push(format!("the profile is ignored: {why}, and {in_use}"));
                said.forget_identity();
            }
            (_, Some(false)) => {
                if !identity.is_empty() {
                    let theirs = theirs.unwrap_or_default();
                    chosen.aside.push(format!("ignored: {}: {theirs}, and {in_use}", identity.join(", ")));
                }
                said.forget_identity();
            }
            (_, None) if whose != SourceKind::Flags && whose != said.kind => {
                let how = match said.kind {
                    SourceKind::Environment => format!("set DATABRICKS_HOST={shown} beside it"),
                    _ => format!("write host = \"{shown}\" beside it"),
                };
                for (name, secret) in said.take_secrets() {
                    let what = format!("ignored: {name} ({})", secret.origin);
                    chosen.aside.push(format!(
                        "{what}: nothing says that it is for {shown}, the host in use ({}); {how}",
                        host.origin
                    ));
                }
            }
            _ => {}
        }
    }
}

/// An id and a secret are a pair: if a source gives both, they belong together.
fn refuse_another_clients(chosen: &Chosen, sources: &[WorkspaceSource]) -> Result<(), ConfigError> {
    let (Some(id), Some(secret)) = (&chosen.client_id, &chosen.secret) else { return Ok(()) };
    if !chosen.may_be_client() {
        return Ok(());
    }
    let of_secret = sources.iter().find(|said| said.secret.as_ref().is_some_and(|own| own.origin == secret.origin));
    match of_secret.and_then(|said| said.client_id.as_ref()) {
        Some(other) if bare(&other.value) != bare(&id.value) => Err(ConfigError::new(format!(
            "the client id ({}) and the secret ({}) belong to different clients: the secret is for the client id of {}",
            id.origin, secret.origin, other.origin
        ))
        .hint("give the client id and its secret in the same place")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    const PROD: &str = "https://prod.example";
    const DEV: &str = "dev.example";

    fn origin(kind: SourceKind) -> Origin {
        match kind {
            SourceKind::Flags => Origin::Flag("--x"),
            SourceKind::Environment => Origin::Environment("X"),
            SourceKind::Table => Origin::File(Arc::from(Path::new("c.toml")), 7, 0..1),
            SourceKind::Profile => Origin::Profile("p".to_owned(), Arc::from(Path::new("cfg")), 9),
        }
    }

    const ALL: [SourceKind; 4] = [SourceKind::Flags, SourceKind::Environment, SourceKind::Table, SourceKind::Profile];

    fn says(kind: SourceKind, host: Option<&str>, id: Option<&str>, secret: bool) -> WorkspaceSource {
        let text = |text: &str| Sourced::new(text.to_owned(), origin(kind));
        let secret = secret.then(|| Sourced::new(SecretSource::Given("s3cret".into()), origin(kind)));
        WorkspaceSource { host: host.map(text), client_id: id.map(text), secret, ..WorkspaceSource::nothing(kind) }
    }

    fn chosen(sources: Vec<WorkspaceSource>) -> Chosen {
        choose(sources, None).unwrap()
    }

    /// For each pair of sources: the host is from the first, id and secret are from the second.
    #[test]
    fn a_secret_goes_to_a_host_that_its_own_source_names_or_that_was_typed() {
        let used = [
            (SourceKind::Flags, SourceKind::Flags),
            (SourceKind::Flags, SourceKind::Environment),
            (SourceKind::Flags, SourceKind::Table),
            (SourceKind::Environment, SourceKind::Flags),
            (SourceKind::Environment, SourceKind::Environment),
            (SourceKind::Table, SourceKind::Flags),
            (SourceKind::Table, SourceKind::Table),
            (SourceKind::Profile, SourceKind::Flags),
            (SourceKind::Profile, SourceKind::Profile),
        ];
        for of_host in ALL {
            for of_pair in ALL {
                let sources = ALL.map(|kind| {
                    says(kind, (kind == of_host).then_some(PROD), (kind == of_pair).then_some("id"), kind == of_pair)
                });
                let chosen = chosen(sources.into());
                let expected = used.contains(&(of_host, of_pair));
                assert_eq!(chosen.secret.is_some(), expected, "{of_host:?} {of_pair:?}: {:?}", chosen.aside);
                let of_profile = of_pair == SourceKind::Profile || of_host == SourceKind::Profile;
                assert!(
                    expected || of_profile || chosen.aside.len() == 2,
                    "{of_host:?} {of_pair:?}: {:?}",
                    chosen.aside
                );
            }
        }
    }

    #[test]
    fn what_is_for_another_host_is_left_aside_wherever_it_stands() {
        for of_host in ALL {
            for of_pair in ALL.into_iter().filter(|other| *other != of_host && *other != SourceKind::Flags) {
                // The best source's host is in use, so the other source must be a lower one.
                if ALL.iter().position(|kind| *kind == of_pair) < ALL.iter().position(|kind| *kind == of_host) {
                    continue;
                }
                let said = |kind| match kind {
                    kind if kind == of_host => says(kind, Some(PROD), None, false),
                    kind if kind == of_pair => says(kind, Some(DEV), Some("id"), true),
                    kind => says(kind, None, None, false),
                };
                let chosen = chosen(ALL.map(said).into());
                assert!(chosen.client_id.is_none() && chosen.secret.is_none(), "{of_host:?} {of_pair:?}");
                let said = chosen.aside.concat();
                assert!(said.contains("https://dev.example") && said.contains(PROD), "{said}");
            }
        }
    }

    #[test]
    fn the_same_host_in_other_words_is_the_same_host() {
        for same in ["prod.example", "https://PROD.example/", "https://prod.example:443/?o=1"] {
            let sources = vec![
                says(SourceKind::Environment, Some(PROD), None, false),
                says(SourceKind::Profile, Some(same), Some("id"), true),
            ];
            let chosen = chosen(sources);
            assert!(chosen.secret.is_some() && chosen.profile_is_used && chosen.aside.is_empty(), "{same}");
        }
        for other in ["https://prod.example:8443", "http://localhost", "prod.example.", "not a host", ""] {
            let sources = vec![
                says(SourceKind::Environment, Some(PROD), None, false),
                says(SourceKind::Profile, Some(other), Some("id"), true),
            ];
            assert!(chosen(sources).secret.is_none(), "{other}");
        }
    }

    #[test]
    fn an_id_and_the_secret_of_another_client_are_not_put_together() {
        for of_id in ALL {
            for of_secret in ALL {
                let before =
                    ALL.iter().position(|kind| *kind == of_id) < ALL.iter().position(|kind| *kind == of_secret);
                if !before {
                    continue;
                }
                let said = |other: &'static str| {
                    ALL.map(|kind| match kind {
                        kind if kind == of_id => says(kind, Some(PROD), Some("id"), false),
                        kind if kind == of_secret => says(kind, Some(PROD), Some(other), true),
                        kind => says(kind, Some(PROD), None, false),
                    })
                };
                assert!(choose(said("id").into(), None).is_ok(), "{of_id:?} {of_secret:?}");
                let fault = choose(said("another").into(), None).map(|_| ()).unwrap_err().to_string();
                let both = [origin(of_id).to_string(), origin(of_secret).to_string()];
                assert!(both.iter().all(|origin| fault.contains(origin)), "{fault}");
            }
        }
    }

    #[test]
    fn where_the_token_of_another_issuer_is_goes_to_no_host_that_its_source_does_not_name_either() {
        for key in [Key::Token, Key::OidcToken, Key::OidcTokenEnv, Key::OidcTokenFile, Key::MetadataServiceUrl] {
            for (of_host, of_key, is_used) in [
                (SourceKind::Environment, SourceKind::Table, false),
                (SourceKind::Table, SourceKind::Environment, false),
                (SourceKind::Table, SourceKind::Table, true),
                (SourceKind::Environment, SourceKind::Environment, true),
                (SourceKind::Flags, SourceKind::Table, true),
            ] {
                let sources = ALL.map(|kind| {
                    let mut said = says(kind, (kind == of_host).then_some(PROD), None, false);
                    if kind == of_key {
                        said.more
                            .insert(key, Sourced::new(SecretSource::Given("s3cret-or-its-place".into()), origin(kind)));
                    }
                    said
                });
                let chosen = chosen(sources.into());
                assert_eq!(chosen.more.contains_key(&key), is_used, "{key:?} of {of_key:?}, host of {of_host:?}");
                let is_told = chosen.aside.iter().any(|sentence| sentence.starts_with("ignored: "));
                assert_eq!(is_told, !is_used, "{:?}", chosen.aside);
            }
        }
    }

    #[test]
    fn the_usual_variable_is_said_to_be_ignored_where_it_is() {
        for (of_auth, is_told) in [(SourceKind::Table, false), (SourceKind::Environment, true)] {
            let sources = ALL.map(|kind| {
                let mut said = says(kind, (kind == SourceKind::Table).then_some(PROD), None, false);
                if kind == of_auth {
                    said.auth = Some(Sourced::new(AuthMethod::EnvOidc.word().to_owned(), origin(kind)));
                }
                if kind == SourceKind::Environment {
                    said.more.insert(Key::OidcToken, Sourced::new(SecretSource::Given("s3cret".into()), origin(kind)));
                }
                said
            });
            let aside = chosen(sources.into()).aside;
            let about_it = format!("ignored: {OIDC_TOKEN} (");
            assert_eq!(aside.iter().any(|sentence| sentence.starts_with(&about_it)), is_told, "{of_auth:?}: {aside:?}");
        }
    }

    #[test]
    fn what_the_service_manager_hands_over_is_for_the_host_in_use_and_comes_before_a_profile() {
        let handed_over =
            Sourced::new(SecretSource::File("/run/credentials/x/client-secret".into()), Origin::Credential);
        for kind in ALL {
            let sources = vec![says(kind, Some(PROD), Some("id"), kind == SourceKind::Profile)];
            let chosen = choose(sources, Some(handed_over.clone())).unwrap();
            assert_eq!(chosen.secret.unwrap().origin, Origin::Credential, "{kind:?}");
        }
    }

    #[test]
    fn who_names_a_profile_names_its_host() {
        for (namer, whose, used) in [
            (SourceKind::Table, SourceKind::Table, true),
            (SourceKind::Environment, SourceKind::Environment, true),
            (SourceKind::Environment, SourceKind::Table, false),
            (SourceKind::Table, SourceKind::Environment, false),
            (SourceKind::Flags, SourceKind::Environment, true),
        ] {
            let said = |kind| WorkspaceSource {
                named_profile: kind == namer,
                ..says(kind, (kind == SourceKind::Profile).then_some(PROD), None, kind == whose)
            };
            assert_eq!(chosen(ALL.map(said).into()).secret.is_some(), used, "{namer:?} {whose:?}");
        }
    }
}
