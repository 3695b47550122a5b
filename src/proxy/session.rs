//! One client, from its first message to its end.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::client::{Client, Unheard};
use super::crowd::Place;
use super::first::{self, First};
use super::listeners::Accepted;
use super::message::{self, Rejection};
use super::password::{random, random_text};
use super::peer::{Peer, Verdict};
use super::relay::{End, From, relay};
use super::sessions::{Known, Session, Sessions};
use super::wanted::Wanted;
use super::{OwnPassword, Served, Shared, Stranger};
use crate::os::{accounts, connections};
use crate::postgres::{Opened, Refused, Startup, Upstream};
use crate::rotator::Login;
use crate::words;

/// How long a client may take to say what it wants, and to prove that it knows the proxy's password.
const GREETING_LIMIT: Duration = Duration::from_secs(15);

/// How long a server may take to accept a session: an instance that is asleep needs some seconds, and may be slow.
const WAKE_LIMIT: Duration = Duration::from_secs(60);

/// Serves one client.
pub(super) async fn serve(shared: Arc<Shared>, served: Arc<Served>, accepted: Accepted, stranger: Stranger) {
    let mut stopping = shared.stopping.subscribe();
    // Boxed, so that a session does not keep the room that its beginning needed.
    let begun = Box::pin(begin(&shared, &served, accepted, stranger)).await;
    drop(served);
    let Some((Begun { mut client, mut server, from_client, from_server, known, name }, _place)) = begun else { return };
    let began = Instant::now();
    let count = |from, bytes| match from {
        From::Client => shared.counting.came_from_client(bytes),
        From::Server => shared.counting.came_from_server(bytes),
    };
    let is_lost =
        |client: &Client, server: &Upstream| client.is_lost() || connections::is_lost(server.get_ref().0.inner());
    let end = relay((&mut client, from_client), (&mut server, from_server), &mut stopping, count, is_lost).await;
    drop(known);
    shared.counting.ended();
    let seconds = began.elapsed().as_secs();
    match end {
        End::Closed => tracing::debug!("{name}: a session has ended after {seconds} s"),
        End::Lost(error) => {
            tracing::debug!("{name}: a session was lost after {seconds} s: {}", crate::words::of_io(&error));
        }
        End::Drained => {
            client.tell(&message::stopping()).await;
            terminate(&mut server).await;
            tracing::debug!("{name}: a session was ended after {seconds} s, since the proxy is stopping");
        }
    }
    drop(server);
    client.see_off().await;
}

/// Serves a client that has come while the proxy is stopping: it may cancel what a session does, and gets none. Pools come again and
/// again, so that nobody is told of each but who wants to know all.
pub(super) async fn serve_late(shared: Arc<Shared>, served: Arc<Served>, accepted: Accepted, place: Arc<Place>) {
    let Accepted { client, peer, .. } = accepted;
    let Some((client, first)) = hear(&shared, &served, client).await else { return };
    place.speaks();
    match first {
        First::Cancel(key) => cancel(&shared, &served, peer, &key).await,
        _ => {
            let rejection = message::stopping();
            tracing::debug!("{} got no session: {}", whose(peer), rejection.message);
            tell(&shared, client, &rejection).await;
        }
    }
}

/// Tells the server that the session is over.
async fn terminate(server: &mut Upstream) {
    // It may have gone.
    let _ = server.write_all(&message::message(b'X', b"")).await;
    let _ = server.shutdown().await;
}

/// A session that both sides know of.
struct Begun<'s> {
    client: Client,
    server: Upstream,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    known: Option<Known<'s>>,
    name: String,
}

/// All up to the session; none if there is none.
async fn begin<'s>(
    shared: &'s Shared,
    served: &Served,
    accepted: Accepted,
    stranger: Stranger,
) -> Option<(Begun<'s>, Arc<()>)> {
    let Accepted { client, peer, port } = accepted;
    let (mut client, first) = tokio::select! {
        biased;
        heard = hear(shared, served, client) => heard?,
        () = stops(shared) => return None,
    };
    if let Some(place) = &stranger {
        place.speaks();
    }
    let startup = match first {
        First::Session(startup) => startup,
        First::Cancel(key) => {
            cancel(shared, served, peer, &key).await;
            return None;
        }
        First::Tls | First::Gss => return None,
    };
    let admitted = admit(shared, served, &mut client, peer).await;
    let wanted = admitted.and_then(|place| Ok((place, Wanted::of(served.rotator.config(), port, &startup)?)));
    let (place, wanted) = match wanted {
        Ok(wanted) => {
            drop(stranger);
            wanted
        }
        Err(Some(rejection)) => {
            refuse(shared, client, &rejection, &whose(peer)).await;
            return None;
        }
        Err(None) => {
            tracing::debug!("a client was asked for the proxy's own password, and has gone");
            return None;
        }
    };
    let mut early = Vec::new();
    let opened = tokio::select! {
        biased;
        opened = open(shared, served, &wanted, startup) => opened,
        () = client.gone(&mut early) => {
            tracing::debug!("{}: the client has gone before the server accepted it", wanted.name);
            return None;
        }
        () = stops(shared) => Err(message::stopping()),
    };
    match opened {
        Ok((opened, login)) => Some((welcome(shared, client, early, opened, login, wanted.name).await?, place)),
        Err(rejection) => {
            drop(place);
            refuse(shared, client, &rejection, &wanted.name).await;
            None
        }
    }
}

