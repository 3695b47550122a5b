//! Users of this machine by number (passwd(5), group(5)): what a process needs that gives up root's power for theirs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The group of nobody, for whom no group is known.
pub(crate) const NOBODY: u32 = 65_534;

/// Where users of a directory service are asked for.
const GETENT: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// The user's own group.
    pub(crate) gid: u32,
}

/// The user of this number, where the machine knows one.
pub(crate) fn of_uid(uid: u32) -> Option<Account> {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&known, uid).or_else(|| find(&getent("passwd", &uid.to_string()), uid))
}

/// The groups of a user: the one given, and those that the machine counts the user in.
pub(crate) fn groups_of(uid: u32, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid];
    if let Some(account) = of_uid(uid) {
        let known = fs::read_to_string("/etc/group").unwrap_or_default();
        groups.extend(listing(&known, &account.name).filter(|group| *group != gid));
    }
    groups
}

fn find(passwd: &str, uid: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_it = number.parse() == Ok(uid) && !name.is_empty();
        is_it.then(|| Some(Account { name: name.to_owned(), gid: gid.parse().ok()? }))?
    })
}

/// The groups whose members name this user.
fn listing<'t>(groups: &'t str, name: &'t str) -> impl Iterator<Item = u32> + 't {
    groups.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let (_, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
    })
}

/// What the name service knows (getent(1)); nothing where it cannot be asked.
fn getent(database: &str, key: &str) -> String {
    let Some(program) = GETENT.iter().find(|program| Path::new(program).exists()) else { return String::new() };
    let output = Command::new(program).args([database, "--", key]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_number_and_counted_in_groups_by_the_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\nx:y\nbob:x:100:101::/:/bin/sh\n";
        assert_eq!(find(passwd, 100), Some(Account { name: "bob".to_owned(), gid: 101 }));
        assert_eq!((find(passwd, 10), find("ada:x:1000\n", 1000)), (None, None));
        let groups = "users:x:100:\ndb:x:50:bob,ada\nadas:x:51:adam\nodd\n";
        assert_eq!(listing(groups, "ada").collect::<Vec<_>>(), [50]);
    }
}
