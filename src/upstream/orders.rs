//! What the operator ordered of a backend while the process runs: to drain it, and its weight.
//!
//! Kept apart from what checks, traffic and discovery say of it, and from the file. An order holds
//! over reloads, for as long as the address is in the upstream, and crosses an upgrade. A weight
//! yields to the file as soon as that gives the backend another one than it had.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use log::info;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::upstream::{
    Upstream,
    backend::Member,
    set::{Set, Targets},
};

/// The orders for one backend.
#[derive(Debug, Default)]
pub struct Orders {
    drained: AtomicBool,
    /// The weight in the lower half, and the file's that it replaced in the upper; 0 for none.
    weight: AtomicU32,
}

/// The orders as a successor is told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    drained: bool,
    /// The file's weight and the ordered one.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<(u16, u16)>,
}

impl Orders {
    /// Whether it is to take no new request.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// Orders that it takes no new requests, or takes them again; whether that is a change.
    pub fn drain(&self, drained: bool) -> bool {
        self.drained.swap(drained, Relaxed) != drained
    }

    /// Its weight, where the file says `written`.
    pub fn weight(&self, written: u16) -> u16 {
        match self.pair() {
            Some((replaced, ordered)) if replaced == written => ordered,
            _ => written,
        }
    }

    /// Orders a weight in the place of the file's; `None` for that of the file again.
    pub fn set_weight(&self, written: u16, ordered: Option<u16>) {
        let pair = ordered.map_or(0, |ordered| u32::from(written) << 16 | u32::from(ordered));
        self.weight.store(pair, Relaxed);
    }

    /// What there is to tell; `None` if nothing was ordered.
    pub fn told(&self) -> Option<Told> {
        let told = Told { drained: self.is_drained(), weight: self.pair() };
        (told != Told::default()).then_some(told)
    }

    /// Takes over what was ordered of a predecessor.
    pub fn recall(&self, told: Told) {
        self.drain(told.drained);
        if let Some((written, ordered)) = told.weight {
            self.set_weight(written, Some(ordered));
        }
    }

    fn pair(&self) -> Option<(u16, u16)> {
        let [high, low] = match self.weight.load(Relaxed) {
            0 => return None,
            pair => [pair >> 16, pair & 0xffff],
        };
        Some((u16::try_from(high).ok()?, u16::try_from(low).ok()?))
    }
}

/// There is no such backend.
#[derive(Debug)]
pub struct Unknown {
    /// The address that was looked for.
    pub address: String,
    /// Those that there are.
    pub known: Vec<String>,
}

impl Upstream {
    /// Takes a backend out of service by order, or brings it back; told once for each change.
    ///
    /// # Errors
    /// If there is no such backend.
    pub fn drain(&self, address: &str, drained: bool) -> Result<Arc<Member>, Unknown> {
        let member = self.named(address)?;
        if member.state.orders.drain(drained) {
            let (upstream, backend) = (self.name(), member.state.name());
            if drained {
                info!("drain: {upstream} {backend} drained by order");
            } else {
                member.state.comeback.begin(Instant::now());
                info!("drain: {upstream} {backend} ready by order");
            }
        }
        Ok(member)
    }

    /// Gives a backend another weight than the file does, or with `None` that of the file.
    ///
    /// # Errors
    /// If there is no such backend.
    pub fn set_weight(&self, address: &str, weight: Option<u16>) -> Result<Arc<Member>, Unknown> {
        let old = self.named(address)?;
        old.state.orders.set_weight(old.target.weight, weight);
        self.heed_orders();
        let new = self.named(address)?;
        if old.weight != new.weight {
            let (upstream, backend) = (self.name(), new.state.name());
            info!("weight: {upstream} {backend} {} → {} by order", old.weight, new.weight);
        }
        Ok(new)
    }

    /// Puts a set in force in which weights are those that were ordered.
    pub(super) fn heed_orders(&self) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set.load();
        let is_heeded = |member: &Arc<Member>| {
            member.weight == member.state.orders.weight(member.target.weight)
        };
        if old.members().iter().all(is_heeded) {
            return;
        }
        self.set.store(Arc::new(self.again(&old)));
    }

    /// Puts a set in force whose cookies are signed with the key of a predecessor.
    pub fn sign_anew(&self) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set.load();
        self.set.store(Arc::new(self.again(&old)));
    }

    /// A set of the same backends.
    fn again(&self, old: &Set) -> Set {
        let members = old.members().iter();
        let targets: Targets =
            members.map(|one| (one.state.address().clone(), one.target.clone())).collect();
        self.set_of(&targets, Some(old))
    }

    fn named(&self, address: &str) -> Result<Arc<Member>, Unknown> {
        let (set, unix) = (self.set.load(), address.strip_prefix("unix:"));
        let is_it = |member: &&Arc<Member>| {
            member.state.name() == address || Some(member.state.name()) == unix
        };
        set.members().iter().find(is_it).cloned().ok_or_else(|| Unknown {
            address: address.to_owned(),
            known: set.members().iter().map(|member| member.state.name().to_owned()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_holds_until_the_file_gives_another() {
        let orders = Orders::default();
        assert_eq!(orders.weight(3), 3);
        orders.set_weight(3, Some(9));
        assert_eq!(orders.weight(3), 9);
        assert_eq!(orders.weight(4), 4, "the file has changed");
        orders.set_weight(3, None);
        assert_eq!(orders.weight(3), 3);
    }

    #[test]
    fn orders_cross_to_a_successor() {
        let (old, new) = (Orders::default(), Orders::default());
        assert_eq!(old.told(), None);
        assert!(old.drain(true) && !old.drain(true));
        old.set_weight(1, Some(5));
        let told = serde_json::to_string(&old.told()).unwrap();
        new.recall(serde_json::from_str::<Option<Told>>(&told).unwrap().expect("told"));
        assert!(new.is_drained());
        assert_eq!(new.weight(1), 5);
    }
}
