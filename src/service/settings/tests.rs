use secrecy::ExposeSecret;

use super::table::table_of;
use super::*;
use crate::model::SecretSource;

const PRINCIPAL: &str = "0b1c2d3e-0000-4000-8000-000000000000";

fn inputs(directory: &Path) -> ServiceInputs {
    let environment = [("HOME", directory)].into_iter().collect();
    ServiceInputs { config: directory.join("config.toml"), credential: None, environment, keychain: false }
}

/// What a person might give by flags: all that a service principal needs.
fn flags(directory: &Path) -> Overrides {
    let text = |text: &str| Some(text.to_owned());
    Overrides {
        workspace_url: text("https://dbc-1.cloud.databricks.com/?o=42"),
        client_id: text(PRINCIPAL),
        client_secret: Some("s3cret-of-the-principal".into()),
        pg_host: text("db.example"),
        pg_port: Some(6432),
        interval: Some(std::time::Duration::from_secs(45 * 60)),
        any_identity: true,
        config: Some(directory.join("config.toml")).filter(|file| file.exists()),
        ..Overrides::default()
    }
}

fn wanted(overrides: &Overrides, inputs: &ServiceInputs) -> Config {
    Config::load_in(inputs.environment.clone(), overrides).unwrap()
}

fn plan(overrides: &Overrides, inputs: &ServiceInputs) -> Plan {
    Plan::new(&wanted(overrides, inputs), inputs.clone()).unwrap()
}

/// Installs with these flags; returns the written files.
fn install(overrides: &Overrides, inputs: &ServiceInputs) -> Vec<PathBuf> {
    let config = wanted(overrides, inputs);
    match Plan::new(&config, inputs.clone()).unwrap().carry_out(&config) {
        Ok(written) => written,
        Err(WriteError::Config(error)) => panic!("{error}"),
        Err(WriteError::Failure(failure)) => panic!("{failure}"),
    }
}

#[test]
fn what_was_given_by_flags_stands_in_a_file_that_a_service_reads_and_the_secret_beside_it() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("dbx-rotator");
    let inputs = inputs(&directory);
    assert!(plan(&flags(&directory), &inputs).changes().is_empty(), "nothing is there to be changed");
    let written = install(&flags(&directory), &inputs);
    assert_eq!(written, [directory.join("client-secret"), inputs.config.clone()]);
    let text = fs::read_to_string(&inputs.config).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("client-secret"), mode("config.toml"), mode("")), (0o600, 0o600, 0o700));
    let config = as_service(&inputs).unwrap();
    assert_eq!(config.interval, Some(std::time::Duration::from_secs(45 * 60)));
    assert_eq!(config.workspaces()[0].workspace_id.as_deref(), Some("42"));
    let key = config.connections()[0].key().unwrap();
    assert_eq!((key.host(), key.port(), key.user()), ("db.example", 6432, PRINCIPAL));
    assert!(config.connections()[0].any_identity);
}

#[test]
fn a_second_time_there_is_nothing_to_write() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    install(&flags(scratch.path()), &inputs);
    let again = plan(&flags(scratch.path()), &inputs);
    assert!(again.changes().is_empty(), "{:?}", again.changes());
    assert!(install(&flags(scratch.path()), &inputs).is_empty());
}

#[test]
fn a_file_that_exists_is_changed_where_it_must_be_and_nowhere_else() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    let old = "# mine\ninterval = \"50m\" # why\n\n[[workspace]] # the only one\nname = \"prod\"\n\
               host = \"https://old.cloud.databricks.com\"\n\n[[connection]]\nhost = \"old.example\" # old\nlast_copy = true\n";
    fs::write(&inputs.config, old).unwrap();
    let given =
        Overrides { client_id: None, client_secret: None, pg_port: None, any_identity: false, ..flags(scratch.path()) };
    let given = Overrides { pg_username: Some("ada@example.com".to_owned()), ..given };
    let plan = plan(&given, &inputs);
    assert_eq!(
        plan.changes(),
        [
            "interval = \"45m\" (was \"50m\")",
            "workspace: host = \"https://dbc-1.cloud.databricks.com/?o=42\" (was \"https://old.cloud.databricks.com\")",
            "connection: host = \"db.example\" (was \"old.example\")",
            "connection: user = \"ada@example.com\"",
        ]
    );
    install(&given, &inputs);
    let new = fs::read_to_string(&inputs.config).unwrap();
    let expected = old
        .replace("50m", "45m")
        .replace("https://old.cloud.databricks.com", "https://dbc-1.cloud.databricks.com/?o=42")
        .replace("old.example", "db.example")
        + "user = \"ada@example.com\"\n";
    assert_eq!(new, expected);
}

