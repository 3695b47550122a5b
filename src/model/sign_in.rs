//! The ways to sign in, in the words of Databricks' unified authentication, each with what it takes.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::foreign::secrets;

/// How to sign in to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// The method that is configured. With nothing but a client: `oauth-m2m`; else, or after its failure, `external-browser`
    /// where a person has logged in with `dbx-rotator login`, else `databricks-cli`.
    Chain,
    /// This method and no other.
    Only(AuthMethod),
}

/// How a token was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuthMethod {
    /// A personal access token.
    Pat,
    /// A service of the vendor's on this machine, which hands out tokens.
    MetadataService,
    /// A service principal's client credentials (RFC 6749, section 4.4).
    OauthM2m,
    /// Another issuer's token, in a variable, is exchanged for the workspace's (RFC 8693).
    EnvOidc,
    /// The same with a token in a file.
    FileOidc,
    /// The same with a token of a GitHub workflow.
    GithubOidc,
    /// The same with a token of an Azure DevOps pipeline.
    AzureDevopsOidc,
    /// The identity of a virtual machine or an app at Azure.
    AzureMsi,
    /// A service principal of Microsoft Entra ID.
    AzureClientSecret,
    /// Azure's command line tool, where a person has logged in.
    AzureCli,
    /// The browser, where a person has logged in with `dbx-rotator login`.
    ExternalBrowser,
    /// The vendor's command line tool, where a person has logged in.
    DatabricksCli,
    /// The key of a service account at Google.
    GoogleCredentials,
    /// An account at Google, for which Google's own credentials here may act.
    GoogleId,
}

impl AuthMethod {
    /// All of them, in the order in which they are looked for (databricks-sdk-py, `DefaultCredentials`); but what somebody has set
    /// comes before the logins of tools.
    pub(crate) const ALL: [AuthMethod; 14] = [
        AuthMethod::Pat,
        AuthMethod::MetadataService,
        AuthMethod::OauthM2m,
        AuthMethod::EnvOidc,
        AuthMethod::FileOidc,
        AuthMethod::GithubOidc,
        AuthMethod::AzureMsi,
        AuthMethod::AzureClientSecret,
        AuthMethod::AzureDevopsOidc,
        AuthMethod::GoogleCredentials,
        AuthMethod::GoogleId,
        AuthMethod::ExternalBrowser,
        AuthMethod::DatabricksCli,
        AuthMethod::AzureCli,
    ];

    /// The word for it in settings.
    pub(crate) fn word(self) -> &'static str {
        match self {
            AuthMethod::Pat => "pat",
            AuthMethod::MetadataService => "metadata-service",
            AuthMethod::OauthM2m => "oauth-m2m",
            AuthMethod::EnvOidc => "env-oidc",
            AuthMethod::FileOidc => "file-oidc",
            AuthMethod::GithubOidc => "github-oidc",
            AuthMethod::AzureDevopsOidc => "azure-devops-oidc",
            AuthMethod::AzureMsi => "azure-msi",
            AuthMethod::AzureClientSecret => "azure-client-secret",
            AuthMethod::AzureCli => "azure-cli",
            AuthMethod::ExternalBrowser => "external-browser",
            AuthMethod::DatabricksCli => "databricks-cli",
            AuthMethod::GoogleCredentials => "google-credentials",
            AuthMethod::GoogleId => "google-id",
        }
    }

    /// The method that a setting names.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.word() == word)
    }

    /// Why PostgreSQL takes no access token of it as a password; none where it does. Lakebase takes tokens of the workspace alone, and
    /// each of these can mint such ones (Databricks, "Authenticate to a database instance").
    pub(crate) fn is_no_password(self) -> Option<&'static str> {
        match self {
            AuthMethod::Pat => Some("a personal access token is no password: PostgreSQL cannot decode it"),
            AuthMethod::AzureMsi | AuthMethod::AzureClientSecret | AuthMethod::AzureCli => {
                Some("a token of Microsoft Entra ID is no password: Lakebase takes the workspace's own")
            }
            AuthMethod::GoogleCredentials | AuthMethod::GoogleId => {
                Some("a token of Google is no password: Lakebase takes the workspace's own")
            }
            _ => None,
        }
    }

    /// Whether a token request of it can ask for a group's rights (databricks-sdk-go, `GroupID`).
    pub(crate) fn can_assume_a_group(self) -> bool {
        use AuthMethod::{AzureDevopsOidc, EnvOidc, ExternalBrowser, FileOidc, GithubOidc, OauthM2m};
        matches!(self, OauthM2m | EnvOidc | FileOidc | GithubOidc | AzureDevopsOidc | ExternalBrowser)
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthMethod::OauthM2m => "OAuth M2M",
            AuthMethod::DatabricksCli => "Databricks CLI",
            AuthMethod::ExternalBrowser => "browser login",
            AuthMethod::AzureCli => "Azure CLI",
            AuthMethod::Pat => "personal access token",
            other => other.word(),
        })
    }
}

