//! What `check` says of the local proxy, where there is one or the configuration wants one.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use crate::cli::finding::{Finding, Id};
use crate::config::Config;
use crate::model::User;
use crate::os::accounts::Users;
use crate::proxy::{self, Figures};

/// Lets the service manager listen where the configuration says.
const INSTALL: &str = "dbx-rotator service install --proxy; or run it in a terminal: dbx-rotator proxy";

const OTHER_PORT: &str =
    "choose another port, or end that program; then let the proxy read its settings: a signal HUP to it";

const REOPEN: &str = "let the proxy open it again by a signal HUP; where systemd listens: systemctl --user restart dbx-rotator-proxy.socket";

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let running = proxy::told(&config.state_dir).filter(|(_, runs)| *runs).map(|(figures, _)| figures);
    if let Some(figures) = &running {
        findings.extend(what_it_does(figures));
        findings.extend(figures.listening.iter().filter(|place| was_removed(place)).map(|place| {
            let what = format!("nobody can connect to the local proxy by its socket: {place} was removed");
            Finding::warning(Id::LocalProxy, what).hint(REOPEN)
        }));
    }
    let settings = &config.local_proxy;
    let ports =
        config.connections().iter().filter_map(|connection| Some((connection.name(), connection.proxied.port?)));
    for (name, port) in ports {
        let address = SocketAddr::new(settings.listen, port);
        // Where somebody listens nobody else can.
        if TcpListener::bind(address).is_ok() {
            let what = format!("{name}: nobody listens at {address}, its proxy_port");
            findings.push(Finding::warning(Id::LocalProxy, what).hint(INSTALL));
        } else if running.as_ref().is_some_and(|figures| !figures.serves(address)) {
            let what = format!("{name}: the proxy does not listen at {address}, its proxy_port: another program does");
            findings.push(Finding::warning(Id::LocalProxy, what).hint(OTHER_PORT));
        }
    }
    let mut users = Users::of_this_machine();
    for user in &settings.allow {
        let User::Name(name) = user else { continue };
        if users.uid_of(name) == Ok(None) {
            let what = format!("proxy_allow names {name}, and this machine has no such user");
            findings.push(Finding::warning(Id::LocalProxy, what).hint("correct the name, or give the user's number"));
        }
    }
    if let Err(failure) = proxy::check_certificate(config) {
        findings.push(Finding::failed(Id::LocalProxy, failure.message.clone()).hint_of(&failure));
    }
    let remarks = proxy::remarks_on_certificate(config).into_iter().chain(proxy::remark_on_password(&config.state_dir));
    findings.extend(remarks.map(|remark| Finding::warning(Id::LocalProxy, remark)));
    if !settings.listen.to_canonical().is_loopback() && settings.tls.is_none() {
        let what =
            format!("others can reach the proxy at {}, and what they ask and get is not encrypted", settings.listen);
        findings.push(Finding::warning(Id::LocalProxy, what).hint("set proxy_tls"));
    }
    findings
}

/// None where the places at which it listened are all gone.
fn what_it_does(figures: &Figures) -> Option<Finding> {
    let listening = &figures.listening;
    let places: Vec<&str> = listening.iter().map(String::as_str).filter(|place| !was_removed(place)).collect();
    let what = if figures.stopping {
        "the local proxy is stopping: it ends with its last session, and opens none".to_owned()
    } else if !places.is_empty() {
        format!("the local proxy runs, at {}", places.join(", "))
    } else if figures.started_at.is_none() {
        // It has not told where.
        "the local proxy runs".to_owned()
    } else if listening.is_empty() {
        let what = "the local proxy runs, and nobody can connect to it";
        return Some(Finding::warning(Id::LocalProxy, what).hint(REOPEN));
    } else {
        return None;
    };
    Some(Finding::ok(Id::LocalProxy, what))
}

/// Whether it is the path of a socket that is there no more.
fn was_removed(place: &str) -> bool {
    place.starts_with('/') && fs::symlink_metadata(place).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        findings(&Config::of_text(text)).iter().map(Finding::line).collect()
    }

    #[test]
    fn what_is_missing_is_told_and_where_nothing_is_wanted_nothing_is_said() {
        let base =
            "[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n[[connection]]\nhost = 'db.example'\n";
        assert_eq!(said(base), "");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(said(&format!("{base}proxy_port = {port}\n")), "");
        drop(taken);
        // Below those that the system gives to whoever wants any, so that nobody gets it meanwhile.
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (10_000..32_000).find(is_free).unwrap();
        let nobody = said(&format!("{base}proxy_port = {port}\n"));
        assert!(nobody.contains("nobody listens") && nobody.contains("service install --proxy"), "{nobody}");
        let open = said(&format!("proxy_listen = '0.0.0.0'\nproxy_allow = ['no-such-user-here']\n{base}"));
        assert!(open.contains("not encrypted") && open.contains("no such user"), "{open}");
        let tls = said(&format!("proxy_tls = '/nonexistent'\n{base}"));
        assert!(tls.contains("cannot use proxy_tls /nonexistent"), "{tls}");
    }
}