/// The file that becomes of this text with these settings.
fn new_text(old: &str, proxy: bool, given: &Overrides) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    fs::write(&inputs.config, old).unwrap();
    let shell = if proxy {
        inputs.environment.clone().with("https_proxy", "proxy.example:3128")
    } else {
        inputs.environment.clone()
    };
    let given = Overrides { config: Some(inputs.config.clone()), ..given.clone() };
    let config = Config::load_in(shell, &given).unwrap();
    let plan = Plan::of_text(old, &config, inputs.clone()).unwrap();
    plan.config.unwrap_or_default()
}

#[test]
fn what_is_added_leaves_each_comment_where_it_belongs() {
    let text = |text: &str| Some(text.to_owned());
    let given = Overrides { workspace_url: text("https://dbc-1.cloud.databricks.com"), ..Overrides::default() };
    let of_host = Overrides { pg_host: text("db.example"), pg_username: text("ada"), ..given.clone() };
    let workspace = "[[workspace]]\nhost = \"https://dbc-1.cloud.databricks.com\"\n";
    let proxy = "proxy = \"http://proxy.example:3128\"\n";
    let table = "[[connection]]\nhost = \"db.example\"\nuser = \"ada\"\n";
    // With a blank line below a comment it is the file's, without one the table's.
    assert_eq!(
        new_text(&format!("# head\n\n{table}# of it\n\n"), false, &given),
        format!("# head\n\n{table}# of it\n\n{workspace}")
    );
    assert_eq!(
        new_text(&format!("# head\n{table}# of it"), false, &given),
        format!("# head\n{table}# of it\n\n{workspace}")
    );
    assert_eq!(
        new_text(&format!("# head\n\n# mine\n{table}# of it\n\n"), true, &given),
        format!("# head\n\n{proxy}\n# mine\n{table}# of it\n\n{workspace}")
    );
    assert_eq!(new_text(&format!("# mine\n{table}"), true, &given), format!("{proxy}\n# mine\n{table}\n{workspace}"));
    assert_eq!(new_text("# head\n# more\n\n", false, &of_host), format!("# head\n# more\n\n{workspace}\n{table}"));
    assert_eq!(new_text("# head\n\n", true, &of_host), format!("# head\n\n{proxy}\n{workspace}\n{table}"));
    assert_eq!(new_text("", true, &of_host), format!("{proxy}\n{workspace}\n{table}"));
    let old = format!("interval = \"50m\" # why\n# of it\n\n{table}");
    assert_eq!(
        new_text(&old, true, &given),
        format!("interval = \"50m\" # why\n{proxy}# of it\n\n{table}\n{workspace}")
    );
}

#[test]
fn what_was_edited_while_a_person_was_asked_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    let given = flags(scratch.path());
    let is_refused = |plan: &Plan| {
        let Err(WriteError::Failure(failure)) = plan.carry_out(&wanted(&given, &inputs)) else { panic!("it wrote") };
        assert!(failure.is_transient() && failure.message.contains("changed meanwhile"), "{failure}");
        assert!(!scratch.path().join("client-secret").exists(), "nothing is half done");
    };
    let new = plan(&given, &inputs);
    let edited = "[[connection]]\nhost = \"of-somebody-else.example\"\n";
    fs::write(&inputs.config, edited).unwrap();
    is_refused(&new);
    let changed = plan(&given, &inputs);
    fs::write(&inputs.config, format!("# mine\n{edited}")).unwrap();
    is_refused(&changed);
    assert_eq!(fs::read_to_string(&inputs.config).unwrap(), format!("# mine\n{edited}"));
    install(&given, &inputs);
}

#[test]
fn the_secret_of_another_client_stays_where_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    let usual = scratch.path().join("client-secret");
    fs::write(&usual, "of-an0ther-client\n").unwrap();
    let written = install(&flags(scratch.path()), &inputs);
    let own = scratch.path().join(format!("client-secret-{PRINCIPAL}"));
    assert_eq!(written, [own.clone(), inputs.config.clone()]);
    assert_eq!(fs::read_to_string(&usual).unwrap(), "of-an0ther-client\n");
    assert_eq!(fs::read_to_string(&own).unwrap(), "s3cret-of-the-principal\n");
    assert!(fs::read_to_string(&inputs.config).unwrap().contains(&format!("\"client-secret-{PRINCIPAL}\"")));
    assert!(install(&flags(scratch.path()), &inputs).is_empty(), "a second time there is nothing to write");
    // So does what is called as ours would be; and ours is replaced by a newer one of the same client.
    fs::remove_file(&inputs.config).unwrap();
    fs::write(&own, "of-an0ther-client-too\n").unwrap();
    let second = scratch.path().join(format!("client-secret-{PRINCIPAL}-2"));
    assert_eq!(install(&flags(scratch.path()), &inputs), [second.clone(), inputs.config.clone()]);
    assert_eq!(fs::read_to_string(&own).unwrap(), "of-an0ther-client-too\n");
    let newer = Overrides { client_secret: Some("a-newer-s3cret".into()), ..flags(scratch.path()) };
    assert_eq!(install(&newer, &inputs), std::slice::from_ref(&second));
    assert_eq!(fs::read_to_string(&second).unwrap(), "a-newer-s3cret\n");
}

