//! A request as somebody asks about it: a method, a URL, header fields.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::HOST};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The method.
    pub method: String,
    /// The URL, with its scheme and host; `tcp://host:port` and `tls://host:port` ask about a
    /// connection that carries anything.
    pub url: String,
    /// Header fields, each as `name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// Why a question cannot be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The method is none.
    #[error("`{0}` is no method: write one such as `GET`")]
    Method(String),
    /// The URL is none.
    #[error("`{0}` is no URL: write one such as `http://shop.example.com/api/x`")]
    Url(String),
    /// The URL has a user and a password, which clients send as a field.
    #[error("the URL holds a user: clients send one as a field, such as `-H 'authorization: …'`")]
    User,
    /// A header field is none.
    #[error("`{0}` is no header field: write one such as `cookie: a=b`")]
    Header(String),
}

/// A question that makes sense.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The host, perhaps with a port.
    pub(super) authority: String,
    /// The host of the URL, in lower case: what a client says in its handshake.
    pub(super) server_name: String,
    /// Whether it is asked over TLS.
    pub(super) is_tls: bool,
    /// The port of the listener.
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl Question {
    pub(super) fn read(&self) -> Result<Asked, QuestionError> {
        let Self { method, url, headers } = self;
        let read = method.parse().map_err(|_| QuestionError::Method(method.clone()))?;
        let no_url = || QuestionError::Url(url.clone());
        let uri: Uri = url.split('#').next().unwrap_or(url).parse().map_err(|_| no_url())?;
        let authority = uri.authority().ok_or_else(no_url)?;
        if authority.as_str().contains('@') {
            return Err(QuestionError::User);
        }
        // As clients do, a colon with no port behind it is left out.
        let authority = authority.as_str().trim_end_matches(':');
        let has_port = authority.len() != uri.host().unwrap_or_default().len();
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (Some(port), Some("http" | "https" | "tcp" | "tls")) if 0 < port => port,
            (None, Some("http")) if !has_port => 80,
            (None, Some("https")) if !has_port => 443,
            _ => return Err(no_url()),
        };
        let mut fields = HeaderMap::new();
        for header in headers {
            let (name, value) =
                field(header).ok_or_else(|| QuestionError::Header(header.clone()))?;
            fields.append(name, value);
        }
        // As curl does: a `Host` that is given replaces that of the URL.
        let given = fields.get(HOST).and_then(|host| host.to_str().ok().map(str::to_owned));
        Ok(Asked {
            method: read,
            server_name: uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase(),
            is_tls: matches!(uri.scheme_str(), Some("https" | "tls")),
            authority: given.unwrap_or_else(|| authority.to_owned()),
            port,
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers: fields,
        })
    }
}

impl Asked {
    /// How long the target is, as it stands in the request line.
    pub(super) fn target_length(&self) -> usize {
        let query = if self.query.is_empty() { 0 } else { 1 + self.query.len() };
        self.path.len() + query
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(method: &str, url: &str, headers: &[&str]) -> Question {
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        Question { method: method.to_owned(), url: url.to_owned(), headers }
    }

    #[test]
    fn the_port_is_that_of_the_url_or_of_its_scheme() {
        let port = |url| question("GET", url, &[]).read().unwrap().port;
        assert_eq!(port("http://a.test/x"), 80);
        assert_eq!(port("https://a.test"), 443);
        assert_eq!(port("https://a.test:8443/"), 8443);
        assert_eq!(port("http://[::1]:8443/"), 8443);
        assert_eq!(port("http://[::1]/"), 80);
        assert_eq!(port("http://a.test:/"), 80);
    }

    #[test]
    fn a_host_field_replaces_that_of_the_url() {
        let asked = question("GET", "http://127.0.0.1:8080/", &["Host: a.test"]).read().unwrap();
        assert_eq!((asked.authority.as_str(), asked.port), ("a.test", 8080));
    }

    #[test]
    fn what_is_no_request_is_told() {
        let error = |question: Question| question.read().unwrap_err();
        assert_eq!(error(question("G T", "http://a/", &[])), QuestionError::Method("G T".into()));
        let too_high = "http://a.test:99999/";
        for url in ["/x", "a.test/x", "ftp://a.test/", "http:///x", "", too_high, "http://a:0/"] {
            assert_eq!(error(question("GET", url, &[])), QuestionError::Url(url.into()));
        }
        let with_user = question("GET", "http://me:secret@a.test/", &[]);
        assert_eq!(error(with_user), QuestionError::User);
        let wrong = question("GET", "http://a/", &["cookie a=b"]);
        assert_eq!(error(wrong), QuestionError::Header("cookie a=b".into()));
    }
}
