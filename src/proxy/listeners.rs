//! Where clients connect: sockets that the service manager handed over, or that were opened here.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::task::Poll;

use tokio::net::{TcpListener, UnixListener};

use super::client::Client;
use super::peer::{self, Peer};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::os::activation::Listening;
use crate::os::connections::notice_a_dead_peer;
use crate::os::files::make_directories;
use crate::words;

/// What clients of libpq look for in the directory that they are given as host.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";

/// The port in that name.
pub(crate) const PORT: u16 = 5432;

/// A client that has connected.
pub(super) struct Accepted {
    pub(super) client: Client,
    pub(super) peer: Peer,
    /// The TCP port that it has connected to.
    pub(super) port: Option<u16>,
}

/// All places where clients connect.
#[derive(Default)]
pub(super) struct Listeners {
    unix: Vec<Unix>,
    tcp: Vec<Tcp>,
    /// They were handed over: whoever did that starts this program again when a client comes.
    pub(super) are_handed_over: bool,
}

struct Unix {
    listener: UnixListener,
    /// None if it was handed over: then it stays.
    own: Option<Own>,
}

/// A socket that was opened here.
struct Own {
    path: PathBuf,
    /// What tells its file from another one of that name.
    file: Option<(u64, u64)>,
}

impl Own {
    /// If it was removed, another proxy may listen there.
    fn is_there(&self) -> bool {
        self.file == identity(&self.path)
    }
}

impl Unix {
    fn follow(&mut self, config: &Config) -> Result<(), Failure> {
        match &self.own {
            Some(own) if own.is_there() => open_to(&own.path, !config.local_proxy.allow.is_empty())
                .map_err(|error| cannot("change who may try its socket", &error)),
            Some(_) => own_socket(config).map(|new| *self = new),
            None => Ok(()),
        }
    }
}

struct Tcp {
    listener: TcpListener,
    address: SocketAddr,
    is_own: bool,
}

