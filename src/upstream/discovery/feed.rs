//! One source of an upstream's backends, followed for as long as the upstream is in force.
//!
//! A feed answers at once with the last good set: to Pingora's `ServiceDiscovery`, and to those
//! who ask how the source stands. What changes is told by [`Changed`].
//!
//! INVARIANT: what a source gave is replaced whole and never emptied by a failure, unless the
//! operator said for how long it is good (`max_stale`).

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr as InetAddr},
    os::unix,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use log::{info, warn};
use pingora::Result;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::{Backend, Extensions, discovery::ServiceDiscovery};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use crate::upstream::{
    config::Address,
    discovery::{
        dns::Resolver,
        names::{LookedUp, Names},
        source::{Answer, Backoff, Failure, Found, Source},
    },
    target::Target,
};

/// Wakes whoever puts new sets in force.
pub type Changed = Arc<Notify>;

/// What a feed is made of.
pub struct Origin {
    /// What logs and `status` call it; two that read the same are the same source.
    pub label: String,
    /// What is known from the beginning, as the names of a configuration are.
    pub given: Option<Vec<Found>>,
    /// Where more comes from; `None` if all is given.
    pub source: Option<Box<dyn Source>>,
    /// For how long the last good set is kept while the source fails; `None` for ever.
    pub max_stale: Option<Duration>,
}

impl Origin {
    /// The names of a configuration, which are only to be resolved; `None` if there are none.
    pub fn of_names(names: Vec<Found>) -> Option<Self> {
        let given = (!names.is_empty()).then_some(names)?;
        Some(Self { label: "dns".to_owned(), given: Some(given), source: None, max_stale: None })
    }
}

/// One source, and what it last gave.
pub struct Feed {
    upstream: Arc<str>,
    label: String,
    max_stale: Option<Duration>,
    resolver: Arc<Resolver>,
    source: tokio::sync::Mutex<Option<Box<dyn Source>>>,
    changed: Changed,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    given: Option<Vec<Found>>,
    names: HashMap<String, Known>,
    /// When the source last gave an answer, or a name was last resolved.
    in_touch: Option<Instant>,
    /// Since when the source fails, and why; `None` while it does not.
    failing: Option<(Instant, Failure)>,
    /// Whether the source was asked to an end, good or bad.
    asked: bool,
}

/// What is known of a name.
#[derive(Clone, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    failing: Option<(Instant, Failure)>,
}

/// How a source stands, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which source it is.
    pub source: String,
    /// How many backends it gives now.
    pub backends: usize,
    /// How long ago it was last in touch; `None` if it never was.
    pub in_touch: Option<Duration>,
    /// Why it is not in touch now; `None` if it is.
    pub error: Option<String>,
}

impl Feed {
    /// Prepares a feed; nothing is asked yet. What a predecessor knows of the same source, and of
    /// the same names, holds until there is something newer.
    pub fn new(
        upstream: &Arc<str>,
        origin: Origin,
        resolver: &Arc<Resolver>,
        changed: &Changed,
        predecessors: &[Arc<Self>],
    ) -> Self {
        let Origin { label, given, source, max_stale } = origin;
        let mut state = State { asked: source.is_none(), given, ..State::default() };
        for old in predecessors {
            let known = old.state().clone();
            state.names.extend(known.names);
            if old.label == label && source.is_some() {
                (state.given, state.failing) = (known.given, known.failing);
                (state.in_touch, state.asked) = (known.in_touch, known.asked);
            }
        }
        state.forget_unwanted();
        Self {
            upstream: upstream.clone(),
            label,
            max_stale,
            resolver: resolver.clone(),
            source: tokio::sync::Mutex::new(source),
            changed: changed.clone(),
            state: Mutex::new(state),
        }
    }

