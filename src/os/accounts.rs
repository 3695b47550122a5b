//! Users of this machine by number (passwd(5), group(5)), for a process that gives up root's privileges for one of
//! them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The group of the user nobody: used where the user's own group is unknown.
pub(crate) const NOBODY: u32 = 65_534;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Larger than those of a machine with a hundred thousand users, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// Where getent(1) may be: it knows the users of a directory service.
const GETENT: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];

/// How long a directory service may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// The user's primary group.
    pub(crate) gid: u32,
    /// None where the line has no absolute path.
    pub(crate) home: Option<PathBuf>,
}

/// The user with this number, if the machine knows one.
pub(crate) fn of_uid(uid: u32) -> Option<Account> {
    listed(uid).or_else(|| of_service(uid))
}

/// The user with this number, if a directory service knows one.
fn of_service(uid: u32) -> Option<Account> {
    find(&getent("passwd", &uid.to_string()), uid)
}

/// The user with this number, if this machine's own list has one. A directory service, which may take its time, is not asked.
pub(crate) fn listed(uid: u32) -> Option<Account> {
    find(&lines_of(PASSWD), uid)
}

/// No answer of a directory service: it has not said that there is no such user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silent;

/// The users of this machine by their names.
pub(crate) struct Users {
    listed: String,
    /// After the first silence a directory service is not asked again: each question takes its time.
    is_silent: bool,
}

impl Users {
    pub(crate) fn of_this_machine() -> Self {
        Users { listed: lines_of(PASSWD), is_silent: false }
    }

    /// The number of a user; none where the machine knows no such user.
    ///
    /// # Errors
    /// A directory service would have to be asked, and does not answer in time.
    pub(crate) fn uid_of(&mut self, name: &str) -> Result<Option<u32>, Silent> {
        if let Some(number) = number_in(&self.listed, name) {
            return Ok(Some(number));
        }
        let answer = if self.is_silent { Err(Silent) } else { ask("passwd", name) };
        self.is_silent = answer.is_err();
        Ok(number_in(&answer?, name))
    }
}

/// The number of a group by its name, or the number itself; none where the machine knows no such group.
pub(crate) fn gid_of(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let known = lines_of(GROUP);
    number_in(&known, group).or_else(|| number_in(&getent("group", group), group))
}

