//! Which leg of a split takes a request: pure, by weight, and stable by a key.
//!
//! Each leg draws a number for the key and the best one wins (weighted rendezvous hashing), so that
//! a weight that grows takes keys from the others, and moves none between them. The draws depend on
//! the key and on the leg's name alone: they are the same in every process.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName,
    header::{self, HeaderValue},
};

/// What holds the requests of one client together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Nothing: each request is placed by chance.
    Random,
    /// The client's address.
    Client,
    /// The value of a cookie.
    Cookie(String),
    /// The value of a header field.
    Header(HeaderName),
}

impl Key {
    /// What a request shows for the key; `None` if it is to be placed by chance.
    pub fn hash(&self, client: Option<IpAddr>, headers: &HeaderMap) -> Option<u64> {
        match self {
            Self::Random => None,
            Self::Client => Some(match client? {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            Self::Cookie(name) => cookie(headers, name).map(hash),
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
        }
    }
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let mut pairs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The weights of the legs of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    legs: Box<[Leg]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Leg {
    seed: u64,
    weight: f64,
}

impl Weights {
    /// Takes the legs by name and weight; at least one has a weight above zero.
    pub fn new<'a>(legs: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let legs = legs.into_iter();
        let legs = legs
            .map(|(name, weight)| Leg { seed: hash(name.as_bytes()), weight: f64::from(weight) });
        Self { legs: legs.collect() }
    }

    /// The leg of a key; without one, any, by weight.
    pub fn choose(&self, key: Option<u64>) -> usize {
        let key = key.unwrap_or_else(|| fastrand::u64(..));
        let mut best = (0, f64::INFINITY);
        for (index, leg) in self.legs.iter().enumerate() {
            let draw = exponential(mixed(key ^ leg.seed), leg.weight);
            if draw < best.1 {
                best = (index, draw);
            }
        }
        best.0
    }

    /// The share of each leg, 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        let all: f64 = self.legs.iter().map(|leg| leg.weight).sum();
        self.legs.iter().map(move |leg| leg.weight / all)
    }
}

/// A random bit pattern as a time that is waited for something that comes `rate` times in a unit:
/// the leg whose comes first wins, and wins in proportion to its rate.
fn exponential(bits: u64, rate: f64) -> f64 {
    let uniform = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / rate
}

/// FNV-1a: short, and the same everywhere.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The finish of splitmix64: each bit depends on all bits.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["stable", "canary", "c", "d"];

    fn weights(weights: &[u32]) -> Weights {
        Weights::new(NAMES.into_iter().zip(weights.iter().copied()))
    }

    fn keys() -> impl Iterator<Item = Option<u64>> {
        (0..100_000u32).map(|key| Some(hash(&key.to_be_bytes())))
    }

    fn counts(weights: &Weights, keys: impl Iterator<Item = Option<u64>>) -> [f64; 4] {
        let mut counts = [0.0; 4];
        keys.for_each(|key| counts[weights.choose(key)] += 1.0);
        counts
    }

    #[test]
    fn shares_are_within_one_percent_of_the_weights() {
        for legs in [&[90, 10][..], &[1, 1], &[5, 3, 2], &[1, 0, 2, 1], &[1000, 1]] {
            let weights = weights(legs);
            let by_chance = (0..100_000).map(|_| None);
            for counts in [counts(&weights, keys()), counts(&weights, by_chance)] {
                for (share, count) in weights.shares().zip(counts) {
                    let got = count / 100_000.0;
                    assert!((got - share).abs() < 0.01, "{legs:?}: {got} of {share}");
                }
            }
        }
    }

    proptest! {
        /// Whatever moves, moves to the leg whose weight grew.
        #[test]
        fn a_weight_that_grows_moves_keys_to_its_leg_only(
            mut legs in proptest::collection::vec(0u32..50, 2..=4),
            grown in 0usize..4,
            more in 1u32..50,
        ) {
            let grown = grown % legs.len();
            legs[grown] += 1;
            let before = weights(&legs);
            legs[grown] += more;
            let after = weights(&legs);
            for key in keys().take(2_000) {
                let (old, new) = (before.choose(key), after.choose(key));
                prop_assert!(old == new || new == grown);
            }
        }

        #[test]
        fn a_leg_of_no_weight_gets_nothing(key: u64, weight in 1u32..1000) {
            prop_assert_eq!(weights(&[0, weight, 0]).choose(Some(key)), 1);
        }
    }

    /// Processes of other versions agree: what they drew once they draw for ever.
    #[test]
    fn draws_are_the_same_in_every_process() {
        let weights = weights(&[1, 1]);
        let drawn: Vec<_> =
            (0..16u8).map(|key| weights.choose(Some(hash(&[key]))).to_string()).collect();
        assert_eq!(drawn.concat(), "1101000010100011");
    }

    #[test]
    fn a_key_is_what_the_request_shows() {
        let cookies = ["a=1; user=me", "user=other"].map(HeaderValue::from_static);
        let mut headers = HeaderMap::from_iter(cookies.map(|cookie| (COOKIE, cookie)));
        headers.insert("x-user", HeaderValue::from_static("me"));
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let of = |key: Key| key.hash(Some(client), &headers);
        assert_eq!(of(Key::Cookie("user".to_owned())), Some(hash(b"me")));
        assert_eq!(of(Key::Cookie("use".to_owned())), None);
        assert_eq!(of(Key::Header(HeaderName::from_static("x-user"))), Some(hash(b"me")));
        assert_eq!(of(Key::Header(HeaderName::from_static("x-other"))), None);
        assert_eq!(of(Key::Client), Some(hash(&[192, 0, 2, 1])));
        assert_eq!(of(Key::Random), None);
        assert_eq!(Key::Client.hash(None, &headers), None);
    }
}
