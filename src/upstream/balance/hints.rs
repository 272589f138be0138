//! What a balancer may know of a request: by what requests belong together.
//!
//! INVARIANT: nothing is copied to the heap; a key is a piece of the request itself.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

use crate::routing::host::RequestHost;

/// What a balancer may know of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// The client, as far as trusted proxies tell.
    pub client: Option<IpAddr>,
    /// The fields of the request.
    pub headers: Option<&'a HeaderMap>,
    /// What was asked for.
    pub uri: Option<&'a Uri>,
}

impl<'a> Hints<'a> {
    /// Nothing.
    pub const NONE: Self = Self { client: None, headers: None, uri: None };

    /// The value of the first cookie of this name.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let fields = self.headers?.get_all(header::COOKIE).into_iter();
        let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            Some(quoted.unwrap_or(value))
        })
    }

    /// The value of the first parameter of this name in the query, as it was sent.
    pub fn query(&self, name: &str) -> Option<&'a [u8]> {
        self.uri?.query()?.as_bytes().split(|byte| *byte == b'&').find_map(|pair| {
            match pair.strip_prefix(name.as_bytes())? {
                [] => Some(&[][..]),
                [b'=', value @ ..] => Some(value),
                _ => None,
            }
        })
    }

    /// The host that was asked for, in its canonical form.
    pub fn host(&self) -> Option<RequestHost> {
        let authority = self.uri.and_then(Uri::authority).map(http::uri::Authority::as_str);
        let field = || self.headers?.get(header::HOST)?.to_str().ok();
        authority.or_else(field).map(RequestHost::new)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_parameters_and_hosts_are_found_as_they_were_sent() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; sid=\"x y\";b=2"));
        headers.append("cookie", HeaderValue::from_static("c=3;sid=second;  bb=4"));
        let uri: Uri = "http://Shop.Test:80/p?user=7&x&userid=8".parse().unwrap();
        let hints = Hints { client: None, headers: Some(&headers), uri: Some(&uri) };
        assert_eq!(hints.cookie("sid"), Some(&b"x y"[..]));
        assert_eq!(hints.cookie("c"), Some(&b"3"[..]));
        assert_eq!(hints.cookie("bb"), Some(&b"4"[..]));
        assert_eq!(hints.cookie("si"), None);
        assert_eq!(hints.query("user"), Some(&b"7"[..]));
        assert_eq!(hints.query("userid"), Some(&b"8"[..]));
        assert_eq!(hints.query("x"), Some(&b""[..]));
        assert_eq!(hints.query("use"), None);
        assert_eq!(hints.host().unwrap().as_str(), "shop.test");
        assert_eq!(Hints::NONE.cookie("a"), None);
    }
}
