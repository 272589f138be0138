//! How the process comes to its end: whether it still serves, and what is still in flight.
//!
//! One record for the whole process. Connections, requests and tunnels are counted here by
//! guards, so that the process can leave as soon as none is left; whoever has to behave
//! differently during a stop asks here, or waits to be told.
//!
//! INVARIANT: the state only moves forward. What a request touches is a count of its own thread
//! and a flag that hardly ever changes: no lock, and no cache line that other threads write.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::Context,
};

use futures::task::AtomicWaker;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::counter::{Counter, Gauge};

/// How far the process has come toward its end.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ProcessState")]
pub enum State {
    /// It serves.
    Serving,
    /// It serves on, and says that it soon will not.
    Draining,
    /// Its listeners are closed; what is in flight finishes.
    Leaving,
    /// The grace period is over; tunnels are closed.
    Ending,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
        }
    }
}

/// What the process is told to do by others than a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop gracefully.
    Stop,
    /// End at once with an error: the process cannot do its work any more.
    Fail(String),
}

/// What is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "InFlight")]
pub struct Load {
    /// Connections of clients, idle ones included.
    pub connections: u64,
    /// Requests that are being answered, tunnels included.
    pub requests: u64,
    /// Tunnels: `WebSocket` connections, and those that are relayed.
    pub tunnels: u64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.connections, "connection"),
            (self.requests, "request"),
            (self.tunnels, "tunnel"),
        ];
        for (index, (count, word)) in counts.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let s = if count == 1 { "" } else { "s" };
            write!(f, "{comma}{count} {word}{s}")?;
        }
        Ok(())
    }
}

/// The record.
#[derive(Debug)]
pub struct Drain {
    state: watch::Sender<State>,
    /// The same in short, for requests: whether connections are not to be kept.
    is_leaving: AtomicBool,
    order: watch::Sender<Option<Order>>,
    doors: AtomicUsize,
    connections: Gauge,
    accepted: Counter,
    requests: Gauge,
    tunnels: Mutex<Tunnels>,
}

#[derive(Debug, Default)]
struct Tunnels {
    next: u64,
    open: HashMap<u64, Arc<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    is_over: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::Serving),
            is_leaving: AtomicBool::new(false),
            order: watch::Sender::new(None),
            doors: AtomicUsize::new(0),
            connections: Gauge::default(),
            accepted: Counter::default(),
            requests: Gauge::default(),
            tunnels: Mutex::default(),
        }
    }
}

impl Drain {
    /// How far the process has come.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// The same, for those who wait for it to change.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Moves the state forward; never back.
    pub fn advance(&self, to: State) {
        if State::Leaving <= to {
            self.is_leaving.store(true, Release);
        }
        self.state.send_if_modified(|now| {
            let moves = *now < to;
            *now = to.max(*now);
            moves
        });
        if to == State::Ending {
            for told in self.tunnels().open.values() {
                told.tell();
            }
        }
    }

