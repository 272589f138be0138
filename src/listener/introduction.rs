//! The PROXY protocol at the beginning of a connection, before TLS: who its client is.
//!
//! Read on listeners that expect it, within the time for a head. What follows the header goes
//! back to where it came from, and is read as if there had been none.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pingora_core::{
    protocols::{Stream, l4::stream::Stream as Socket},
    server::ShutdownWatch,
};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    downstream::{
        config::proxy_protocol::Rules,
        connection::contains,
        proxy_protocol::{Malformed, Parsed, Told, is_header, parse},
        seat::Waiting,
    },
    listener::serve::leaving,
    reason::Reason,
};

/// So much is read at once.
const READ_AT_ONCE: usize = 1_024;

/// Who is on the other side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Introduction {
    /// A load balancer told this of its client.
    Told(Told),
    /// A load balancer speaks for itself, as a check does.
    OfTheProxy,
    /// The peer is the client.
    OfTheClient,
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was refused, for this reason.
    Refused(Reason, Option<Malformed>),
    /// It is gone, or gives way: nobody needs to know.
    Gone,
}

/// Reads the header that `rules` ask for, if one comes.
pub(super) async fn read(
    stream: Stream,
    rules: &Rules,
    peer: Option<IpAddr>,
    within: Duration,
    waiting: &Waiting,
    shutdown: &ShutdownWatch,
) -> Result<(Stream, Introduction), Failure> {
    // The accept loops make no other streams.
    let Ok(mut socket) = stream.into_any().downcast::<Socket>() else { return Err(Failure::Gone) };
    let is_trusted = peer.is_none_or(|peer| contains(&rules.trusted, IpAddr::to_canonical(&peer)));
    let mut bytes = Vec::new();
    let read = async {
        loop {
            if let Some(judged) = judge(&bytes, is_trusted, rules.is_required) {
                return judged;
            }
            let more = poll_fn(|cx| poll_more(&mut socket, &mut bytes, cx)).await;
            match more {
                Ok(1..) => {}
                _ if bytes.is_empty() || !is_trusted => return Err(Failure::Gone),
                _ => return Err(Failure::Refused(Reason::ProxyProtocolMalformed, None)),
            }
        }
    };
    let read = tokio::select! {
        read = timeout(within, read) => read,
        () = waiting.called() => return Err(Failure::Gone),
        () = leaving(shutdown) => return Err(Failure::Gone),
    };
    let Ok(read) = read else {
        return Err(match (bytes.is_empty(), is_trusted) {
            (true, _) => Failure::Refused(Reason::Silent, None),
            (false, true) => Failure::Refused(Reason::ProxyProtocolTimeout, None),
            (false, false) => Failure::Refused(Reason::HeaderTimeout, None),
        });
    };
    let (length, introduction) = read?;
    socket.rewind(&bytes[length..]);
    Ok((socket, introduction))
}

/// Decides as soon as the bytes allow it: how long the header is, and what it tells.
fn judge(
    bytes: &[u8],
    is_trusted: bool,
    is_required: bool,
) -> Option<Result<(usize, Introduction), Failure>> {
    let refused = |reason, why| Some(Err(Failure::Refused(reason, why)));
    if !is_trusted && is_header(bytes) {
        return refused(Reason::ProxyProtocolUntrusted, None);
    }
    match parse(bytes) {
        Ok(Parsed::NeedsMore) => None,
        Ok(Parsed::Nothing) if is_trusted && is_required => {
            refused(Reason::ProxyProtocolMissing, None)
        }
        Ok(Parsed::Nothing) => Some(Ok((0, Introduction::OfTheClient))),
        Ok(Parsed::Header { length, told }) if told.client.is_none() => {
            Some(Ok((length, Introduction::OfTheProxy)))
        }
        Ok(Parsed::Header { length, told }) => Some(Ok((length, Introduction::Told(told)))),
        Err(why) => refused(Reason::ProxyProtocolMalformed, Some(why)),
    }
}

/// Reads what there is. No buffer is held while waiting.
fn poll_more(
    socket: &mut Socket,
    bytes: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(socket).poll_read(cx, &mut read))?;
    bytes.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET";

    #[test]
    fn who_is_trusted_may_tell_and_a_stranger_may_not() {
        let Some(Ok((45, Introduction::Told(told)))) = judge(LINE, true, true) else {
            panic!("{:?}", judge(LINE, true, true))
        };
        assert_eq!(told.client, "192.0.2.1".parse().ok());
        let untrusted = Some(Err(Failure::Refused(Reason::ProxyProtocolUntrusted, None)));
        assert_eq!(judge(LINE, false, true), untrusted);
        assert_eq!(judge(b"PROXY nonsense", false, false), untrusted);
        assert_eq!(judge(b"PROX", false, false), None);
    }

    #[test]
    fn who_must_tell_and_does_not_is_refused() {
        let itself = Some(Ok((0, Introduction::OfTheClient)));
        let missing = Some(Err(Failure::Refused(Reason::ProxyProtocolMissing, None)));
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", true, true), missing);
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", true, false), itself);
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", false, true), itself);
        assert_eq!(judge(b"", true, true), None);
        assert_eq!(
            judge(b"PROXY UNKNOWN\r\n", true, true),
            Some(Ok((15, Introduction::OfTheProxy)))
        );
        let malformed = Failure::Refused(Reason::ProxyProtocolMalformed, Some(Malformed::Line));
        assert_eq!(judge(b"PROXY TCP9\r\n", true, false), Some(Err(malformed)));
    }
}
