//! The keys of session tickets, by which a client that returns makes a shorter handshake.
//!
//! A ticket holds a session, sealed with a key that only this process has, and its successor: the
//! keys live over reloads, and are handed over at an upgrade. A key makes tickets for six hours
//! and opens them for twelve, so that a ticket is good for six at least; then nothing opens it.
//!
//! INVARIANT: a ticket is opened only under the same rules for client certificates under which it
//! was made, since rustls asks a client that resumes for no certificate.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a key makes tickets. With random nonces it may make 2^32 of them: 200,000 a second.
const MAKES_FOR: Duration = Duration::from_secs(6 * 60 * 60);
/// How long it opens them.
const OPENS_FOR: Duration = Duration::from_secs(12 * 60 * 60);

/// The length of a secret.
const SECRET_BYTES: usize = 32;

/// The keys of a process.
#[derive(Debug)]
pub struct Tickets {
    ring: ArcSwap<Ring>,
    /// Held while the keys change.
    turning: Mutex<()>,
}

/// The keys that open tickets.
#[derive(Debug)]
struct Ring {
    /// The one that makes them.
    current: Arc<Key>,
    previous: Option<Arc<Key>>,
}

struct Key {
    secret: Secret,
    sealing: RandomizedNonceKey,
    since: Instant,
}

/// A key as one process tells it to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    secret: Secret,
    age_seconds: u64,
}

/// What a key is made of. It is wiped when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

/// Which rules hold for client certificates, in a few bytes that differ if the rules do.
pub(super) type Rules = [u8; 32];

/// What seals and opens tickets of connections with the same rules.
#[derive(Debug)]
pub(super) struct Ticketer {
    tickets: Arc<Tickets>,
    rules: Rules,
}

impl Ticketer {
    pub(super) fn new(tickets: Arc<Tickets>, rules: Rules) -> Self {
        Self { tickets, rules }
    }
}

impl Default for Tickets {
    /// A new key.
    fn default() -> Self {
        let current = Arc::new(Key::new(Secret::random(), Instant::now()));
        let ring = ArcSwap::from_pointee(Ring { current, previous: None });
        Self { ring, turning: Mutex::default() }
    }
}

impl Tickets {
    /// Replaces the key that is too old, and forgets the one that opens nothing any more.
    pub fn turn(&self, now: Instant) {
        let _alone = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring.load_full();
        let opens = |key: &&Arc<Key>| key.age(now) < OPENS_FOR;
        if ring.current.age(now) < MAKES_FOR {
            if ring.previous.iter().any(|key| !opens(&key)) {
                let current = ring.current.clone();
                self.ring.store(Arc::new(Ring { current, previous: None }));
            }
            return;
        }
        let current = Arc::new(Key::new(Secret::random(), now));
        let previous = Some(&ring.current).filter(opens).cloned();
        self.ring.store(Arc::new(Ring { current, previous }));
    }

    /// The keys for a successor, the one that makes tickets first.
    pub fn remembered(&self, now: Instant) -> Vec<TicketKey> {
        let ring = self.ring.load();
        let told = |key: &Arc<Key>| TicketKey {
            secret: key.secret.clone(),
            age_seconds: key.age(now).as_secs(),
        };
        [&ring.current].into_iter().chain(&ring.previous).map(told).collect()
    }

    /// Takes over the keys of a predecessor; without any, keeps its own.
    pub fn recall(&self, told: Vec<TicketKey>, now: Instant) {
        let mut keys = told.into_iter().map(|TicketKey { secret, age_seconds }| {
            let since = now.checked_sub(Duration::from_secs(age_seconds)).unwrap_or(now);
            Arc::new(Key::new(secret, since))
        });
        if let Some(current) = keys.next() {
            self.ring.store(Arc::new(Ring { current, previous: keys.next() }));
        }
    }

    fn seal(&self, plain: &[u8], rules: &Rules, now: Instant) -> Option<Vec<u8>> {
        if MAKES_FOR <= self.ring.load().current.age(now) {
            self.turn(now);
        }
        self.ring.load().current.seal(plain, rules)
    }

