//! The combinations, and where we differ on purpose.

pub(super) const SECRET: &str = "stand-in-0123456789abcdef";

/// Variables, by the name that the table calls them by. `SECRET` is a secret.
pub(super) const ENVIRONMENTS: &[(&str, &[(&str, &str)])] = &[
    ("none", &[]),
    ("host", &[("DATABRICKS_HOST", "https://a.example")]),
    (
        "pair",
        &[
            ("DATABRICKS_HOST", "https://a.example"),
            ("DATABRICKS_CLIENT_ID", "id-e"),
            ("DATABRICKS_CLIENT_SECRET", "SECRET"),
        ],
    ),
    ("only-pair", &[("DATABRICKS_CLIENT_ID", "id-e"), ("DATABRICKS_CLIENT_SECRET", "SECRET")]),
    ("only-secret", &[("DATABRICKS_CLIENT_SECRET", "SECRET")]),
    ("id", &[("DATABRICKS_HOST", "https://a.example"), ("DATABRICKS_CLIENT_ID", "id-e")]),
    ("secret", &[("DATABRICKS_HOST", "https://a.example"), ("DATABRICKS_CLIENT_SECRET", "SECRET")]),
    ("profile", &[("DATABRICKS_CONFIG_PROFILE", "A")]),
    ("profile-b", &[("DATABRICKS_CONFIG_PROFILE", "B")]),
    ("profile-gone", &[("DATABRICKS_CONFIG_PROFILE", "GONE")]),
    ("profile-empty", &[("DATABRICKS_CONFIG_PROFILE", "")]),
    ("profile-settings", &[("DATABRICKS_CONFIG_PROFILE", "__settings__")]),
    ("profile+host", &[("DATABRICKS_CONFIG_PROFILE", "A"), ("DATABRICKS_HOST", "https://a.example")]),
    ("profile+other", &[("DATABRICKS_CONFIG_PROFILE", "A"), ("DATABRICKS_HOST", "https://b.example")]),
    (
        "profile+pair",
        &[
            ("DATABRICKS_CONFIG_PROFILE", "A"),
            ("DATABRICKS_HOST", "https://a.example"),
            ("DATABRICKS_CLIENT_ID", "id-e"),
            ("DATABRICKS_CLIENT_SECRET", "SECRET"),
        ],
    ),
    ("m2m", &[("DATABRICKS_AUTH_TYPE", "oauth-m2m")]),
    ("cli", &[("DATABRICKS_AUTH_TYPE", "databricks-cli")]),
    (
        "cli+pair",
        &[
            ("DATABRICKS_AUTH_TYPE", "databricks-cli"),
            ("DATABRICKS_HOST", "https://a.example"),
            ("DATABRICKS_CLIENT_ID", "id-e"),
            ("DATABRICKS_CLIENT_SECRET", "SECRET"),
        ],
    ),
    ("m2m+host", &[("DATABRICKS_AUTH_TYPE", "oauth-m2m"), ("DATABRICKS_HOST", "https://a.example")]),
    ("pat-type", &[("DATABRICKS_AUTH_TYPE", "pat")]),
    ("odd-type", &[("DATABRICKS_AUTH_TYPE", "nonsense"), ("DATABRICKS_HOST", "https://a.example")]),
    ("token", &[("DATABRICKS_TOKEN", "dapi-SECRET"), ("DATABRICKS_HOST", "https://a.example")]),
    (
        "token+pair",
        &[
            ("DATABRICKS_TOKEN", "dapi-SECRET"),
            ("DATABRICKS_HOST", "https://a.example"),
            ("DATABRICKS_CLIENT_ID", "id-e"),
            ("DATABRICKS_CLIENT_SECRET", "SECRET"),
        ],
    ),
    ("bare-host", &[("DATABRICKS_HOST", "a.example")]),
    ("slash-host", &[("DATABRICKS_HOST", "https://a.example/")]),
    ("path-host", &[("DATABRICKS_HOST", "https://a.example/login.html")]),
    ("o-host", &[("DATABRICKS_HOST", "https://a.example/?o=7")]),
    ("upper-host", &[("DATABRICKS_HOST", "HTTPS://A.Example")]),
    ("443-host", &[("DATABRICKS_HOST", "https://a.example:443")]),
    ("8443-host", &[("DATABRICKS_HOST", "https://a.example:8443")]),
    ("http-host", &[("DATABRICKS_HOST", "http://a.example")]),
    ("blank-host", &[("DATABRICKS_HOST", " https://a.example ")]),
    ("empty-host", &[("DATABRICKS_HOST", "")]),
    ("quoted-host", &[("DATABRICKS_HOST", "\"https://a.example\"")]),
    ("placeholder-host", &[("DATABRICKS_HOST", "https://<workspace>")]),
    ("user-host", &[("DATABRICKS_HOST", "https://ada@a.example")]),
    ("account-host", &[("DATABRICKS_HOST", "https://accounts.cloud.databricks.com")]),
    (
        "azure",
        &[
            ("DATABRICKS_HOST", "https://a.example"),
            ("ARM_CLIENT_ID", "x"),
            ("ARM_CLIENT_SECRET", "SECRET"),
            ("ARM_TENANT_ID", "z"),
        ],
    ),
    ("file-gone", &[("DATABRICKS_CONFIG_FILE", "/nowhere/cfg")]),
    (
        "blank-id",
        &[
            ("DATABRICKS_HOST", "https://a.example"),
            ("DATABRICKS_CLIENT_ID", " id-e\n"),
            ("DATABRICKS_CLIENT_SECRET", "SECRET"),
        ],
    ),
    (
        "empty-id",
        &[("DATABRICKS_HOST", "https://a.example"), ("DATABRICKS_CLIENT_ID", ""), ("DATABRICKS_CLIENT_SECRET", "")],
    ),
];