#[test]
fn a_link_that_leads_nowhere_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    std::os::unix::fs::symlink("nowhere", &inputs.config).unwrap();
    install(&flags(scratch.path()), &inputs);
    assert!(inputs.config.is_file() && !inputs.config.is_symlink());
}

#[test]
fn another_secret_is_a_change_and_what_would_not_do_is_not_written() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    install(&flags(scratch.path()), &inputs);
    let other = Overrides { client_secret: Some("an0ther-secret".into()), ..flags(scratch.path()) };
    assert_eq!(plan(&other, &inputs).changes().len(), 1);
    let before = fs::read_to_string(&inputs.config).unwrap();
    let mut plan = plan(&other, &inputs);
    plan.config = Some(before.replace("host =", "hots ="));
    let Err(WriteError::Config(error)) = plan.carry_out(&wanted(&other, &inputs)) else { panic!("it would not do") };
    assert!(error.to_string().contains("config.toml:"), "{error}");
    // A setting that was given by a flag but is not in the file.
    plan.config = Some(before.replace("db.example", "other.example"));
    let Err(WriteError::Failure(failure)) = plan.carry_out(&wanted(&other, &inputs)) else { panic!("it would not do") };
    assert!(failure.message.contains("would not see host = db.example"), "{failure}");
    assert_eq!(fs::read_to_string(&inputs.config).unwrap(), before);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "nothing half-written stays");
}

#[test]
fn the_machines_manager_gets_the_secret_as_a_credential_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let credential = scratch.path().join("ada.client-secret");
    let inputs = ServiceInputs { credential: Some(credential.clone()), ..inputs(scratch.path()) };
    fs::write(&inputs.config, "[[workspace]]\nclient_secret_file = \"/old\"\n").unwrap();
    install(&flags(scratch.path()), &inputs);
    let text = fs::read_to_string(&inputs.config).unwrap();
    assert!(!text.contains("client_secret"), "{text}");
    assert_eq!(fs::read_to_string(credential).unwrap(), "s3cret-of-the-principal\n");
    assert!(as_service(&inputs).is_ok());
}

/// What was put into the stand-in keychain.
static STORED: std::sync::Mutex<Vec<(Password, String)>> = std::sync::Mutex::new(Vec::new());

fn store(item: &Password, secret: &SecretString) -> Result<(), Failure> {
    STORED.lock().unwrap().push((item.clone(), secret.expose_secret().to_owned()));
    Ok(())
}

#[test]
fn a_secret_goes_into_the_keychain_where_a_person_wants_that_and_back_into_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let in_files = inputs(scratch.path());
    install(&flags(scratch.path()), &in_files);
    let in_keychain = ServiceInputs { keychain: true, ..in_files.clone() };
    // The secret is not given again: it moves from its present place.
    let given = Overrides { config: Some(in_files.config.clone()), ..Overrides::default() };
    let mut plan = plan(&given, &in_keychain);
    assert_eq!(
        plan.changes(),
        ["workspace: no client_secret_file", "workspace: client_secret_keychain = \"app.dbx-rotator\""]
    );
    plan.store = store;
    assert!(plan.carry_out(&wanted(&given, &in_keychain)).is_ok());
    let item = Password { service: keychain::SERVICE.to_owned(), account: PRINCIPAL.to_owned() };
    assert_eq!(*STORED.lock().unwrap(), [(item, "s3cret-of-the-principal".to_owned())]);
    let config = as_service(&in_files).unwrap();
    let client = config.workspaces()[0].client.as_ref().unwrap();
    assert!(matches!(&client.secret, SecretSource::Keychain(service) if service == keychain::SERVICE));
    // Again there is nothing to do, and another install loses nothing.
    assert!(self::plan(&given, &in_keychain).changes().is_empty());
    assert!(self::plan(&given, &in_files).changes().is_empty());
    let anew = Overrides { client_secret: Some("an0ther-secret".into()), ..flags(scratch.path()) };
    install(&anew, &in_files);
    let text = fs::read_to_string(&in_files.config).unwrap();
    assert!(text.contains("client_secret_file") && !text.contains("keychain"), "{text}");
}

