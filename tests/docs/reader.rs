//! Somebody who follows a page from its top to its end, in a home where the names of the pages mean the stand-ins.
//!
//! `https://dbc-1234.cloud.databricks.com` is a stand-in workspace, with the client id and the databases of the pages, and
//! `https://dbc-5678.cloud.databricks.com` another one. The databases of the first are served by a real PostgreSQL under the names that
//! they have there.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::page::Block;
use crate::support::{
    Cli, Endpoint, Failure, Fault, Home, Instance, Outcome, Postgres, Project, Running, Session, Workspace, names,
    postgres,
};

/// The names that the pages use.
const WORKSPACE: &str = "https://dbc-1234.cloud.databricks.com";
const OTHER_WORKSPACE: &str = "https://dbc-5678.cloud.databricks.com";
const CLIENT: &str = "0b1c2d3e-0000-4000-8000-000000000000";
const SECRET: &str = "stand-in-dose-0b1c2d3e4f5a6b7c8d9e";
const DATABASES: [(&str, &str); 2] = [
    ("orders", "instance-1234.database.cloud.databricks.com"),
    ("archive", "instance-5678.database.cloud.databricks.com"),
];
const PROJECT: &str = "shop";
const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// What an earlier block has exported.
const EXPORTS: &str = ".exports";

pub(crate) struct Reader {
    pub(crate) home: Home,
    pub(crate) workspace: Workspace,
    other: Workspace,
    server: Postgres,
    /// Signed in as the workspace's user.
    cli: Cli,
}

impl Reader {
    /// Or why there can be none here.
    pub(crate) fn new() -> Result<Self, String> {
        let workspace = workspace(CLIENT);
        for (name, host) in DATABASES {
            workspace.add_instance(Instance::named(name).host(host));
        }
        workspace.add_project(Project::named(PROJECT));
        let other = workspace_beside(&workspace);
        names::wrapper()?;
        let endpoint = workspace.project(PROJECT).branches[0].endpoints[0].host.clone();
        let mut server = Postgres::builder(&workspace, &[CLIENT, "ada@example.com", "app_role"]).at_5432();
        for host in DATABASES.map(|(_, host)| host).into_iter().chain(endpoint.as_deref()) {
            server = server.known_as(host);
        }
        let server = server.start()?;

        let home = Home::new();
        home.watch(&workspace);
        home.watch(&other);
        let authorities = [&workspace, &other].map(|workspace| fs::read_to_string(workspace.ca_file()).unwrap());
        home.write("authorities.pem", authorities.concat(), 0o644);
        symlink(env!("CARGO_BIN_EXE_dbx-rotator"), home.path("bin/dbx-rotator")).unwrap();
        symlink(postgres::psql_program()?, home.path("bin/psql")).unwrap();
        let cli = home.install_cli(&workspace);
        home.write(EXPORTS, "", 0o600);
        Ok(Reader { home, workspace, other, server, cli })
    }

