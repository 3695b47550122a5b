//! tokio-postgres, which knows no password file, through the local proxy.

use std::env::var;
use std::time::Duration;

use tokio_postgres::{Config, Error, NoTls};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("version tokio-postgres 0.7.18");
    let said = |name: &str| var(name).unwrap_or_default();
    let mut config = Config::new();
    config.host(said("PGHOST")).user(said("PGUSER")).dbname(said("PGDATABASE")).password(said("PGPASSWORD"));
    loop {
        match connect(&config).await {
            Ok(pid) => println!("ok {pid}"),
            Err(error) => println!("failed: {}", format!("{error:?}").replace('\n', " ")),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn connect(config: &Config) -> Result<i32, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let (asked, _) = tokio::join!(
        async {
            let row = client.query_one("select pg_backend_pid()", &[]).await;
            drop(client);
            row
        },
        connection
    );
    Ok(asked?.get(0))
}
