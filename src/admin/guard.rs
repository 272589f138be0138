//! Whose requests the admin listener takes.
//!
//! Whoever can reach the address is a program of this machine, or has the token or a certificate;
//! but a browser there runs programs of strangers. What a page of another site asks for is refused,
//! and so is a name that a stranger lets point here (DNS rebinding): in plaintext and without a
//! token, only an address or `localhost` is taken for the host. The owner may have the socket, too,
//! within reach of a browser (`ssh -L 9180:/run/crestline/…`), so the same goes there.
//!
//! The page at `/` holds no secret: it may be come to by a link, and without the token.

use std::net::IpAddr;

use http::{
    Method, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};
use pingora_http::RequestHeader;

use crate::{
    admin::{page, who::Peer},
    snapshot::Access,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

const FOREIGN: Refusal = (StatusCode::FORBIDDEN, "pages of other sites may not ask");

/// What probes ask for, who have no token.
pub(super) const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Why a request is not taken.
pub(super) type Refusal = (StatusCode, &'static str);

/// Whether a request that came over TCP is taken, and by whose right.
pub(super) fn check(
    request: &RequestHeader,
    peer: &Peer,
    access: &Access,
) -> Result<&'static str, Refusal> {
    if is_foreign(request, peer.scheme()) {
        return Err(FOREIGN);
    }
    if peer.client.is_some() && access.takes_certificates() {
        return Ok("by its certificate");
    }
    let is_shown = shown(request).is_some_and(|token| access.is_token(token));
    if is_shown {
        return Ok("with the token");
    }
    if access.wants_token() && page::is_of_it(&request.method, request.uri.path()) {
        return Ok("without a token");
    }
    // Over TLS a browser has seen that the name is ours.
    if !peer.is_over_tls && !is_local(text(request, HOST).unwrap_or_default()) {
        let why = "without a token, ask for an address or `localhost`, not for another name";
        return Err((StatusCode::FORBIDDEN, why));
    }
    match (access.wants_token(), access.takes_certificates()) {
        (false, false) => Ok("without a token"),
        _ if PROBES.contains(&request.uri.path()) => Ok("without a token"),
        (true, _) => Err((StatusCode::UNAUTHORIZED, "show the token: `Authorization: Bearer …`")),
        (false, true) => Err((StatusCode::FORBIDDEN, "show a certificate")),
    }
}

/// Whether a request that came over the socket is taken: its owner's, but for strangers' in his
/// browser.
pub(super) fn check_owner(request: &RequestHeader) -> Result<&'static str, Refusal> {
    let host = text(request, HOST).unwrap_or_default();
    if is_foreign(request, "http") {
        Err(FOREIGN)
    } else if host.contains('.') && !is_local(host) {
        Err((StatusCode::FORBIDDEN, "ask for `localhost`, not for another name"))
    } else {
        Ok("")
    }
}

/// Whether a page of another site asks, unless it is a link that was followed to the page here.
fn is_foreign(request: &RequestHeader, scheme: &str) -> bool {
    let host = text(request, HOST).unwrap_or_default();
    if text(request, ORIGIN).is_some_and(|origin| origin.split_once("://") != Some((scheme, host)))
    {
        return true;
    }
    let is_followed = request.method == Method::GET
        && request.uri.path() == page::ROOT
        && text(request, SEC_FETCH_DEST) == Some("document");
    !is_followed && !matches!(text(request, SEC_FETCH_SITE), None | Some("same-origin" | "none"))
}

fn text(request: &RequestHeader, name: HeaderName) -> Option<&str> {
    request.headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn shown(request: &RequestHeader) -> Option<&[u8]> {
    let value = request.headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether a host is an address, or the name that every machine has for itself.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_local_and_names_are_not() {
        for host in
            ["127.0.0.1", "127.0.0.1:9180", "[::1]:9180", "[::1]", "localhost", "LocalHost:1"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "evil.test", "evil.test:9180", "127.0.0.1.evil.test", "localhost.evil.test:1"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
