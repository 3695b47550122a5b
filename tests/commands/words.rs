//! No word of a library ever reaches a person: every kind of wrong setting, file and certificate, and what is said of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::support::{Door, Home, Outcome, Session, dbx_rotator};

const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// What only programmers know: names of types, of libraries, and of how they print.
const FOREIGN: &[&str] = &[
    "os error",
    "Error(",
    "OtherError",
    "CaUsedAsEndEntity",
    "UnknownIssuer",
    "NotValid",
    "DnsName",
    "invalid peer",
    "invalid digit",
    "ParseInt",
    "number too large to fit",
    "u16",
    "u64",
    "i64",
    "usize",
    "struct ",
    "sequence",
    "a map",
    "invalid type",
    "invalid value:",
    "variant",
    "unknown field",
    "..=",
    "literal string",
    "basic string",
    "relative URL",
    "empty host",
    "invalid port number",
    "invalid international",
    "base URL",
    "serde",
    "TOML parse error",
    "hyper",
    "reqwest",
    "rustls",
    "webpki",
    "dns error",
    "error trying to connect",
    "tcp connect",
    "client error",
    "tunnel error",
    "SOCKS error",
    "failed to lookup",
    "valid UTF-8",
    "Utf8",
    "base64:",
    "Pem",
    "MissingSectionEnd",
    "SectionEnd",
    "Some(",
    "Err(",
    "None)",
    "entity not found",
    "CertificateError",
    "AlertReceived",
    "fatal alert",
    "received corrupt",
    "InvalidContentType",
    "tls handshake",
    "exit status",
    "panicked",
];

#[track_caller]
fn is_plain<'o>(outcome: &'o Outcome, of: &str) -> &'o Outcome {
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    for word in FOREIGN {
        assert!(!said.contains(word), "{of}: {word:?} is no word for a person\n{outcome}");
    }
    outcome
}

fn rotate<'a>(home: &'a Home, url: &str) -> Session<'a> {
    dbx_rotator!(home)
        .args(["rotate", "--retry-for", "0s"])
        .env("DATABRICKS_HOST", url)
        .env("DATABRICKS_CLIENT_ID", "id")
        .env("DATABRICKS_CLIENT_SECRET", "secret-of-nobody")
        .env("DATABRICKS_PG_HOST", "db.example")
}

#[test]
fn a_setting_of_the_wrong_type_is_told_what_it_must_be() {
    let in_table = |table: &str, line: &str| format!("[[{table}]]\n{line}\n");
    let mut cases = Vec::new();
    let text = "must be text in quotes, and here it is";
    cases.push((
        "password_file = 5\n".to_owned(),
        "`password_file` must be a path, or a list of paths, and here it is the number 5".to_owned(),
    ));
    for key in ["log_file", "proxy", "no_proxy"] {
        cases.push((format!("{key} = 5\n"), format!("`{key}` {text} the number 5")));
        cases.push((format!("{key} = ['a']\n"), format!("`{key}` {text} a list")));
    }
    for key in [
        "name",
        "host",
        "auth",
        "client_id",
        "client_secret_file",
        "client_secret_keychain",
        "profile",
        "cli_path",
        "ca_file",
    ] {
        cases.push((in_table("workspace", &format!("{key} = true")), format!("`{key}` {text} true or false")));
        cases.push((in_table("workspace", &format!("{key} = {{ a = 1 }}")), format!("`{key}` {text} a table")));
    }
    for key in [
        "name",
        "workspace",
        "instance",
        "endpoint",
        "host",
        "database",
        "user",
        "credential",
        "verify",
        "sslmode",
        "sslrootcert",
        "token_file",
        "env_file",
    ] {
        cases.push((in_table("connection", &format!("{key} = 1.5")), format!("`{key}` {text} the number 1.5")));
    }
    for key in ["read_only", "service_file", "last_copy", "any_identity"] {
        let says = format!("`{key}` must be true or false, and here it is text");
        cases.push((in_table("connection", &format!("{key} = 'yes'")), says));
    }
    for (value, found) in [
        ("70000", "the number 70000"),
        ("-1", "the number -1"),
        ("'5432'", "text"),
        ("[1]", "a list"),
        ("1.5", "the number 1.5"),
    ] {
        let says = format!("`port` must be a number from 1 to 65535, and here it is {found}");
        cases.push((in_table("connection", &format!("port = {value}")), says));
    }
    for (value, says) in [
        ("'cmd'", "`on_rotate` must be a list of texts, and here it is text"),
        ("[1]", "must be text in quotes, and here it is the number 1"),
        ("{ a = 1 }", "`on_rotate` must be a list of texts, and here it is a table"),
    ] {
        cases.push((in_table("connection", &format!("on_rotate = {value}")), says.to_owned()));
    }
    for kind in ["connection", "workspace"] {
        cases.push((
            format!("[{kind}]\nhost = 'a.example'\n"),
            format!("`{kind}` must be a list of tables, and here it is a table"),
        ));
        cases.push((format!("{kind} = 'a'\n"), format!("`{kind}` must be a list of tables, and here it is text")));
        cases.push((format!("{kind} = ['a']\n"), "must be a list of tables".to_owned()));
        cases.push((in_table(kind, "nonsense = 1"), "unknown setting `nonsense`".to_owned()));
    }
    for value in ["true", "[1]", "-5", "1.5", "{ a = 1 }"] {
        cases.push((format!("interval = {value}\n"), "interval must be a duration".to_owned()));
    }
    for (broken, says) in [
        ("interval = \"50m\"\ninterval = \"40m\"\n", "set twice"),
        ("[[connection.file]]\npath = \"/x\"\n[[connection]]\n", "`connection` is a table already, further above"),
        ("[workspace]\n[[workspace]]\n", "`workspace` is a table already, further above"),
        ("password_file = ~/.pgpass\n", "in quotes"),
        ("password_file =\n", "value is missing"),
        ("password_file\n", "missing"),
        ("password_file = \"a\n", "in quotes"),
        ("[[connection]\n", "config.toml:1"),
        ("interval = 99999999999999999999\n", "too large"),
        ("\u{feff}x = 1\n", "unknown setting `x`"),
        ("a b = 1\n", "config.toml:1"),
        ("interval = \"\\q\"\n", "config.toml:1"),
    ] {
        cases.push((broken.to_owned(), says.to_owned()));
    }
    assert!(cases.len() > 60);
    for (config, says) in cases {
        let home = Home::new();
        home.write(CONFIG, &config, 0o600);
        let outcome = dbx_rotator!(home).args(["config", "check"]).run();
        outcome.exits(78).stderr_has(&says);
        is_plain(&outcome, &config);
    }
}