impl Listeners {
    /// Takes what was handed over; else opens the Unix socket. Then opens the ports that are configured and not open yet.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub(super) fn open(handed_over: Vec<Listening>, config: &Config) -> Result<Self, Failure> {
        let mut all = Listeners { are_handed_over: !handed_over.is_empty(), ..Listeners::default() };
        for listening in handed_over {
            all.take(listening).map_err(|error| cannot("use a socket that was handed over", &error))?;
        }
        if !all.are_handed_over {
            all.unix.push(own_socket(config)?);
        }
        all.follow(config)?;
        Ok(all)
    }

    /// What was handed over and nothing else; without what cannot be used.
    pub(super) fn of(handed_over: Vec<Listening>) -> Self {
        let mut all = Listeners { are_handed_over: true, ..Listeners::default() };
        for listening in handed_over {
            if let Err(error) = all.take(listening) {
                tracing::debug!("a socket that was handed over cannot be used: {}", words::of_io(&error));
            }
        }
        all
    }

    fn take(&mut self, listening: Listening) -> io::Result<()> {
        match listening {
            Listening::Unix(listener) => {
                listener.set_nonblocking(true)?;
                self.unix.push(Unix { listener: UnixListener::from_std(listener)?, own: None });
            }
            Listening::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                self.tcp.push(Tcp { listener: TcpListener::from_std(listener)?, address, is_own: false });
            }
        }
        Ok(())
    }

    /// Opens the ports that the configuration has and that are not open, and closes those of ours that it has no more. Lets others try
    /// our own Unix socket, or nobody, and opens it again where it was removed.
    ///
    /// # Errors
    /// A port cannot be opened: then they are what they were.
    pub(super) fn follow(&mut self, config: &Config) -> Result<(), Failure> {
        self.follow_ports(config)?;
        for unix in &mut self.unix {
            if let Err(failure) = unix.follow(config) {
                tracing::error!("{}", failure.sentence());
            }
        }
        Ok(())
    }

    fn follow_ports(&mut self, config: &Config) -> Result<(), Failure> {
        let ports = config.connections.iter().filter_map(|connection| connection.proxied.port);
        let wanted: Vec<SocketAddr> = ports.map(|port| SocketAddr::new(config.local_proxy.listen, port)).collect();
        let is_left = |tcp: &Tcp| tcp.is_own && !wanted.contains(&tcp.address);
        // At two addresses of one port, one is in the way of the other.
        let is_in_the_way =
            |tcp: &Tcp| is_left(tcp) && wanted.iter().any(|address| address.port() == tcp.address.port());
        let (in_the_way, others) = std::mem::take(&mut self.tcp).into_iter().partition(is_in_the_way);
        self.tcp = others;
        match self.open_ports(&wanted, in_the_way) {
            Ok(opened) => {
                self.tcp.retain(|tcp| !is_left(tcp));
                self.tcp.extend(opened);
                Ok(())
            }
            Err((failure, closed)) => {
                self.tcp.extend(closed);
                Err(failure)
            }
        }
    }

    /// Those that are not open yet, once what is in the way is closed; if that fails, why, and what was in the way, opened again.
    fn open_ports(&self, wanted: &[SocketAddr], in_the_way: Vec<Tcp>) -> Result<Vec<Tcp>, (Failure, Vec<Tcp>)> {
        let before: Vec<SocketAddr> = in_the_way.iter().map(|tcp| tcp.address).collect();
        drop(in_the_way);
        let mut opened: Vec<Tcp> = Vec::new();
        for address in wanted {
            if self.tcp.iter().chain(&opened).any(|tcp| serves(tcp.address, *address)) {
                continue;
            }
            match open_port(*address) {
                Ok(tcp) => opened.push(tcp),
                Err(failure) => {
                    drop(opened);
                    let again = |address| {
                        open_port(address).inspect_err(|failure| tracing::error!("{}", failure.sentence())).ok()
                    };
                    return Err((failure, before.into_iter().filter_map(again).collect()));
                }
            }
        }
        Ok(opened)
    }

    /// Whether some of them are gone when this program ends, so that nobody would start it again for their clients.
    pub(super) fn has_own(&self) -> bool {
        self.unix.iter().any(|unix| unix.own.is_some()) || self.tcp.iter().any(|tcp| tcp.is_own)
    }

    /// The TCP ports, by the addresses they are at.
    pub(super) fn ports(&self) -> impl Iterator<Item = SocketAddr> {
        self.tcp.iter().map(|tcp| tcp.address)
    }

    /// The directory of the first Unix socket with the name that libpq looks for.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let directory = |unix: &Unix| {
            let address = unix.listener.local_addr().ok()?;
            let path = address.as_pathname()?;
            (path.file_name()? == SOCKET).then(|| path.parent().map(Path::to_owned)).flatten()
        };
        self.unix.iter().find_map(directory)
    }

    /// For people; without a socket of ours that was removed.
    pub(super) fn names(&self) -> Vec<String> {
        let unix = self.unix.iter().filter(|unix| unix.own.as_ref().is_none_or(Own::is_there)).filter_map(|unix| {
            let address = unix.listener.local_addr().ok()?;
            Some(address.as_pathname()?.display().to_string())
        });
        unix.chain(self.tcp.iter().map(|tcp| tcp.address.to_string())).collect()
    }

    /// The next client.
    ///
    /// # Errors
    /// As `accept(2)`, where that is about this process and not about one client.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        std::future::poll_fn(|context| {
            for Unix { listener, .. } in &self.unix {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.map(|(stream, _)| {
                        let peer = stream
                            .peer_cred()
                            .map_or(Peer::Unknown, |peer| peer::of_unix(peer.uid(), || is_private(listener)));
                        Accepted { client: Client::Unix(stream), peer, port: None }
                    }));
                }
            }
            for Tcp { listener, address, .. } in &self.tcp {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.map(|(stream, from)| {
                        // Only a matter of speed.
                        let _ = stream.set_nodelay(true);
                        notice_a_dead_peer(&stream);
                        let peer = stream.local_addr().map_or(Peer::Unknown, |own| peer::of_tcp(from, own));
                        Accepted { client: Client::Tcp(stream), peer, port: Some(address.port()) }
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        if let Some(own) = self.own.as_ref().filter(|own| own.is_there()) {
            // The next one replaces it anyway.
            let _ = fs::remove_file(&own.path);
        }
    }
}

/// Whether only this user, and root, can connect to a socket: others would have to be allowed to write to its file (unix(7)).
fn is_private(listener: &UnixListener) -> bool {
    let path = listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
    let file = path.and_then(|path| fs::symlink_metadata(path).ok());
    file.is_some_and(|file| file.uid() == rustix::process::geteuid().as_raw() && file.mode() & 0o077 == 0)
}

/// Whether a listener takes what comes to this address.
pub(super) fn serves(listener: SocketAddr, address: SocketAddr) -> bool {
    let (ip, wanted) = (listener.ip(), address.ip());
    let takes = ip == wanted || ip.is_unspecified() && (ip.is_ipv6() || wanted.is_ipv4());
    listener.port() == address.port() && takes
}

fn open_port(address: SocketAddr) -> Result<Tcp, Failure> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let listener = open().map_err(|error| {
        let why = cannot(&format!("listen at {address}"), &error);
        match error.kind() {
            ErrorKind::AddrInUse => {
                why.hint("another program has it, perhaps another proxy: choose another proxy_port")
            }
            ErrorKind::AddrNotAvailable => why.hint("set proxy_listen to an address of this machine, or leave it out"),
            ErrorKind::PermissionDenied => why.hint("choose a proxy_port above 1023: those below are for root"),
            _ => why,
        }
    })?;
    Ok(Tcp { listener, address, is_own: true })
}

