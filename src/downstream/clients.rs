//! What one client may take: connections at a time, and new ones in a while.
//!
//! A client is an IPv4 address, or the /64 network of an IPv6 address, which is what one customer
//! is given. The table is asked once when a connection begins and once when it ends, under the
//! lock of one of its parts; without limits it is not touched at all.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{downstream::config::process::Limits, reason::Reason, units::Rate};

/// The table is kept in so many parts, each under a lock of its own.
const PARTS: usize = 64;
/// A part is swept when it has so many clients, or twice what the last sweep left.
const SWEEP: usize = 256;
/// A part forgets when clients last came rather than hold more than so many: 64 of them are 1 Mi.
const MOST: usize = 16 * 1024;

/// A client, as far as it is told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    open: u32,
    /// When its allowance of new connections is whole again, in microseconds since `start`.
    whole_at: u64,
}

#[derive(Debug)]
struct Part {
    records: HashMap<Key, Record>,
    sweep_at: usize,
}

/// The table.
#[derive(Debug)]
pub struct Clients {
    start: Instant,
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

/// A connection that is counted for its client until this is dropped.
#[derive(Debug)]
pub struct Counted {
    clients: Arc<Clients>,
    key: Key,
}

impl Default for Clients {
    fn default() -> Self {
        let part = || Mutex::new(Part { records: HashMap::new(), sweep_at: SWEEP });
        let parts = std::array::from_fn(|_| part());
        Self { start: Instant::now(), hasher: RandomState::new(), parts }
    }
}

impl Clients {
    /// Counts a connection of a client; `Ok(None)` if nothing limits it.
    ///
    /// # Errors
    /// If the client has too many, or connects too often: the word for it.
    pub fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<Option<Counted>, Reason> {
        if limits.connections_per_client.is_none() && limits.accepts_per_client.is_none() {
            return Ok(None);
        }
        let key = Key::of(client);
        let now = micros(now.saturating_duration_since(self.start));
        self.with(key, |part| {
            part.sweep(now);
            let known = part.records.get(&key).copied().unwrap_or_default();
            if limits.connections_per_client.is_some_and(|max| max <= known.open) {
                return Err(Reason::ConnectionsPerClient);
            }
            let whole_at = match limits.accepts_per_client {
                Some(rate) => spend(rate, known.whole_at, now).ok_or(Reason::AcceptsPerClient)?,
                None => known.whole_at,
            };
            part.records.insert(key, Record { open: known.open + 1, whole_at });
            Ok(())
        })?;
        Ok(Some(Counted { clients: self.clone(), key }))
    }

    fn with<T>(&self, key: Key, act: impl FnOnce(&mut Part) -> T) -> T {
        // Of the hash, eight bits are plenty; the table of the part uses others.
        let [first, ..] = self.hasher.hash_one(key).to_be_bytes();
        act(&mut self.parts[usize::from(first) % PARTS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

impl Key {
    /// What a client is told apart by.
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Part {
    /// Forgets clients that have no connection and their whole allowance; where that is not
    /// enough, all without a connection.
    fn sweep(&mut self, now: u64) {
        if self.records.len() < self.sweep_at {
            return;
        }
        self.records.retain(|_, record| 0 < record.open || now < record.whole_at);
        if MOST <= self.records.len() {
            self.records.retain(|_, record| 0 < record.open);
        }
        self.sweep_at = (2 * self.records.len()).clamp(SWEEP, MOST.max(self.records.len() + SWEEP));
    }
}

/// Takes one connection out of an allowance that fills steadily, up to that of a whole period;
/// `None` if it is used up.
fn spend(rate: Rate, whole_at: u64, now: u64) -> Option<u64> {
    let period = micros(rate.per.duration());
    let each = (period / u64::from(rate.count.get())).max(1);
    let next = whole_at.max(now) + each;
    (next - now <= period.max(each)).then_some(next)
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { clients, key } = self;
        clients.with(*key, |part| {
            if let Some(record) = part.records.get_mut(key) {
                record.open = record.open.saturating_sub(1);
                if record.open == 0 && record.whole_at == 0 {
                    part.records.remove(key);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(connections: Option<u32>, accepts: Option<&str>) -> Limits {
        Limits {
            connections: None,
            connections_per_client: connections,
            accepts_per_client: accepts.map(|rate| rate.parse().unwrap()),
        }
    }

    fn known(clients: &Clients) -> usize {
        clients.parts.iter().map(|part| part.lock().unwrap().records.len()).sum()
    }

    #[test]
    fn connections_are_counted_for_each_client_alone() {
        let (clients, now) = (Arc::new(Clients::default()), Instant::now());
        let limits = limits(Some(2), None);
        let admit = |client: &str| clients.admit(client.parse().unwrap(), &limits, now);
        let held = [admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap()];
        assert_eq!(admit("192.0.2.1").unwrap_err(), Reason::ConnectionsPerClient);
        let _other = admit("192.0.2.2").unwrap();
        let networks = ["2001:db8::1", "2001:db8::2:0:0:1"].map(|one| admit(one).unwrap());
        assert_eq!(admit("2001:db8::3").unwrap_err(), Reason::ConnectionsPerClient, "one /64");
        let _another = admit("2001:db8:0:1::1").unwrap();
        drop((held, networks));
        assert!(admit("192.0.2.1").is_ok());
        assert_eq!(known(&clients), 2, "who has no connection is forgotten");
    }

    #[test]
    fn a_rate_allows_a_burst_of_its_period_and_fills_again() {
        let (clients, start) = (Arc::new(Clients::default()), Instant::now());
        let limits = limits(None, Some("4/s"));
        let admits = |after: u64| {
            let now = start + Duration::from_millis(after);
            let one = || clients.admit("192.0.2.1".parse().unwrap(), &limits, now).map(drop);
            (0..10).filter(|_| one().is_ok()).count()
        };
        assert_eq!([0, 100, 260, 1_000, 60_000].map(admits), [4, 0, 1, 3, 4]);
    }

    #[test]
    fn nothing_is_kept_without_limits() {
        let clients = Arc::new(Clients::default());
        let free = clients.admit("192.0.2.1".parse().unwrap(), &limits(None, None), Instant::now());
        assert!(free.unwrap().is_none());
        assert_eq!(known(&clients), 0);
    }

    #[test]
    fn the_table_has_a_bound_whoever_comes() {
        let (clients, start) = (Arc::new(Clients::default()), Instant::now());
        let limits = limits(Some(1), Some("1/m"));
        let _held = clients.admit("192.0.2.1".parse().unwrap(), &limits, start).unwrap();
        for network in 0..400_000_u128 {
            let client = IpAddr::V6((network << 64).into());
            let now = start + Duration::from_millis(u64::try_from(network).unwrap());
            assert!(clients.admit(client, &limits, now).is_ok());
        }
        let most = known(&clients);
        assert!(most < 200_000, "a minute has 60,000 of them: {most}");
        let again = clients.admit("192.0.2.1".parse().unwrap(), &limits, start);
        assert_eq!(
            again.unwrap_err(),
            Reason::ConnectionsPerClient,
            "who has one is not forgotten"
        );
    }
}