// The names of secrets in messages.
pub(crate) const CLIENT_SECRET: &str = "client secret";
pub(crate) const PAT: &str = "personal access token";
pub(crate) const METADATA_SERVICE: &str = "address of the metadata service";
pub(crate) const AZURE_CLIENT_SECRET: &str = "secret of the Azure client";
pub(crate) const GOOGLE_KEY: &str = "key of the service account at Google";

/// Where a client secret is.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// Given in full, by flag or environment.
    Given(SecretString),
    /// The same in a profile, which stands in this file.
    InProfile(SecretString, PathBuf),
    /// In a file: one line, or a systemd credential.
    File(PathBuf),
    /// In the macOS keychain: the generic password of this service, with the client id as its account.
    Keychain(String),
}

impl SecretSource {
    /// The name of the setting for it.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            SecretSource::Given(_) | SecretSource::InProfile(..) => "client_secret",
            SecretSource::File(_) => "client_secret_file",
            SecretSource::Keychain(_) => "client_secret_keychain",
        }
    }

    /// A secret that is given in full. From here on it is removed from everything that is shown.
    pub(crate) fn given(secret: impl Into<SecretString>) -> Self {
        let secret = secret.into();
        match secret_of_address(secret.expose_secret()) {
            Some(part) => secrets::keep(&SecretString::from(part)),
            None => secrets::keep(&secret),
        }
        SecretSource::Given(secret)
    }

    /// The same where a profile of this file gives it. A profile may also name another file.
    pub(crate) fn in_profile(self, file: &Path) -> Self {
        match self {
            SecretSource::Given(secret) => SecretSource::InProfile(secret, file.to_owned()),
            other => other,
        }
    }

    /// What is given in full.
    pub(crate) fn text(&self) -> Option<&SecretString> {
        match self {
            SecretSource::Given(secret) | SecretSource::InProfile(secret, _) => Some(secret),
            SecretSource::File(_) | SecretSource::Keychain(_) => None,
        }
    }

    /// The file that it is in, and that nobody else should read.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            SecretSource::File(path) | SecretSource::InProfile(_, path) => Some(path),
            SecretSource::Given(_) | SecretSource::Keychain(_) => None,
        }
    }
}

/// What is secret of an address: where it leads, and not whose it is, which messages have to say.
fn secret_of_address(text: &str) -> Option<&str> {
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| text.strip_prefix(scheme))?;
    Some(rest.split_once(['/', '?']).map_or("", |(_, part)| part))
}

/// A service principal: its client id, and where its secret is.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: SecretSource,
}

/// A method with what it takes. The vendor's CLI takes nothing, and a client for `oauth-m2m` has a place of its own.
#[derive(Clone, Debug)]
pub(crate) enum Means {
    Pat(SecretSource),
    /// The address of the service: whoever knows it gets tokens.
    MetadataService(SecretSource),
    Federation(Federation),
    AzureMsi {
        client_id: Option<String>,
    },
    AzureClientSecret {
        client: Client,
        tenant: Option<String>,
    },
    AzureCli {
        tenant: Option<String>,
    },
    GoogleCredentials(SecretSource),
    GoogleId {
        /// The account that is named to the workspace.
        account: String,
    },
}

