//! The settings of the local proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_spanned::Spanned;

use super::Merge;
use crate::config::fault::ConfigError;
use crate::config::file::{ConnectionTable, NameOrNumber, parse_duration};
use crate::config::origin::{Origin, Sourced};
use crate::config::paths::Access;
use crate::model::server::user_misfit;
use crate::model::{LocalProxy, Proxied, User};

/// More would need more open files than any system gives.
const SESSIONS: RangeInclusive<usize> = 1..=100_000;

/// How long it may have to stay without a session: less would start it for each login anew.
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// The value of `proxy_idle_timeout` for never.
const NEVER: &str = "off";

impl Merge<'_> {
    pub(super) fn local_proxy(&mut self) -> Result<LocalProxy, ConfigError> {
        let default = LocalProxy::default();
        Ok(LocalProxy {
            listen: match self.head("proxy_listen", |file| file.proxy_listen.as_ref())? {
                Some(written) => self.listen_address(written)?,
                None => default.listen,
            },
            allow: match self.head("proxy_allow", |file| file.proxy_allow.as_ref())? {
                Some(written) => self.allowed(written)?,
                None => default.allow,
            },
            max_sessions: match self.head("proxy_max_sessions", |file| file.proxy_max_sessions.as_ref())? {
                Some(written) => self.most_sessions(written)?,
                None => default.max_sessions,
            },
            idle_timeout: match self.head("proxy_idle_timeout", |file| file.proxy_idle_timeout.as_ref())? {
                Some(written) => self.idle_timeout(written)?,
                None => default.idle_timeout,
            },
            tls: {
                let written = self.head("proxy_tls", |file| file.proxy_tls.as_ref())?;
                self.file_beside("", "proxy_tls", written, Access::Reads)?
            },
        })
    }

    fn listen_address(&mut self, written: &Spanned<String>) -> Result<IpAddr, ConfigError> {
        let text = written.get_ref();
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let Ok(address) = bare.parse() else {
            let why = format!("`{text}` is not an address");
            return Err(self.fault_at(written, why).hint("such as 127.0.0.1, ::1, or 0.0.0.0 for all of IPv4"));
        };
        self.note_written("", "proxy_listen", written, String::clone);
        Ok(address)
    }

    fn allowed(&mut self, written: &Spanned<Vec<Spanned<NameOrNumber>>>) -> Result<Vec<User>, ConfigError> {
        let mut users = Vec::new();
        for user in written.get_ref() {
            users.push(match user.get_ref() {
                NameOrNumber::Number(number) => User::Number(*number),
                NameOrNumber::Name(name) if name.is_empty() || name.contains([':', '\n', '\0']) => {
                    return Err(self.fault_at(user, format!("`{name}` is not the name of a user of this machine")));
                }
                // No account is called by a number (useradd(8)), and of a user without an account there is only that.
                NameOrNumber::Name(name) => name.parse().map_or_else(|_| User::Name(name.clone()), User::Number),
            });
        }
        let shown = |users: &[User]| {
            let one = |user: &User| match user {
                User::Name(name) => name.clone(),
                User::Number(number) => number.to_string(),
            };
            users.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let origin = self.written(written).map_or(Origin::Default, |sourced| sourced.origin);
        Ok(self.note("", "proxy_allow", Sourced::new(users, origin), |users| shown(users)))
    }

    fn most_sessions(&mut self, written: &Spanned<usize>) -> Result<usize, ConfigError> {
        if !SESSIONS.contains(written.get_ref()) {
            let why = format!("proxy_max_sessions must lie between {} and {}", SESSIONS.start(), SESSIONS.end());
            return Err(self.fault_at(written, why));
        }
        self.note_written("", "proxy_max_sessions", written, usize::to_string);
        Ok(*written.get_ref())
    }

    fn idle_timeout(&mut self, written: &Spanned<String>) -> Result<Option<Duration>, ConfigError> {
        self.note_written("", "proxy_idle_timeout", written, String::clone);
        if written.get_ref() == NEVER {
            return Ok(None);
        }
        match parse_duration(written.get_ref()) {
            Ok(timeout) if IDLE.contains(&timeout) => Ok(Some(timeout)),
            Ok(_) => {
                Err(self.fault_at(written, "proxy_idle_timeout must lie between 1 second and 7 days, or be \"off\""))
            }
            Err(why) => Err(self.fault_at(written, format!("{why}; or \"{NEVER}\" for never"))),
        }
    }

    /// What one connection wants of the proxy.
    pub(super) fn proxied(&mut self, section: &str, table: &ConnectionTable) -> Result<Proxied, ConfigError> {
        let mut proxied = Proxied::default();
        if let Some(port) = &table.proxy_port {
            if *port.get_ref() == 0 {
                return Err(self.fault_at(port, "no program can connect to port 0"));
            }
            self.note_written(section, "proxy_port", port, u16::to_string);
            proxied.port = Some(*port.get_ref());
        }
        if let Some(roles) = &table.proxy_roles {
            for role in roles.get_ref() {
                if role.get_ref().is_empty() {
                    return Err(self.fault_at(role, "the role is empty"));
                }
                if let Some(misfit) = user_misfit(role.get_ref()) {
                    return Err(self.fault_at(role, format!("the role {}", misfit.why)).hint(misfit.hint));
                }
            }
            proxied.roles = roles.get_ref().iter().map(|role| role.get_ref().clone()).collect();
            let shown = proxied.roles.join(" ");
            self.note_written(section, "proxy_roles", roles, |_| shown);
        }
        Ok(proxied)
    }

    /// That no two connections have the same port of the proxy.
    pub(super) fn check_proxy_port(
        &self,
        table: &ConnectionTable,
        name: &str,
        taken: &mut HashMap<u16, String>,
    ) -> Result<(), ConfigError> {
        let Some(port) = &table.proxy_port else { return Ok(()) };
        match taken.insert(*port.get_ref(), name.to_owned()) {
            Some(other) => Err(self.fault_at(port, format!("{other} has this proxy_port already"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    const CONNECTION: &str = "[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n[[connection]]\nname = 'orders'\n\
        host = 'db.example'\n";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let environment = [("HOME", home.path().as_os_str().to_owned())].into_iter().collect();
        Config::load_in(environment, &Overrides { config: Some(file), ..Overrides::default() })
    }

    #[test]
    fn what_is_written_is_used_and_what_is_not_has_a_default() {
        let config = load(&format!(
            "proxy_listen = '[::1]'\nproxy_allow = ['grafana', 1001, '1002']\nproxy_max_sessions = 7\nproxy_idle_timeout = 'off'\n\
             {CONNECTION}proxy_port = 6432\nproxy_roles = ['reader']\n"
        ))
        .unwrap();
        let proxy = &config.local_proxy;
        assert_eq!((proxy.listen, proxy.max_sessions, proxy.idle_timeout), ("::1".parse().unwrap(), 7, None));
        assert_eq!(proxy.allow, [User::Name("grafana".to_owned()), User::Number(1001), User::Number(1002)]);
        let orders = &config.connections[0].proxied;
        assert_eq!((orders.port, orders.roles.as_slice()), (Some(6432), &["reader".to_owned()][..]));
        let config = load(CONNECTION).unwrap();
        assert_eq!(
            (&config.local_proxy, &config.connections[0].proxied),
            (&LocalProxy::default(), &Proxied::default())
        );
    }

    #[test]
    fn what_cannot_work_is_refused_where_it_stands() {
        for (head, tail, words) in [
            ("proxy_listen = 'localhost'\n", "", "`localhost` is not an address"),
            ("proxy_allow = ['']\n", "", "not the name of a user"),
            ("proxy_allow = [-1]\n", "", ""),
            ("proxy_max_sessions = 0\n", "", "between 1 and"),
            ("proxy_idle_timeout = '10ms'\n", "", "between 1 second and 7 days"),
            ("proxy_idle_timeout = 'soon'\n", "", "not a duration"),
            ("", "proxy_port = 0\n", "port 0"),
            ("", "proxy_port = 70000\n", ""),
            ("", "proxy_roles = ['']\n", "the role"),
            (
                "",
                "proxy_port = 6432\n[[connection]]\nname = 'other'\nhost = 'x.example'\nproxy_port = 6432\n",
                "orders has this proxy_port already",
            ),
        ] {
            let error = load(&format!("{head}{CONNECTION}{tail}")).err().unwrap();
            assert!(error.sentence().contains(words), "{head}{tail}: {}", error.sentence());
        }
    }
}