#[test]
fn a_proxy_goes_into_the_file_and_its_password_only_where_nobody_else_reads_it() {
    let scratch = tempfile::tempdir().unwrap();
    let in_shell = |inputs: &ServiceInputs, proxy: &str| ServiceInputs {
        environment: inputs.environment.clone().with("https_proxy", proxy).with("NO_PROXY", ".example"),
        ..inputs.clone()
    };
    let set_up = |inputs: &ServiceInputs, proxy: &str| {
        let config = wanted(&flags(scratch.path()), &in_shell(inputs, proxy));
        let plan = Plan::new(&config, inputs.clone())?;
        let changes = plan.changes().join("; ");
        assert!(plan.carry_out(&config).is_ok());
        Ok::<_, Failure>((changes, fs::read_to_string(&inputs.config).unwrap()))
    };
    let own = inputs(scratch.path());
    let (_, text) = set_up(&own, "proxy.example:3128 ").unwrap();
    assert!(text.contains("proxy = \"http://proxy.example:3128\"\nno_proxy = \".example\"\n"), "{text}");
    let (changes, text) = set_up(&own, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap();
    assert!(text.contains("proxy = \"http://ada:s3cret-of-proxy@proxy.example:3128\"\n"), "{text}");
    let shown = "proxy = \"http://ada:********@proxy.example:3128\" (was \"http://proxy.example:3128\")";
    assert_eq!(changes, shown);
    let (changes, _) = set_up(&own, "http://ada:an0ther-secret@proxy.example:3128").unwrap();
    assert!(changes.contains("********") && !changes.contains("s3cret") && !changes.contains("an0ther"), "{changes}");
    let service = as_service(&own).unwrap();
    assert_eq!(service.workspaces()[0].route().proxy().unwrap().name(), "proxy.example:3128");
    // Others can read it.
    fs::set_permissions(&own.config, fs::Permissions::from_mode(0o644)).unwrap();
    let failure = set_up(&own, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap_err();
    assert!(failure.code == Code::Configuration && failure.hint.unwrap().starts_with("chmod 600 "));
    fs::remove_file(&own.config).unwrap();
    let machine = ServiceInputs { credential: Some(scratch.path().join("ada.client-secret")), ..own };
    let failure = set_up(&machine, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap_err();
    assert!(failure.hint.unwrap().contains("EnvironmentFile=") && !machine.config.exists());
    assert!(set_up(&machine, "http://ada@proxy.example:3128").is_ok());
}

#[test]
fn of_several_tables_each_gets_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    let two = "[[workspace]]\nname = \"a\"\nhost = \"https://a.example\"\n[[workspace]]\nname = \"b\"\nhost = \"https://b.example\"\n\
               [[connection]]\nname = \"x\"\nworkspace = \"a\"\nhost = \"x.example\"\nuser = \"ada@example.com\"\n\
               [[connection]]\nname = \"y\"\nworkspace = \"b\"\nhost = \"y.example\"\nuser = \"ada@example.com\"\n";
    fs::write(&inputs.config, two).unwrap();
    let given = Overrides {
        config: Some(inputs.config.clone()),
        pgpass_file: vec![scratch.path().join("pgpass"), scratch.path().join("snap/pgpass")],
        log_file: Some(scratch.path().join("log")),
        ..Overrides::default()
    };
    install(&given, &inputs);
    let config = as_service(&inputs).unwrap();
    assert_eq!(config.password_files(), [scratch.path().join("pgpass"), scratch.path().join("snap/pgpass")]);
    assert_eq!(config.connections().len(), 2);
    let mut document: DocumentMut = two.parse().unwrap();
    let (table, _) = table_of(&mut document, "workspace \"b\"").unwrap();
    assert_eq!(table["host"].as_str(), Some("https://b.example"));
}

#[test]
fn a_linked_file_stays_a_link_and_a_profile_stays_where_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = inputs(scratch.path());
    let dotfile = scratch.path().join("dotfile.toml");
    fs::write(&dotfile, "").unwrap();
    std::os::unix::fs::symlink(&dotfile, &inputs.config).unwrap();
    let profiles =
        format!("[PROD]\nhost = https://p.example\nclient_id = {PRINCIPAL}\nclient_secret = s3cret-of-the-profile\n");
    let file = scratch.path().join(".databrickscfg");
    fs::write(&file, profiles).unwrap();
    let environment: Environment =
        [("HOME", scratch.path().as_os_str()), ("DATABRICKS_CONFIG_PROFILE", "PROD".as_ref())].into_iter().collect();
    let given = Overrides { pg_host: Some("db.example".to_owned()), ..Overrides::default() };
    let config = Config::load_in(environment, &given).unwrap();
    let plan = Plan::new(&config, inputs.clone()).unwrap();
    assert!(plan.carry_out(&config).is_ok());
    assert!(inputs.config.is_symlink());
    let text = fs::read_to_string(dotfile).unwrap();
    assert!(text.contains("profile = \"PROD\"") && !text.contains("s3cret"), "{text}");
}

/// A directory with a fragment that has all of a service principal, and what a person gives beside it.
fn with_fragment(scratch: &tempfile::TempDir) -> (ServiceInputs, String) {
    let inputs = inputs(scratch.path());
    fs::create_dir(scratch.path().join("conf.d")).unwrap();
    let text = format!(
        "interval = '45m'\n[[workspace]]\nname = 'prod'\nhost = 'https://dbc-1.cloud.databricks.com'\nclient_id = '{PRINCIPAL}'\n\
         client_secret_file = 'client-secret'\n[[connection]]\nname = 'orders'\nhost = 'db.example'\n"
    );
    fs::write(scratch.path().join("conf.d/team.toml"), &text).unwrap();
    fs::write(scratch.path().join("client-secret"), "s3cret-of-the-principal").unwrap();
    (inputs, text)
}

fn given_beside(inputs: &ServiceInputs, overrides: &Overrides) -> Config {
    Config::load_at(Place::of_service(&inputs.config, None), inputs.environment.clone(), overrides).unwrap()
}

#[test]
fn what_a_fragment_has_is_not_written_again_and_what_it_would_need_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let (inputs, text) = with_fragment(&scratch);
    let file = |name: &str| fs::read_to_string(scratch.path().join(name));
    // The same as there: nothing is to be written but an empty main file, for which the units look.
    let same = Overrides { interval: Some(std::time::Duration::from_secs(45 * 60)), ..Overrides::default() };
    let config = given_beside(&inputs, &same);
    assert!(Plan::new(&config, inputs.clone()).unwrap().carry_out(&config).is_ok());
    let written = file("config.toml").unwrap();
    assert!(!written.contains("interval") && !written.contains("workspace"), "{written}");
    let text_of = |text: &str| Some(text.to_owned());
    let others = [
        Overrides { interval: Some(std::time::Duration::from_secs(30 * 60)), ..Overrides::default() },
        Overrides { pg_host: text_of("other.example"), ..Overrides::default() },
        Overrides {
            client_id: text_of("another"),
            workspace_url: text_of("dbc-2.example"),
            client_secret_file: Some("/x".into()),
            ..Overrides::default()
        },
        Overrides { pgpass_file: vec!["/run/pgpass".into()], pg_port: Some(6432), ..Overrides::default() },
    ];
    for other in others {
        let config = given_beside(&inputs, &other);
        let said =
            match Plan::new(&config, inputs.clone()).map_err(WriteError::from).and_then(|plan| plan.carry_out(&config))
            {
                Ok(_) => panic!("{other:?}"),
                Err(WriteError::Config(error)) => error.to_string(),
                Err(WriteError::Failure(failure)) => failure.to_string() + failure.hint.as_deref().unwrap_or_default(),
            };
        assert!(said.contains("conf.d/team.toml:"), "{other:?}: {said}");
        assert_eq!((file("conf.d/team.toml").unwrap(), file("config.toml").unwrap()), (text.clone(), written.clone()));
    }
}

#[test]
fn the_machines_manager_gets_a_secret_for_a_workspace_of_a_fragment() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut inputs, text) = with_fragment(&scratch);
    inputs.credential = Some(scratch.path().join("ada.client-secret"));
    let fragment = scratch.path().join("conf.d/team.toml");
    fs::write(&fragment, text.replace("client_secret_file = 'client-secret'\n", "")).unwrap();
    let given = Overrides { client_secret_file: Some(scratch.path().join("client-secret")), ..Overrides::default() };
    let config = given_beside(&inputs, &given);
    assert!(Plan::new(&config, inputs.clone()).unwrap().carry_out(&config).is_ok());
    assert_eq!(fs::read_to_string(scratch.path().join("ada.client-secret")).unwrap(), "s3cret-of-the-principal\n");
    let main = fs::read_to_string(&inputs.config).unwrap();
    assert!(!main.contains("[[workspace]]"), "{main}");
    assert_eq!(as_service(&inputs).unwrap().connections().len(), 1);
}
