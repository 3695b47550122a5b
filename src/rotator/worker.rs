//! The thread that works for a rotator, with a runtime of its own.

use std::pin::Pin;
use std::sync::Mutex;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::failure::{Code, Failure};
use crate::words;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Started by the first piece of work. Ends after the last, once the rotator is gone.
#[derive(Default)]
pub(super) struct Worker {
    queue: Mutex<Option<UnboundedSender<Work>>>,
}

impl Worker {
    /// Lets the thread do it, and waits for its result; the work goes on where nobody waits any more.
    ///
    /// # Errors
    /// Transient: there can be no thread, or the work ended with a panic.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        let work = async move {
            // Who waited may have stopped.
            let _ = sender.send(work.await);
        };
        self.queue()?.send(Box::pin(work)).map_err(|_| broken("it has ended"))?;
        receiver.await.map_err(|_| broken("its work ended unexpectedly"))
    }

    fn queue(&self) -> Result<UnboundedSender<Work>, Failure> {
        let mut queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(queue) = queue.as_ref().filter(|queue| !queue.is_closed()) {
            return Ok(queue.clone());
        }
        let (sender, receiver) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| broken(&words::of_io(&error)))?;
        let name = "dbx-rotator".to_owned();
        // The caller's own subscriber of messages is heard there, too.
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let work = move || tracing::dispatcher::with_default(&dispatch, || runtime.block_on(serve(receiver)));
        std::thread::Builder::new().name(name).spawn(work).map_err(|error| broken(&words::of_io(&error)))?;
        *queue = Some(sender.clone());
        Ok(sender)
    }
}

async fn serve(mut queue: UnboundedReceiver<Work>) {
    let mut all = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            work = queue.recv() => match work {
                Some(work) => drop(all.spawn(work)),
                None => break,
            },
            Some(_) = all.join_next() => {}
        }
    }
    while all.join_next().await.is_some() {}
}

fn broken(why: &str) -> Failure {
    Failure::transient(Code::Unavailable, format!("the thread that rotates cannot work: {why}"))
        .hint("see what this machine is short of")
}
