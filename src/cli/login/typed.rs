//! What a person types while a login waits for the browser.

use std::io::{BufRead as _, IsTerminal as _, PipeReader, PipeWriter, Stdin, pipe, stdin};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::Zeroizing;

use crate::os::wiped;

/// The longest line that can be pasted, in bytes; terminals cut off after 4095.
const LONGEST_LINE: usize = 32 * 1024;

/// The lines that are typed, for as long as this lives. Once it is dropped nothing more is read, so that the next line is there for
/// the next question.
pub(super) struct TypedLines {
    lines: UnboundedReceiver<Zeroizing<String>>,
    /// None where nobody can type.
    reader: Option<Reader>,
}

struct Reader {
    thread: JoinHandle<()>,
    /// Closed to end the thread.
    stop: PipeWriter,
}

impl TypedLines {
    pub(super) fn begin() -> Self {
        let (sender, lines) = unbounded_channel();
        let ends = stdin().is_terminal().then(pipe).and_then(Result::ok);
        let reader = ends.map(|(stopped, stop)| {
            let thread = std::thread::spawn(move || read_lines(&stdin(), &stopped, &sender));
            Reader { thread, stop }
        });
        Self { lines, reader }
    }

    /// The next line; none once no more can come.
    pub(super) async fn next(&mut self) -> Option<Zeroizing<String>> {
        self.lines.recv().await
    }
}

impl Drop for TypedLines {
    fn drop(&mut self) {
        if let Some(Reader { thread, stop }) = self.reader.take() {
            drop(stop);
            // It ends at once: it only reads what is already there.
            let _ = thread.join();
        }
    }
}

fn read_lines(stdin: &Stdin, stopped: &PipeReader, sender: &UnboundedSender<Zeroizing<String>>) {
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let mut both = [PollFd::new(stopped, PollFlags::IN), PollFd::new(stdin, PollFlags::IN)];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            Ok(1..) if both[0].revents().is_empty() => {}
            _ => return,
        }
        // One read and no more: a second one would wait if the line is not complete (Ctrl-D in the middle of it).
        let mut stdin = stdin.lock();
        let Ok(piece @ [_, ..]) = stdin.fill_buf() else { return };
        let end = piece.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(piece.len(), |end| end + 1);
        wiped::append(&mut line, &piece[..count]);
        stdin.consume(count);
        if end.is_some() || line.len() >= LONGEST_LINE {
            let typed = Zeroizing::new(String::from_utf8_lossy(&line).into_owned());
            if sender.send(typed).is_err() {
                return;
            }
            line = Zeroizing::new(Vec::new());
        }
    }
}
