//! A pool of sqlx that keeps what it was made with, through the local proxy.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Error, query_scalar};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("version sqlx 0.9.0");
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(20)).connect_lazy_with(PgConnectOptions::new());
    loop {
        match connect(&pool).await {
            Ok(pid) => println!("ok {pid}"),
            Err(error) => println!("failed: {}", error.to_string().replace('\n', " ")),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A session that does not return to the pool, and a query in one that does.
async fn connect(pool: &PgPool) -> Result<i32, Error> {
    let _: i32 = query_scalar("select 1").fetch_one(pool).await?;
    let mut session = pool.acquire().await?.detach();
    let pid = query_scalar("select pg_backend_pid()").fetch_one(&mut session).await?;
    session.close().await?;
    Ok(pid)
}
