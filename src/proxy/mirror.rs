//! Copies of requests for another upstream, whose answers nobody waits for.
//!
//! A copy is made of the head as the origin gets it, and of the body as it streams by, up to a
//! bound. It is sent by a task of its own, over connections of its own, within its own time; so
//! all that a client's request does for it is to copy bytes. At a stop nobody waits for copies:
//! they end with the runtime.

use std::{mem, net::IpAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::http::Connector;
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::{self, Instant};

use crate::{
    proxy::{aside, context::Context, select},
    snapshot::{Host, Mirror, Route},
    upstream::{
        Visit,
        balance::hints::Hints,
        load::{
            Admission,
            copies::{Copy, End},
        },
        proxy_header::Sender,
    },
};

/// The field that marks a copy.
static MARK: HeaderName = HeaderName::from_static("x-crestline-mirror");

/// An answer that is longer costs its connection.
const ANSWER_MAX: usize = 1024 * 1024;

/// What becomes of the copy of a request.
#[derive(Default)]
pub(crate) enum State {
    /// It is not decided.
    #[default]
    Open,
    /// There is none, or it is on its way.
    Over,
    /// Its body streams by.
    Body(Box<Copying>),
}

/// A copy, and what it is made of.
pub(crate) struct Copying {
    route: Arc<Route>,
    copy: Copy,
    client: Option<IpAddr>,
    sender: Sender,
    head: RequestHeader,
    body: BytesMut,
}

/// Decides on a copy when the head of a request goes to the origin; one without a body is sent at
/// once. With another attempt, its body begins anew.
pub(crate) fn head(
    connector: &Arc<Connector>,
    session: &Session,
    head: &RequestHeader,
    ctx: &mut Context,
) {
    match &mut ctx.mirror {
        State::Open => {}
        State::Over => return,
        State::Body(copying) => return copying.body.clear(),
    }
    ctx.mirror = State::Over;
    let Some(route) = &ctx.route else { return };
    let Some(mirror) = &route.mirror else { return };
    if session.is_upgrade_req() || !mirror.takes() {
        return;
    }
    let Some(copy) = mirror.upstream.account().copies().begin(mirror.copies_max) else { return };
    let copying = Box::new(Copying {
        route: route.clone(),
        copy,
        client: ctx.client,
        sender: select::sender(session, ctx),
        head: head.clone(),
        body: BytesMut::new(),
    });
    if ctx.is_sent {
        copying.send(connector);
    } else {
        ctx.mirror = State::Body(copying);
    }
}

/// Copies a piece of the body.
pub(crate) fn body(
    connector: &Arc<Connector>,
    piece: Option<&Bytes>,
    end: bool,
    ctx: &mut Context,
) {
    let State::Body(copying) = &mut ctx.mirror else { return };
    let max = copying.route.mirror.as_ref().map_or(0, |mirror| mirror.body_bytes_max);
    let piece = piece.map_or(&[][..], |piece| piece);
    if max < copying.body.len() + piece.len() {
        copying.copy.end = End::TooLarge;
        ctx.mirror = State::Over;
        return;
    }
    copying.body.extend_from_slice(piece);
    if end && let State::Body(copying) = mem::replace(&mut ctx.mirror, State::Over) {
        copying.send(connector);
    }
}

impl Copying {
    fn send(self: Box<Self>, connector: &Arc<Connector>) {
        let connector = connector.clone();
        aside::spawn("mirror", async move { self.run(&connector).await });
    }

    async fn run(mut self: Box<Self>, connector: &Connector) {
        let route = self.route.clone();
        let Some(mirror) = &route.mirror else { return };
        self.copy.end = End::Failed;
        match time::timeout(mirror.timeout, self.exchange(mirror, connector)).await {
            Ok(Ok(status)) => self.copy.end = End::Answered(status),
            Ok(Err(why)) => log::debug!("mirror: {}: {why}", mirror.upstream.name()),
            Err(_) => log::debug!("mirror: {}: too late", mirror.upstream.name()),
        }
    }

    /// Sends the copy, and reads its answer.
    async fn exchange(&mut self, mirror: &Mirror, connector: &Connector) -> Result<u16> {
        let upstream = &mirror.upstream;
        let Self { client, head, .. } = &*self;
        let hints = Hints { client: *client, headers: Some(&head.headers), uri: Some(&head.uri) };
        let Admission::Taken(in_flight) = upstream.admit(Instant::now(), &hints, |_| Visit::None)
        else {
            return Error::e_explain(ErrorType::ConnectError, "no backend has a place");
        };
        let peer = upstream.peer_for(in_flight.member(), || self.sender, None);
        let mut head = self.head.clone();
        if matches!(self.route.host, Host::Upstream) {
            head.insert_header(header::HOST, &in_flight.member().host)?;
        }
        self.mark(&mut head)?;
        let body = mem::take(&mut self.body).freeze();
        let asking = aside::ask(connector, &peer, &in_flight, head, body, mirror.timeout);
        let (mut session, status) = asking.await?;
        let mut read = 0;
        while let Some(piece) = session.read_response_body().await? {
            read += piece.len();
            if ANSWER_MAX < read {
                break;
            }
        }
        aside::end(connector, &peer, session, upstream.timeouts().idle).await;
        Ok(status)
    }

    /// Marks a copy; its body is here as a whole.
    fn mark(&self, head: &mut RequestHeader) -> Result<()> {
        head.insert_header(&MARK, HeaderValue::from_static("1"))?;
        head.remove_header(&header::EXPECT);
        if !self.body.is_empty() || head.headers.contains_key(header::CONTENT_LENGTH) {
            head.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        }
        Ok(())
    }
}
