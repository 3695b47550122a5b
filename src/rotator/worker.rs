//! The thread that works for a rotator, with its own runtime.

use std::pin::Pin;
use std::sync::Mutex;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::failure::{Code, Failure};
use crate::os::child::{LAST_WAIT, finish_all};
use crate::words;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts with the first piece of work. Ends after the last one, once the rotator is dropped.
#[derive(Default)]
pub(super) struct Worker {
    queue: Mutex<Option<UnboundedSender<Work>>>,
}

impl Worker {
    /// Runs the work on the thread and waits for its result. The work goes on even if nobody waits any more.
    ///
    /// # Errors
    /// Transient: no thread can be started, or the work panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        let work = async move {
            // Perhaps nobody waits any more.
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
        // The caller's tracing subscriber also gets this thread's messages.
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
    // What that has started and must come to its end, such as the exchange of a refresh token, would end with the runtime.
    finish_all(LAST_WAIT).await;
}

fn broken(why: &str) -> Failure {
    Failure::transient(Code::Unavailable, format!("the thread that rotates cannot work: {why}"))
        .hint("check this machine's memory, threads and open files")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::child::keep_going;

    #[tokio::test]
    async fn what_must_come_to_its_end_does_so_after_the_rotator_is_gone() {
        let worker = Worker::default();
        let (go_on, wait) = oneshot::channel::<()>();
        let (done, end) = oneshot::channel();
        let begin = async move {
            drop(keep_going(async move {
                let _ = wait.await;
                let _ = done.send(());
            }));
        };
        worker.run(begin).await.unwrap();
        drop(worker);
        // Its thread has nothing else to do now.
        std::thread::sleep(std::time::Duration::from_millis(100));
        go_on.send(()).unwrap();
        end.await.unwrap();
    }
}
