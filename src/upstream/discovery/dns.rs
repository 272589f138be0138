//! Names of backends, resolved in the background by the system's resolver settings.
//!
//! Every address of a name is a backend. An answer holds as long as its TTL says, at least a
//! second; a lookup that fails keeps the last good answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use log::{info, warn};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::protocols::l4::socket::SocketAddr as Address;
use pingora_load_balancing::{Backend, Extensions, discovery::ServiceDiscovery};
use tokio::time::{self, Instant};

use crate::upstream::target::Target;

/// The shortest time that an answer is kept, whatever its TTL says.
const KEEP_MIN: Duration = Duration::from_secs(1);
/// The longest, so that a mistaken TTL of a week can be mended.
const KEEP_MAX: Duration = Duration::from_secs(300);
/// The longest that one lookup may take: names do not wait for each other.
const LOOKUP_MAX: Duration = Duration::from_secs(2);
/// The pause after a lookup that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A backend that is given by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The host name.
    pub host: String,
    /// The port of every address that it resolves to.
    pub port: u16,
    /// The weight of every address that it resolves to.
    pub weight: u16,
}

/// Resolves the names of one upstream.
pub struct Dns {
    upstream: String,
    names: Vec<Name>,
    resolver: OnceLock<TokioResolver>,
    answers: Mutex<BTreeMap<usize, Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    addresses: Vec<SocketAddr>,
    until: Instant,
    failing: bool,
}

impl Dns {
    /// Prepares the names of `upstream`; nothing is looked up yet. What a predecessor knows of
    /// the same names holds until it runs out.
    pub fn new(upstream: &str, names: Vec<Name>, predecessor: Option<&Self>) -> Self {
        let known = |name: &Name| predecessor.and_then(|old| old.answer_for(name));
        let known =
            names.iter().enumerate().filter_map(|(index, name)| Some((index, known(name)?)));
        let answers = Mutex::new(known.collect());
        Self { upstream: upstream.to_owned(), names, resolver: OnceLock::new(), answers }
    }

    /// The addresses that are known now, each with its name and the weight of that.
    pub fn answered(&self) -> Vec<(Address, Target)> {
        let mut answered = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let addresses = self.answer(index).into_iter().flat_map(|answer| answer.addresses);
            let target = Target { weight: name.weight, name: Some(name.host.as_str().into()) };
            answered.extend(addresses.map(|address| (address.into(), target.clone())));
        }
        answered
    }

    fn answer_for(&self, name: &Name) -> Option<Answer> {
        let index = self.names.iter().position(|known| known.host == name.host)?;
        let mut answer = self.answer(index)?;
        answer.addresses.iter_mut().for_each(|address| address.set_port(name.port));
        Some(answer)
    }

    /// When the next answer runs out.
    pub fn due(&self) -> Instant {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let due = answers.values().map(|answer| answer.until).min();
        due.unwrap_or_else(|| Instant::now() + RETRY_AFTER)
    }

    fn resolver(&self) -> Result<&TokioResolver> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let resolver = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .or_err(ErrorType::InternalError, "reading the resolver's settings")?;
        Ok(self.resolver.get_or_init(|| resolver))
    }

    async fn refresh(&self, index: usize, name: &Name) {
        let previous = self.answer(index);
        if previous.as_ref().is_some_and(|answer| Instant::now() < answer.until) {
            return;
        }
        let looked_up = time::timeout(LOOKUP_MAX, self.look_up(name)).await;
        let looked_up = looked_up.unwrap_or_else(|_| {
            Error::e_explain(ErrorType::ConnectTimedout, "the resolver does not answer")
        });
        let answer = match looked_up {
            Ok(answer) => {
                if previous.is_none_or(|old| old.failing || old.addresses != answer.addresses) {
                    let (upstream, host) = (&self.upstream, &name.host);
                    info!("discovery: {upstream} {host} resolved to {:?}", answer.addresses);
                }
                answer
            }
            Err(why) => {
                let (upstream, host) = (&self.upstream, &name.host);
                let addresses = previous.as_ref().map(|old| old.addresses.clone());
                if !previous.is_some_and(|old| old.failing) {
                    let kept = addresses.as_ref().map_or("no", |_| "the last");
                    warn!("discovery: {upstream} {host} not resolved, {kept} answer kept: {why}");
                }
                let until = Instant::now() + RETRY_AFTER;
                Answer { addresses: addresses.unwrap_or_default(), until, failing: true }
            }
        };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(index, answer);
    }

    async fn look_up(&self, name: &Name) -> Result<Answer> {
        let found = self
            .resolver()?
            .lookup_ip(name.host.as_str())
            .await
            .or_err(ErrorType::ConnectNoRoute, "looking up")?;
        let now = Instant::now();
        let ttl = Instant::from_std(found.valid_until()).saturating_duration_since(now);
        let mut addresses: Vec<_> =
            found.iter().map(|address| SocketAddr::new(address, name.port)).collect();
        addresses.sort_unstable();
        Ok(Answer { addresses, until: now + ttl.clamp(KEEP_MIN, KEEP_MAX), failing: false })
    }

    fn answer(&self, index: usize) -> Option<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }
}

#[async_trait]
impl ServiceDiscovery for Dns {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let lookups = self.names.iter().enumerate().map(|(index, name)| self.refresh(index, name));
        futures::future::join_all(lookups).await;
        let backends = self.answered().into_iter().map(|(addr, target)| Backend {
            addr,
            weight: usize::from(target.weight),
            ext: Extensions::new(),
        });
        Ok((backends.collect(), HashMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str, port: u16, weight: u16) -> Name {
        Name { host: host.to_owned(), port, weight }
    }

    fn answered(dns: &Dns) -> Vec<(String, u16)> {
        let answered = dns.answered().into_iter();
        answered.map(|(address, target)| (address.to_string(), target.weight)).collect()
    }

    #[test]
    fn a_successor_begins_with_the_answers_of_the_names_that_stay() {
        let old = Dns::new("app", vec![name("a.test", 80, 1), name("b.test", 80, 1)], None);
        let until = Instant::now() + KEEP_MAX;
        for (index, address) in [(0, "192.0.2.1:80"), (1, "192.0.2.2:80")] {
            let addresses = vec![address.parse().unwrap()];
            let answer = Answer { addresses, until, failing: false };
            old.answers.lock().unwrap().insert(index, answer);
        }

        let names = vec![name("c.test", 80, 1), name("b.test", 81, 7)];
        let new = Dns::new("app", names, Some(&old));
        assert_eq!(
            answered(&new),
            [("192.0.2.2:81".to_owned(), 7)],
            "with its own port and weight"
        );
        assert_eq!(new.due(), until, "it holds as long as it would have");
        assert_eq!(answered(&old).len(), 2, "which keeps what it has");
        assert_eq!(answered(&Dns::new("app", vec![name("b.test", 80, 1)], None)), []);
    }
}
