//! Which connection, database and role a client asks for. Pure.

use super::message::Rejection;
use crate::config::Config;
use crate::foreign::quoted;
use crate::model::server::{database_misfit, user_misfit};
use crate::postgres::Startup;
use crate::spelling::nearest;

/// How many connections are named to a client that asks for one that does not exist.
const MOST_NAMES: usize = 20;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The place of the connection in the configuration.
    pub(super) index: usize,
    pub(super) name: String,
    /// Another database than the connection's.
    pub(super) database: Option<String>,
    /// Perhaps nobody has asked for that one: libpq names the user where it is given no database.
    pub(super) is_guess: bool,
    /// Another role than the connection's user.
    pub(super) role: Option<String>,
}

impl Wanted {
    /// By the port that it has connected to, and by its parameters: the database is the name of a connection, or `NAME/DATABASE`; on a
    /// connection's own port, a database there.
    ///
    /// # Errors
    /// There is no such connection, or the names are no text.
    pub(super) fn of(config: &Config, port: Option<u16>, startup: &Startup) -> Result<Self, Rejection> {
        let text = |name: &str| {
            let value = startup.get(name).unwrap_or_default();
            std::str::from_utf8(value).map_err(|_| Rejection::new("08P01", format!("the {name} is not UTF-8 text")))
        };
        let user = text("user")?;
        // PostgreSQL does the same where no database is named.
        let asked_for = Some(text("database")?).filter(|name| !name.is_empty()).unwrap_or(user);
        let named = |index: usize| config.connections[index].name.as_str();
        let of_port = port
            .and_then(|port| config.connections.iter().position(|connection| connection.proxied.port == Some(port)));
        let index_of = |name: &str| config.connections.iter().position(|connection| connection.name == name);
        // Then that is asked for, and the connection's own where there is none of that name.
        let is_guess = of_port.is_some() && asked_for == user && index_of(user).is_none();
        let is_none = is_guess && (text("database")?.is_empty() || database_misfit(user).is_some());
        let (index, database) = match of_port {
            Some(index) if is_none || asked_for == named(index) => (index, None),
            Some(index) => (index, Some(after_name(asked_for, named(index)).unwrap_or(asked_for))),
            None => match index_of(asked_for) {
                Some(index) => (index, None),
                None => of_prefix(config, asked_for).ok_or_else(|| unknown(config, asked_for))?,
            },
        };
        if let Some(misfit) = database.and_then(database_misfit) {
            return Err(Rejection::new("3D000", format!("the database {}", misfit.why)).hint(misfit.hint));
        }
        let connection = &config.connections[index];
        let role = connection.proxied.roles.iter().find(|role| *role == user && user_misfit(role).is_none());
        let database = database.map(str::to_owned);
        Ok(Wanted { index, name: connection.name.clone(), database, is_guess, role: role.cloned() })
    }
}

/// The database in `NAME/DATABASE`.
fn after_name<'a>(asked_for: &'a str, name: &str) -> Option<&'a str> {
    asked_for.strip_prefix(name)?.strip_prefix('/').filter(|database| !database.is_empty())
}

/// The connection and the database of `NAME/DATABASE`. Names of connections may hold a slash: the longest counts.
fn of_prefix<'a>(config: &Config, asked_for: &'a str) -> Option<(usize, Option<&'a str>)> {
    let named = config.connections.iter().enumerate().filter_map(|(index, connection)| {
        Some((index, connection.name.len(), after_name(asked_for, &connection.name)?))
    });
    named.max_by_key(|(_, length, _)| *length).map(|(index, _, database)| (index, Some(database)))
}

fn unknown(config: &Config, asked_for: &str) -> Rejection {
    let names = || config.connections.iter().map(|connection| connection.name.as_str());
    let first = asked_for.split('/').next().unwrap_or_default();
    let hint = match nearest(first, names()) {
        Some(name) => {
            format!("did you mean {name}? The database that a client of the proxy asks for is the name of a connection")
        }
        None => {
            let all: Vec<&str> = names().take(MOST_NAMES).collect();
            format!("give the name of a connection as the database: {}", all.join(", "))
        }
    };
    Rejection::new("3D000", format!("there is no connection named {}", quoted(asked_for))).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let connection = |name: &str, more: &str| {
            format!("[[connection]]\nname = '{name}'\nhost = '{}.example'\n{more}", name.replace('/', "-"))
        };
        Config::of_text(&format!(
            "[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n{}{}{}",
            connection("orders", "proxy_port = 6432\nproxy_roles = ['reader']\n"),
            connection("sales", ""),
            connection("sales/eu", ""),
        ))
    }

    #[track_caller]
    fn wanted(port: Option<u16>, user: &str, database: &str) -> (String, Option<String>, Option<String>) {
        let startup = Startup::new([("user", user), ("database", database)]);
        let wanted = Wanted::of(&config(), port, &startup).unwrap();
        (wanted.name, wanted.database, wanted.role)
    }

    #[test]
    fn the_database_names_the_connection_and_a_port_does_too() {
        let some = |text: &str| Some(text.to_owned());
        for (port, user, database, name, in_database, role) in [
            (None, "ada", "orders", "orders", None, None),
            (None, "reader", "orders", "orders", None, some("reader")),
            (None, "reader", "sales", "sales", None, None),
            (None, "ada", "orders/other", "orders", some("other"), None),
            (None, "ada", "sales/eu", "sales/eu", None, None),
            (None, "ada", "sales/eu/x", "sales/eu", some("x"), None),
            (None, "ada", "sales/x/y", "sales", some("x/y"), None),
            // psql without a database asks for one that is named like the user.
            (None, "orders", "", "orders", None, None),
            (Some(6432), "ada", "orders", "orders", None, None),
            (Some(6432), "ada", "", "orders", None, None),
            (Some(6432), "ada", "ada", "orders", some("ada"), None),
            (Some(6432), "$USER", "$USER", "orders", None, None),
            (Some(6432), "ada", "other", "orders", some("other"), None),
            (Some(6432), "ada", "orders/other", "orders", some("other"), None),
            // A port that no connection has.
            (Some(5432), "ada", "sales", "sales", None, None),
        ] {
            let found = wanted(port, user, database);
            assert_eq!(found, (name.to_owned(), in_database, role), "{port:?} {user} {database}");
        }
    }

    #[test]
    fn what_does_not_exist_is_told_with_what_does() {
        let asked = |user: &str, database: &str| {
            Wanted::of(&config(), None, &Startup::new([("user", user), ("database", database)])).unwrap_err()
        };
        let near = asked("ada", "order");
        assert_eq!(near.sqlstate, "3D000");
        assert!(near.hint.as_deref().unwrap().contains("did you mean orders?"), "{near:?}");
        let far = asked("ada", "something");
        assert!(far.hint.as_deref().unwrap().contains("orders, sales, sales/eu"), "{far:?}");
        assert_eq!(asked("ada", "orders/").sqlstate, "3D000");
        let startup = Startup { version: 0, parameters: vec![(b"database".to_vec(), b"\xff".to_vec())] };
        assert_eq!(Wanted::of(&config(), None, &startup).unwrap_err().sqlstate, "08P01");
    }
}
