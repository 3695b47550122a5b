//! Listening, answering, and the faults below HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::endpoints::{self, Answer};
use super::http::{Request, Response};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Serving,
    Outage,
    Stopped,
}

/// Serves until told to stop. One thread is enough: a request costs a signature, and nothing here blocks.
pub fn serve(
    listener: StdListener,
    tls: Option<Arc<ServerConfig>>,
    shared: &Arc<Shared>,
    mut orders: watch::Receiver<Mode>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let tls = tls.map(TlsAcceptor::from);
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let mut listener = Some(TcpListener::from_std(listener).expect("a listener"));
        // Bound and not listening, so that nobody else gets the port while nobody is there.
        let mut kept: Option<TcpSocket> = None;
        let mut connections = JoinSet::new();
        loop {
            let wanted = *orders.borrow_and_update();
            match wanted {
                Mode::Serving if listener.is_none() => {
                    let kept = kept.take().expect("the port of before");
                    listener = Some(kept.listen(1024).expect("a listener"));
                }
                Mode::Outage => {
                    listener = None;
                    kept = Some(bound(shared.address).await);
                    connections.shutdown().await;
                }
                Mode::Stopped => return,
                Mode::Serving => {}
            }
            shared.state().listening = listener.is_some();
            shared.happened.notify_all();

            while *orders.borrow() == wanted {
                tokio::select! {
                    changed = orders.changed() => if changed.is_err() { return },
                    Some((stream, _)) = accept(listener.as_ref()) => {
                        shared.state().connections += 1;
                        connections.spawn(receive(stream, tls.clone(), Arc::clone(shared)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        }
    });
}

/// A child of another test that is between fork and exec still listens there for a moment.
async fn bound(address: SocketAddr) -> TcpSocket {
    for _ in 0..10_000 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of it");
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("somebody else has the port of before");
}

/// The same without TLS and without outages, until told to stop.
pub fn serve_beside(listener: StdListener, shared: &Arc<Shared>, mut orders: watch::Receiver<Mode>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stopped = orders.wait_for(|mode| *mode == Mode::Stopped) => return drop(stopped),
                Ok((stream, _)) = listener.accept() => drop(connections.spawn(receive(stream, None, Arc::clone(shared)))),
                Some(_) = connections.join_next() => {}
            }
        }
    });
}

async fn accept(listener: Option<&TcpListener>) -> Option<(TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await.ok(),
        None => std::future::pending().await,
    }
}

/// It does not matter if a client goes away in the middle, or rejects our certificate.
async fn receive(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let _ = match tls {
        None => converse(stream, &shared).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => converse(stream, &shared).await,
            Err(refused) => Err(refused),
        },
    };
}

/// A stream that gives access to its TCP connection, to end it abruptly.
trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn converse(mut stream: impl Wire, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    while let Some(request) = Request::read(&mut stream, &mut unread).await? {
        let keep_alive = request.keep_alive();
        match endpoints::answer(shared, &request) {
            Answer::Send(response) => send(&mut stream, &response, keep_alive).await?,
            Answer::Dribble { response, bytes, pause } => {
                stream.write_all(&response.head(response.body.len(), keep_alive)).await?;
                for piece in response.body.chunks(bytes.max(1)) {
                    stream.write_all(piece).await?;
                    stream.flush().await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Answer::CutShort(response) => {
                let mut half = response.head(response.body.len(), false);
                half.extend_from_slice(&response.body[..response.body.len() / 2]);
                stream.write_all(&half).await?;
                break;
            }
            Answer::Reset => return stream.tcp().set_zero_linger(),
            Answer::Stall => {
                // Until the client hangs up, or this task is dropped with the workspace.
                while Request::read(&mut stream, &mut unread).await?.is_some() {}
                return Ok(());
            }
        }
        if !keep_alive {
            break;
        }
    }
    stream.shutdown().await
}

/// Head and body in one write: one TLS record, one packet.
async fn send(stream: &mut impl Wire, response: &Response, keep_alive: bool) -> io::Result<()> {
    let mut bytes = response.head(response.body.len(), keep_alive);
    bytes.extend_from_slice(&response.body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}
