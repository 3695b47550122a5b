//! Work that blocks, on a thread of its own. Where the system has no thread to give, that is an error and not the end of the program, as
//! it is with tokio's own threads.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::sync::{Semaphore, oneshot};

/// So many at once: nobody ends a thread that hangs.
static TURNS: Semaphore = Semaphore::const_new(4);

/// Enough for getaddrinfo(3) with the modules of any name service, and to read any configuration, in bytes.
const STACK: usize = 1024 * 1024;

/// Runs what blocks beside everything else.
///
/// # Errors
/// No thread can be started.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let none = || io::Error::other("no thread can be started now (`ulimit -u`, TasksMax=)");
    TURNS.acquire().await.map_err(|_| none())?.forget();
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        let done = work();
        TURNS.add_permits(1);
        // Perhaps nobody waits any more.
        let _ = sender.send(done);
    };
    if std::thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
        TURNS.add_permits(1);
        return Err(none());
    }
    receiver.await.map_err(|_| none())
}

/// The addresses of a host, in the order of the system's resolver.
///
/// # Errors
/// As getaddrinfo(3), or as [`on_a_thread`].
pub(crate) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let wanted = (host.to_owned(), port);
    on_a_thread(move || Ok(wanted.to_socket_addrs()?.collect())).await?
}
