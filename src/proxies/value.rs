//! One value of `HTTPS_PROXY`: read as Go does, and refused with what it looks like where Go would not use it.

use secrecy::SecretString;
use url::Host;
use zeroize::Zeroizing;

use super::{Proxy, Scheme};

/// What stands in a text for a password.
const MASK: &str = "********";

/// What may stand in a user name or a password beside letters and digits, without being written in hexadecimal (net/url's
/// `validUserinfo`).
const PLAIN: &str = "-._:~!$&'()*+,;=%@";

/// What is wrong with a value, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) why: String,
    pub(crate) hint: String,
}

/// A value as it may be shown: with a mask for what is, or could be, a password.
pub(crate) fn without_password(value: &str) -> String {
    let mut shown = value.to_owned();
    if let Some(range) = password_range(value) {
        shown.replace_range(range, MASK);
    }
    shown
}

/// The passwords that a value could hold, so that nothing else shows them: as written, and without escapes.
pub(crate) fn passwords_in(value: &str) -> Vec<SecretString> {
    let Some(written) = password_range(value).map(|range| &value[range]) else { return Vec::new() };
    let plain = decoded(written).ok().map(|text| SecretString::from(text.as_str()));
    std::iter::once(SecretString::from(written)).chain(plain).collect()
}

/// Where in a value the password is: from the first colon of what stands before the last `@`, or, without one, from a colon that
/// is followed by no port.
fn password_range(value: &str) -> Option<std::ops::Range<usize>> {
    let start = value.find("://").map_or(0, |at| at + 3);
    let rest = &value[start..];
    if let Some(end) = rest.rfind('@') {
        let colon = rest[..end].find(':')?;
        return Some(start + colon + 1..start + end);
    }
    let trimmed = rest.trim_end_matches(|c: char| c.is_whitespace() || "\"'`/".contains(c));
    let (before, after) = trimmed.rsplit_once(':')?;
    let is_port = after.split(['/', '?', '#', ' ', ',']).next().unwrap_or_default().bytes().all(|b| b.is_ascii_digit());
    let is_address = before.contains('[') || after.contains(']') || before.contains(':');
    (!is_port && !is_address).then(|| start + before.len() + 1..start + trimmed.len())
}

pub(super) fn parse(text: &str, from: String) -> Result<Proxy, Misfit> {
    let value = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let shown = without_password(value);
    let misfit = |looks: &str, hint: &str| Misfit { why: format!("`{shown}` {looks}"), hint: hint.to_owned() };
    if let Some((looks, hint)) = left_over(value) {
        return Err(misfit(looks, hint));
    }
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, _)) if scheme.contains('=') => {
            return Err(misfit("is a setting with its name", "write only what comes after the ="));
        }
        Some(parts) => parts,
        None if begins_with_a_scheme(value) => {
            return Err(misfit("has no :// after its scheme", "write it as in http://proxy.example:3128"));
        }
        None => ("http", value),
    };
    let scheme = scheme_of(scheme).map_err(|(looks, hint)| misfit(&looks, hint))?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if let Some(odd) = tail.chars().next().filter(|_| tail.contains('@')) {
        let hint = format!("in a user name or a password write it as %{:02X}", u32::from(odd));
        return Err(misfit(&format!("has a `{odd}` before its `@`, and ends there"), &hint));
    }
    let file = tail.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    if [".pac", ".dat"].iter().any(|ending| file.ends_with(ending)) {
        let hint = "write the proxy itself, as in http://proxy.example:3128: the script says which one it is";
        return Err(misfit("is the address of a script that chooses a proxy, not a proxy", hint));
    }
    let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
    let (user, password) = match user {
        Some(user) => user_and_password(user).map_err(|(looks, hint)| misfit(&looks, &hint))?,
        None => (None, None),
    };
    let (host, port) = host_and_port(place, scheme).map_err(|(looks, hint)| misfit(&looks, hint))?;
    Ok(Proxy { scheme, host, port, user, password, from })
}

