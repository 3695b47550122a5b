//! The proxy: the environment's, else the file's, and what is reached without it.

use super::Merge;
use crate::config::fault::ConfigError;
use crate::config::origin::{Origin, Sourced};
use crate::config::remark_on_mode;
use crate::foreign::secrets;
use crate::proxies::{
    EXCEPTION_VARIABLES, Exceptions, Misfit, PROXY_VARIABLES, Proxies, Proxy, UNUSED_VARIABLES, passwords_in,
};

/// Of no use here, since no workspace is reached without TLS but on this machine.
const FOR_HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];

impl Merge<'_> {
    pub(super) fn proxies(&mut self) -> Result<Proxies, ConfigError> {
        let in_file = self.head("proxy", |file| file.proxy.as_ref())?.and_then(|proxy| self.written(proxy));
        let in_environment = self.first_variable(PROXY_VARIABLES);
        // Before anything is said of them, whether they can be used or not; what is not used here another program may show.
        let others =
            UNUSED_VARIABLES.into_iter().chain(PROXY_VARIABLES).chain(FOR_HTTP).filter_map(|name| self.variable(name));
        for value in in_file.iter().chain(&others.collect::<Vec<_>>()) {
            passwords_in(&value.value).iter().for_each(secrets::keep);
        }
        let Some(written) = in_environment.or(in_file) else {
            self.say_what_is_unused();
            return Ok(Proxies::new(None, self.exceptions()?));
        };
        let proxy = Proxy::parse(&written.value, written.origin.to_string())
            .map_err(|Misfit { why, hint }| self.fault(&written.origin, why).hint(hint))?;
        self.warn_of_readers(&proxy, &written.origin);
        let proxy = self.note("", "proxy", written.map(|_| proxy), Proxy::shown);
        Ok(Proxies::new(Some(proxy), self.exceptions()?))
    }

    fn exceptions(&mut self) -> Result<Exceptions, ConfigError> {
        let in_file = self.head("no_proxy", |file| file.no_proxy.as_ref())?.and_then(|hosts| self.written(hosts));
        let Some(written) = self.first_variable(EXCEPTION_VARIABLES).or(in_file) else {
            return Ok(Exceptions::default());
        };
        let exceptions = written.map(|text| Exceptions::parse(&text));
        for entry in exceptions.value.useless() {
            let why = "no host is like that; entries are separated by commas, as in .example.com,10.0.0.0/8";
            self.warnings.push(format!("`{entry}` in {} exempts nothing: {why}", exceptions.origin));
        }
        Ok(self.note("", "no_proxy", exceptions, |exceptions| exceptions.text().to_owned()))
    }

    fn first_variable(&self, names: [&'static str; 2]) -> Option<Sourced<String>> {
        names.into_iter().find_map(|name| self.variable(name))
    }

    /// Where no proxy for HTTPS is set, what somebody may take for one.
    fn say_what_is_unused(&mut self) {
        if let Some(other) = self.first_variable(UNUSED_VARIABLES) {
            let why = "neither dbx-rotator nor the Databricks CLI reads it; set HTTPS_PROXY";
            self.warnings.push(format!("{} is not used: {why}", other.origin));
        } else if let Some(other) = self.first_variable(FOR_HTTP) {
            let why = "a workspace is reached by HTTPS, for which HTTPS_PROXY counts";
            self.notes.push(format!("{} is not used: {why}", other.origin));
        }
    }

    fn warn_of_readers(&mut self, proxy: &Proxy, origin: &Origin) {
        let (Origin::File(path, ..), Some(_)) = (origin, proxy.password()) else { return };
        self.warnings.extend(remark_on_mode(path, 0o077, "proxy's password"));
    }
}
