//! Consistent hashing: requests with the same key go to the same backend (ketama, Pingora's).
//!
//! When a backend comes or goes, only the keys move that it gets or leaves. The load of each is
//! bounded (Mirrokni et al., 2016): a backend that has more than its bound in flight passes what
//! is over to the next on the ring, so that one hot key does not fell one backend.

use std::{
    hash::{DefaultHasher, Hasher},
    net::IpAddr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    field::Lookup,
    units,
    upstream::{
        backend::Member,
        balance::{hints::Hints, token::Token},
    },
};

/// How far above the average load a backend may be, if nothing else is said.
const BOUNDED_LOAD: f64 = 1.25;
/// Beyond this, a bound bounds nothing.
const BOUNDED_LOAD_MAX: f64 = 100.0;
/// Points on the ring for one unit of weight: Pingora's.
const POINTS: u64 = 160;
/// The longest ring, of 8 bytes a point.
const POINTS_MAX: u64 = 4_000_000;
/// Points that are looked at for one request, at most; then all backends are.
const STEPS_MAX: usize = 2_048;

/// Which requests go to the same backend.
///
/// What the operator writes under `consistent_hash:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConsistentHash")]
pub struct Config {
    /// What requests have in common that go to the same backend. A request that has no such thing
    /// goes anywhere.
    pub on: On,
    /// How far above the average of all a backend's requests in flight may be, 1 to 100; what is
    /// over goes to the next one, so that a hot key spills over. Default: `1.25`.
    #[serde(default)]
    pub bounded_load: BoundedLoad,
}

/// What requests have in common.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HashKey")]
pub enum On {
    /// The client's address, as far as trusted proxies tell.
    Client,
    /// The path, as it was sent.
    Path,
    /// The host, without its port.
    Host,
    /// The first field of this name.
    Header(Lookup),
    /// The cookie of this name.
    Cookie(Token),
    /// The first parameter of this name in the query.
    Query(String),
}

/// A multiple of the average load.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
#[schemars(inline)]
pub struct BoundedLoad(#[schemars(range(min = 1.0, max = BOUNDED_LOAD_MAX))] f64);

impl Default for BoundedLoad {
    fn default() -> Self {
        Self(BOUNDED_LOAD)
    }
}

impl<'de> Deserialize<'de> for BoundedLoad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        units::in_range(deserializer, 1.0..=BOUNDED_LOAD_MAX).map(Self)
    }
}

impl On {
    /// Shows the key of a request; `None` if it has none.
    pub fn with_key<R>(&self, hints: &Hints<'_>, then: impl FnOnce(Option<&[u8]>) -> R) -> R {
        match self {
            Self::Client => match hints.client.map(|client| client.to_canonical()) {
                Some(IpAddr::V4(client)) => then(Some(&client.octets())),
                Some(IpAddr::V6(client)) => then(Some(&client.octets())),
                None => then(None),
            },
            Self::Path => then(hints.uri.map(|uri| uri.path().as_bytes())),
            Self::Host => {
                let host = hints.host();
                then(host.as_ref().map(|host| host.as_str().as_bytes()))
            }
            Self::Header(name) => {
                let value = hints.headers.and_then(|headers| headers.get(&name.0));
                then(value.map(http::HeaderValue::as_bytes))
            }
            Self::Cookie(name) => then(hints.cookie(name.as_str())),
            Self::Query(name) => then(hints.query(name)),
        }
    }
}

impl Config {
    /// Shows the key of a request, or one by chance if it has none.
    pub(super) fn with_key<R>(&self, hints: &Hints<'_>, then: impl FnOnce(&[u8]) -> R) -> R {
        self.on.with_key(hints, |key| match key {
            Some(key) => then(key),
            None => then(&fastrand::u64(..).to_ne_bytes()),
        })
    }
}

/// How many points are looked at for one request.
pub(super) fn steps(members: usize) -> usize {
    members.saturating_mul(64).clamp(64, STEPS_MAX)
}

/// By what weights are divided, so that the ring of all of them has a bound.
pub(super) fn divisor(weight: u64) -> u64 {
    (weight * POINTS).div_ceil(POINTS_MAX).max(1)
}

/// A number of a key between 0 and 1, another one than its place on the ring.
pub(super) fn lot(key: &[u8]) -> f64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish() as f64 / u64::MAX as f64
}

impl BoundedLoad {
    /// Whether a backend may take one request more, of `in_flight` at all backends together, where
    /// the weights of those that are fit sum up to `weights`.
    pub(super) fn has_room(self, member: &Member, in_flight: u32, weights: u64) -> bool {
        member.state.in_flight() < self.bound(member.weight, in_flight, weights)
    }

    /// The most that a backend of this weight may have in flight, the next request included.
    fn bound(self, weight: u16, in_flight: u32, weights: u64) -> u32 {
        let average = (f64::from(in_flight) + 1.0) * f64::from(weight) / weights.max(1) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number; a larger one than the largest bounds nothing"
        )]
        let bound = (self.0 * average).ceil() as u32;
        bound
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The bounds of all together are above the load of all together, so that somebody always
        /// has room.
        #[test]
        fn somebody_always_has_room(
            weights in prop::collection::vec(1u16..=256, 1..50), in_flight in 0u32..100_000,
            over in 0u32..400,
        ) {
            let sum = weights.iter().copied().map(u64::from).sum();
            let bounded = BoundedLoad(1.0 + f64::from(over) / 100.0);
            let bounds = weights.iter().map(|weight| u64::from(bounded.bound(*weight, in_flight, sum)));
            prop_assert!(u64::from(in_flight) < bounds.sum());
        }

        #[test]
        fn the_ring_has_a_bound(weight in 1u64..20_000_000) {
            prop_assert!(weight / divisor(weight) * POINTS <= POINTS_MAX);
        }
    }
}