/// Opens the Unix socket, in a directory where nobody else can put another one.
fn own_socket(config: &Config) -> Result<Unix, Failure> {
    let directory = config.environment.runtime_dir(rustix::process::geteuid().as_raw());
    let path = directory.join(SOCKET);
    let is_shared = !config.local_proxy.allow.is_empty();
    let listener = bind(&directory, &path, is_shared)
        .map_err(|error| cannot(&format!("open the socket {}", path.display()), &error))?;
    let file = identity(&path);
    Ok(Unix { listener, own: Some(Own { path, file }) })
}

/// The device and the number of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn bind(directory: &Path, path: &Path, is_shared: bool) -> io::Result<UnixListener> {
    make_directories(directory, 0o700)?;
    check_directory(directory)?;
    // Of two that start at once, one looks when the other has opened it or has not begun: neither removes the other's. A file system
    // without locks is no reason not to serve.
    let _turn = fs::File::open(directory).and_then(|directory| directory.lock().map(|()| directory));
    // Connecting to a file is refused as well.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "something that is no socket has this name"));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => {
            let who = "another program listens there, perhaps another proxy, or one that is still stopping";
            return Err(io::Error::new(ErrorKind::AddrInUse, who));
        }
        // What an earlier one has left.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    open_to(path, is_shared)?;
    Ok(listener)
}

/// Lets all users of this machine try to connect, or the owner alone, by these modes. Who may pass is told by the kernel.
fn open_to(path: &Path, is_shared: bool) -> io::Result<()> {
    const SHARED: u32 = 0o711;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    let directory = path.parent().unwrap_or(path);
    // One that is open in another way is so by somebody else's will.
    if is_shared || fs::metadata(directory)?.mode() & 0o777 == SHARED {
        set(directory, if is_shared { SHARED } else { 0o700 })?;
    }
    set(path, if is_shared { 0o666 } else { 0o600 })
}

/// That nobody else can put a socket into this directory, to which clients would give their queries.
fn check_directory(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let own = rustix::process::geteuid().as_raw();
    let refuse = |why: &str| Err(io::Error::new(ErrorKind::PermissionDenied, format!("its directory {why}")));
    if !found.is_dir() {
        return refuse("is no directory");
    }
    if found.uid() != own && found.uid() != 0 {
        return refuse("belongs to another user");
    }
    if found.mode() & 0o022 != 0 {
        return refuse("can be written by other users: `chmod go-w` it");
    }
    Ok(())
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::permanent(Code::Unavailable, format!("the proxy cannot {what}: {}", words::of_io(error)))
}