/// What `~/.databrickscfg` holds; `PAIR` is an id and a secret.
pub(super) const FILES: &[(&str, &str)] = &[
    ("none", ""),
    ("default", "[DEFAULT]\nhost = https://default.example\nPAIR-d\n"),
    ("default-host", "[DEFAULT]\nhost = https://default.example\n"),
    ("named", "[A]\nhost = https://a.example\nPAIR-a\n[B]\nhost = https://b.example\nauth_type = databricks-cli\n"),
    (
        "both",
        "[DEFAULT]\nhost = https://default.example\nPAIR-d\n[A]\nhost = https://a.example\nPAIR-a\n[B]\nhost = https://b.example\nauth_type = databricks-cli\n",
    ),
    (
        "settings",
        "[__settings__]\ndefault_profile = A\n[DEFAULT]\nhost = https://default.example\nPAIR-d\n[A]\nhost = https://a.example\nPAIR-a\n",
    ),
    ("settings-gone", "[__settings__]\ndefault_profile = GONE\n[DEFAULT]\nhost = https://default.example\nPAIR-d\n"),
    ("settings-empty", "[__settings__]\ndefault_profile =\n[DEFAULT]\nhost = https://default.example\nPAIR-d\n"),
    ("pat", "[DEFAULT]\nhost = https://default.example\ntoken = dapi-SECRET\n"),
    ("quoted", "[DEFAULT]\nhost = \"https://default.example\"\n"),
    ("comment", "[DEFAULT]\nhost = https://default.example ; prod\n"),
    ("comments", "# mine\n; too\n[DEFAULT]\n# x\nhost = https://default.example\n"),
    ("upper", "[DEFAULT]\nHOST = https://default.example\n"),
    ("colon", "[DEFAULT]\nhost: https://default.example\n"),
    ("duplicate-key", "[DEFAULT]\nhost = https://a.example\nhost = https://default.example\n"),
    ("duplicate-section", "[A]\nhost = https://a.example\n[A]\nclient_id = id-a\nclient_secret = SECRET\n"),
    ("no-section", "host = https://default.example\n"),
    ("bom", "\u{feff}[DEFAULT]\nhost = https://default.example\n"),
    ("broken", "[DEFAULT]\nhost\n"),
    ("crlf", "[DEFAULT]\r\nhost = https://default.example\r\n"),
    ("percent", "[DEFAULT]\nhost = https://default.example\nclient_id = id-%d\nclient_secret = a%(b)sSECRET\n"),
    ("wrong-type", "[DEFAULT]\nhost = https://default.example\nauth_type = azure-cli\n"),
    ("m2m-type", "[DEFAULT]\nhost = https://default.example\nPAIR-d\nauth_type = oauth-m2m\n"),
    ("cli-type", "[DEFAULT]\nhost = https://default.example\nPAIR-d\nauth_type = databricks-cli\n"),
    ("id-only", "[DEFAULT]\nhost = https://default.example\nclient_id = id-d\n"),
    ("secret-only", "[DEFAULT]\nhost = https://default.example\nclient_secret = SECRET\n"),
    ("empty-values", "[DEFAULT]\nhost = https://default.example\nclient_id =\nclient_secret =\n"),
    ("empty", ""),
];