#[test]
fn an_option_of_the_wrong_form_is_told_what_it_must_be() {
    for (option, says) in [
        (["--pg-port", "70000"], "from 1 to 65535"),
        (["--pg-port", "five"], "from 1 to 65535"),
        (["--pg-port", "-1"], ""),
        (["--interval", "0"], "between 1 minute and 24 hours"),
        (["--interval", "often"], ""),
        (["--interval", "99999999999999999999"], ""),
        (["--retry-for", "soon"], "not a duration"),
    ] {
        let home = Home::new();
        let outcome = dbx_rotator!(home).arg("rotate").args(option).run();
        outcome.exits(64).stderr_has(says);
        is_plain(&outcome, &option.join(" "));
    }
}

#[test]
fn an_address_that_is_none_is_told_why() {
    for host in [
        "https://",
        "https://[::1",
        "https://a:99999",
        "https://a:b",
        "https://1.2.3.4.5",
        "https://a%b",
        "https:/",
        ":",
    ] {
        let home = Home::new();
        let outcome = rotate(&home, host).run();
        outcome.exits(78);
        is_plain(&outcome, host);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_why() {
    let home = Home::new();
    let write = |name: &str, bytes: &[u8]| home.write(name, bytes, 0o600).display().to_string();
    let (nowhere, directory) = (home.path("nowhere").display().to_string(), home.path("tmp").display().to_string());
    let latin = write("latin", b"caf\xe9\n");
    let empty = write("empty", b"");
    let cut = write("cut.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n");
    let damaged = write("damaged.pem", b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
    let nonsense = write("nonsense.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let below = format!("{latin}/file");
    for (setting, file, says) in [
        ("ca_file", &nowhere, "no such file or directory"),
        ("ca_file", &directory, "not a regular file"),
        ("ca_file", &latin, "not UTF-8 text"),
        ("ca_file", &empty, "holds no certificate"),
        ("ca_file", &cut, "does not end"),
        ("ca_file", &damaged, "damaged"),
        ("ca_file", &nonsense, "not well-formed"),
        ("ca_file", &below, "not a directory"),
        ("client_secret_file", &nowhere, "no such file or directory"),
        ("client_secret_file", &directory, "not a regular file"),
        ("client_secret_file", &latin, "not UTF-8 text"),
        ("client_secret_file", &below, "not a directory"),
        ("cli_path", &nowhere, "is not a program"),
    ] {
        let more = if setting == "client_secret_file" { "client_id = 'id'\n" } else { "" };
        home.write(CONFIG, format!("[[workspace]]\nhost = 'https://w.example'\n{more}{setting} = '{file}'\n"), 0o600);
        let session = dbx_rotator!(home).args(["rotate", "--retry-for", "0s"]).env("DATABRICKS_PG_HOST", "db.example");
        let session = if setting == "ca_file" {
            session.args([
                "--client-id",
                "id",
                "--client-secret",
                "secret-of-nobody",
                "--workspace-url",
                "https://w.example",
            ])
        } else {
            session.env("DATABRICKS_PG_USERNAME", "ada@example.com")
        };
        let outcome = session.run();
        outcome.exits(78).stderr_has(says);
        is_plain(&outcome, &format!("{setting} = {file}"));
    }
    for (command, code, says) in [
        (&["config", "check", "--config", &nowhere][..], 78, "no such file or directory"),
        (&["config", "check", "--config", &directory], 78, "not a regular file"),
        (&["config", "check", "--config", &latin], 78, "not UTF-8 text"),
        (&["rotate", "--log-file", &below], 73, "not a directory"),
        (&["status", "--pgpass-file", &directory], 73, "not a regular file"),
        (&["status", "--pgpass-file", &below], 73, ""),
    ] {
        let home = Home::new();
        let session = dbx_rotator!(home).args(command).env("DATABRICKS_HOST", "https://w.example");
        let session = session.env("DATABRICKS_PG_HOST", "db.example").env("DATABRICKS_PG_USERNAME", "ada@example.com");
        let outcome = session.run();
        outcome.exits(code).stderr_has(says);
        is_plain(&outcome, &command.join(" "));
    }
}

// ---- certificates ----

/// An HTTPS server that shows its certificate to everybody, or, without one, a server that does not speak TLS.
fn showing(config: Option<Arc<ServerConfig>>) -> Door {
    Door::open(move |mut client| {
        let Some(config) = &config else {
            // Whatever it is, it is no TLS.
            let _ = std::io::Write::write_all(&mut client, b"220 mail.example ESMTP\r\n");
            return;
        };
        let mut connection = ServerConnection::new(Arc::clone(config)).unwrap();
        while connection.is_handshaking() {
            if connection.complete_io(&mut client).is_err() {
                break;
            }
        }
    })
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "stand-in");
    params
}

fn of_authority(names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A server with this certificate, signed by the authority or by itself, and the authority in PEM.
fn server(leaf: CertificateParams, is_self_signed: bool) -> (Door, String) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca = of_authority(&[]);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let certificate = if is_self_signed { leaf.self_signed(&key) } else { leaf.signed_by(&key, &issuer) }.unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let pem = if is_self_signed { certificate.pem() } else { pem };
    (showing(Some(Arc::new(config))), pem)
}

#[test]
fn each_fault_of_a_certificate_is_told_in_words() {
    let here = &["127.0.0.1"][..];
    let mut expired = params(here);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = params(here);
    (early.not_before, early.not_after) = (date_time_ymd(2100, 1, 1), date_time_ymd(2101, 1, 1));
    let mut for_clients = params(here);
    for_clients.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    for (leaf, is_self_signed, is_trusted, says) in [
        (expired, false, true, "it has expired"),
        (early, false, true, "it is not valid yet"),
        (params(&["other.example"]), false, true, "it is for another name (other.example)"),
        (params(here), false, false, "issued by an authority that this machine does not trust"),
        (params(here), true, false, "issued by an authority that this machine does not trust"),
        (of_authority(here), true, true, "the certificate of an authority"),
        (for_clients, false, true, "it is not for servers"),
    ] {
        let home = Home::new();
        let (server, authority) = server(leaf, is_self_signed);
        let other = KeyPair::generate().unwrap();
        let mut of_other = of_authority(&[]);
        of_other.distinguished_name.push(DnType::CommonName, "another");
        let other = of_other.self_signed(&other).unwrap().pem();
        let file = home.write("ca.pem", if is_trusted { authority } else { other }, 0o600);
        let outcome = rotate(&home, &format!("https://127.0.0.1:{}", server.port())).env("SSL_CERT_FILE", file).run();
        outcome
            .exits(69)
            .stderr_has(&format!("the certificate of https://127.0.0.1:{} is not trusted: ", server.port()));
        outcome.stderr_has(says);
        is_plain(&outcome, says);
    }
    let (home, mail) = (Home::new(), showing(None));
    let outcome = rotate(&home, &format!("https://127.0.0.1:{}", mail.port())).run();
    outcome.exits(69).stderr_has("does not speak TLS");
    is_plain(&outcome, "no TLS");
}