    /// What logs and `status` call the source.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Follows the source and the names that it gives, for ever.
    pub async fn follow(&self) {
        let mut source = self.source.lock().await;
        let mut names = Names::new(self.resolver.clone());
        let mut backoff = Backoff::default();
        let mut pause = Duration::ZERO;
        self.state().want_from(&mut names);
        loop {
            let answer = {
                let next = next(&mut source, pause);
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        answer = &mut next => break answer,
                        looked_up = names.next() => {
                            self.learn_name(&looked_up);
                            names.again(looked_up);
                        }
                    }
                }
            };
            pause = if answer.is_ok() { Duration::ZERO } else { backoff.pause() };
            if answer.is_ok() {
                backoff.reset();
            }
            self.learn(answer);
            self.state().want_from(&mut names);
        }
    }

    /// The backends that are known now, each with what is known of it.
    pub fn found(&self, now: Instant) -> Vec<(SocketAddr, Target)> {
        let state = self.state();
        let is_good = |failing: Option<&(Instant, Failure)>| !self.is_stale(failing, now);
        let given = state.given.iter().flatten().filter(|_| is_good(state.failing.as_ref()));
        let mut all = Vec::new();
        for Found { address, target } in given {
            match address {
                Address::Socket(address) => all.push(((*address).into(), target.clone())),
                Address::Unix(path) => {
                    let address = unix::net::SocketAddr::from_pathname(path);
                    all.extend(address.map(|path| (SocketAddr::Unix(path), target.clone())));
                }
                Address::Name(host, port) => {
                    let known =
                        state.names.get(host).filter(|known| is_good(known.failing.as_ref()));
                    let name: Option<Arc<str>> = known.map(|_| host.as_str().into());
                    for ip in known.into_iter().flat_map(|known| &known.addresses) {
                        let target = Target { name: name.clone(), ..target.clone() };
                        all.push((InetAddr::new(*ip, *port).into(), target));
                    }
                }
            }
        }
        all
    }

    /// Whether it is worth waiting for: it was not asked yet, or a name of it was not.
    pub fn is_awaited(&self) -> bool {
        let state = self.state();
        !state.asked || state.hosts().any(|host| !state.names.contains_key(host))
    }

    /// When what it gave last stops being good, if nothing better comes; `None` for never.
    pub fn good_until(&self, now: Instant) -> Option<Instant> {
        let (state, max_stale) = (self.state(), self.max_stale?);
        let names = state.names.values().filter_map(|known| known.failing.as_ref());
        let failing = state.failing.iter().chain(names);
        failing.map(|(since, _)| *since + max_stale).filter(|until| now < *until).min()
    }

    /// Whether what it gave last is not good any longer.
    pub fn has_gone_stale(&self, now: Instant) -> bool {
        let state = self.state();
        self.is_stale(state.failing.as_ref(), now)
            || state.names.values().any(|known| self.is_stale(known.failing.as_ref(), now))
    }

    /// How it stands.
    pub fn standing(&self, now: Instant) -> Standing {
        let backends = self.found(now).len();
        let state = self.state();
        let name = |(host, known): (&String, &Known)| {
            let (_, why) = known.failing.as_ref()?;
            Some(format!("{host}: {why}"))
        };
        let source = state.failing.as_ref().map(|(_, why)| why.to_string());
        Standing {
            source: self.label.clone(),
            backends,
            in_touch: state.in_touch.map(|then| now.saturating_duration_since(then)),
            error: source.or_else(|| state.names.iter().filter_map(name).min()),
        }
    }

    fn is_stale(&self, failing: Option<&(Instant, Failure)>, now: Instant) -> bool {
        let (Some(max_stale), Some((since, _))) = (self.max_stale, failing) else { return false };
        *since + max_stale <= now
    }

    fn learn(&self, answer: Answer) {
        let (now, Self { upstream, label, .. }) = (Instant::now(), self);
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.asked, true);
        let is_new = match answer {
            Ok(found) => {
                state.in_touch = Some(now);
                let was_failing = state.failing.take().is_some();
                let differs = state.given.as_ref() != Some(&found);
                if was_failing || differs {
                    let (count, s) = (found.len(), if found.len() == 1 { "" } else { "s" });
                    info!("discovery: {upstream} {label} gives {count} backend{s}");
                }
                state.given = Some(found);
                state.forget_unwanted();
                was_failing || differs
            }
            Err(why) => {
                let before = state.failing.take();
                if before.as_ref().is_none_or(|(_, known)| *known != why) {
                    let kept = if state.given.is_some() {
                        "the last answer kept"
                    } else {
                        "no answer yet"
                    };
                    warn!("discovery: {upstream} {label} failed, {kept}: {why}");
                }
                state.failing = Some((before.map_or(now, |(since, _)| since), why));
                // `max_stale` has begun to count.
                self.max_stale.is_some()
            }
        };
        drop(state);
        if is_first || is_new {
            self.changed.notify_one();
        }
    }

    fn learn_name(&self, looked_up: &LookedUp) {
        let (now, upstream) = (Instant::now(), &self.upstream);
        let LookedUp { host, result, .. } = looked_up;
        let mut state = self.state();
        let is_first = !state.names.contains_key(host);
        let known = state.names.entry(host.clone()).or_default();
        let is_new = match result {
            Ok(kept) => {
                let differs = known.failing.take().is_some() || known.addresses != kept.found;
                if differs {
                    info!("discovery: {upstream} {host} resolved to {:?}", kept.found);
                }
                known.addresses.clone_from(&kept.found);
                state.in_touch = Some(now);
                differs
            }
            Err(why) => {
                let since = known.failing.as_ref().map(|(since, _)| *since);
                if since.is_none() {
                    let kept = if known.addresses.is_empty() { "no" } else { "the last" };
                    warn!("discovery: {upstream} {host} not resolved, {kept} answer kept: {why}");
                }
                known.failing = Some((since.unwrap_or(now), why.clone()));
                self.max_stale.is_some()
            }
        };
        drop(state);
        if is_first || is_new {
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.given.iter().flatten().filter_map(|found| match &found.address {
            Address::Name(host, _) => Some(host.as_str()),
            Address::Socket(_) | Address::Unix(_) => None,
        })
    }

    fn want_from(&self, names: &mut Names) {
        names.want(self.hosts());
    }

    fn forget_unwanted(&mut self) {
        let wanted: BTreeSet<String> = self.hosts().map(str::to_owned).collect();
        self.names.retain(|host, _| wanted.contains(host));
    }
}

