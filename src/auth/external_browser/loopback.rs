//! Where the browser comes back to: a port of this machine, for as long as a login takes (RFC 8252, section 7.3).
//!
//! Any program here can call it, and any page in a browser can make the browser call it. So each caller is served by itself, with
//! limits, and only what is asked for with the state of this login is handed on; the rest is told so and forgotten.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::consent::{Consent, Redirected};
use crate::failure::{Code, Failure};
use crate::words;

/// Those that the vendor's client is registered for (databricks-sdk-go, u2m/persistent_auth.go, `defaultPort`, `maxPortFallback`).
pub(crate) const PORTS: RangeInclusive<u16> = 8020..=8040;

/// The largest request, in bytes: a browser sends its cookies for localhost, too.
const LARGEST: usize = 64 * 1024;

/// How long a caller may take to say what it wants, and how long to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many callers at a time; then the oldest makes room. A browser opens a few, some of them for nothing.
const MOST: usize = 64;

/// The path of the page that sends the browser on to where people sign in.
const START: &str = "/login/";

/// The listening port.
pub(crate) struct Loopback {
    listeners: Vec<TcpListener>,
    port: u16,
    /// What only who was told by this login knows.
    key: SecretString,
}

/// A caller that waits for a page.
pub(crate) struct Visitor(Option<TcpStream>);