    /// Whether connections are not to be kept after the current request.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Acquire)
    }

    /// Gives an order to whoever ends the process. The first one counts, unless it is worse.
    pub fn order(&self, order: Order) {
        self.order.send_if_modified(|known| {
            let is_news = match known {
                None => true,
                Some(Order::Stop) => order != Order::Stop,
                Some(Order::Fail(_)) => false,
            };
            if is_news {
                *known = Some(order);
            }
            is_news
        });
    }

    /// The orders that are given, for the one who follows them.
    pub fn orders(&self) -> watch::Receiver<Option<Order>> {
        self.order.subscribe()
    }

    /// What is in flight.
    pub fn load(&self) -> Load {
        Load {
            connections: self.connections.get(),
            requests: self.requests.get(),
            tunnels: self.tunnels().open.len() as u64,
        }
    }

    /// Whether nothing is left of what came in by a door, and no door is open.
    pub fn is_empty(&self) -> bool {
        self.doors.load(Acquire) == 0 && self.load() == Load::default()
    }

    /// Opens a door: something by which connections arrive. It counts as closed once it is
    /// dropped, which is when no connection can come of it any more.
    pub fn door(self: &Arc<Self>) -> Door {
        self.doors.fetch_add(1, AcqRel);
        Door { drain: self.clone() }
    }

    /// Counts a connection that came.
    pub fn connected(&self) {
        self.connections.enter();
        self.accepted.increment();
    }

    /// How many connections came since the process began.
    pub fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    /// Counts a connection that is gone.
    pub fn disconnected(&self) {
        self.connections.leave();
    }

    /// Counts a request that came.
    pub fn begun(&self) {
        self.requests.enter();
    }

    /// Counts a request that is over.
    pub fn finished(&self) {
        self.requests.leave();
    }

    /// Registers a tunnel, which will be told when the grace period is over.
    pub fn tunnel(self: &Arc<Self>) -> Tunnel {
        let told = Arc::new(Told::default());
        let id = {
            let mut tunnels = self.tunnels();
            tunnels.next += 1;
            let id = tunnels.next;
            tunnels.open.insert(id, told.clone());
            id
        };
        if self.state() == State::Ending {
            told.tell();
        }
        Tunnel { drain: self.clone(), id, told }
    }

    fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn tell(&self) {
        self.is_over.store(true, Release);
        self.waker.wake();
    }
}

/// An open door.
#[derive(Debug)]
pub struct Door {
    drain: Arc<Drain>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.drain.doors.fetch_sub(1, AcqRel);
    }
}

/// A tunnel that is open.
#[derive(Debug)]
pub struct Tunnel {
    drain: Arc<Drain>,
    id: u64,
    told: Arc<Told>,
}

impl Tunnel {
    /// Whether it is to be closed; otherwise the task is woken when it is.
    pub fn poll_told(&self, cx: &Context<'_>) -> bool {
        if self.is_told() {
            return true;
        }
        self.told.waker.register(cx.waker());
        self.is_told()
    }

    /// Whether it is to be closed.
    pub fn is_told(&self) -> bool {
        self.told.is_over.load(Acquire)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.drain.tunnels().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[test]
    fn the_state_only_moves_forward() {
        let drain = Drain::default();
        assert!(!drain.is_leaving());
        drain.advance(State::Leaving);
        drain.advance(State::Draining);
        assert_eq!(drain.state(), State::Leaving);
        assert!(drain.is_leaving());
    }

    #[test]
    fn nothing_is_left_when_all_guards_are_gone() {
        let drain = Arc::new(Drain::default());
        assert!(drain.is_empty());
        let (door, tunnel) = (drain.door(), drain.tunnel());
        drain.connected();
        drain.begun();
        assert_eq!(drain.load(), Load { connections: 1, requests: 1, tunnels: 1 });
        drain.disconnected();
        drain.finished();
        drop(tunnel);
        assert_eq!(drain.load(), Load::default());
        assert!(!drain.is_empty(), "a connection may still come");
        drop(door);
        assert!(drain.is_empty());
    }

    #[tokio::test]
    async fn tunnels_are_told_at_the_end_and_not_before() {
        let drain = Arc::new(Drain::default());
        let tunnel = drain.tunnel();
        drain.advance(State::Leaving);
        assert!(!tunnel.is_told());
        let ending = drain.clone();
        tokio::spawn(async move { ending.advance(State::Ending) });
        let told = |cx: &mut Context<'_>| {
            if tunnel.poll_told(cx) { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(told).await;
        assert!(drain.tunnel().is_told(), "one that comes too late");
    }

    #[test]
    fn a_failure_outdoes_a_stop_and_the_first_failure_counts() {
        let drain = Drain::default();
        let orders = drain.orders();
        for order in [Order::Stop, Order::Fail("one".to_owned()), Order::Fail("two".to_owned())] {
            drain.order(order);
        }
        drain.order(Order::Stop);
        assert_eq!(*orders.borrow(), Some(Order::Fail("one".to_owned())));
    }

    #[test]
    fn people_read_what_is_in_flight() {
        let load = Load { connections: 2, requests: 1, tunnels: 0 };
        assert_eq!(load.to_string(), "2 connections, 1 request, 0 tunnels");
    }
}
