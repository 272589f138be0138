//! What routes look at in a request, borrowed from it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The parts of a request that decide on its route.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// In lower case and without port, as [`RequestHost`](super::host::RequestHost) makes it.
    pub host: &'a str,
    /// In canonical form, as [`canonicalize`](super::path::canonicalize) makes it.
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// What stands behind the `?`, as it was sent.
    pub query: &'a str,
}

impl<'a> RequestParts<'a> {
    /// The values of a header field, in order.
    pub fn header(&self, name: &HeaderName) -> impl Iterator<Item = Cow<'a, [u8]>> + use<'a> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes).map(Cow::Borrowed)
    }

    /// The values of a parameter, in order, decoded as those of a form: only what is encoded is
    /// copied.
    pub fn parameter<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = Cow<'a, [u8]>> + use<'a, 'n> {
        let parameters = form_urlencoded::parse(self.query.as_bytes());
        parameters.filter(move |(given, _)| given == name).map(|(_, value)| match value {
            Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
            Cow::Owned(value) => Cow::Owned(value.into_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_borrowed_where_nothing_is_encoded() {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let query = "a=1&b&a=%32+x&%61=3&=4&c=a=b&d=%zz";
        let request =
            RequestParts { host: "", path: "/", method: &method, headers: &headers, query };
        let values = |name| request.parameter(name).collect::<Vec<_>>();
        assert_eq!(values("a"), [&b"1"[..], b"2 x", b"3"]);
        assert_eq!(values("b"), [&b""[..]]);
        assert_eq!(values("c"), [&b"a=b"[..]]);
        assert_eq!(values("d"), [&b"%zz"[..]], "a broken escape stays as it is");
        assert_eq!(values("e"), [&b""[..]; 0]);
        assert!(matches!(values("a")[0], Cow::Borrowed(_)));
    }
}
