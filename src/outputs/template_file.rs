//! A file that is made from a template of the user's: for poolers, for applications of another account, for any format.
//!
//! It has the mode and the group that were asked for before a credential is in it. It replaces nothing but an empty file and its own
//! work: what was written there last, by the record, or what the template as it is now has made with another credential.

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::Published;
use super::managed_file::{Given, ManagedFile};
use super::template::{Mistake, Name, PASSWORD, TIME, Template, Unmade};
use crate::failure::{Code, Failure};
use crate::model::TemplateFile;
use crate::model::token::{fingerprint, is_publishable, is_signed_token};
use crate::model::uri::Login;
use crate::os::accounts;
use crate::os::files::read_text_up_to;
use crate::os::replace::{Allowance, Group};
use crate::typed::shell_path;
use crate::words;

/// The largest template, and the largest file that is made of one, in bytes: these are settings of programs.
const LARGEST: usize = 1024 * 1024;

/// How the failures begin that only a person can end who changes a template or its table.
const UNUSABLE: &str = "cannot use the template ";

/// Whether a failure is about a template, so that it ends as soon as that can be used.
pub(super) fn is_about_a_template(failure: &Failure) -> bool {
    failure.code == Code::Configuration && failure.message.starts_with(UNUSABLE)
}

pub(super) struct MadeFile<'a>(pub(super) &'a TemplateFile);

/// What the placeholders stand for.
struct Values<'a> {
    published: &'a Published<'a>,
    port: String,
    password: &'a str,
    url: Zeroizing<String>,
    jdbc_url: Zeroizing<String>,
    expires_at: String,
}

impl<'a> Values<'a> {
    fn of(published: &'a Published<'a>) -> Self {
        Self::with(published, published.password.expose_secret(), published.expires_at.to_string())
    }

    fn with(published: &'a Published<'a>, password: &'a str, expires_at: String) -> Self {
        let login = Login {
            host: published.host,
            port: published.port,
            database: published.database(),
            user: published.user,
            password,
            sslmode: published.sslmode,
            sslrootcert: published.sslrootcert.as_deref(),
        };
        let (url, jdbc_url, port) = (login.uri(), login.jdbc_url(), published.port.to_string());
        Values { published, port, password, url, jdbc_url, expires_at }
    }

    fn get(&self, name: Name) -> &str {
        match name {
            Name::Host => self.published.host,
            Name::Port => &self.port,
            Name::Database => self.published.database(),
            Name::User => self.published.user,
            Name::Password => self.password,
            Name::Url => &self.url,
            Name::JdbcUrl => &self.jdbc_url,
            Name::ExpiresAt => &self.expires_at,
        }
    }
}

