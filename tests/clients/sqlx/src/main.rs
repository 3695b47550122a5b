//! A pool that is told of a new password, since it keeps the one that it was made with.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Error, query_scalar};

/// Reads the password file, and PGHOST and its kin.
fn options() -> PgConnectOptions {
    PgConnectOptions::new()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("version sqlx 0.9.0");
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(20)).connect_lazy_with(options());
    let told = pool.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.set_connect_options(options());
        }
    });
    loop {
        match connect(&pool).await {
            Ok(pid) => println!("ok {pid}"),
            Err(error) => println!("failed: {}", error.to_string().replace('\n', " ")),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A session that does not return to the pool.
async fn connect(pool: &PgPool) -> Result<i32, Error> {
    let mut session = pool.acquire().await?.detach();
    let pid = query_scalar("select pg_backend_pid()").fetch_one(&mut session).await?;
    session.close().await?;
    Ok(pid)
}
