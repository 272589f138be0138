//! Fetches an answer once more for those who follow its fetch, where that broke off or hardly goes
//! on: the client whose request began it has left, or takes its time, or its origin failed.
//!
//! Those who follow are sent what is there already; what comes now must agree with that, and be for
//! all of them as the first was.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::request::Parts;
use pingora::Result;
use pingora_cache::storage::HitHandler;
use pingora_core::connectors::http::Connector;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    cache::{Reader, Writer},
    policy::cache::Asked,
    proxy::{
        aside::{self, Failed},
        cache_key, cached,
        context::Context,
        respond,
        select::{self, STALE_MAX},
        translate,
    },
    snapshot::Route,
    upstream::{
        Visit,
        backend::{BackendState, InFlight, Member},
        balance::hints::Hints,
        load::Admission,
        outcome::Outcome,
        proxy_header::Sender,
    },
};

/// How an answer may be fetched once more.
struct Refetch {
    route: Arc<Route>,
    client: Option<IpAddr>,
    sender: Sender,
    head: RequestHeader,
    is_known: bool,
    /// The backend that was asked first.
    first: Option<Arc<BackendState>>,
}

/// Leaves with an answer that is followed how it may be fetched once more, if nobody has; whether
/// it has not just broken off.
pub(crate) fn offer(
    connector: &Arc<Connector>,
    session: &Session,
    handler: &HitHandler,
    ctx: &Context,
) -> bool {
    let Some(reader) = handler.as_any().downcast_ref::<Reader>() else { return true };
    if reader.wants_refetch()
        && !cached::wants_only_what_is_kept(ctx)
        && let Err(why) = leave(connector, session, reader, ctx)
    {
        log::debug!("cache: nothing could be fetched once more: {why}");
    }
    !reader.is_broken()
}

fn leave(
    connector: &Arc<Connector>,
    session: &Session,
    reader: &Reader,
    ctx: &Context,
) -> Result<()> {
    let (Some(route), head) = (&ctx.route, aside::head(session, ctx, None)?) else { return Ok(()) };
    let refetch = Arc::new(Refetch {
        route: route.clone(),
        client: ctx.client,
        sender: select::sender(session, ctx),
        head,
        is_known: cached::is_known(ctx),
        first: reader.extension().cloned(),
    });
    let (connector, runtime) = (connector.clone(), Handle::current());
    reader.set_refetch(move |writer| {
        let (refetch, connector) = (refetch.clone(), connector.clone());
        let _inside = runtime.enter(); // whoever leaves, and wherever
        aside::spawn("cache", async move { refetch.run(&connector, writer).await });
    });
    Ok(())
}

impl Refetch {
    /// Asks one backend after the other, as often as a request is tried again, for as long as
    /// anybody follows.
    async fn run(&self, connector: &Connector, mut writer: Writer) {
        let (left, upstream) = (writer.left(), &self.route.upstream);
        let asking = async {
            let mut asked: Vec<_> = self.first.iter().cloned().collect();
            let (mut has_failed, mut attempts, mut stale) = (true, 0, 0);
            while attempts <= upstream.retry_policy().max {
                let Some(place) = self.place(&asked, has_failed) else { return };
                let exchanged = self.exchange(connector, &place, &mut writer).await;
                has_failed = exchanged.is_err();
                let outcome = exchanged.map_or_else(
                    |Failed { why, outcome }| {
                        log::debug!("cache: {}: {why}", upstream.name());
                        outcome
                    },
                    Outcome::Status,
                );
                upstream.report(place.member(), outcome, Instant::now());
                if !writer.is_wanted() {
                    return;
                }
                if outcome.is_blameless() && stale < STALE_MAX {
                    stale += 1;
                } else {
                    attempts += 1;
                    asked.push(place.member().state.clone());
                }
            }
        };
        tokio::select! {
            biased;
            () = asking => {}
            () = left => {}
        }
    }

    /// A place at a backend that was not asked yet; where there is none, at any if the last has not
    /// given another answer.
    fn place(&self, asked: &[Arc<BackendState>], has_failed: bool) -> Option<InFlight> {
        let (upstream, now) = (&self.route.upstream, Instant::now());
        let hints = Hints {
            client: self.client,
            headers: Some(&self.head.headers),
            uri: Some(&self.head.uri),
        };
        let others = |member: &Member| {
            let is_asked = asked.iter().any(|state| Arc::ptr_eq(state, &member.state));
            if is_asked { Visit::Failed } else { Visit::None }
        };
        let place = match upstream.admit(now, &hints, others) {
            Admission::Nobody if has_failed => upstream.admit(now, &hints, |_| Visit::None),
            place => place,
        };
        match place {
            Admission::Taken(place) if upstream.may_retry(now) => Some(place),
            _ => None,
        }
    }

    /// Asks a backend, and writes what it sends for as long as that is the same answer.
    async fn exchange(
        &self,
        connector: &Connector,
        place: &InFlight,
        writer: &mut Writer,
    ) -> Result<u16, Failed> {
        let (upstream, member) = (&self.route.upstream, place.member());
        let (peer, timeouts) =
            (upstream.peer_for(member, || self.sender, None), upstream.timeouts());
        let mut head: Parts = self.head.clone().into();
        translate::host(&mut head.headers, &self.route, &member.host);
        let (began, within) = (Instant::now(), timeouts.first_byte);
        let asking = aside::ask(connector, &peer, place, head.into(), Bytes::new(), within);
        let (mut session, status) = asking.await?;
        session.set_read_timeout(Some(timeouts.between_bytes));
        if let Some(answer) = session.response_header()
            && writer.is_wanted()
            && self.is_for_all(answer, began)
            && writer.begin(answer, cache_key::vary(&answer.headers, &self.head.headers))
        {
            while let Some(piece) = session.read_response_body().await? {
                if !writer.write(&piece) || !writer.is_wanted() {
                    break;
                }
            }
        }
        aside::end(connector, &peer, session, timeouts.idle).await;
        Ok(status)
    }

    /// Whether an answer may be given to all who are like this client.
    fn is_for_all(&self, answer: &ResponseHeader, began: Instant) -> bool {
        let mut answer = answer.clone();
        respond::strip_hop_by_hop(&mut answer);
        let asked = Asked { is_known: self.is_known, took: began.elapsed() };
        let rules = self.route.policies.cache();
        rules.is_some_and(|rules| rules.judge(&answer, asked, SystemTime::now()).is_ok())
    }
}