/// Whether nobody on another machine can connect there.
pub(super) fn is_of_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as StdTcpStream;

    use super::*;
    use crate::os::inherited::until;

    #[tokio::test]
    async fn of_two_that_find_what_an_earlier_one_left_at_once_one_listens_and_is_reached() {
        let place = tempfile::tempdir().unwrap();
        let (directory, runtime) = (place.path().join("run"), tokio::runtime::Handle::current());
        make_directories(&directory, 0o700).unwrap();
        for round in 0..100 {
            let path = directory.join(round.to_string());
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            until(|| StdUnixStream::connect(&path).is_err());
            let both = std::sync::Barrier::new(2);
            let start = || {
                let _entered = runtime.enter();
                both.wait();
                bind(&directory, &path, false)
            };
            let (one, other) = std::thread::scope(|scope| {
                let other = scope.spawn(start);
                (start(), other.join().unwrap())
            });
            assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
            let late = one.as_ref().err().or(other.as_ref().err()).unwrap().kind();
            assert_eq!(late, ErrorKind::AddrInUse);
            StdUnixStream::connect(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_replaces_only_what_is_left_of_an_earlier_one() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("run");
        let path = directory.join(SOCKET);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let first = bind(&directory, &path, false).unwrap();
        assert!(is_private(&first));
        assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
        assert_eq!(bind(&directory, &path, false).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        until(|| StdUnixStream::connect(&path).is_err());
        let second = bind(&directory, &path, true).unwrap();
        assert!(!is_private(&second));
        assert_eq!((mode(&directory), mode(&path)), (0o711, 0o666));
        drop(second);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(bind(&directory, &path, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(bind(&directory, &path, false).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn ports_follow_the_configuration_all_together_or_not_at_all() {
        let config = |listen: &str, ports: &[u16]| {
            let connection = |port: &u16| {
                format!("[[connection]]\nname = 'at{port}'\nhost = 'at{port}.example'\nproxy_port = {port}\n")
            };
            let workspace = "[[workspace]]\nhost = 'https://w.example'\nauth = 'databricks-cli'\n\
                 [[connection]]\nname = 'portless'\nhost = 'portless'\n";
            let connections: String = ports.iter().map(connection).collect();
            Config::of_text(&format!("proxy_listen = '{listen}'\n{workspace}{connections}"))
        };
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().port();
        // Below those that the system gives to whoever wants any, so that nobody gets them meanwhile.
        let is_free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
        let mut free = (10_000..32_000).filter(is_free);
        let (one, other) = (free.next().unwrap(), free.next().unwrap());
        let mut all = Listeners::default();
        for (listen, ports, open) in [
            ("127.0.0.1", vec![one], vec![("127.0.0.1", one)]),
            ("127.0.0.1", vec![other, taken], vec![("127.0.0.1", one)]),
            ("0.0.0.0", vec![one, taken], vec![("127.0.0.1", one)]),
            ("0.0.0.0", vec![one, other], vec![("0.0.0.0", one), ("0.0.0.0", other)]),
            ("127.0.0.1", vec![other], vec![("127.0.0.1", other)]),
            ("127.0.0.1", vec![], vec![]),
        ] {
            let followed = all.follow(&config(listen, &ports));
            assert_eq!(followed.is_err(), ports.contains(&taken), "{listen} {ports:?}");
            let open: Vec<SocketAddr> =
                open.into_iter().map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port)).collect();
            assert_eq!(all.ports().collect::<Vec<_>>(), open, "{listen} {ports:?}");
            assert!(open.iter().all(|address| StdTcpStream::connect(("127.0.0.1", address.port())).is_ok()));
        }
        assert!(StdTcpStream::connect(("127.0.0.1", one)).is_err());
    }

    #[test]
    fn a_listener_for_all_addresses_serves_each() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (listener, address, does) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "0.0.0.0:1", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "127.0.0.1:1", true),
        ] {
            assert_eq!(serves(at(listener), at(address)), does, "{listener} {address}");
        }
    }
}