impl Means {
    /// The secret that it takes, and its name in messages. The token of another issuer is none of ours.
    #[cfg(feature = "cli")]
    pub(crate) fn secret(&self) -> Option<(&SecretSource, &'static str)> {
        match self {
            Means::Pat(token) => Some((token, PAT)),
            Means::MetadataService(address) => Some((address, METADATA_SERVICE)),
            Means::AzureClientSecret { client, .. } => Some((&client.secret, AZURE_CLIENT_SECRET)),
            Means::GoogleCredentials(key) => Some((key, GOOGLE_KEY)),
            Means::Federation(_) | Means::AzureMsi { .. } | Means::AzureCli { .. } | Means::GoogleId { .. } => None,
        }
    }

    /// The method that it is for.
    pub(crate) fn method(&self) -> AuthMethod {
        match self {
            Means::Pat(_) => AuthMethod::Pat,
            Means::MetadataService(_) => AuthMethod::MetadataService,
            Means::Federation(federation) => federation.subject.method(),
            Means::AzureMsi { .. } => AuthMethod::AzureMsi,
            Means::AzureClientSecret { .. } => AuthMethod::AzureClientSecret,
            Means::AzureCli { .. } => AuthMethod::AzureCli,
            Means::GoogleCredentials(_) => AuthMethod::GoogleCredentials,
            Means::GoogleId { .. } => AuthMethod::GoogleId,
        }
    }

    /// The client that it signs in as, where that is set: its id is the name of its role in PostgreSQL.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Means::Federation(Federation { client_id, .. }) | Means::AzureMsi { client_id } => client_id.as_deref(),
            Means::AzureClientSecret { client, .. } => Some(&client.id),
            _ => None,
        }
    }

    /// The file that holds what it signs in with.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Means::Federation(Federation { subject: SubjectSource::File(path), .. })
            | Means::AzureClientSecret { client: Client { secret: SecretSource::File(path), .. }, .. }
            | Means::GoogleCredentials(SecretSource::File(path))
            | Means::Pat(SecretSource::File(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether both are the same identity's, read from the same place.
    pub(crate) fn is_same_as(&self, other: &Means) -> bool {
        self.method() == other.method()
            && self.client_id() == other.client_id()
            && self.file() == other.file()
            && match (self, other) {
                (Means::Federation(one), Means::Federation(other)) => {
                    one.subject == other.subject && one.audience == other.audience
                }
                (Means::AzureCli { tenant: one }, Means::AzureCli { tenant: other }) => one == other,
                (Means::GoogleId { account: one }, Means::GoogleId { account: other }) => one == other,
                // What holds a secret of its own is not compared.
                (one, _) => one.file().is_some() || matches!(one, Means::AzureMsi { .. }),
            }
    }
}

/// Whether this is the name of a service account at Google, which becomes part of an address.
pub(crate) fn is_google_account(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    name.len() <= 256 && name.contains('@') && !name.contains("..") && name.bytes().all(is_part)
}

/// Workload identity federation: whose token is exchanged, and as which client.
#[derive(Clone, Debug)]
pub(crate) struct Federation {
    /// The service principal whose policy it is; none for a policy of the whole account.
    pub(crate) client_id: Option<String>,
    /// For whom the token is to be, where that is set.
    pub(crate) audience: Option<String>,
    pub(crate) subject: SubjectSource,
}

/// Where the token of the other issuer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubjectSource {
    Variable(String),
    File(PathBuf),
    Github,
    AzureDevops,
}

impl SubjectSource {
    pub(crate) fn method(&self) -> AuthMethod {
        match self {
            SubjectSource::Variable(_) => AuthMethod::EnvOidc,
            SubjectSource::File(_) => AuthMethod::FileOidc,
            SubjectSource::Github => AuthMethod::GithubOidc,
            SubjectSource::AzureDevops => AuthMethod::AzureDevopsOidc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_one_word_everywhere() {
        for method in AuthMethod::ALL {
            assert_eq!(serde_json::to_value(method).unwrap(), method.word());
            assert_eq!(AuthMethod::of_word(method.word()), Some(method));
        }
        assert_eq!(AuthMethod::of_word("basic"), None);
    }
}