/// Asks a source after a pause; never answers where there is none.
async fn next(source: &mut Option<Box<dyn Source>>, pause: Duration) -> Answer {
    match source {
        Some(source) => {
            time::sleep(pause).await;
            source.next().await
        }
        None => std::future::pending().await,
    }
}

#[async_trait]
impl ServiceDiscovery for Feed {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let found = self.found(Instant::now()).into_iter();
        let backends = found.map(|(addr, target)| {
            let weight = usize::from(target.weight);
            let mut ext = Extensions::new();
            ext.insert(target);
            Backend { addr, weight, ext }
        });
        Ok((backends.collect(), HashMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// A source that gives what it is told to.
    struct Told(mpsc::UnboundedReceiver<Answer>);

    #[async_trait]
    impl Source for Told {
        async fn next(&mut self) -> Answer {
            match self.0.recv().await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn feed(
        max_stale: Option<Duration>,
        old: &[Arc<Feed>],
    ) -> (Arc<Feed>, mpsc::UnboundedSender<Answer>) {
        let (tell, told) = mpsc::unbounded_channel();
        let source: Option<Box<dyn Source>> = Some(Box::new(Told(told)));
        let origin = Origin { label: "told".to_owned(), given: None, source, max_stale };
        let resolver = Arc::default();
        (Arc::new(Feed::new(&"app".into(), origin, &resolver, &Changed::default(), old)), tell)
    }

    fn one(text: &str) -> Vec<Found> {
        vec![Found { address: text.parse().unwrap(), target: Target::of(1) }]
    }

    /// Tells the feed something and waits until it has learnt it.
    async fn learn(feed: &Feed, tell: &mpsc::UnboundedSender<Answer>, answer: Answer) {
        tell.send(answer).unwrap();
        feed.changed.notified().await;
    }

    fn addresses(feed: &Feed) -> Vec<String> {
        let found = feed.found(Instant::now()).into_iter();
        found.map(|(address, _)| address.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_set_is_kept_for_ever_or_for_as_long_as_was_said() {
        for max_stale in [None, Some(Duration::from_secs(60))] {
            let (feed, tell) = feed(max_stale, &[]);
            assert!(feed.is_awaited());
            let follower = feed.clone();
            let task = tokio::spawn(async move { follower.follow().await });
            learn(&feed, &tell, Ok(one("127.0.0.1:1"))).await;
            assert!(!feed.is_awaited());
            assert_eq!(feed.standing(Instant::now()).error, None);

            tell.send(Err(Failure::new("gone"))).unwrap();
            time::sleep(Duration::from_secs(59)).await;
            let standing = feed.standing(Instant::now());
            assert_eq!((standing.backends, standing.error.as_deref()), (1, Some("gone")));
            assert_eq!(standing.in_touch.map(|since| since.as_secs()), Some(59));
            assert_eq!(feed.good_until(Instant::now()).is_some(), max_stale.is_some());
            time::sleep(Duration::from_secs(2)).await;
            assert_eq!(addresses(&feed).is_empty(), max_stale.is_some());
            assert_eq!(feed.has_gone_stale(Instant::now()), max_stale.is_some());

            tell.send(Ok(one("127.0.0.1:2"))).unwrap();
            time::sleep(Duration::from_secs(20)).await;
            assert_eq!(addresses(&feed), ["127.0.0.1:2"]);
            assert_eq!(feed.standing(Instant::now()).error, None);
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_begins_with_what_the_same_source_gave() {
        let (old, tell) = feed(None, &[]);
        let follower = old.clone();
        let task = tokio::spawn(async move { follower.follow().await });
        learn(&old, &tell, Ok(one("127.0.0.1:1"))).await;
        task.abort();
        let (new, _tell) = feed(None, std::slice::from_ref(&old));
        assert!(!new.is_awaited());
        assert_eq!(addresses(&new), ["127.0.0.1:1"]);
        assert_eq!(addresses(&feed(None, &[]).0), [""; 0]);
    }

    #[tokio::test]
    async fn a_successor_begins_with_the_answers_of_the_names_that_stay() {
        let named = |names: &[&str], old: &[Arc<Feed>]| {
            let names = names.iter().flat_map(|name| one(name)).collect();
            let origin = Origin::of_names(names).unwrap();
            let changed = Changed::default();
            Arc::new(Feed::new(&"app".into(), origin, &Arc::default(), &changed, old))
        };
        let old = named(&["a.test:80", "b.test:80"], &[]);
        for (host, address) in [("a.test", "192.0.2.1"), ("b.test", "192.0.2.2")] {
            let addresses = vec![address.parse().unwrap()];
            old.state().names.insert(host.to_owned(), Known { addresses, failing: None });
        }
        let new = named(&["c.test:80", "b.test:81"], std::slice::from_ref(&old));
        assert_eq!(addresses(&new), ["192.0.2.2:81"], "with its own port");
        assert_eq!(addresses(&old).len(), 2, "which keeps what it has");
        assert!(new.is_awaited(), "the other one was not looked up");
    }

    /// What Pingora's trait gives holds all that is known of a backend.
    #[tokio::test]
    async fn pingora_is_given_each_backend_with_what_is_known_of_it() {
        let origin = Origin::of_names(one("127.0.0.1:7")).unwrap();
        let feed = Feed::new(&"app".into(), origin, &Arc::default(), &Changed::default(), &[]);
        let (backends, enablement) = feed.discover().await.unwrap();
        let backend = backends.first().unwrap();
        assert_eq!((backend.addr.to_string(), backend.weight), ("127.0.0.1:7".to_owned(), 1));
        assert_eq!(backend.ext.get::<Target>(), Some(&Target::of(1)));
        assert!(enablement.is_empty());
    }
}
