//! The repository for apt: an index that changes under a client costs nothing, and an old state is refused.
//!
//! apt is this machine's own, with a root of its own, and reads the repository by HTTP. `deb.rs` and `rpm/life.rs` install from it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::workspace::scratch_directory;
use crate::{built, printed, with_ending};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/repository");
const KEY: &str = "archive@example.invalid";

/// A repository that is served, its key, and an apt that knows nothing else.
struct Served {
    directory: tempfile::TempDir,
    packages: PathBuf,
    server: Child,
}

impl Served {
    fn new(packages: PathBuf) -> Self {
        let directory = scratch_directory(0o755);
        for (name, mode) in [("keys", 0o700), ("web", 0o755), ("apt/etc", 0o755), ("apt/cache/archives/partial", 0o755)]
        {
            let path = directory.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::write(directory.path().join("apt/status"), "").unwrap();
        // It says on which port it listens.
        let mut server = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(directory.path().join("web"))
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("asked")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let source = format!(
            "deb [signed-by={}/web/dbx-rotator.asc] http://127.0.0.1:{port}/apt stable main\n",
            directory.path().display()
        );
        fs::write(directory.path().join("apt/etc/sources.list"), source).unwrap();
        let served = Served { directory, packages, server };
        let key = ["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEY, "default", "sign", "1d"];
        printed(served.command("gpg").args(key));
        served.publish();
        served
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.at("keys"));
        command
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn index(&self, name: &str) -> PathBuf {
        self.at("web/apt/dists/stable").join(name)
    }

    fn publish(&self) {
        printed(self.command(SCRIPT).arg(&self.packages).arg(self.at("web")).arg(KEY));
    }

    /// Signs what is there once more; what it says when it refuses.
    fn resign(&self) -> Result<(), String> {
        let output = self.command(SCRIPT).arg("resign").arg(self.at("web")).arg(KEY).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// What apt says of the repository as it is now, with nothing known from before where `anew`.
    fn update(&self, anew: bool) -> Result<(), String> {
        let lists = self.at("apt/lists");
        if anew {
            let _ = fs::remove_dir_all(&lists);
        }
        fs::create_dir_all(lists.join("partial")).unwrap();
        let root = self.at("apt").display().to_string();
        let options = [
            format!("Dir::Etc={root}/etc"),
            format!("Dir::State={root}"),
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::State::status={root}/status"),
            format!("Dir::Cache={root}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::http::Proxy=false".to_owned(),
            "Acquire::Retries=0".to_owned(),
            // Whatever this machine's apt is told of its own sources.
            "Acquire::Check-Valid-Until=true".to_owned(),
            "Acquire::Check-Date=true".to_owned(),
            // Our scratch directory is nobody's else.
            "APT::Sandbox::User=".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        let mut apt = Command::new("apt-get");
        apt.env("LC_ALL", "C").arg("update").args(options.iter().flat_map(|option| ["-o", option]));
        let output = apt.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// The paths that the server was asked for.
    fn asked(&self) -> String {
        fs::read_to_string(self.at("asked")).unwrap()
    }

    /// Says another time in a signed Release, as one that was signed long ago does.
    fn age(&self) {
        let release = self.index("Release");
        let text = fs::read_to_string(&release).unwrap();
        let line = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let old = text
            .replace(&line(&text, "Date: "), "Date: Mon, 02 Nov 2020 10:00:00 UTC")
            .replace(&line(&text, "Valid-Until: "), "Valid-Until: Wed, 02 Dec 2020 10:00:00 UTC");
        fs::write(&release, old).unwrap();
        let gpg = ["--batch", "--yes", "--quiet", "--local-user", KEY];
        let sign = |how: &[&str], to: &str| {
            printed(self.command("gpg").args(gpg).args(how).arg("--output").arg(self.index(to)).arg(&release));
        };
        sign(&["--clearsign"], "InRelease");
        sign(&["--armor", "--detach-sign"], "Release.gpg");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

fn spoil(file: &Path) {
    fs::write(file, "rubbish\n").unwrap();
}

fn served(test: &str) -> Option<Served> {
    let needed = ["apt-get", "apt-ftparchive", "createrepo_c", "gpg", "gpgv", "python3"];
    built::packages_or_skip(test, None, &needed).map(Served::new)
}

#[test]
fn a_package_index_that_changes_meanwhile_is_still_the_one_that_was_signed() {
    let Some(served) = served("a_package_index_that_changes_meanwhile_is_still_the_one_that_was_signed") else {
        return;
    };
    let architecture =
        printed(Command::new("dpkg-deb").arg("-f").arg(with_ending(&served.packages, ".deb")).arg("Architecture"));
    let directory = format!("main/binary-{}", architecture.trim());
    // As if the next release were being copied, index first.
    for name in ["Packages", "Packages.gz"] {
        spoil(&served.index(&directory).join(name));
    }
    served.update(true).unwrap();
    let asked = served.asked();
    assert!(asked.contains(&format!("{directory}/by-hash/SHA256/")), "{asked}");
    assert!(!asked.contains(&format!("{directory}/Packages")), "{asked}");
    // What the release before names is there beside that of the next one.
    let hashes = served.index(&directory).join("by-hash/SHA256");
    fs::write(hashes.join("0".repeat(64)), "of before").unwrap();
    served.publish();
    assert_eq!(fs::read_dir(&hashes).unwrap().count(), 3);
    served.update(false).unwrap();
    // Without it, apt takes nothing that was not signed.
    fs::remove_dir_all(&hashes).unwrap();
    spoil(&served.index(&directory).join("Packages"));
    spoil(&served.index(&directory).join("Packages.gz"));
    assert!(served.update(true).is_err());
}

#[test]
fn a_package_archive_that_nobody_signs_again_is_refused_until_somebody_does() {
    let Some(served) = served("a_package_archive_that_nobody_signs_again_is_refused_until_somebody_does") else {
        return;
    };
    let release = || fs::read_to_string(served.index("Release")).unwrap();
    assert!(release().contains("Acquire-By-Hash: yes\n") && release().contains("\nValid-Until: "), "{}", release());
    served.age();
    let refused = served.update(true).unwrap_err();
    assert!(refused.contains("expired") || refused.contains("no longer valid"), "{refused}");
    served.resign().unwrap();
    served.update(true).unwrap();
    assert!(release().matches("Valid-Until").count() == 1 && !release().contains(" 2020 "), "{}", release());
    // Who can write to the web server, and has no key, does not get it signed.
    let tampered = release().replace("Suite: stable", "Suite: unstable");
    let (before, signed) = (release(), fs::read(served.index("InRelease")).unwrap());
    fs::write(served.index("Release"), tampered).unwrap();
    assert!(served.resign().unwrap_err().contains("is not what this key signed"));
    fs::write(served.index("Release"), &before).unwrap();
    let architecture =
        printed(Command::new("dpkg-deb").arg("-f").arg(with_ending(&served.packages, ".deb")).arg("Architecture"));
    spoil(&served.index(&format!("main/binary-{}/Packages", architecture.trim())));
    assert!(served.resign().unwrap_err().contains("does not hold what its Release says"));
    spoil(&served.at("web/rpm/repodata/repomd.xml"));
    assert!(served.resign().unwrap_err().contains("repomd.xml is not what this key signed"));
    assert_eq!(fs::read(served.index("InRelease")).unwrap(), signed, "nothing was changed");
}