    fn session(&self, program: &str) -> Session<'_> {
        let endpoint = self.workspace.project(PROJECT).branches[0].endpoints[0].host.clone();
        let mut session = self.home.command(program).env("SSL_CERT_FILE", self.home.path("authorities.pem"));
        for host in DATABASES.map(|(_, host)| host).into_iter().chain(endpoint.as_deref()) {
            session = session.resolving(host, self.server.address());
        }
        session
    }

    /// A text of a page, for the stand-ins.
    fn meant(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, workspace) in [(WORKSPACE, &self.workspace), (OTHER_WORKSPACE, &self.other)] {
            text = text.replace(name, &workspace.url());
            text = text.replace(&name["https://".len()..], &workspace.url());
        }
        text
    }

    /// An output of the stand-ins, as a page has it.
    pub(crate) fn shown(&self, output: &str) -> String {
        let home = self.home.path("").display().to_string();
        let mut text = output.replace('\r', "").replace(home.trim_end_matches('/'), "/home/ada");
        for (name, workspace) in [(WORKSPACE, &self.workspace), (OTHER_WORKSPACE, &self.other)] {
            let (url, name) = (workspace.url(), name.to_owned());
            text = text.replace(&url, &name).replace(&url["https://".len()..], &name["https://".len()..]);
        }
        text
    }

    /// The lines of a block, as somebody types them into one shell after another; what was exported stays.
    #[track_caller]
    pub(crate) fn run(&self, block: &Block) {
        self.let_happen(block);
        let text = self.meant(&block.text);
        let script = match block.notes.stays {
            // It takes the shell's place, and so gets what the shell is told.
            true => format!(". ~/{EXPORTS}; exec {text}"),
            false => format!("set -e; . ~/{EXPORTS}\n{text}\nexport -p >~/{EXPORTS}\n"),
        };
        let mut session =
            self.session("bash").args(["-c", &script]).shown_as(format!("{}\n{}", block.place, block.text));
        if block.notes.typed {
            session = session.stdin(&format!("{SECRET}\n"));
        }
        if block.text.contains("dbx-rotator token") {
            session = session.may_print_secrets();
        }
        if block.notes.stays {
            let running = session.spawn();
            running.says("connection alive", Duration::from_secs(30));
            running.terminate().exits(0);
        } else {
            session.run().exits(block.notes.code);
        }
    }

    /// One command at a terminal, and what it shows.
    #[track_caller]
    pub(crate) fn typed(&self, command: &str) -> Outcome {
        // A terminal of this size, in which psql needs no pager.
        let script = format!("stty rows 60 columns 120; . ~/{EXPORTS}; {}", self.meant(command));
        self.home.write(".typed", script, 0o600);
        let line = "bash ~/.typed".to_owned();
        let mut session = self.session("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        session = session.env("TERM", "xterm").shown_as(command);
        session.run()
    }

    /// Puts a configuration of a page into its place, if the page says that it belongs there.
    pub(crate) fn write_configuration(&self, text: &str) {
        if text.starts_with("# ~/.config/dbx-rotator/config.toml") {
            self.home.write(CONFIG, self.meant(text), 0o600);
        }
    }

    /// Renews the passwords until this is dropped; the first ones are there.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Running<'_> {
        let daemon = self.session(env!("CARGO_BIN_EXE_dbx-rotator")).arg("run").spawn();
        daemon.says("completed successfully", Duration::from_secs(30));
        daemon
    }

    /// Settings alone can be used, with what they leave open.
    #[track_caller]
    pub(crate) fn can_use(&self, block: &Block) {
        let mut text = self.meant(&block.text);
        if !text.contains("[[workspace]]") {
            text += &format!("[[workspace]]\nhost = '{}'\n", self.workspace.url());
        }
        if !text.contains("[[connection]]") {
            text += "[[connection]]\ninstance = 'orders'\n";
        }
        let config = self.home.write(".tried/config.toml", text, 0o600);
        self.home.write(".tried/client-secret", SECRET, 0o600);
        let mut session =
            self.session(env!("CARGO_BIN_EXE_dbx-rotator")).args(["config", "show", "--config"]).arg(config);
        if block.text.starts_with("# /etc/dbx-rotator/") {
            // The machine's unit hands over the secret.
            session = session.env("CREDENTIALS_DIRECTORY", self.home.path(".tried"));
        }
        session.shown_as(format!("{}\n{}", block.place, block.text)).run().exits(0);
    }

    /// What a page says has happened before.
    #[track_caller]
    pub(crate) fn let_happen(&self, block: &Block) {
        for given in &block.notes.given {
            self.workspace.heal();
            self.cli.set_failure(None);
            self.workspace.set_client(CLIENT, SECRET);
            self.workspace
                .change_instance("orders", |instance| Instance { stopped: false, ..instance.state("AVAILABLE") });
            match given.as_str() {
                "all is well" => {}
                "the secret was replaced" => self.workspace.set_client(CLIENT, "stand-in-another-0123456789abcdef01"),
                "the workspace is down" => {
                    self.workspace.faults_on(Endpoint::Token).always(Fault::Status(503));
                }
                "nobody is signed in" => self.cli.set_failure(Some(Failure::InvalidRefreshToken)),
                "the database is stopped" => {
                    self.workspace.change_instance("orders", Instance::stopped);
                }
                "the role is missing" => self.server.set_up(&format!("ALTER ROLE \"{CLIENT}\" RENAME TO nobody")),
                "the role is there" => self.server.set_up(&format!("ALTER ROLE nobody RENAME TO \"{CLIENT}\"")),
                _ => panic!("{}: nobody knows how to let `{given}` happen", block.place),
            }
        }
    }
}

fn workspace(client: &str) -> Workspace {
    Workspace::builder().client(client, SECRET).start()
}

/// Where the same service principal has another secret, as it has in a real account.
fn workspace_beside(first: &Workspace) -> Workspace {
    let other = workspace(first.client_id());
    other.add_instance(Instance::named("reports").host("instance-9999.database.cloud.databricks.com"));
    other
}
