//! `status --watch`: the same, drawn anew on a screen of its own whenever it changes, until somebody ends it.

use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal as Number, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::glance::Glance;
use super::{StatusOptions, View, Whose};
use crate::cli::screen::{self, Line, Screen, Style};
use crate::cli::{Fault, block_on, choose, print};
use crate::config::ConfigError;
use crate::failure::{Code, Failure};
use crate::os::blocking::on_a_thread;
use crate::os::dirs::Environment;
use crate::os::signals::are_listened_for;
use crate::os::watch::{self, Stamps};
use crate::os::zone;
use crate::rotation::Rotation;
use crate::service::State;
use crate::words;

/// How long nothing is drawn, at most: times go on.
const TICK: Duration = Duration::from_secs(1);

/// How often the service manager is asked and the configuration is read: that starts other programs.
const LOOK: Duration = Duration::from_secs(10);

/// A screen of its own for a full-screen program, without a cursor; and back (xterm's private modes 1049 and 25).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Ctrl-D, where keys arrive one by one.
const END_OF_INPUT: u8 = 4;

/// What is shown: the configuration with its record, and what the service manager says.
pub(in crate::cli) type Shown = (Rotation, Option<State>);

/// Reads the configuration and asks the service manager.
type Look = dyn Fn() -> Result<Shown, Fault> + Send + Sync;

/// # Errors
/// There is no screen to draw on, or what is to be shown cannot be read even once.
pub(in crate::cli) fn run(options: &StatusOptions, look: Arc<Look>, whose: Whose) -> Result<u8, Fault> {
    let environment = Environment::of_this_process();
    if !stdout().is_terminal() || !screen::can_move(&environment) {
        let error = ConfigError::usage("--watch draws on a terminal, and standard output is none that can be drawn on");
        return Err(error.hint("leave out --watch; programs read `dbx-rotator status --json`").into());
    }
    let shown = look()?;
    // A wrong name is said where it stays to be read.
    options.connection.as_deref().map(|name| choose::by_name(&shown.0, name)).transpose()?;
    block_on(async {
        let mut watch = Watch { options, whose, environment, shown, refused: None };
        watch.until_somebody_ends_it(look).await
    })?
}

struct Watch<'a> {
    options: &'a StatusOptions,
    whose: Whose,
    environment: Environment,
    shown: Shown,
    /// Why the configuration cannot be used as it is now. What is shown is the one before.
    refused: Option<String>,
}

/// What ended a wait.
enum Wake {
    End,
    Suspend,
    /// Files have changed.
    Changed,
    Draw,
}

impl Watch<'_> {
    async fn until_somebody_ends_it(&mut self, look: Arc<Look>) -> Result<u8, Fault> {
        let mut signals = Signals::listen()?;
        let mut terminal = Terminal::enter()?;
        let mut looking: Option<Looking> = None;
        let mut looked_at = Instant::now();
        loop {
            let files = self.files();
            let before = Stamps::of(&files);
            terminal.draw(&self.screenful())?;
            let look_again = looking.is_none() && looked_at.elapsed() >= LOOK;
            if look_again {
                let look = Arc::clone(&look);
                looking = Some(Box::pin(on_a_thread(move || look())));
            }
            let wake = tokio::select! {
                biased;
                wake = signals.next() => wake,
                () = terminal.quit.notified() => Wake::End,
                looked = finished(&mut looking) => {
                    (looking, looked_at) = (None, Instant::now());
                    self.take(looked);
                    Wake::Draw
                }
                () = watch::changed(&files, || Stamps::of(&files) != before) => Wake::Changed,
                () = tokio::time::sleep(TICK) => if Stamps::of(&files) == before { Wake::Draw } else { Wake::Changed },
            };
            match wake {
                Wake::End => return Ok(0),
                Wake::Suspend => terminal.suspend()?,
                // What has changed may be the configuration, or the work of the service.
                Wake::Changed => looked_at = looked_at.checked_sub(LOOK).unwrap_or(looked_at),
                Wake::Draw => {}
            }
        }
    }

    fn take(&mut self, looked: Result<Shown, Fault>) {
        match looked {
            Ok(shown) => (self.shown, self.refused) = (shown, None),
            Err(Fault::Config(error)) => self.refused = Some(error.sentence()),
            Err(Fault::Failure(failure)) => self.refused = Some(failure.message),
        }
    }

    /// The files that tell how everything stands.
    fn files(&self) -> Vec<PathBuf> {
        let config = self.shown.0.config();
        [config.password_files_to_watch(), config.files_of_people(), self.shown.0.record_files()].concat()
    }

    /// As many lines as the screen has.
    fn screenful(&self) -> Vec<String> {
        let screen = Screen::of_stdout(&self.environment);
        let Some(size) = screen.size else { return Vec::new() };
        let now = zone::now().strftime("%H:%M:%S").to_string();
        let title = Line(vec![
            (Style::Heading, format!("dbx-rotator status at {now}")),
            (Style::Plain, "  (q ends it)".to_owned()),
        ]);
        let mut lines = vec![title.cut(size.columns), Line::default()];
        if let Some(why) = &self.refused {
            let why = crate::foreign::line(why).into_owned();
            lines.extend(screen::folded(&format!("not in use, and the one before is shown: {why}"), size.columns));
        }
        let room = size.rows.saturating_sub(lines.len());
        match self.glance(&screen) {
            Ok(glance) => lines.extend(glance.fitting(size.columns, room)),
            Err(why) => lines.extend(screen::folded(&print::line(&why), size.columns)),
        }
        lines.truncate(size.rows);
        lines.iter().map(|line| screen.line(line)).collect()
    }

    fn glance(&self, screen: &Screen) -> Result<Glance, String> {
        let (rotation, service) = (&self.shown.0, self.shown.1.as_ref());
        let only = match self.options.connection.as_deref().map(|name| choose::by_name(rotation, name)).transpose() {
            Ok(only) => only,
            Err(error) => return Err(error.sentence()),
        };
        let view = View::of(rotation, service, &self.whose).map_err(|failure| failure.message)?;
        let view = View { only, ..view };
        Ok(Glance::of(&view.rows(), &view, service, screen))
    }
}

