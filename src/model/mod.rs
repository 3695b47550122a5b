//! The plain values that all other parts use: workspaces, connections, databases, tokens. `config` makes them from settings;
//! nothing here does I/O.

mod cluster;
mod connection;
mod database;
mod host;
mod left_over;
mod local_proxy;
mod pasted;
pub(crate) mod server;
mod sign_in;
mod ssl_mode;
pub(crate) mod token;
pub(crate) mod uri;
mod vendor;
mod workspace;

pub(crate) use cluster::{Cluster, KubernetesSecret, ObjectName, is_label};
pub use connection::Connection;
pub(crate) use connection::{Address, DEFAULT_DATABASE, Outputs, TemplateFile, names_an_identity, same_identity};
pub(crate) use database::{
    CredentialKind, DatabaseRef, Listing, Verify, is_lakebase_host, is_of_endpoint, short_name, uid_of,
};
pub use host::WorkspaceHost;
pub(crate) use host::{NamedBy, is_account_id, is_around};
pub(crate) use left_over::looks_left_over;
pub(crate) use local_proxy::{LocalProxy, Proxied, User};
pub(crate) use pasted::Pasted;
pub(crate) use sign_in::{AZURE_CLIENT_SECRET, CLIENT_SECRET, GOOGLE_KEY, METADATA_SERVICE, PAT};
pub use sign_in::{AuthMethod, AuthType};
pub(crate) use sign_in::{Client, Federation, Means, SecretSource, SubjectSource, is_google_account};
pub use ssl_mode::SslMode;
pub(crate) use vendor::{Cloud, OWN_ADDRESS, is_database};
pub use workspace::Workspace;
