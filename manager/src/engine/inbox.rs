//! What waits for the core: one queue that is taken whole. It wakes the core's thread only for what it can use now, so that
//! a thousand writers whose turn comes with the next sync cost one wake-up.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_manager_core::FULL_GROUP;
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::Event;
use swarm_model::Actor;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What waits in the inbox.
pub enum Item {
    Event(Event, Option<OwnedSemaphorePermit>),
    Request(Option<Actor>, Request, oneshot::Sender<Result<Response, ApiError>>, OwnedSemaphorePermit),
    Stop,
}

impl Item {
    fn is_write(&self) -> bool {
        matches!(self, Self::Request(_, request, ..) if !request.is_read())
    }
}

/// What ends the sleep of the core's thread, besides its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Anything,
    /// Writes join those that wait, until they are a group.
    AnythingButWrites,
}

/// The core takes nothing any more.
#[derive(Debug)]
pub struct Closed;

/// Clones are the same.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of them, those that are no writes.
    urgent: usize,
    /// While the core's thread sleeps.
    asleep: Option<Wake>,
    closed: bool,
}

impl Queue {
    fn is_worth(&self, wake: Wake) -> bool {
        match wake {
            Wake::Anything => !self.items.is_empty(),
            Wake::AnythingButWrites => self.urgent > 0 || self.items.len() >= FULL_GROUP,
        }
    }
}

impl Inbox {
    /// # Errors
    /// The core has stopped.
    pub fn put(&self, item: Item) -> Result<(), Closed> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Closed);
        }
        queue.urgent += usize::from(!item.is_write());
        queue.items.push_back(item);
        let wakes = queue.asleep.is_some_and(|wake| queue.is_worth(wake));
        if wakes {
            queue.asleep = None;
        }
        drop(queue);
        if wakes {
            self.0.arrived.notify_one();
        }
        Ok(())
    }

    /// Everything, at most `limit`, once there is something of what `wake` says, or `wait` is over.
    pub fn take(&self, limit: usize, wake: Wake, wait: Duration) -> VecDeque<Item> {
        let mut queue = self.lock();
        if !queue.is_worth(wake) && !wait.is_zero() {
            queue.asleep = Some(wake);
            let waited = self.0.arrived.wait_timeout_while(queue, wait, |queue| queue.asleep.is_some());
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.asleep = None;
        }
        let count = limit.min(queue.items.len());
        let rest = queue.items.split_off(count);
        let taken = std::mem::replace(&mut queue.items, rest);
        queue.urgent = queue.items.iter().filter(|item| !item.is_write()).count();
        taken
    }

    /// Nothing is taken any more: who waits for an answer learns that there is none.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let rest = std::mem::take(&mut queue.items);
        drop(queue);
        drop(rest);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(peer: u64) -> Item {
        Item::Event(Event::PeerLost { peer }, None)
    }

    async fn write() -> Item {
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
        let request = Request::SetCertificateLife { life: Duration::ZERO };
        Item::Request(None, request, oneshot::channel().0, permit)
    }

    #[tokio::test]
    async fn writes_wait_for_something_else_or_the_deadline() {
        let inbox = Inbox::default();
        let moment = Duration::from_millis(1);
        assert!(inbox.put(write().await).is_ok());
        let begin = std::time::Instant::now();
        assert_eq!(inbox.take(9, Wake::AnythingButWrites, moment).len(), 1);
        assert!(begin.elapsed() >= moment);
        assert!(inbox.put(write().await).is_ok() && inbox.put(lost(1)).is_ok());
        assert_eq!(inbox.take(1, Wake::AnythingButWrites, Duration::from_secs(60)).len(), 1);
        assert_eq!(inbox.take(1, Wake::AnythingButWrites, Duration::from_secs(60)).len(), 1);
        let late = write().await;
        let other = inbox.clone();
        let putting = std::thread::spawn(move || drop((other.put(late), other.put(lost(2)))));
        let mut taken = 0;
        while taken < 2 {
            taken += inbox.take(9, Wake::AnythingButWrites, Duration::from_secs(60)).len();
        }
        putting.join().unwrap();
        inbox.close();
        assert!(inbox.put(lost(3)).is_err());
    }
}
