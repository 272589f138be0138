//! A request and its answer, as policies see them, and what one step notes for a later one.

use std::{fmt, net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    downstream::connection::Connection,
    policy::{body::BodyFilters, identity::Identity},
    reason::Reason,
};

/// Places that the policies of one route may hold for a request at a time.
pub const HELD_MAX: usize = 8;

/// What is known of a request, and does not change on its way.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// What the client sent.
    pub header: &'a RequestHeader,
    /// The canonical path with the query, if it differs from what the client sent.
    pub canonical: Option<&'a Uri>,
    /// The connection that it came by.
    pub connection: &'a Connection,
    /// The client, as far as trusted proxies tell; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// Its id.
    pub id: &'a HeaderValue,
    /// Who it is, as far as policies have found out.
    pub who: &'a Identity,
    /// Its route.
    pub route: &'a str,
    /// The upstream of its route.
    pub upstream: &'a str,
    /// The backend of the present attempt, or of the one that answered.
    pub backend: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// The header fields that the client sent.
    pub fn headers(&self) -> &'a HeaderMap {
        &self.header.headers
    }

    /// The host that is asked for, with its port if that was written; HTTP/2 says it in
    /// `:authority`.
    pub fn authority(&self) -> &'a str {
        let authority = self.header.uri.authority().map(http::uri::Authority::as_str);
        let host = || self.header.headers.get(header::HOST)?.to_str().ok();
        authority.or_else(host).unwrap_or_default()
    }

    /// The host that is asked for, without a port.
    pub fn host(&self) -> &'a str {
        without_port(self.authority())
    }

    /// The path that its route was found by.
    pub fn path(&self) -> &'a str {
        self.canonical.unwrap_or(&self.header.uri).path()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&'a str> {
        self.header.uri.query()
    }

    /// `https` where the client speaks TLS, to this process or to a load balancer that says so.
    pub fn scheme(&self) -> &'static str {
        if self.connection.is_secure() { "https" } else { "http" }
    }
}

/// A host as it is asked for, without its port.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A request before a backend is chosen.
pub struct Request<'a> {
    /// What is known of it.
    pub facts: Facts<'a>,
    /// What policies note for later.
    pub notes: &'a mut Notes,
}

impl Request<'_> {
    /// The path and query that the origin will be asked for, as far as policies have decided.
    pub fn target(&self) -> &Uri {
        self.notes.target.as_ref().or(self.facts.canonical).unwrap_or(&self.facts.header.uri)
    }
}

/// An answer before the client is sent its head.
pub struct Response<'a> {
    /// Its head.
    pub header: &'a mut ResponseHeader,
    /// What is known of its request.
    pub facts: Facts<'a>,
    /// What was noted of it.
    pub notes: &'a Notes,
    /// Whether it is Crestline's own, and not the origin's.
    pub is_own: bool,
    /// What changes its body; nothing changes that of an answer of our own.
    pub body: &'a mut BodyFilters,
}

/// What is noted of one request on its way. Nothing is allocated until something is.
#[derive(Default)]
pub struct Notes {
    /// The path and query that the origin is asked for, once a policy has changed them.
    pub target: Option<Uri>,
    /// Fields that the origin is sent, instead of any of that name.
    pub to_origin: Vec<(HeaderName, HeaderValue)>,
    /// Fields that the client is sent, instead of any of that name.
    pub to_client: Vec<(HeaderName, HeaderValue)>,
    /// Cookies that the client is sent, beside those of the answer.
    pub cookies: Vec<HeaderValue>,
    /// Why a policy answered the request.
    pub reason: Option<Reason>,
    held: ArrayVec<Held, HELD_MAX>,
    pub(super) entered: usize,
}

impl Notes {
    /// Holds a place until the request ends, however it does. `false` if it holds too many: then
    /// the place is given back at once.
    #[must_use]
    pub fn hold(&mut self, owner: Arc<dyn Holds>, place: u64) -> bool {
        self.held.try_push(Held { owner, place }).is_ok()
    }
}

/// Who has places that requests hold while they last.
pub trait Holds: Send + Sync {
    /// Takes a place back.
    fn release(&self, place: u64);
}

struct Held {
    owner: Arc<dyn Holds>,
    place: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.owner.release(self.place);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    struct Places(AtomicU64);

    impl Holds for Places {
        fn release(&self, place: u64) {
            self.0.fetch_add(place, Relaxed);
        }
    }

    #[test]
    fn what_is_held_is_given_back_once_when_the_request_ends() {
        let places = Arc::new(Places(AtomicU64::new(0)));
        let mut notes = Notes::default();
        for place in 1..=8 {
            assert!(notes.hold(places.clone(), place));
        }
        assert!(!notes.hold(places.clone(), 100), "one too many");
        assert_eq!(places.0.load(Relaxed), 100, "is given back at once");
        drop(notes);
        assert_eq!(places.0.load(Relaxed), 100 + 36);
    }
}
