//! The end of the proxy's own password. What has it is known by it: nobody else's entry of a password file has those 192 bits.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use super::password::{self, path};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::os::identity::try_as_owner_of;
use crate::pgpass::Unwanted;
use crate::rotation::{PROXY, Rotation, Running};
use crate::words;

/// Removes the proxy's own password and the entries of the password files that have it. Returns what was done, a sentence each.
///
/// # Errors
/// One of the files cannot be changed. Transient: another instance has held the lock for all of `limit`.
pub(crate) async fn forget(config: &Config, limit: Duration) -> Result<Vec<String>, Failure> {
    let file = path(&config.state_dir);
    if try_as_owner_of(&config.state_dir, || fs::symlink_metadata(&file)).is_err() {
        return Ok(Vec::new());
    }
    if Running::is_marked_as(PROXY, &config.state_dir) {
        return Ok(vec![format!("Kept {}: a proxy of this user still runs", file.display())]);
    }
    let mut said = Vec::new();
    // First the entries: without the file nobody could tell whose they are.
    match try_as_owner_of(&config.state_dir, || password::of_file(&file)) {
        Ok(password) => {
            let unwanted = Unwanted { host: "localhost", password: &password, in_use: &[] };
            for (place, count) in Rotation::new(config.clone()).remove_beside(limit, &unwanted).await? {
                let entries = if count == 1 { "entry" } else { "entries" };
                said.push(format!("Removed the proxy's {count} {entries} for localhost from {}", place.display()));
            }
        }
        Err(error) => said.push(format!(
            "Kept the entries for localhost in {}: {} cannot be read ({}), so nobody knows which are the proxy's",
            config.named_password_files(),
            file.display(),
            words::of_io(&error)
        )),
    }
    match try_as_owner_of(&config.state_dir, || fs::remove_file(&file)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let message = format!("cannot remove {}: {}", file.display(), words::of_io(&error));
            Err(Failure::permanent(Code::CannotWrite, message))
        }
        _ => {
            said.push(format!("Removed {}", file.display()));
            Ok(said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::inherited::until;
    use secrecy::ExposeSecret;

    #[tokio::test]
    async fn what_has_the_proxys_password_goes_with_it_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        let toml = "[[connection]]\nhost = 'db.example.com'\nuser = 'ada'\n";
        fs::create_dir_all(home.join(".config/dbx-rotator")).unwrap();
        fs::write(home.join(".config/dbx-rotator/config.toml"), toml).unwrap();
        let environment = [("HOME", home.as_os_str()), ("DATABRICKS_HOST", "https://x.example".as_ref())];
        let environment: crate::os::dirs::Environment = environment.into_iter().collect();
        let config = Config::load_in(environment, &crate::config::Overrides::default()).unwrap();
        assert_eq!(forget(&config, Duration::ZERO).await.unwrap(), Vec::<String>::new());
        let password = password::kept(&config.state_dir).unwrap();
        let others = "localhost:6432:*:ada:mine\ndb.example.com:5432:*:ada:token\n";
        let mine = format!("localhost:6432:*:ada:{0}\nlocalhost:6432:*:x:{0}\n", password.expose_secret());
        let passwords = &config.password_files[0];
        fs::write(passwords, format!("{mine}{others}")).unwrap();
        let running = Running::mark_as(PROXY, &config.state_dir);
        assert!(forget(&config, Duration::ZERO).await.unwrap()[0].contains("still runs"));
        drop(running);
        until(|| !Running::is_marked_as(PROXY, &config.state_dir));
        // Another instance may be about to replace the password file.
        let other = fs::File::create(config.state_dir.join("lock")).unwrap();
        other.lock().unwrap();
        assert_eq!(forget(&config, Duration::ZERO).await.unwrap_err().code, Code::TryAgain);
        assert!(fs::read_to_string(passwords).unwrap().starts_with(&mine));
        drop(other);
        let said = forget(&config, Duration::ZERO).await.unwrap();
        assert!(said[0].starts_with("Removed the proxy's 2 entries for localhost"), "{said:?}");
        assert!(said[1].ends_with("proxy-password") && !path(&config.state_dir).exists(), "{said:?}");
        assert_eq!(fs::read_to_string(passwords).unwrap(), others);
        // One that cannot be read is said, and goes.
        fs::write(path(&config.state_dir), "two words").unwrap();
        let said = forget(&config, Duration::ZERO).await.unwrap();
        assert!(said[0].starts_with("Kept the entries") && said.len() == 2, "{said:?}");
    }
}
