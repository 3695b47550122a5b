//! The agents as launchd reads them, from one model. dist/launchd has the first for Homebrew, with comments; a test compares them.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use launchd::{KeepAliveOptions, Launchd as PropertyList, LoadSessionType, ProcessType};

use crate::failure::{Code, Failure};
use crate::generated::{expressible, read_back};
use crate::os::launchd::{LABEL, PROXY_LABEL};

/// The mark in each file that `service install` writes.
pub(super) const MARK: &str =
    "<!-- Written by `dbx-rotator service install`; `dbx-rotator service uninstall` removes it. -->";

/// How long launchd waits between two starts, in seconds: its default, given here to make it visible.
const THROTTLE: u32 = 10;

/// How long the proxy may take to end, in seconds: busy sessions have 75 s, and what was started for a renewal has 20 s. The others have
/// launchd's default, 20 s.
const LONGEST_PROXY_END: u32 = 100;

/// What an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Renews the passwords.
    Renew,
    /// Serves as the local proxy, and listens itself.
    Proxy,
}

impl Job {
    /// The agent's label, which is also the name of its file.
    pub(super) fn label(self) -> &'static str {
        if self == Job::Proxy { PROXY_LABEL } else { LABEL }
    }

    /// The program's command.
    fn command(self) -> &'static str {
        if self == Job::Proxy { "proxy" } else { "run" }
    }
}

/// A long-running agent. It keeps its own schedule, because launchd's StartInterval does not fire during sleep.
pub(super) struct Agent<'a> {
    pub(super) job: Job,
    pub(super) program: &'a str,
    /// Where the agent finds other programs, such as the Databricks CLI.
    pub(super) path: &'a str,
    /// Where output goes that the unified log cannot carry: messages before it is open, and the last words of a panic or of the
    /// watchdog.
    pub(super) errors: &'a str,
}

impl Agent<'_> {
    /// The model holds no secret: everybody on the machine may read it.
    fn model(&self) -> Result<PropertyList, launchd::Error> {
        let variables = HashMap::from([("PATH".to_owned(), self.path.to_owned())]);
        // The default, Aqua alone, cannot be loaded over ssh.
        let sessions = LoadSessionType::from(vec!["Aqua", "Background"]);
        let list = match self.job {
            Job::Proxy => PropertyList::default().with_exit_timeout(LONGEST_PROXY_END),
            Job::Renew => PropertyList::default(),
        };
        list.with_label(self.job.label())
            .with_program_arguments(vec![self.program.to_owned(), self.job.command().to_owned()])
            .with_run_at_load(true)
            // Restart after a crash, and when our own watchdog ends it (launchd has none).
            .with_keep_alive(KeepAliveOptions::new().with_successful_exit(false).into())
            .with_throttle_interval(THROTTLE)
            .with_process_type(ProcessType::Background)
            .with_limit_load_to_session_type(sessions)
            .with_umask(0o077)
            .with_environment_variables(variables)
            .with_standard_error_path(Path::new(self.errors))
    }

    /// The property list, marked as ours.
    ///
    /// # Errors
    /// A path holds what XML cannot carry, or would not be read as meant.
    pub(super) fn text(&self) -> Result<String, Failure> {
        let fail = || {
            let message = "cannot write the agent: what was made of its settings is no property list";
            Failure::permanent(Code::Unavailable, message)
                .hint("report it, with the paths of this program and of your home")
        };
        let mut text = Vec::new();
        // XML cannot carry control characters.
        for path in [self.program, self.path, self.errors] {
            expressible("an agent of launchd", Path::new(path), &[])?;
        }
        self.model().and_then(|model| model.to_writer_xml(&mut text)).map_err(|_| fail())?;
        let text = String::from_utf8(text).map_err(|_| fail())?;
        let found = PropertyList::from_reader_xml(Cursor::new(&text)).map_err(|_| fail())?;
        read_back("the agent", &self.model().map_err(|_| fail())?, Some(&found))?;
        Ok(text.replacen("<plist ", &format!("{MARK}\n<plist "), 1))
    }
}

#[cfg(test)]
mod tests {
    use plist::{Dictionary, Value};

    use super::*;

    fn read(text: &str) -> Dictionary {
        Value::from_reader_xml(text.as_bytes()).unwrap().into_dictionary().unwrap()
    }

    fn agent() -> Agent<'static> {
        Agent {
            job: Job::Renew,
            program: "/opt/a & b/dbx-rotator",
            path: "/opt/a/bin:/usr/bin",
            errors: "/Users/ada/Library/Logs/x.log",
        }
    }

    #[test]
    fn another_reader_finds_in_it_what_the_model_says() {
        let agent = agent();
        let text = agent.text().unwrap();
        assert!(text.contains(MARK), "{text}");
        let read = read(&text);
        let expected = [
            ("Label", Value::from(LABEL)),
            ("ProgramArguments", vec![Value::from(agent.program), Value::from("run")].into()),
            ("RunAtLoad", true.into()),
            ("KeepAlive", Dictionary::from_iter([("SuccessfulExit", false)]).into()),
            ("ThrottleInterval", 10.into()),
            ("ProcessType", "Background".into()),
            ("LimitLoadToSessionType", vec![Value::from("Aqua"), Value::from("Background")].into()),
            ("Umask", 63.into()),
            ("EnvironmentVariables", Dictionary::from_iter([("PATH", agent.path)]).into()),
            ("StandardErrorPath", agent.errors.into()),
        ];
        assert_eq!(read, Dictionary::from_iter(expected));
    }

    #[test]
    fn the_proxys_agent_runs_the_proxy_and_has_the_time_that_its_sessions_need() {
        let (renews, serves) = (agent(), Agent { job: Job::Proxy, ..agent() });
        let (mut renews, mut serves) = (read(&renews.text().unwrap()), read(&serves.text().unwrap()));
        assert_eq!(serves.remove("Label"), Some(PROXY_LABEL.into()));
        let arguments = vec![Value::from(agent().program), Value::from("proxy")];
        assert_eq!(serves.remove("ProgramArguments"), Some(arguments.into()));
        assert_eq!(serves.remove("ExitTimeOut"), Some(100.into()));
        // In all else they are the same.
        for key in ["Label", "ProgramArguments"] {
            renews.remove(key);
        }
        assert_eq!(serves, renews);
    }

    #[test]
    fn a_path_is_what_it_is_or_refused() {
        for program in ["/a</string><string>b", "/a]]>", "/a&amp;b", "/a<!--b", "/a\"'b", "/é %h $HOME"] {
            let text = Agent { program, ..agent() }.text().unwrap();
            let arguments = read(&text)["ProgramArguments"].as_array().unwrap().clone();
            assert_eq!(arguments, [Value::from(program), Value::from("run")]);
        }
        for program in ["/a\nb", "/a\u{1}", "/a\u{202e}b"] {
            assert!(Agent { program, ..agent() }.text().is_err(), "{program:?}");
        }
    }

    #[test]
    fn dist_has_the_same_agent_with_homebrews_places() {
        let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/launchd/app.dbx-rotator.agent.plist");
        let model = Agent {
            job: Job::Renew,
            program: "HOMEBREW_PREFIX/opt/dbx-rotator/bin/dbx-rotator",
            path: "HOMEBREW_PREFIX/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            errors: "HOMEBREW_PREFIX/var/log/dbx-rotator.log",
        };
        assert_eq!(read(&std::fs::read_to_string(dist).unwrap()), read(&model.text().unwrap()));
    }
}