    fn open(&self, ticket: &[u8], rules: &Rules, now: Instant) -> Option<Vec<u8>> {
        let ring = self.ring.load();
        let keys = [&ring.current].into_iter().chain(&ring.previous);
        let mut keys = keys.filter(|key| key.age(now) < OPENS_FOR);
        keys.find_map(|key| key.open(ticket, rules))
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(MAKES_FOR.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(plain, &self.rules, Instant::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(ticket, &self.rules, Instant::now())
    }
}

impl Key {
    fn new(secret: Secret, since: Instant) -> Self {
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &*secret.0);
        Self { sealing: sealing.expect("a secret is as long as a key"), secret, since }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// The nonce, what is sealed, and its tag.
    fn seal(&self, plain: &[u8], rules: &Rules) -> Option<Vec<u8>> {
        let mut ticket = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&[0; NONCE_LEN]);
        ticket.extend_from_slice(plain);
        let body = &mut ticket[NONCE_LEN..];
        let (nonce, tag) = self.sealing.seal_in_place_separate_tag(Aad::from(rules), body).ok()?;
        ticket[..NONCE_LEN].copy_from_slice(nonce.as_ref());
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], rules: &Rules) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = self.sealing.open_in_place(nonce, Aad::from(rules), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Secret {
    fn random() -> Self {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        // aws-lc ends the process where the system has none, before it would say so here.
        rand::fill(&mut *secret).expect("the system has random numbers");
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_BYTES));
        for byte in self.0.iter() {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(half), 16).unwrap_or_default());
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let digits = text.bytes().map(|digit| char::from(digit).to_digit(16));
        let mut halves = digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok()));
        for byte in secret.iter_mut() {
            let (Some(Some(high)), Some(Some(low))) = (halves.next(), halves.next()) else {
                return Err(D::Error::custom("not the secret of a key")); // without the text
            };
            *byte = high << 4 | low;
        }
        match halves.next() {
            None => Ok(Self(secret)),
            Some(_) => Err(D::Error::custom("not the secret of a key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Rules = [0; 32];
    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_ticket_is_good_for_six_hours_and_never_for_more_than_twelve() {
        let (tickets, start) = (Tickets::default(), Instant::now());
        let early = tickets.seal(b"early", &NONE, start).unwrap();
        let late = tickets.seal(b"late", &NONE, start + 5 * HOUR).unwrap();
        let opened = |ticket: &[u8], hours: u32| tickets.open(ticket, &NONE, start + hours * HOUR);
        assert_eq!(opened(&early, 5).as_deref(), Some(&b"early"[..]));

        let next = tickets.seal(b"next", &NONE, start + 7 * HOUR).unwrap();
        assert_eq!(opened(&early, 11).as_deref(), Some(&b"early"[..]));
        assert_eq!(opened(&late, 11).as_deref(), Some(&b"late"[..]));
        assert_eq!(opened(&late, 13), None, "by its age, whether the keys were turned or not");

        tickets.seal(b"last", &NONE, start + 13 * HOUR).unwrap();
        assert_eq!(opened(&early, 11), None, "two rotations later the key is gone");
        assert_eq!(opened(&next, 18).as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn keys_are_forgotten_when_nobody_asks_for_tickets() {
        let (tickets, start) = (Tickets::default(), Instant::now());
        let first = tickets.remembered(start);
        tickets.turn(start + 5 * HOUR);
        assert_eq!(tickets.remembered(start), first);
        tickets.turn(start + 7 * HOUR);
        let second = tickets.remembered(start + 7 * HOUR);
        assert_eq!((second.len(), &second[1].secret), (2, &first[0].secret));
        tickets.turn(start + 12 * HOUR);
        assert_eq!(tickets.remembered(start + 12 * HOUR).len(), 1, "the first is too old");
        tickets.turn(start + 100 * HOUR);
        let last = tickets.remembered(start + 100 * HOUR);
        assert!(last.len() == 1 && last[0].secret != second[0].secret);
    }

    #[test]
    fn a_successor_opens_the_tickets_of_its_predecessor() {
        let (old, start) = (Tickets::default(), Instant::now());
        let early = old.seal(b"early", &NONE, start).unwrap();
        let late = old.seal(b"late", &NONE, start + 7 * HOUR).unwrap();
        let told = serde_json::to_string(&old.remembered(start + 8 * HOUR)).unwrap();
        let new = Tickets::default();
        new.recall(serde_json::from_str(&told).unwrap(), start + 8 * HOUR);
        let opened = |ticket: &[u8], hours: u32| new.open(ticket, &NONE, start + hours * HOUR);
        assert_eq!(opened(&early, 11).as_deref(), Some(&b"early"[..]));
        assert_eq!(opened(&early, 12), None, "a key is as old as it was");
        assert_eq!(opened(&late, 12).as_deref(), Some(&b"late"[..]));

        let own = new.remembered(start + 8 * HOUR);
        new.recall(Vec::new(), start + 8 * HOUR);
        assert_eq!(new.remembered(start + 8 * HOUR), own);
    }

    #[test]
    fn a_ticket_is_not_opened_under_other_rules_nor_when_a_byte_differs() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.seal(b"session", &NONE, now).unwrap();
        assert!(tickets.open(&ticket, &NONE, now).is_some());
        assert!(tickets.open(&ticket, &[1; 32], now).is_none());
        assert!(Tickets::default().open(&ticket, &NONE, now).is_none(), "another process");
        for index in 0..ticket.len() {
            let mut other = ticket.clone();
            other[index] ^= 1;
            assert!(tickets.open(&other, &NONE, now).is_none(), "{index}");
            assert!(tickets.open(&ticket[..index], &NONE, now).is_none(), "{index}");
        }
    }

    #[test]
    fn a_secret_is_told_to_nobody_but_a_successor() {
        let tickets = Tickets::default();
        let key = &tickets.remembered(Instant::now())[0];
        assert_eq!(format!("{key:?}"), "TicketKey { secret: …, age_seconds: 0 }");
        let text = serde_json::to_string(&key.secret).unwrap();
        assert!(!format!("{tickets:?}").contains(text.trim_matches('"')));
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), key.secret);
        for bad in ["", "0g", "00"] {
            let why = serde_json::from_str::<Secret>(&format!("\"{bad}\"")).unwrap_err();
            assert!(why.to_string().starts_with("not the secret of a key"), "{why}");
        }
    }
}
