//! What is reached without the proxy: `NO_PROXY` as Go reads it.

use std::net::IpAddr;

use url::Host;

/// A list of hosts that are reached directly. The entries are separated by commas; what cannot match anything is no fault, as in
/// Go, but it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exceptions {
    text: String,
    rules: Vec<Rule>,
    useless: Vec<String>,
}

/// One entry of the list. A port that is left out is any.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Network { address: IpAddr, bits: u8 },
    Address { address: IpAddr, port: Option<String> },
    Name { name: String, port: Option<String>, is_suffix_only: bool },
}

impl Exceptions {
    pub(crate) fn parse(text: &str) -> Self {
        let entries = || text.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty());
        let mut exceptions = Exceptions { text: text.trim().to_owned(), ..Exceptions::default() };
        for entry in entries() {
            match rule(&entry) {
                Some(rule) if rule.can_match() => exceptions.rules.push(rule),
                _ => exceptions.useless.push(entry),
            }
        }
        exceptions
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The entries that no host can match.
    pub(crate) fn useless(&self) -> &[String] {
        &self.useless
    }

    /// Whether this host is reached directly; this machine itself always is. Another name of it is not, but for `localhost`.
    pub(super) fn has(&self, host: &str, port: u16) -> bool {
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).to_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let is_this_machine = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        is_this_machine || self.rules.iter().any(|rule| rule.matches(&host, address, &port.to_string()))
    }
}

impl Rule {
    fn matches(&self, host: &str, of_host: Option<IpAddr>, of_port: &str) -> bool {
        let is_port = |port: &Option<String>| port.as_ref().is_none_or(|port| port == of_port);
        match (self, of_host) {
            (Rule::All, _) => true,
            (Rule::Network { address, bits }, Some(of_host)) => is_within(of_host, *address, *bits),
            (Rule::Address { address, port }, Some(of_host)) => *address == of_host && is_port(port),
            (Rule::Name { name, port, is_suffix_only }, None) => {
                let is_below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (is_below || (!is_suffix_only && host == name)) && is_port(port)
            }
            (Rule::Network { .. } | Rule::Address { .. }, None) | (Rule::Name { .. }, Some(_)) => false,
        }
    }

    /// Whether there can be such a host at all.
    fn can_match(&self) -> bool {
        match self {
            Rule::Name { name, port, is_suffix_only } => {
                let is_port =
                    port.as_ref().is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n.to_string() == *port));
                let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
                is_port && (!name.is_empty() || *is_suffix_only) && !name.contains(odd)
            }
            Rule::All | Rule::Network { .. } | Rule::Address { .. } => true,
        }
    }
}

/// One entry, in lower case and without blanks around it.
fn rule(entry: &str) -> Option<Rule> {
    if entry == "*" {
        return Some(Rule::All);
    }
    if let Some(network) = network(entry) {
        return Some(network);
    }
    // Where there is no port that can be told from the host, all of it is the host.
    let (host, port) = host_and_port(entry).unwrap_or((entry, ""));
    let port = Some(port.to_owned()).filter(|port| !port.is_empty());
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Rule::Address { address: address.to_canonical(), port });
    }
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    let (name, is_suffix_only) = host.strip_prefix('.').map_or((host, false), |name| (name, true));
    (!host.is_empty()).then(|| Rule::Name { name: in_ascii(name), port, is_suffix_only })
}

/// An address with the number of bits that count, such as `10.0.0.0/8`.
fn network(entry: &str) -> Option<Rule> {
    let (address, bits) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = Some(bits).filter(|bits| bits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    // An IPv4 address in the form of IPv6 is one of IPv4, where the bits before it all count.
    match address.to_canonical() {
        IpAddr::V4(canonical) if address.is_ipv6() && (96..=128).contains(&bits) => {
            Some(Rule::Network { address: canonical.into(), bits: bits - 96 })
        }
        _ => (bits <= most).then_some(Rule::Network { address, bits }),
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let first = |value: u128, width: u8| value.checked_shr(u32::from(width - bits.min(width))).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => first(one.to_bits().into(), 32) == first(other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => first(one.to_bits(), 128) == first(other.to_bits(), 128),
        _ => false,
    }
}

/// `host:port` or `[address]:port`, by Go's rule (net.SplitHostPort); none where it is neither.
fn host_and_port(entry: &str) -> Option<(&str, &str)> {
    let (host, port) = entry.rsplit_once(':')?;
    let inner = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let has_bracket = |text: &str| text.contains(['[', ']']);
    (!has_bracket(inner) && !has_bracket(port)).then_some((inner, port))
}

/// A name as it stands in addresses, where letters beyond ASCII are written otherwise (RFC 5890). Without the tables for that, which
/// the program lacks, it stays, and matches nothing.
fn in_ascii(name: &str) -> String {
    match Host::parse(name) {
        Ok(Host::Domain(ascii)) if !name.is_ascii() => ascii,
        _ => name.to_owned(),
    }
}
