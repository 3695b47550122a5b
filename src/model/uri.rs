//! The addresses that drivers take: a connection URI of PostgreSQL, and one of JDBC.

use zeroize::Zeroizing;

/// Where a program logs in, and with what.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    /// libpq's `sslmode` and `sslrootcert`, which pgjdbc has under the same names.
    pub(crate) sslmode: &'a str,
    pub(crate) sslrootcert: Option<&'a str>,
}

impl Login<'_> {
    /// A connection URI (PostgreSQL, "Connection Strings"), with the password.
    pub(crate) fn uri(&self) -> Zeroizing<String> {
        let (host, tls) = (self.encoded_host(), self.tls());
        let (port, database) = (self.port.to_string(), encoded(self.database));
        let (user, password) = (encoded(self.user), encoded(self.password));
        join(&["postgresql://", &user, ":", &password, "@", &host, ":", &port, "/", &database, "?", &tls])
    }

    /// A URL of PostgreSQL's driver for JDBC, which takes user and password as parameters.
    pub(crate) fn jdbc_url(&self) -> Zeroizing<String> {
        let (host, tls) = (self.encoded_host(), self.tls());
        let (port, database) = (self.port.to_string(), encoded(self.database));
        let (user, password) = (encoded(self.user), encoded(self.password));
        let start = ["jdbc:postgresql://", &host, ":", &port, "/", &database];
        join(&[&start[..], &["?user=", &user, "&password=", &password, "&", &tls]].concat())
    }

    fn encoded_host(&self) -> Zeroizing<String> {
        match self.host {
            address if address.contains(':') && !address.starts_with(['/', '@']) => join(&["[", address, "]"]),
            name => encoded(name),
        }
    }

    fn tls(&self) -> Zeroizing<String> {
        let root = self.sslrootcert.map(|root| join(&["&sslrootcert=", &encoded(root)])).unwrap_or_default();
        join(&["sslmode=", self.sslmode, &root])
    }
}

/// Percent-encoded (RFC 3986, section 2.1), whatever part of a URI it is for.
pub(crate) fn encoded(text: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    // Growing would leave a copy of a password in memory.
    let mut all = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            other => {
                let [high, low] = [other >> 4, other & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
                all.extend(['%', high, low]);
            }
        }
    }
    all
}

fn join(parts: &[&str]) -> Zeroizing<String> {
    let mut all = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| all.push_str(part));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: Login<'_> = Login {
        host: "db.example",
        port: 5432,
        database: "a/b ü",
        user: "ada@example.com",
        password: "p:w%/@?#&=+",
        sslmode: "require",
        sslrootcert: None,
    };

    #[test]
    fn a_uri_carries_any_name_and_any_password() {
        let start = "postgresql://ada%40example.com:p%3Aw%25%2F%40%3F%23%26%3D%2B@";
        let rest = ":5432/a%2Fb%20%C3%BC?sslmode=require";
        for (host, encoded) in [("db.example", "db.example"), ("::1", "[::1]"), ("/run/pg", "%2Frun%2Fpg")] {
            assert_eq!(*Login { host, ..ODD }.uri(), format!("{start}{encoded}{rest}"));
        }
        let with_root = Login { sslrootcert: Some("/a b.pem"), ..ODD };
        assert_eq!(*with_root.uri(), format!("{start}db.example{rest}&sslrootcert=%2Fa%20b.pem"));
    }

    #[test]
    fn a_url_of_jdbc_has_user_and_password_behind_the_database() {
        let url = "jdbc:postgresql://[::1]:5432/a%2Fb%20%C3%BC?user=ada%40example.com\
                   &password=p%3Aw%25%2F%40%3F%23%26%3D%2B&sslmode=require";
        assert_eq!(*Login { host: "::1", ..ODD }.jdbc_url(), url);
    }
}
