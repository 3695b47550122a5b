//! Where a service finds the secrets of its workspaces' clients: in a file beside config.toml, in the one from which the manager
//! hands it over, or in the keychain.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml_edit::DocumentMut;
use zeroize::Zeroizing;

use super::super::files::cannot;
use super::file::staged;
use super::{Plan, absolute, refuse_fragment, workspace_of};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::model::{Client, SecretSource, Workspace};
use crate::os::files::read_text;
use crate::os::keychain::{self, Item as Password};

/// The name of the secret's file, next to a user's configuration.
const SECRET: &str = "client-secret";

impl Plan {
    /// The secret of a workspace's client, which was given where a service does not see it.
    pub(super) fn take_over_secret(
        &mut self,
        config: &Config,
        section: &str,
        document: &mut DocumentMut,
    ) -> Result<(), Failure> {
        // All secrets move into the keychain together, wherever they were given.
        if self.inputs.keychain {
            return Ok(());
        }
        let Some(client) = workspace_of(config, section).and_then(|workspace| workspace.client.as_ref()) else {
            return Ok(());
        };
        if let Some(credential) = self.inputs.credential.clone() {
            // A file named there would win over the credential.
            if config.place_in_fragment(section, "client_secret_file").is_none() {
                self.unset(document, section, "client_secret_file");
            }
            self.keep(credential, client.secret.read(&client.id)?.0);
            return Ok(());
        }
        refuse_fragment(config, section, "client_secret_file = \"...\"")?;
        match &client.secret {
            SecretSource::File(path) => self.name_file(document, section, absolute(&path.display().to_string())),
            // It was not given by flag or environment.
            SecretSource::Keychain(_) => {}
            SecretSource::Given(_) | SecretSource::InProfile(..) => {
                let (secret, _) = client.secret.read(&client.id)?;
                let file = self.place_for_secret(config, client, &secret);
                self.name_file(document, section, file.file_name().unwrap_or_default().to_string_lossy().into_owned());
                self.keep(file, secret);
            }
        }
        Ok(())
    }

    /// The file is named instead of the keychain: a secret can only be in one place.
    fn name_file(&mut self, document: &mut DocumentMut, section: &str, file: String) {
        self.set(document, section, "client_secret_file", file.into());
        self.unset(document, section, "client_secret_keychain");
    }

    fn keep(&mut self, file: PathBuf, secret: SecretString) {
        if holds(&file, &secret) {
            return;
        }
        if file.exists() {
            // It is asked about even where config.toml is new.
            self.is_new = false;
            self.changes.push(format!("another secret in {}", file.display()));
        }
        self.secret = Some((file, secret));
    }

    /// The file where this configuration has a secret already, or one that does not exist. A secret is shown only once, and the one in
    /// another file may be another client's.
    fn place_for_secret(&self, config: &Config, client: &Client, secret: &SecretString) -> PathBuf {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let id: String = client.id.chars().filter(is_plain).take(64).collect();
        let own = format!("{SECRET}-{id}");
        let more = (2..100).map(|number| format!("{own}-{number}"));
        let places: Vec<PathBuf> = [SECRET.to_owned(), own.clone()]
            .into_iter()
            .chain(more)
            .map(|name| self.inputs.config.with_file_name(name))
            .collect();
        let is_named = |place: &&PathBuf| {
            let name = place.file_name().unwrap_or_default().display();
            let ends = ['"', '\''].map(|quote| format!("{name}{quote}"));
            let other = |workspace: &Workspace| {
                workspace.client_id() != Some(&client.id) && workspace.secret_file() == Some(place)
            };
            self.old.as_ref().is_some_and(|old| ends.iter().any(|end| old.contains(end)))
                && !config.workspaces().iter().any(other)
        };
        let is_free = |place: &&PathBuf| place.symlink_metadata().is_err() || holds(place, secret);
        let found = places.iter().find(is_named).or_else(|| places.iter().find(is_free));
        found.or(places.last()).cloned().unwrap_or_default()
    }

    /// Moves all client secrets into the keychain.
    pub(super) fn move_secrets(&mut self, config: &Config, document: &mut DocumentMut) -> Result<(), Failure> {
        for workspace in config.workspaces() {
            let Some(client) = &workspace.client else { continue };
            if matches!(client.secret, SecretSource::Keychain(_)) {
                continue;
            }
            let (secret, _) = client.secret.read(&client.id)?;
            self.items.push((Password { service: keychain::SERVICE.to_owned(), account: client.id.clone() }, secret));
            let section = format!("workspace \"{}\"", workspace.name());
            let setting = format!("client_secret_keychain = \"{}\"", keychain::SERVICE);
            refuse_fragment(config, &section, &setting)?;
            self.unset(document, &section, "client_secret_file");
            self.set(document, &section, "client_secret_keychain", keychain::SERVICE.into());
        }
        Ok(())
    }

    pub(super) fn write_secret(&self, written: &mut Vec<PathBuf>) -> Result<(), Failure> {
        if let Some((path, secret)) = &self.secret {
            let line = Zeroizing::new(format!("{}\n", secret.expose_secret()));
            let directory_mode = if self.inputs.credential.is_some() { 0o755 } else { 0o700 };
            let new = staged(path, line.as_bytes(), 0o600, directory_mode)?;
            new.persist(path).map_err(|error| cannot("write", path, &error.error))?;
            written.push(path.clone());
        }
        Ok(())
    }
}

/// The failure for a secret that no service sees, and that is not put into a file for it.
pub(super) fn out_of_sight(secret: &str) -> Failure {
    let file = match secret {
        "token" => "token_file",
        "azure_client_secret" => "azure_client_secret_file",
        _ => "google_credentials_file",
    };
    Failure::permanent(Code::Configuration, format!("{secret} is set where a service does not see it"))
        .hint(format!("put it into a file of mode 0600, and name that under [[workspace]]: {file}"))
}

fn holds(file: &Path, secret: &SecretString) -> bool {
    read_text(file).is_ok_and(|text| text.trim() == secret.expose_secret())
}