/// What is left of an example, a shell or a file that did not do what was expected of it.
fn left_over(value: &str) -> Option<(&'static str, &'static str)> {
    let example = "write the proxy as in http://proxy.example:3128";
    if value.is_empty() {
        return Some(("is empty", "leave it out, or write the proxy as in http://proxy.example:3128"));
    }
    if let Some(quote) = value.chars().next().filter(|c| "\"'`\u{201c}\u{201e}\u{2018}".contains(*c))
        && value.chars().count() > 1
    {
        let is_closed = value.ends_with(match quote {
            '\u{201c}' | '\u{201e}' => '\u{201d}',
            '\u{2018}' => '\u{2019}',
            same => same,
        });
        let looks = if is_closed { "is in quotes" } else { "begins with a quote" };
        return Some((looks, "leave out the quotes (docker's --env-file keeps them)"));
    }
    if value.ends_with(['"', '\'', '`']) {
        return Some(("ends with a quote", "leave out the quotes (docker's --env-file keeps them)"));
    }
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_variable = value.contains("${")
        || value.starts_with("$(")
        || value.strip_prefix('$').is_some_and(is_name)
        || value.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')).is_some_and(is_name);
    if is_variable {
        return Some(("holds a variable that was never replaced by its value", "write the value itself"));
    }
    let holds = |open: char, close: char| value.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
    if holds('<', '>') || holds('{', '}') {
        return Some(("holds a placeholder of an example", "write the value itself"));
    }
    if value.contains(char::is_whitespace) {
        return Some(("holds blanks", "write one address, and a blank in a password as %20"));
    }
    let is_list = value.split(',').filter(|part| part.contains("://")).count() > 1;
    is_list.then_some(("is a list of proxies", example))
}

/// Such as `http:/proxy.example`, in which Go finds a host of the name `http`.
fn begins_with_a_scheme(value: &str) -> bool {
    let first = value.split([':', '/']).next().unwrap_or_default();
    first.len() < value.len() && scheme_of(first).is_ok()
}

fn scheme_of(written: &str) -> Result<Scheme, (String, &'static str)> {
    match written.to_ascii_lowercase().as_str() {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        "socks5" | "socks5h" => Ok(Scheme::Socks5),
        "socks" => Err(("does not say which SOCKS it speaks".to_owned(), "write socks5:// in place of socks://")),
        "socks4" | "socks4a" => Err((
            "is a proxy for SOCKS 4, which neither this program nor the Databricks CLI speaks".to_owned(),
            "write socks5:// if the proxy knows that, or use its HTTP port",
        )),
        "" => Err(("has nothing before its ://".to_owned(), "write http:// there")),
        other => Err((
            format!("has the scheme {other}, which no proxy uses"),
            "write http://, https:// or socks5:// in its place",
        )),
    }
}

type Fault = (String, String);

fn user_and_password(text: &str) -> Result<(Option<String>, Option<SecretString>), Fault> {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    let odd = |text: &str| text.chars().find(|c| !(c.is_ascii_alphanumeric() || PLAIN.contains(*c)));
    let escape = |c: char| c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    if let Some(odd) = odd(user) {
        let hint = format!("write {odd} as {} there", escape(odd));
        return Err((format!("has a `{odd}` in its user name"), hint));
    }
    if password.and_then(odd).is_some() {
        let hint = "write everything but letters, digits and -._~ as % and two hexadecimal digits, such as %23 for #";
        return Err(("has a password with a character that cannot stand in an address".to_owned(), hint.to_owned()));
    }
    let part = |text: &str, what: &str| {
        decoded(text).map_err(|looks| (format!("has a {what} with {looks}"), "write % itself as %25".to_owned()))
    };
    let password = password.map(|password| part(password, "password")).transpose()?;
    let password = password.map(|password| SecretString::from(password.as_str()));
    Ok((Some(part(user, "user name")?.to_string()), password))
}

/// The text without its escapes (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(16 * high + low).ok());
        bytes.push(value.ok_or("a % that two hexadecimal digits do not follow")?);
        rest = &after[2..];
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "escapes that make no UTF-8 text")?;
    if text.contains(char::is_control) {
        return Err("an escape of a control character");
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn host_and_port(place: &str, scheme: Scheme) -> Result<(String, u16), (String, &'static str)> {
    let example = "write the proxy as in http://proxy.example:3128";
    let (host, port) = match place.rfind(':').filter(|at| !place[*at..].contains(']')) {
        Some(at) => (&place[..at], &place[at + 1..]),
        None => (place, ""),
    };
    if host.is_empty() {
        return Err(("names no host".to_owned(), example));
    }
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !is_bracketed {
        return Err(("has more than one colon in its host".to_owned(), "write an IPv6 address in brackets: [::1]"));
    }
    let port = match port {
        "" => scheme.usual_port(),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(("has a port that is not from 1 to 65535".to_owned(), example)),
        },
        _ => {
            let hint = "write the port in digits; a user name and a password stand before an @";
            return Err(("has after its host a colon and no port".to_owned(), hint));
        }
    };
    let is_odd = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if let Some(odd) = host.chars().find(|c| is_odd(*c)).filter(|_| !is_bracketed) {
        return Err((format!("has a {odd:?} in its host"), example));
    }
    match Host::parse(host) {
        Ok(host) => Ok((host.to_string(), port)),
        Err(_) if !host.is_ascii() => Err((
            "has letters beyond ASCII in its host".to_owned(),
            "write the name as it is looked up, beginning with xn--",
        )),
        Err(_) => Err(("names a host that cannot exist".to_owned(), example)),
    }
}