/// What a client wants; none if it says nothing that one could want.
async fn hear(shared: &Shared, served: &Served, client: Client) -> Option<(Client, First)> {
    match timeout(GREETING_LIMIT, client.first(served.tls.as_ref())).await {
        Ok(Ok(heard)) => return Some(heard),
        Ok(Err(Unheard::Malformed(client, malformed))) => {
            refuse(shared, client, &Rejection::new("08P01", malformed.words()), "a client").await;
        }
        // It knows already, by TLS.
        Ok(Err(Unheard::NoTls(why))) => {
            tracing::warn!("a client got no session: there is no TLS with it, since {why}");
            shared.counting.refused("08P01");
        }
        // A client that goes away has perhaps only looked whether the port is open.
        Ok(Err(Unheard::Gone)) | Err(_) => tracing::debug!("a client has said nothing in time, or has gone"),
    }
    None
}

/// Waits until the proxy is stopping.
async fn stops(shared: &Shared) {
    let mut stopping = shared.stopping.subscribe();
    while !*stopping.borrow_and_update() && stopping.changed().await.is_ok() {}
}

/// Who it is, for the journal. No directory service is asked: all sessions would wait for it.
pub(super) fn whose(peer: Peer) -> String {
    match peer {
        Peer::User(uid) => match accounts::listed(uid) {
            Some(account) => format!("a client of {}", account.name),
            None => format!("a client of the user {uid}"),
        },
        Peer::Unknown => "a client".to_owned(),
    }
}

async fn refuse(shared: &Shared, client: Client, rejection: &Rejection, whose: &str) {
    tracing::warn!("{whose} got no session: {} ({})", rejection.message, rejection.sqlstate);
    tell(shared, client, rejection).await;
}

async fn tell(shared: &Shared, client: Client, rejection: &Rejection) {
    shared.counting.refused(&rejection.sqlstate);
    client.reject(rejection).await;
}

/// A place for a session.
///
/// # Errors
/// Why this client may have none now; nothing where it has gone.
async fn admit(
    shared: &Shared,
    served: &Served,
    client: &mut Client,
    peer: Peer,
) -> Result<Arc<()>, Option<Rejection>> {
    match served.access.verdict(peer) {
        Verdict::Welcome => {}
        Verdict::Refused(uid) => {
            let name = accounts::listed(uid).map_or_else(|| uid.to_string(), |account| account.name);
            let refused = Rejection::new("28000", format!("the user {name} of this machine may not use this proxy"));
            let hint = format!("whoever runs the proxy can allow it: proxy_allow = [\"{name}\"] in config.toml");
            return Err(Some(refused.hint(hint)));
        }
        Verdict::NeedsPassword => prove(shared, served, client).await?,
    }
    if *shared.stopping.borrow() {
        return Err(Some(message::stopping()));
    }
    let most = served.most;
    if Arc::strong_count(&shared.places) > most {
        let why = format!("the proxy has {} already, and serves no more at once", words::count(most, "session"));
        let is_set = most == served.rotator.config().local_proxy.max_sessions;
        let more = if is_set {
            "set proxy_max_sessions higher in config.toml"
        } else {
            "let the proxy have more open files (LimitNOFILE= in its unit, `ulimit -n`)"
        };
        return Err(Some(Rejection::new(message::TOO_MANY, why).hint(format!("close some, or {more}"))));
    }
    // Nothing else runs between the look and this: there is one thread.
    Ok(Arc::clone(&shared.places))
}

/// Lets the client prove that it knows the proxy's own password.
///
/// # Errors
/// As [`admit`].
async fn prove(shared: &Shared, served: &Served, client: &mut Client) -> Result<(), Option<Rejection>> {
    let wrong = || {
        Rejection::new(
            "28P01",
            "the kernel does not tell whose this connection is, and the proxy's own password is wrong",
        )
        // Whoever is on the network gets this, and learns no path by it.
        .hint("it is in the file proxy-password, where whoever runs the proxy keeps its state (docs/proxy.md)")
    };
    let Some(OwnPassword { verifier, .. }) = &served.own_password else {
        let refused = Rejection::new("28000", "the kernel does not tell whose this connection is");
        return Err(Some(
            refused.hint("connect by the Unix socket, or by a port that the configuration has (proxy_port)"),
        ));
    };
    let nonce = random_text(24).map_err(|error| Rejection::new("58000", crate::words::of_io(&error)))?;
    tokio::select! {
        biased;
        knows = timeout(GREETING_LIMIT, client.knows_password(verifier, nonce.expose_secret())) => match knows {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Some(wrong())),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => Err(Some(wrong())),
            // Most look only whether somebody is there, or ask their user first and then come again.
            Ok(Err(_)) | Err(_) => Err(None),
        },
        () = stops(shared) => Err(Some(message::stopping())),
    }
}

