//! Which backends are asked first: those of the own zone, those of others, and backups last.
//!
//! Each tier is a pool with a balancer of its own. A request goes down the tiers until one has a
//! backend that is fit for it; the first two may change places, see `balance::zone`.

use std::sync::{Arc, atomic::AtomicU32};

use tokio::time::Instant;

use crate::upstream::{
    backend::Member,
    balance::{self, Balancer, pool::Pool},
};

/// The tiers of one set of backends; those without backends are left out.
pub struct Tiers {
    list: Box<[Balancer]>,
    /// Whether the first tier is the own zone, and the second one other zones.
    is_zoned: bool,
}

impl Tiers {
    /// Parts members, which come in the order of their addresses, into tiers.
    pub fn new(
        config: &balance::Config,
        members: &Pool,
        zone: Option<&str>,
        in_flight: &Arc<AtomicU32>,
    ) -> Self {
        let rank = |member: &Member| match (member.target.backup, zone) {
            (true, _) => 2,
            (false, Some(own)) if member.target.zone.as_deref() != Some(own) => 1,
            (false, _) => 0,
        };
        let pool = |wanted| -> Pool {
            members.iter().filter(|member| rank(member) == wanted).cloned().collect()
        };
        let pools = [pool(0), pool(1), pool(2)];
        let is_zoned = !pools[0].is_empty() && !pools[1].is_empty();
        let pools = pools.into_iter().filter(|pool| !pool.is_empty());
        let list = pools.map(|pool| Balancer::new(config, pool, in_flight)).collect();
        Self { list, is_zoned }
    }

    /// The tiers in the order in which the next request asks them.
    pub fn in_order(&self, now: Instant) -> impl Iterator<Item = &Balancer> {
        let first = match &*self.list {
            [own, _, ..] if self.is_zoned => {
                let stays = own.stays(now);
                usize::from(stays < 1.0 && stays <= fastrand::f64())
            }
            _ => 0,
        };
        // From the second one: second, first, and the rest.
        let order =
            (0..self.list.len()).map(move |index| if index < 2 { index ^ first } else { index });
        order.filter_map(|index| self.list.get(index))
    }

    /// The tiers from the best to the last.
    pub fn iter(&self) -> impl Iterator<Item = &Balancer> {
        self.list.iter()
    }
}