/// What a caller is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Page<'p> {
    Done,
    Failed(&'p str),
    NotThis(&'p str),
    StartedTwice,
    NotFound,
}

/// What callers are judged by.
struct Judge {
    consent: Arc<Consent>,
    start: SecretString,
    /// The page that sends on has been asked for. It does so once: of two callers, one is not the browser that was opened.
    is_started: AtomicBool,
    sender: UnboundedSender<(Redirected, Visitor)>,
}

impl Loopback {
    /// Takes the first port of these that is free.
    ///
    /// # Errors
    /// Transient: none is.
    pub(crate) async fn open(ports: RangeInclusive<u16>) -> Result<Self, Failure> {
        let (first, last) = (*ports.start(), *ports.end());
        let mut why = String::new();
        for port in ports {
            match listen(port).await {
                Ok(listeners) => {
                    let key = SecretString::from(format!("{:032x}", key()?));
                    return Ok(Loopback { listeners, port, key });
                }
                Err(error) => why = words::of_io(&error),
            }
        }
        let which =
            if first == last { format!("the port {first}") } else { format!("each port from {first} to {last}") };
        let message =
            format!("the browser has no way back: {which} of this machine is in use, or cannot be used ({why})");
        Err(Failure::transient(Code::Unavailable, message)
            .hint("see what listens there (`ss -ltnp`), and end a login that was left open"))
    }

    /// Where the browser is sent back to, exactly as the vendor's client has it.
    pub(crate) fn redirect(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// The address to open in a browser, where others may see it: in the arguments of a program.
    pub(crate) fn start(&self) -> SecretString {
        SecretString::from(format!("{}{START}{}", self.redirect(), self.key.expose_secret()))
    }

    /// Waits for the browser to come back. Dropping this ends all conversations.
    pub(crate) async fn wait(&self, consent: Arc<Consent>) -> (Redirected, Visitor) {
        let (sender, mut came) = unbounded_channel();
        let start = SecretString::from(format!("{START}{}", self.key.expose_secret()));
        let judge = Arc::new(Judge { consent, start, is_started: AtomicBool::new(false), sender });
        let mut callers = Callers(VecDeque::new());
        loop {
            tokio::select! {
                biased;
                Some(back) = came.recv() => return back,
                stream = accept(&self.listeners) => match stream {
                    Ok(stream) => callers.add(tokio::spawn(Arc::clone(&judge).serve(stream)).abort_handle()),
                    // Too many open files, or a caller that has gone: not for ever.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }
}

/// A number that nobody can guess.
fn key() -> Result<u128, Failure> {
    use ring::rand::{SecureRandom, SystemRandom};

    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Failure::transient(Code::Unavailable, "this machine has no random numbers to give").hint("try again")
    })?;
    Ok(u128::from_le_bytes(bytes))
}

/// Both of the addresses that `localhost` may mean, so that no other program answers at the second.
async fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => Err(error),
        // This machine does not speak IPv6.
        Err(_) => Ok(vec![first]),
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    let stream = match listeners {
        [first, second, ..] => tokio::select! {
            accepted = first.accept() => accepted,
            accepted = second.accept() => accepted,
        },
        [first] => first.accept().await,
        [] => std::future::pending().await,
    };
    stream.map(|(stream, _)| stream)
}

/// The conversations in flight, which end with this.
struct Callers(VecDeque<AbortHandle>);

impl Callers {
    fn add(&mut self, caller: AbortHandle) {
        self.0.retain(|caller| !caller.is_finished());
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(caller);
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Judge {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let Ok(Some(target)) = timeout(PATIENCE, target(&mut stream)).await else { return };
        let visitor = Visitor(Some(stream));
        let path = target.split(['?', '#']).next().unwrap_or_default();
        if path == self.start.expose_secret() {
            if self.is_started.swap(true, Ordering::Relaxed) {
                return visitor.show(Page::StartedTwice).await;
            }
            return visitor.send_on(self.consent.address().as_str()).await;
        }
        if path != "/" || !target.contains('?') {
            return visitor.show(Page::NotFound).await;
        }
        match self.consent.read(&target) {
            Redirected::Foreign(why) => visitor.show(Page::NotThis(why)).await,
            // Nobody may be waiting any more.
            ours => drop(self.sender.send((ours, visitor))),
        }
    }
}

/// What is asked for with GET; none where it is no such request.
async fn target(stream: &mut TcpStream) -> Option<Zeroizing<String>> {
    let mut head = Zeroizing::new(Vec::with_capacity(LARGEST));
    let mut piece = Zeroizing::new([0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(piece.as_mut_slice()).await.ok().filter(|length| *length > 0)?;
        if head.len() + length > LARGEST {
            return None;
        }
        head.extend_from_slice(&piece[..length]);
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (method == "GET" && version.starts_with("HTTP/1.")).then(|| Zeroizing::new(target.to_owned()))
}

impl Visitor {
    /// Nobody, where an address was pasted.
    pub(crate) fn nobody() -> Self {
        Visitor(None)
    }

    /// Shows a page, and hangs up. One who has gone away is not missed.
    pub(crate) async fn show(self, page: Page<'_>) {
        let (status, title, text) = match page {
            Page::Done => ("200 OK", "You are logged in", "You can close this page."),
            Page::Failed(why) => ("400 Bad Request", "The login failed", why),
            Page::NotThis(why) => ("400 Bad Request", "This is not the answer to the login that is waiting", why),
            Page::StartedTwice => (
                "410 Gone",
                "This address was opened before",
                "Open the address that the terminal shows. If nobody has opened it on your behalf, stop the login there with Ctrl-C.",
            ),
            Page::NotFound => ("404 Not Found", "There is nothing here", ""),
        };
        let (title, text) = (escaped(title), escaped(text));
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
             <body><h1>{title}</h1><p>{text}</p><p>dbx-rotator</p></body></html>\n"
        );
        self.answer(status, "", &body).await;
    }

    async fn send_on(self, address: &str) {
        self.answer("302 Found", &format!("Location: {address}\r\n"), "").await;
    }

    async fn answer(self, status: &str, more: &str, body: &str) {
        let Some(mut stream) = self.0 else { return };
        let answer = Zeroizing::new(format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let _ = timeout(PATIENCE, async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        })
        .await;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::endpoint::TokenEndpoint;
    use crate::os::inherited::until;

    async fn open() -> (Loopback, Arc<Consent>) {
        let loopback = Loopback::open(0..=0).await.unwrap();
        let endpoint =
            TokenEndpoint::for_test("https://w.example/oidc/v1/token", "https://w.example/oidc/v1/authorize");
        let consent = Consent::new(endpoint, loopback.redirect(), None).unwrap();
        (loopback, Arc::new(consent))
    }

    fn port(loopback: &Loopback) -> u16 {
        loopback.listeners[0].local_addr().unwrap().port()
    }

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // It may hang up before all is said.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn get(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    fn state(consent: &Consent) -> String {
        consent.address().query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
    }

    #[tokio::test]
    async fn no_caller_without_the_state_ends_the_login_or_wins_it() {
        let (loopback, consent) = open().await;
        let (port, state) = (port(&loopback), state(&consent));
        let callers = async {
            for (request, status) in [
                (get("/?code=evil&state=guessed"), "400"),
                (get("/?error=access_denied&state=guessed"), "400"),
                (get("/?code=evil"), "400"),
                (get("/"), "404"),
                (get("/favicon.ico"), "404"),
                (get(&format!("/other?code=evil&state={state}")), "404"),
                (format!("POST /?code=evil&state={state} HTTP/1.1\r\n\r\n"), ""),
                ("\0\u{16}\u{3}\u{1}".to_owned(), ""),
                (format!("GET /?{}", "x".repeat(2 * LARGEST)), ""),
            ] {
                let shut = request.len() < 20;
                let answer = if shut { String::new() } else { ask(port, &request).await };
                assert!(answer.get(9..12).unwrap_or_default() == status, "{status}: {answer}");
            }
            // Callers that say nothing, more than are served at a time.
            let mut silent = Vec::new();
            for _ in 0..2 * MOST {
                silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
            }
            let shown = ask(port, &get(&format!("/?code=good&state={state}"))).await;
            drop(silent);
            shown
        };
        let login = async {
            let (redirected, visitor) = loopback.wait(Arc::clone(&consent)).await;
            visitor.show(Page::Failed("<script>")).await;
            redirected
        };
        let (redirected, shown) = tokio::join!(login, callers);
        assert!(matches!(redirected, Redirected::Code(code) if code.expose_secret() == "good"));
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>"), "{shown}");
    }

    #[tokio::test]
    async fn the_page_that_sends_on_does_so_once() {
        let (loopback, consent) = open().await;
        let port = port(&loopback);
        let start = loopback.start().expose_secret().split_once("localhost:0").unwrap().1.to_owned();
        let callers = async {
            assert!(ask(port, &get(&format!("{START}guessed"))).await.starts_with("HTTP/1.1 404"));
            let first = ask(port, &get(&start)).await;
            assert!(first.starts_with("HTTP/1.1 302") && first.contains(consent.address().as_str()), "{first}");
            assert!(ask(port, &get(&start)).await.starts_with("HTTP/1.1 410"));
        };
        tokio::select! {
            _ = loopback.wait(Arc::clone(&consent)) => unreachable!("nobody has come back"),
            () = callers => {}
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_passed_over_at_either_address() {
        let (taken, other) = (listen(0).await.unwrap(), listen(0).await.unwrap());
        let port_of = |listeners: &[TcpListener]| listeners[0].local_addr().unwrap().port();
        let port = port_of(&taken);
        let failure = Loopback::open(port..=port).await.map(drop).unwrap_err();
        assert!(failure.is_transient() && failure.message.contains(&port.to_string()), "{failure}");
        let free = port_of(&other);
        drop(other);
        until(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free)).is_ok());
        let Ok(only_second) = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, free))).await else { return };
        assert!(Loopback::open(free..=free).await.is_err());
        drop(only_second);
        until(|| std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, free)).is_ok());
        assert!(Loopback::open(free..=free).await.is_ok());
    }
}