impl MadeFile<'_> {
    /// Whether it holds what the template makes of this now, with the right mode and group. A mode that is all that is wrong is mended
    /// here.
    pub(super) fn is_current(&self, published: &Published<'_>) -> bool {
        let (Ok(template), Ok(place)) = (self.template(), self.place()) else { return false };
        let Ok(bytes) = self.fill(&template, published) else { return false };
        place.look().is_ok_and(|now| now.bytes == bytes && now.file.as_ref().is_some_and(|file| place.is_kept(file)))
    }

    /// Its name where its readers find in it what the template makes of this now, else what keeps them from it; none where the template
    /// cannot be used ([`MadeFile::fault`]).
    #[cfg(feature = "cli")]
    pub(super) fn look(&self, published: &Published<'_>) -> Option<Result<String, Failure>> {
        let (template, place) = (self.template().ok()?, self.place().ok()?);
        Some(self.fill(&template, published).and_then(|bytes| place.holds(&bytes)))
    }

    /// Replaces what differs, if it is nothing that would be missed: `is_known` tells what was written before.
    pub(super) fn write(
        &self,
        published: &Published<'_>,
        is_known: &dyn Fn(&str) -> bool,
        allowance: &Allowance,
    ) -> Result<(), Failure> {
        let (template, place) = (self.template()?, self.place()?);
        let bytes = self.fill(&template, published)?;
        place.keep(allowance, |old| {
            if *old != *bytes && !is_ours(&template, published, old, is_known) {
                let why = "it holds something else than what was written there last, which would be lost";
                return Err(place.failure(&why).hint(
                    "name a file that does not exist yet, or empty this one if nobody needs what it holds; what shall stand in it \
                     beside the credential belongs into the template",
                ));
            }
            Ok(bytes.clone())
        })
    }

    /// What tells the file that the template makes of this now from any other, without a word of it.
    pub(super) fn contents(&self, published: &Published<'_>) -> Option<String> {
        let bytes = self.fill(&self.template().ok()?, published).ok()?;
        str::from_utf8(&bytes).ok().map(fingerprint)
    }

    /// Why no file can be made of it, whatever is published.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only commands look at templates by themselves"))]
    pub(super) fn fault(&self) -> Option<Failure> {
        self.template().and_then(|_| self.place()).err()
    }

    /// Whether nothing was left behind beside it.
    pub(super) fn is_settled(&self) -> bool {
        self.without_group().is_settled()
    }

    /// Removes what was left behind beside it.
    pub(super) fn tidy(&self, published: Option<&Published<'_>>, is_known: &dyn Fn(&str) -> bool) {
        let template = self.template().ok();
        self.without_group().tidy(|bytes| match (&template, published) {
            (Some(template), Some(published)) => is_ours(template, published, bytes, is_known),
            _ => is_blank_or(bytes, is_known),
        });
    }

    fn template(&self) -> Result<Template, Failure> {
        let text = read_text_up_to(&self.0.template, LARGEST as u64).map_err(|error| {
            self.unusable(&words::of_io(&error))
                .hint(format!("look at it with `ls -l {}`", shell_path(&self.0.template)))
        })?;
        let said = |Mistake { line, why, hint }| self.unusable(&format!("line {line}: {why}")).hint(hint);
        Template::parse(&text).map_err(said)
    }

    fn fill(&self, template: &Template, published: &Published<'_>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if !is_publishable(published.password.expose_secret()) {
            let why = "the credential holds bytes that no password may have";
            return Err(self
                .without_group()
                .failure(&why)
                .hint("rotate again; if that does not help, please report it"));
        }
        let values = Values::of(published);
        template.fill(|name| values.get(name), LARGEST).map_err(|unmade| match unmade {
            Unmade::Control(name) => self
                .unusable(&format!("the {} of this connection holds a control character", name.word()))
                .hint("name it in config.toml as it is, without line ends"),
            Unmade::TooLarge => self
                .unusable(&format!("the file would be larger than {} KiB", LARGEST / 1024))
                .hint("use fewer placeholders"),
        })
    }

    fn place(&self) -> Result<ManagedFile<'_>, Failure> {
        let Some(name) = &self.0.group else { return Ok(self.without_group()) };
        let Some(gid) = accounts::gid_of(name) else {
            let why = format!("there is no group {name} to give {} to", self.0.path.display());
            return Err(self.unusable(&why).hint("`getent group` lists the groups that there are"));
        };
        let given = Given { mode: self.0.mode, group: Some(Group { name, gid }) };
        Ok(ManagedFile { given: Some(given), ..self.without_group() })
    }

    fn without_group(&self) -> ManagedFile<'_> {
        let given = Some(Given { mode: self.0.mode, group: None });
        ManagedFile { given, ..ManagedFile::private("file", &self.0.path) }
    }

    fn unusable(&self, why: &str) -> Failure {
        Failure::permanent(Code::Configuration, format!("{UNUSABLE}{}: {why}", self.0.template.display()))
    }
}

/// Whether the old contents may be replaced. A path is easily mistyped, and the file there may be somebody's only copy; and what a
/// person has added to ours would be lost, too.
fn is_ours(template: &Template, published: &Published<'_>, old: &[u8], is_known: &dyn Fn(&str) -> bool) -> bool {
    let values = Values::with(published, PASSWORD, TIME.to_owned());
    let is_credential = |word: &str| is_known(word) || is_signed_token(word);
    is_blank_or(old, |text| is_known(text) || template.has_made(text, |name| values.get(name), is_credential))
}

fn is_blank_or(old: &[u8], is_ours: impl Fn(&str) -> bool) -> bool {
    str::from_utf8(old).is_ok_and(|text| text.trim().is_empty() || is_ours(text))
}

#[cfg(test)]
mod tests;