/// An option, what the vendor's client calls the same, and the value.
type Flag = (&'static str, &'static str, &'static str);

/// Sets of options, by name.
pub(super) const FLAGS: &[(&str, &[Flag])] = &[
    ("none", &[]),
    ("--profile A", &[("--profile", "profile", "A")]),
    ("--profile B", &[("--profile", "profile", "B")]),
    ("--profile GONE", &[("--profile", "profile", "GONE")]),
    ("--workspace-url", &[("--workspace-url", "host", "https://c.example")]),
    (
        "all three",
        &[
            ("--workspace-url", "host", "https://c.example"),
            ("--client-id", "client_id", "id-f"),
            ("--client-secret", "client_secret", "SECRET"),
        ],
    ),
    ("--client-id", &[("--client-id", "client_id", "id-f")]),
    ("--client-secret", &[("--client-secret", "client_secret", "SECRET")]),
    ("both of a pair", &[("--client-id", "client_id", "id-f"), ("--client-secret", "client_secret", "SECRET")]),
    ("--profile A and its host", &[("--profile", "profile", "A"), ("--workspace-url", "host", "https://a.example")]),
];

/// Why we differ.
pub(super) const REASONS: &[(&str, &str)] = &[
    ("another client's", "the id of one source is not tried with the secret of another client"),
    ("another host's", "a secret is used for the host that its own source names, and for no other"),
    (
        "as the CLI",
        "the file is read as the vendor's CLI and its client for Go read it: keys in lower case, comments after a blank, the last of two",
    ),
    ("blanks", "blanks and line ends around an id or a secret come from editors and shells"),
    ("half a pair", "an id without a secret, or a secret without an id, is a mistake, and no wish for another method"),
    ("in the clear", "a secret does not leave this machine without TLS"),
    ("no address", "what is left of an example, or holds quotes or a user's name, is no host"),
    ("no workspace", "an account console has no databases"),
    ("origin alone", "a host is brought to scheme, name and port, as the client for Go does it"),
    ("other cloud", "what is set for Azure says nothing about a workspace elsewhere"),
    ("typed profile", "a profile that is typed for this run must be there"),
    ("unneeded profile", "a profile that nothing is needed of is not read"),
];

/// Environment, options, files (each with these), and the reason where we differ.
pub(super) const TABLE: &str = "
none             | none                     | none default both default-host named settings             |
none             | none                     | settings-gone settings-empty comments colon               |
none             | none                     | duplicate-section broken crlf percent wrong-type m2m-type |
none             | none                     | cli-type empty-values empty                               |
host             | none                     | none default both named settings settings-gone pat        |
host             | none                     | cli-type                                                  |
pair             | none                     | none default both named settings settings-gone pat        |
pair             | none                     | cli-type                                                  |
only-pair        | none                     | none default both named settings settings-gone pat        |
only-pair        | none                     | cli-type                                                  |
only-secret      | none                     | none default both                                         |
id               | none                     | none default both                                         | half a pair
secret           | none                     | none default both                                         | half a pair
profile          | none                     | none default both named settings settings-gone pat        |
profile          | none                     | cli-type                                                  |
profile-b        | none                     | none default both named settings settings-gone pat        |
profile-b        | none                     | cli-type                                                  |
profile-gone     | none                     | none default both named settings settings-gone pat        |
profile-gone     | none                     | cli-type                                                  |
profile-empty    | none                     | none default both                                         |
profile-settings | none                     | none default both                                         |
profile+host     | none                     | none both                                                 |
profile+host     | none                     | default                                                   | unneeded profile
profile+other    | none                     | none                                                      |
profile+other    | none                     | default                                                   | unneeded profile
profile+other    | none                     | both                                                      | another host's
profile+pair     | none                     | none both                                                 |
profile+pair     | none                     | default                                                   | unneeded profile
m2m              | none                     | none default both named settings settings-gone pat        |
m2m              | none                     | cli-type                                                  |
cli              | none                     | none default both named settings settings-gone pat        |
cli              | none                     | cli-type                                                  |
cli+pair         | none                     | none default both                                         |
m2m+host         | none                     | none default both                                         |
pat-type         | none                     | none default both                                         |
odd-type         | none                     | none                                                      |
token            | none                     | none                                                      |
token+pair       | none                     | none                                                      |
bare-host        | none                     | none                                                      |
slash-host       | none                     | none                                                      |
path-host        | none                     | none                                                      | origin alone
o-host           | none                     | none                                                      | origin alone
upper-host       | none                     | none                                                      | origin alone
443-host         | none                     | none                                                      |
8443-host        | none                     | none                                                      |
http-host        | none                     | none                                                      | in the clear
blank-host       | none                     | none                                                      | origin alone
empty-host       | none                     | none default both                                         |
quoted-host      | none                     | none                                                      | no address
placeholder-host | none                     | none                                                      | no address
user-host        | none                     | none                                                      | no address
account-host     | none                     | none                                                      | no workspace
azure            | none                     | none                                                      | other cloud
file-gone        | none                     | none default both                                         |
blank-id         | none                     | none                                                      | blanks
empty-id         | none                     | none default both                                         |
none             | none                     | pat                                                       |
none             | none                     | quoted comment upper duplicate-key no-section bom         | as the CLI
none             | none                     | id-only secret-only                                       | half a pair
none             | --profile A              | none both settings                                        |
host             | --profile A              | none                                                      | typed profile
host             | --profile A              | both settings                                             |
pair             | --profile A              | none both settings                                        |
profile          | --profile A              | none both settings                                        |
none             | --profile B              | none both settings                                        |
host             | --profile B              | none                                                      | typed profile
host             | --profile B              | both settings                                             |
pair             | --profile B              | none                                                      |
pair             | --profile B              | both settings                                             | unneeded profile
profile          | --profile B              | none both settings                                        |
none             | --profile GONE           | none both settings                                        |
host             | --profile GONE           | none                                                      | typed profile
host             | --profile GONE           | both settings                                             |
pair             | --profile GONE           | none                                                      |
pair             | --profile GONE           | both settings                                             | unneeded profile
profile          | --profile GONE           | none both settings                                        |
none             | --workspace-url          | none both settings                                        |
host             | --workspace-url          | none both settings                                        |
pair             | --workspace-url          | none both settings                                        | another host's
profile          | --workspace-url          | none                                                      |
profile          | --workspace-url          | both settings                                             | another host's
none             | all three                | none both settings                                        |
host             | all three                | none both settings                                        |
pair             | all three                | none both settings                                        |
profile          | all three                | none both settings                                        |
none             | --client-id              | none both settings                                        |
host             | --client-id              | none both settings                                        | half a pair
pair             | --client-id              | none both settings                                        | another client's
profile          | --client-id              | none                                                      |
profile          | --client-id              | both settings                                             | another client's
none             | --client-secret          | none both settings                                        |
host             | --client-secret          | none both settings                                        | half a pair
pair             | --client-secret          | none both settings                                        |
profile          | --client-secret          | none both settings                                        |
none             | both of a pair           | none both settings                                        |
host             | both of a pair           | none both settings                                        |
pair             | both of a pair           | none both settings                                        |
profile          | both of a pair           | none both settings                                        |
none             | --profile A and its host | none                                                      | typed profile
none             | --profile A and its host | both settings                                             |
host             | --profile A and its host | none                                                      | typed profile
host             | --profile A and its host | both settings                                             |
pair             | --profile A and its host | none both settings                                        |
profile          | --profile A and its host | none                                                      | typed profile
profile          | --profile A and its host | both settings                                             |
";