/// Passes a request to cancel on to the server of its session. Nothing is answered, whatever comes of it.
async fn cancel(shared: &Shared, served: &Served, peer: Peer, key: &[u8]) {
    // Who cannot prove who it is proves by the key that the session is its own.
    if matches!(served.access.verdict(peer), Verdict::Refused(_)) {
        tracing::warn!("{} may not cancel anything", whose(peer));
        return;
    }
    let Some(Session { key, connection, address }) = shared.sessions.find(key) else {
        tracing::debug!("a request to cancel is about no session");
        return;
    };
    let Some(target) = connection.login_target() else { return };
    if let Err(refused) = shared.doors.cancel(&target, address, &key).await {
        tracing::warn!("{}: a request to cancel was not passed on: {}", connection.name(), refused.failure);
    }
}

/// Opens the session at the server: with the credential that is kept, and once more with another one if PostgreSQL refuses that.
async fn open(
    shared: &Shared,
    served: &Served,
    wanted: &Wanted,
    startup: Startup,
) -> Result<(Opened, Login), Rejection> {
    let login = served.rotator.login(wanted.index).await.map_err(Rejection::of_credential)?;
    let refused = match attempt(shared, wanted, startup.clone(), &login, false).await {
        Ok(opened) => return Ok((opened, login)),
        Err(refused) => refused,
    };
    // Why it may not be another role says nothing about the credential.
    let is_own = wanted.role.as_deref().is_none_or(|role| login.connection.key().is_some_and(|key| key.user() == role));
    if !refused.is_of_credential || !is_own {
        return Err(Rejection::of_server(refused));
    }
    tracing::debug!("{}: PostgreSQL has refused the credential: {}", wanted.name, refused.failure);
    let other = match served.rotator.login_instead_of(wanted.index, login).await {
        Ok(Some(other)) => other,
        Ok(None) => return Err(Rejection::of_server(refused)),
        Err(failure) => return Err(Rejection::of_credential(failure)),
    };
    let opened = attempt(shared, wanted, startup, &other, true).await.map_err(Rejection::of_server)?;
    Ok((opened, other))
}

/// Opens the session with this credential, and counts it.
async fn attempt(
    shared: &Shared,
    wanted: &Wanted,
    mut startup: Startup,
    login: &Login,
    is_second: bool,
) -> Result<Opened, Refused> {
    let Some(mut target) = login.connection.login_target() else {
        return Err(Refused::without_place(login.connection.name()));
    };
    let own = target.database;
    target.database = wanted.database.as_deref().unwrap_or(own);
    target.user = wanted.role.as_deref().unwrap_or(target.user);
    startup.set("user", target.user);
    let began = Instant::now();
    loop {
        startup.set("database", target.database);
        // A longer one would be dropped without a word, as if the server were asleep.
        if startup.length() > first::LONGEST as usize {
            return Err(Refused::too_long());
        }
        match shared.doors.open(&target, &startup, login.credential.password(), WAKE_LIMIT).await {
            Err(refused) if wanted.is_guess && refused.sqlstate == "3D000" && target.database != own => {
                target.database = own;
            }
            opened => {
                return opened.inspect(|opened| shared.counting.opened(opened.tries, began.elapsed(), is_second));
            }
        }
    }
}

/// Tells the client that it is logged in.
async fn welcome(
    shared: &Shared,
    mut client: Client,
    early: Vec<u8>,
    opened: Opened,
    login: Login,
    name: String,
) -> Option<Begun<'_>> {
    let Opened { stream, welcome, read, .. } = opened;
    let mut known = None;
    let mut bytes = Vec::new();
    for part in &welcome {
        if part.tag() != b'K' {
            bytes.extend_from_slice(part.as_sent());
            continue;
        }
        known = remember(&shared.sessions, part.body(), &login, &stream);
        let key = known.as_ref().map_or(part.body(), Known::key);
        bytes.extend(message::message(b'K', key));
    }
    shared.counting.came_from_server(bytes.len() + read.len());
    let told = async {
        client.write_all(&bytes).await?;
        client.flush().await
    };
    if let Err(error) = told.await {
        tracing::debug!("{name}: the client has gone: {}", crate::words::of_io(&error));
        shared.counting.ended();
        return None;
    }
    Some(Begun { client, server: stream, from_client: early, from_server: read.to_vec(), known, name })
}

fn remember<'s>(sessions: &'s Sessions, key: &[u8], login: &Login, server: &Upstream) -> Option<Known<'s>> {
    let address = server.get_ref().0.inner().peer_addr().ok()?;
    let session = Session { key: key.to_vec(), connection: login.connection.clone(), address };
    sessions.add(session, |bytes| random(bytes).is_ok())
}
