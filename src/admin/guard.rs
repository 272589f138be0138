//! Whose requests the admin listener takes.
//!
//! Whoever can reach the address is a program of this machine, or has the token; but a browser
//! there runs programs of strangers. What a page of another site asks for is refused, and so is a
//! name that a stranger lets point here (DNS rebinding): without a token, only an address or
//! `localhost` is taken for the host.

use std::net::IpAddr;

use http::{
    StatusCode,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};
use pingora_http::RequestHeader;

use crate::snapshot::Access;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What probes ask for, who have no token.
pub(super) const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Why a request is not taken.
pub(super) type Refusal = (StatusCode, &'static str);

/// Whether a request that came over TCP is taken, and by whose right.
pub(super) fn check(request: &RequestHeader, access: &Access) -> Result<&'static str, Refusal> {
    let text = |name| request.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(HOST).unwrap_or_default();
    let is_foreign =
        text(ORIGIN).is_some_and(|origin| origin.strip_prefix("http://") != Some(host));
    if is_foreign || !matches!(text(SEC_FETCH_SITE), None | Some("same-origin" | "none")) {
        return Err((StatusCode::FORBIDDEN, "pages of other sites may not ask"));
    }
    let is_shown = shown(request).is_some_and(|token| access.is_token(token));
    if is_shown {
        return Ok("with the token");
    }
    if !is_local(host) {
        let why = "without a token, ask for an address or `localhost`, not for another name";
        return Err((StatusCode::FORBIDDEN, why));
    }
    if access.wants_token() && !PROBES.contains(&request.uri.path()) {
        Err((StatusCode::UNAUTHORIZED, "show the token: `Authorization: Bearer …`"))
    } else {
        Ok("without a token")
    }
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
