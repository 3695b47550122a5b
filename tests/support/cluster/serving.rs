//! Listening, answering, and the troubles below the API.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use rustls::ServerConfig;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::objects::{answer, status};
use super::{Shared, State, Trouble};
use crate::support::workspace::http::{Request, Response};

/// Serves until told to stop.
pub fn serve(listener: StdListener, tls: Arc<ServerConfig>, shared: &Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let tls = TlsAcceptor::from(tls);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stop = stopped.wait_for(|stop| *stop) => return drop(stop),
                Ok((stream, _)) = listener.accept() => {
                    drop(connections.spawn(receive(stream, tls.clone(), Arc::clone(shared))));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
}

async fn receive(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    if let Ok(stream) = tls.accept(stream).await {
        let _ = converse(stream, &shared).await;
    }
}

async fn converse(mut stream: tokio_rustls::server::TlsStream<TcpStream>, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    while let Some(request) = Request::read(&mut stream, &mut unread).await? {
        let trouble = shared.state().trouble(&request);
        let response = match trouble {
            None => answer(shared, &request),
            Some(Trouble::Silence) => {
                while Request::read(&mut stream, &mut unread).await?.is_some() {}
                return Ok(());
            }
            Some(Trouble::HangUp) => return Ok(()),
            Some(Trouble::LostAnswer) => {
                drop(answer(shared, &request));
                shared.happened.notify_all();
                return Ok(());
            }
            Some(Trouble::Status(code)) => status(code, "Trouble", "trouble on demand", json!({})),
            Some(Trouble::RetryAfter(seconds)) => {
                status(429, "TooManyRequests", "too many", json!({})).with("Retry-After", seconds.to_string())
            }
            Some(Trouble::Repeats(code)) => {
                let said = [request.header("authorization"), request.body()].map(Option::unwrap_or_default).join(" ");
                let cause = json!({"reason": "FieldManagerConflict", "message": format!("conflict with \"{said}\""), "field": said});
                status(code, &said, &format!("User \"{said}\""), json!({"name": said, "kind": said, "causes": [cause]}))
            }
            Some(Trouble::Conflict) => status(409, "Conflict", "the object has been modified", json!({})),
        };
        send(&mut stream, &response).await?;
        shared.happened.notify_all();
    }
    Ok(())
}

async fn send(stream: &mut tokio_rustls::server::TlsStream<TcpStream>, response: &Response) -> io::Result<()> {
    let mut bytes = response.head(response.body.len(), true);
    bytes.extend_from_slice(&response.body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

impl State {
    fn trouble(&mut self, request: &Request) -> Option<Trouble> {
        self.requests.push(format!("{} {}", request.method, request.path));
        self.seen += 1;
        if let Some(trouble) = self.queue.pop_front() {
            return Some(trouble);
        }
        let (every, cycle) = self.every.as_ref()?;
        self.seen.is_multiple_of(*every).then(|| cycle[(self.seen / every - 1) % cycle.len()].clone())
    }
}