/// The third field of the line that begins with this name: in passwd(5) and group(5) the number.
fn number_in(lines: &str, name: &str) -> Option<u32> {
    let line = lines.lines().find(|line| !name.is_empty() && line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// What the machine calls the user of this name, and the home directory; none where it knows no such user.
pub(crate) fn of_name(name: &str) -> Option<(String, PathBuf)> {
    let known = lines_of(PASSWD);
    let in_file = known.lines().find(|line| line.split(':').next() == Some(name)).and_then(home_in);
    // A directory service may know the user by another spelling.
    let by_service = || getent("passwd", name).lines().next().and_then(home_in);
    in_file.or_else(by_service).or_else(|| of_mac(name))
}

/// A Mac keeps its people elsewhere, and their home directories here.
fn of_mac(name: &str) -> Option<(String, PathBuf)> {
    let home = Path::new("/Users").join(name);
    (cfg!(target_os = "macos") && !name.is_empty() && home.is_dir()).then(|| (name.to_owned(), home))
}

/// Name and home directory of the user that a line of passwd(5) tells of.
fn home_in(line: &str) -> Option<(String, PathBuf)> {
    let fields: Vec<&str> = line.split(':').collect();
    let home = fields.get(5).filter(|home| home.starts_with('/'))?;
    Some(((*fields.first()?).to_owned(), PathBuf::from(home)))
}

/// The groups of a user: the one given, and those that the machine counts the user in.
pub(crate) fn groups_of(uid: u32, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid];
    let listed = listed(uid);
    let is_listed = listed.is_some();
    if let Some(account) = listed.or_else(|| of_service(uid)) {
        groups.extend(listing(&lines_of(GROUP), &account.name));
        // Whom only a directory service knows is in no file, and neither are all the groups.
        if !is_listed {
            groups.extend(counted_in(&getent("initgroups", &account.name), &account.name));
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The groups in an answer about one user: the name, and their numbers.
fn counted_in(answer: &str, name: &str) -> Vec<u32> {
    let numbers = answer.lines().next().and_then(|line| line.strip_prefix(name)).unwrap_or_default();
    numbers.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect()
}

fn find(passwd: &str, uid: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_it = number.parse() == Ok(uid) && !name.is_empty();
        let home = home_in(line).map(|(_, home)| home);
        is_it.then(|| Some(Account { name: name.to_owned(), gid: gid.parse().ok()?, home }))?
    })
}

/// The groups that have this user as a member.
fn listing<'t>(groups: &'t str, name: &'t str) -> impl Iterator<Item = u32> + 't {
    groups.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let (_, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
    })
}

/// What is in one of these files; nothing if it cannot be read. A byte that is no UTF-8 spoils its own line alone.
fn lines_of(path: &str) -> String {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    let Ok(length) = read else { return String::new() };
    if length == LARGEST {
        // A number that is cut off is another one.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the name service says (getent(1)); nothing if it cannot be asked, or does not answer in time.
fn getent(database: &str, key: &str) -> String {
    ask(database, key).unwrap_or_default()
}

/// The same.
///
/// # Errors
/// It does not answer in time.
fn ask(database: &str, key: &str) -> Result<String, Silent> {
    let Some(program) = GETENT.iter().find(|program| Path::new(program).exists()) else { return Ok(String::new()) };
    let mut command = Command::new(program);
    command.args([database, "--", key]);
    let Some(answer) = answer(command, PATIENCE) else {
        tracing::warn!("the directory service did not answer within {} s when asked about {key}", PATIENCE.as_secs());
        return Err(Silent);
    };
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What a program prints; none where it takes longer. Without a thread, which would stay root where this one gives that up
/// ([`super::identity`]).
fn answer(mut command: Command, limit: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + limit;
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        return Some(Vec::new());
    };
    let answer = child.stdout.take().and_then(|output| read_until(output, until));
    // It has nothing more to say.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

/// All that comes up to the end; none where that does not come in time.
fn read_until(mut output: ChildStdout, until: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut place = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok()?;
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Err(Errno::INTR) => continue,
            _ => {}
        }
        match output.read(&mut place) {
            Ok(0) | Err(_) => return Some(answer),
            Ok(length) => answer.extend_from_slice(&place[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_name_and_home() {
        let ada = home_in("ada@corp.example.com:x:2:2:Ada:/srv/ada:/bin/sh").unwrap();
        assert_eq!(ada, ("ada@corp.example.com".to_owned(), PathBuf::from("/srv/ada")));
        for odd in ["", "x:y", "x:x:1:1::not-absolute:/bin/sh"] {
            assert_eq!(home_in(odd), None, "{odd}");
        }
        assert_eq!(of_name("root").map(|(name, _)| name).as_deref(), Some("root"));
        assert_eq!(of_name("no-such-user-here"), None);
    }

    #[test]
    fn a_file_is_read_whatever_one_line_of_it_holds_and_up_to_its_largest_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(
            path,
            b"root:x:0:0::/root:/bin/sh\nren\xe9:x:1:1:Ren\xe9:/:/bin/sh\nada:x:1000:100::/:/bin/sh\n",
        )
        .unwrap();
        assert_eq!(find(&lines_of(path), 1000).map(|account| account.gid), Some(100));
        // A line that is cut off could tell of another number.
        let mut large = b"ada:x:1000:100::/:/bin/sh\n".repeat(LARGEST / 26);
        large.extend_from_slice(b"bob:x:1001:1001::/:/bin/sh\n");
        std::fs::write(path, &large).unwrap();
        let lines = lines_of(path);
        assert!(lines.len() <= LARGEST && lines.ends_with(":/bin/sh\n"));
        assert_eq!(lines_of("/nonexistent"), "");
    }

    #[test]
    fn after_a_silence_only_the_own_list_answers() {
        let mut users = Users::of_this_machine();
        assert_eq!((users.uid_of("root"), users.uid_of("no-such-user-here")), (Ok(Some(0)), Ok(None)));
        users.is_silent = true;
        assert_eq!((users.uid_of("root"), users.uid_of("no-such-user-here")), (Ok(Some(0)), Err(Silent)));
    }

    #[test]
    fn a_directory_service_is_not_awaited_for_ever() {
        let say = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(answer(say("echo ada; exec sleep 60"), Duration::from_millis(200)), None);
        assert_eq!(answer(say("echo ada; echo no >&2; exit 2"), PATIENCE).as_deref(), Some(&b"ada\n"[..]));
        assert_eq!(answer(Command::new("/no/such/program"), PATIENCE).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_group_is_found_by_its_whole_name_or_is_a_number() {
        let groups = "root:x:0:\ndb:x:50:bob,ada\ndbs:x:51:\nodd\n";
        assert_eq!((number_in(groups, "db"), number_in(groups, "d"), number_in(groups, "odd")), (Some(50), None, None));
        assert_eq!((number_in("x\n", ""), gid_of("4711"), gid_of("root")), (None, Some(4711), Some(0)));
        assert_eq!((gid_of("no-such-group-here"), gid_of("-1"), gid_of("")), (None, None, None));
    }

    #[test]
    fn a_user_is_found_by_the_whole_number_and_counted_in_groups_by_the_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\nx:y\nbob:x:100:101::/:/bin/sh\n";
        let home = Some(PathBuf::from("/"));
        assert_eq!(find(passwd, 100), Some(Account { name: "bob".to_owned(), gid: 101, home }));
        assert_eq!((find(passwd, 10), find("ada:x:1000\n", 1000)), (None, None));
        let groups = "users:x:100:\ndb:x:50:bob,ada\nadas:x:51:adam\nodd\n";
        assert_eq!(listing(groups, "ada").collect::<Vec<_>>(), [50]);
        // As getent(1) answers.
        assert_eq!(counted_in("ada                   1000 50\n", "ada"), [1000, 50]);
        assert_eq!((counted_in("ada lovelace 7\n", "ada lovelace"), counted_in("", "ada")), (vec![7], vec![]));
    }
}
