//! What a Secret of Kubernetes holds: the keys that applications know already, and nothing that needs a reader of its own.
//!
//! `type`, `provider`, `host`, `port`, `username`, `password`, `database` and `uri` are those of the Service Binding specification,
//! which frameworks read where such a Secret is mounted; `sslmode` is what Spring's bindings read beside them, and `pgpass` a whole
//! password file, as CloudNativePG has it.

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::Published;
use crate::model::uri::Login;
use crate::pgpass::{Entry, Key};

/// A key, and what stands there.
type Pair = (&'static str, Zeroizing<Vec<u8>>);

impl Published<'_> {
    /// The whole Secret, in the order of its keys.
    pub(crate) fn pairs(&self, has_uri: bool) -> Vec<Pair> {
        let plain = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let password = self.password.expose_secret();
        let mut pairs =
            vec![("database", plain(self.database())), ("host", plain(self.host)), ("password", plain(password))];
        pairs.extend(self.line().map(|line| ("pgpass", line)));
        pairs.extend([
            ("port", plain(&self.port.to_string())),
            ("provider", plain("databricks")),
            ("sslmode", plain(self.sslmode)),
            ("type", plain("postgresql")),
        ]);
        if has_uri {
            // A file of authorities is one of this machine's, and not there where the address is read.
            let (host, port, database, user, sslmode) =
                (self.host, self.port, self.database(), self.user, self.sslmode);
            let uri = Login { host, port, database, user, password, sslmode, sslrootcert: None }.uri();
            pairs.push(("uri", plain(&uri)));
        }
        pairs.push(("username", plain(self.user)));
        pairs
    }

    /// The password file's only line; none where no password file can carry it, which the one beside it says.
    fn line(&self) -> Option<Zeroizing<Vec<u8>>> {
        let key = Key::new(self.host, self.port, self.database, self.user).ok()?;
        let entry = Entry::new(key, self.password.clone(), false).ok()?;
        let mut line = Zeroizing::new(Vec::with_capacity(entry.longest_line()));
        entry.write(&mut line);
        line.push(b'\n');
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn a_secret_has_what_a_program_needs_to_log_in() {
        let password = SecretString::from("e:y");
        let published = Published {
            password: &password,
            host: "db.example",
            port: 5432,
            database: "*",
            user: "ada@example.com",
            sslmode: "require",
            sslrootcert: Some("/etc/ca.pem".to_owned()),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let text = |has_uri| -> String {
            let pairs = published.pairs(has_uri);
            pairs.iter().map(|(key, value)| format!("{key}={}\n", String::from_utf8_lossy(value).trim_end())).collect()
        };
        let plain = "database=databricks_postgres\nhost=db.example\npassword=e:y\npgpass=db.example:5432:*:ada@example.com:e\\:y\n\
                     port=5432\nprovider=databricks\nsslmode=require\ntype=postgresql\nusername=ada@example.com\n";
        assert_eq!(text(false), plain);
        let uri =
            "uri=postgresql://ada%40example.com:e%3Ay@db.example:5432/databricks_postgres?sslmode=require\nusername";
        assert_eq!(text(true), plain.replace("username", uri));
    }
}
