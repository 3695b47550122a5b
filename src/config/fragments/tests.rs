//! What config.toml and its fragments come to together.

use std::os::unix::fs::symlink;

use super::*;
use crate::config::{Config, Overrides};

const WORKSPACE: &str = "[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n";

/// A home with these files below its `.config/dbx-rotator`.
struct Home(tempfile::TempDir);

impl Home {
    fn with(files: &[(&str, &str)]) -> Self {
        let home = Home(tempfile::tempdir().unwrap());
        fs::create_dir_all(home.at("conf.d")).unwrap();
        for (name, text) in files {
            fs::write(home.at(name), text).unwrap();
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(".config/dbx-rotator").join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load_with(&self, overrides: &Overrides) -> Result<Config, ConfigError> {
        let environment = [("HOME", self.0.path().as_os_str().to_owned())].into_iter().collect();
        Config::load_in(environment, overrides)
    }

    fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(&Overrides::default())
    }

    fn fault(&self) -> String {
        let fault = self.load().err().map(|error| error.sentence()).unwrap_or_default();
        fault.replace(self.0.path().to_str().unwrap(), "~")
    }
}

/// The connections with their workspaces.
fn connections(config: &Config) -> Vec<(&str, &str)> {
    let one = |connection| (config.workspace_of(connection).name(), connection);
    config.connections().iter().map(one).map(|(workspace, connection)| (connection.name(), workspace)).collect()
}

fn connection(name: &str) -> String {
    format!("[[connection]]\nname = '{name}'\nhost = '{name}.example'\nuser = 'ada'\n")
}

#[test]
fn fragments_come_after_the_file_in_the_order_of_the_bytes_of_their_names() {
    let home = Home::with(&[
        ("config.toml", &format!("{WORKSPACE}{}", connection("first"))),
        ("conf.d/é.toml", &connection("last")),
        ("conf.d/10-b.toml", &connection("b")),
        ("conf.d/9-c.toml", &connection("c")),
        ("conf.d/B.toml", &connection("capital")),
        ("conf.d/a.toml", &format!("{}{}", connection("a1"), connection("a2"))),
    ]);
    let config = home.load().unwrap();
    let names: Vec<&str> = config.connections().iter().map(|connection| connection.name()).collect();
    assert_eq!(names, ["first", "b", "c", "capital", "a1", "a2", "last"]);
    assert_eq!(config.fragments().len(), 5);
    let origin = |section: &str| {
        let found = config.settings().iter().find(|one| one.section == section && one.key == "host").unwrap();
        found.origin.to_string()
    };
    assert!(origin("connection \"a2\"").ends_with("conf.d/a.toml:7"), "{}", origin("connection \"a2\""));
    assert!(origin("connection \"first\"").ends_with("config.toml:6"));
}

#[test]
fn what_is_no_fragment_by_its_name_is_left_alone() {
    let home = Home::with(&[("config.toml", &format!("{WORKSPACE}{}", connection("first")))]);
    for name in
        [".hidden.toml", "x.toml~", "x.toml.dpkg-dist", "x.toml.rpmnew", "x.toml.bak", "#x.toml#", "README", "toml"]
    {
        fs::write(home.at("conf.d").join(name), "not = toml = at all").unwrap();
    }
    fs::create_dir(home.at("conf.d/sub")).unwrap();
    fs::write(home.at("conf.d/sub/x.toml"), "nor = this").unwrap();
    // Nobody writes settings where there are none.
    home.mode("conf.d", 0o777);
    assert_eq!(connections(&home.load().unwrap()), [("first", "default")]);
}

#[test]
fn a_fragment_brings_its_own_workspace_and_changes_nothing_for_the_others() {
    let other = format!("{}{}", WORKSPACE.replace("w.example", "x.example"), connection("orders"));
    let named = other.replace("[[workspace]]", "[[workspace]]\nname = 'eu'").replace("orders", "billing");
    let home = Home::with(&[
        ("config.toml", &format!("{WORKSPACE}{}", connection("first"))),
        ("conf.d/team.toml", &other),
        ("conf.d/team2.toml", &named),
        ("conf.d/without.toml", "[[connection]]\nworkspace = 'eu'\ninstance = 'stock'\n"),
    ]);
    let expected = [("first", "default"), ("orders", "team"), ("billing", "eu"), ("stock", "eu")];
    assert_eq!(connections(&home.load().unwrap()), expected);
    fs::write(home.at("conf.d/without.toml"), "[[connection]]\nname = 'stock'\ninstance = 'stock'\n").unwrap();
    let fault = home.fault();
    assert!(fault.contains("must say which of the workspaces") && fault.contains("without.toml:2"), "{fault}");
    assert!(fault.contains("default, team, eu"), "{fault}");
}

#[test]
fn files_may_say_the_same_and_nothing_else_of_the_same() {
    let first = format!("interval = '45m'\npassword_file = '~/x'\n{WORKSPACE}name = 'prod'\n{}", connection("orders"));
    let same = first.replace("'45m'", "\"45 min\"");
    let home = Home::with(&[("config.toml", &first), ("conf.d/a.toml", &same), ("conf.d/b.toml", &same)]);
    let config = home.load().unwrap();
    assert_eq!(connections(&config), [("orders", "prod")]);
    assert_eq!(config.interval, Some(std::time::Duration::from_secs(45 * 60)));
    for (change, to, words, line) in [
        (
            "interval = '45m'",
            "interval = '46m'",
            "interval has another value in ~/.config/dbx-rotator/config.toml:1",
            1,
        ),
        ("'~/x'", "['~/x', '~/y']", "password_file has another value in ~/.config/dbx-rotator/config.toml:2", 2),
        (
            "w.example",
            "x.example",
            "two workspaces named `prod`, and they differ: the other is in ~/.config/dbx-rotator/config.toml:3",
            6,
        ),
        (
            "'ada'",
            "'bob'",
            "two connections named `orders`, and they differ: the other is in ~/.config/dbx-rotator/config.toml:7",
            8,
        ),
    ] {
        fs::write(home.at("conf.d/b.toml"), first.replace(change, to)).unwrap();
        let fault = home.fault();
        assert!(fault.contains(words) && fault.contains(&format!("conf.d/b.toml:{line}:")), "{fault}");
    }
    fs::write(home.at("conf.d/b.toml"), first.replace("name = 'orders'", "name = 'again'")).unwrap();
    let fault = home.fault();
    assert!(fault.contains("the same host, port, database and user") && fault.contains("config.toml:7"), "{fault}");
}

#[test]
fn the_same_words_about_different_workspaces_are_not_the_same() {
    let text =
        |host: &str| format!("{}name = '{host}'\n{}", WORKSPACE.replace("w.example", host), connection("orders"));
    let home = Home::with(&[("config.toml", &text("a.example")), ("conf.d/b.toml", &text("b.example"))]);
    assert!(home.fault().contains("two connections named `orders`"), "{}", home.fault());
}

#[test]
fn a_read_only_name_and_a_port_of_the_proxy_belong_to_one_connection_of_all_files() {
    let first = format!(
        "{WORKSPACE}[[connection]]\nname = 'orders'\ninstance = 'orders'\nread_only = true\nproxy_port = 6432\n"
    );
    let home = Home::with(&[("config.toml", &first), ("conf.d/b.toml", &connection("orders-ro"))]);
    assert!(home.fault().contains("would be called `orders-ro`"), "{}", home.fault());
    fs::write(home.at("conf.d/b.toml"), format!("{}proxy_port = 6432\n", connection("stock"))).unwrap();
    let fault = home.fault();
    assert!(fault.contains("orders has this proxy_port already") && fault.contains("b.toml:5"), "{fault}");
}

#[test]
fn a_path_means_in_a_fragment_what_it_means_in_the_file() {
    let text = "[[connection]]\nname = 'orders'\nhost = 'o.example'\nuser = 'ada'\ntoken_file = 'orders.token'\nenv_file = '~/orders.env'\n";
    let home = Home::with(&[("config.toml", WORKSPACE), ("conf.d/orders.toml", text)]);
    let config = home.load().unwrap();
    let outputs = &config.connections()[0].outputs;
    assert_eq!(outputs.token_file.as_deref(), Some(&*home.at("orders.token")));
    assert_eq!(outputs.env_file.as_deref(), Some(&*home.0.path().join("orders.env")));
    fs::write(home.at("conf.d/stock.toml"), text.replace("'orders'", "'stock'").replace("o.example", "s.example"))
        .unwrap();
    let fault = home.fault();
    assert!(fault.contains("are the same file"), "{fault}");
    assert!(fault.contains("conf.d/orders.toml:5") && fault.contains("conf.d/stock.toml:5"), "{fault}");
    // Nor does anything write into a file of the configuration.
    fs::write(home.at("conf.d/stock.toml"), "log_file = 'conf.d/orders.toml'\n").unwrap();
    assert!(home.fault().contains("a fragment of the configuration"), "{}", home.fault());
}

#[test]
fn fragments_are_enough_and_without_them_nothing_changes() {
    let alone = format!("{WORKSPACE}{}", connection("orders"));
    let home = Home::with(&[("conf.d/team.toml", &alone)]);
    let config = home.load().unwrap();
    assert_eq!((connections(&config), config.file()), (vec![("orders", "team")], None));
    assert_eq!(
        config.place_in_fragment("connection \"orders\"", "host").map(|place| place.ends_with("team.toml:4")),
        Some(true)
    );
    fs::remove_file(home.at("conf.d/team.toml")).unwrap();
    let fault = home.fault();
    assert!(fault.contains("`host` in [[workspace]] of ~/.config/dbx-rotator/config.toml"), "{fault}");
    fs::write(home.at("conf.d/team.toml"), "[[workspace]]\nauth = 'databricks-cli'\n").unwrap();
    let fault = home.fault();
    assert!(fault.contains("`host` in [[workspace]] of ~/.config/dbx-rotator/conf.d/team.toml"), "{fault}");
}

#[test]
fn a_file_that_somebody_names_elsewhere_is_read_alone() {
    let home = Home::with(&[("conf.d/broken.toml", "x")]);
    let elsewhere = home.0.path().join("my.toml");
    fs::create_dir(home.0.path().join("conf.d")).unwrap();
    fs::write(home.0.path().join("conf.d/broken.toml"), "x").unwrap();
    fs::write(&elsewhere, format!("{WORKSPACE}{}", connection("mine"))).unwrap();
    let named = |file: &Path| Overrides { config: Some(file.to_owned()), ..Overrides::default() };
    assert_eq!(connections(&home.load_with(&named(&elsewhere)).unwrap()), [("mine", "default")]);
    // The usual one has its fragments, by whatever way it is named.
    fs::write(home.at("config.toml"), WORKSPACE).unwrap();
    let fault = home.load_with(&named(&home.at("config.toml"))).err().unwrap().sentence();
    assert!(fault.contains("conf.d/broken.toml:1"), "{fault}");
}

#[test]
fn a_fragment_that_cannot_be_used_is_named() {
    let home = Home::with(&[("config.toml", &format!("{WORKSPACE}{}", connection("first")))]);
    let at = |name: &str| home.at("conf.d").join(name);
    let make: [(&str, &dyn Fn(), &str); 7] = [
        ("a directory", &|| fs::create_dir(at("x.toml")).unwrap(), "x.toml: it is not a regular file"),
        ("a pipe", &|| pipe(&at("x.toml")), "x.toml: it is not a regular file"),
        ("a device", &|| symlink("/dev/zero", at("x.toml")).unwrap(), "x.toml: it is not a regular file"),
        ("a link to nowhere", &|| symlink("nowhere", at("x.toml")).unwrap(), "the link leads nowhere"),
        ("Latin-1", &|| fs::write(at("x.toml"), b"# \xe9").unwrap(), "x.toml: it is not UTF-8 text"),
        ("a fault", &|| fs::write(at("x.toml"), "\n[[connection]]\nhots = 1").unwrap(), "conf.d/x.toml:3:1"),
        ("large", &|| fs::write(at("x.toml"), "# ".repeat(1 << 19)).unwrap(), "are larger than 1024 KiB together"),
    ];
    for (what, make, words) in make {
        make();
        let fault = home.fault();
        assert!(fault.contains(words) && fault.contains("x.toml"), "{what}: {fault}");
        fs::remove_file(at("x.toml")).or_else(|_| fs::remove_dir(at("x.toml"))).unwrap();
    }
    assert!(home.load().is_ok());
    fs::rename(at(""), home.at("elsewhere")).unwrap();
    symlink("nowhere", home.at("conf.d")).unwrap();
    assert!(home.fault().contains("a link that leads nowhere"), "{}", home.fault());
    fs::remove_file(home.at("conf.d")).unwrap();
    fs::rename(home.at("elsewhere"), at("")).unwrap();
    // A link is followed, as one in the place of config.toml is.
    fs::write(home.0.path().join("dotfile"), connection("linked")).unwrap();
    symlink(home.0.path().join("dotfile"), at("x.toml")).unwrap();
    assert_eq!(home.load().unwrap().connections().len(), 2);
}

fn pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn there_may_be_so_many_fragments_and_no_more() {
    let home = Home::with(&[("config.toml", &format!("{WORKSPACE}{}", connection("first")))]);
    for number in 0..MOST_FRAGMENTS {
        fs::write(home.at("conf.d").join(format!("{number}.toml")), "").unwrap();
    }
    assert!(home.load().is_ok());
    fs::write(home.at("conf.d/one-more.toml"), "").unwrap();
    assert!(home.fault().contains("at most 256 may be"), "{}", home.fault());
    fs::remove_dir_all(home.at("conf.d")).unwrap();
    fs::write(home.at("conf.d"), "").unwrap();
    assert!(home.fault().contains("cannot read the directory"), "{}", home.fault());
}

#[test]
fn where_everybody_may_write_settings_none_are_read() {
    let home = Home::with(&[("config.toml", WORKSPACE), ("conf.d/x.toml", &connection("x"))]);
    for (name, mode, words) in [
        ("conf.d", 0o777, "conf.d has mode 0777"),
        ("conf.d", 0o1777, "conf.d has mode 1777"),
        ("conf.d/x.toml", 0o646, "x.toml has mode 0646"),
    ] {
        let before = fs::metadata(home.at(name)).unwrap().permissions().mode();
        home.mode(name, mode);
        let fault = home.fault();
        assert!(fault.contains(words) && fault.contains("chmod o-w"), "{fault}");
        home.mode(name, before);
    }
    home.mode("conf.d", 0o775);
    assert!(home.load().is_ok(), "a group was chosen by somebody");
}