/// A look that goes on beside the drawing.
type Looking = Pin<Box<dyn Future<Output = io::Result<Result<Shown, Fault>>>>>;

async fn finished(looking: &mut Option<Looking>) -> Result<Shown, Fault> {
    let Some(looking) = looking else { return std::future::pending().await };
    looking.await.unwrap_or_else(|error| {
        let message = format!("could not look again: {}", words::of_io(&error));
        Err(Failure::transient(Code::Unavailable, message).into())
    })
}

struct Signals {
    ends: [Signal; 3],
    suspend: Signal,
    resized: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::transient(Code::Unavailable, format!("cannot listen for signals: {}", words::of_io(&error)))
            })
        };
        let signals = Signals {
            ends: [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?],
            suspend: listen(SignalKind::from_raw(Number::TSTP.as_raw()))?,
            resized: listen(SignalKind::window_change())?,
        };
        are_listened_for();
        Ok(signals)
    }

    async fn next(&mut self) -> Wake {
        let [interrupt, terminate, hangup] = &mut self.ends;
        tokio::select! {
            _ = interrupt.recv() => Wake::End,
            _ = terminate.recv() => Wake::End,
            _ = hangup.recv() => Wake::End,
            _ = self.suspend.recv() => Wake::Suspend,
            _ = self.resized.recv() => Wake::Draw,
        }
    }
}

/// The terminal while we draw on it. It is as it was before once this is dropped.
struct Terminal {
    /// How its keyboard was set, if that is the terminal, too.
    keyboard: Option<Termios>,
    /// Told when somebody wants to end it by a key.
    quit: Arc<Notify>,
}

impl Terminal {
    fn enter() -> Result<Self, Failure> {
        let keyboard = stdin().is_terminal().then(|| tcgetattr(stdin()).ok()).flatten();
        let mut terminal = Terminal { keyboard, quit: Arc::default() };
        terminal.take()?;
        if terminal.keyboard.is_some() {
            terminal.quit = quit_key();
        }
        Ok(terminal)
    }

    fn take(&self) -> Result<(), Failure> {
        if let Some(before) = &self.keyboard {
            let mut modes = before.clone();
            // Keys arrive one by one and are not shown. Ctrl-C and Ctrl-Z remain signals.
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
        }
        print::exactly(ENTER)
    }

    fn give_back(&self) {
        let _ = print::exactly(LEAVE);
        if let Some(before) = &self.keyboard {
            // What was typed meanwhile is not meant for the shell.
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }

    /// Stops this process as Ctrl-Z does, and goes on when it is told to.
    fn suspend(&mut self) -> Result<(), Failure> {
        self.give_back();
        let _ = kill_process(getpid(), Number::STOP);
        self.take()
    }

    /// Replaces what is shown, in one write, without making it dark in between.
    fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            text.push_str(if index > 0 { "\n" } else { "" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        print::exactly(&text)
    }
}

/// Tells of the key that ends it, or of the end of all keys. The thread waits for keys until the process ends.
fn quit_key() -> Arc<Notify> {
    let pressed = Arc::new(Notify::new());
    let told = Arc::clone(&pressed);
    std::thread::spawn(move || {
        let mut keys = stdin().lock();
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = keys.read(&mut piece) {
            if piece[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | END_OF_INPUT)) {
                break;
            }
        }
        told.notify_one();
    });
    pressed
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
        let _ = stdout().flush();
    }
}
