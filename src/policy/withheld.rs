//! Cookies of Crestline's own, by which it knows who has signed in: no origin is sent them, and no
//! other service, whichever route it is asked by. Whoever has one is let in by it.

use std::sync::Arc;

use http::{
    HeaderName, HeaderValue,
    header::{CACHE_CONTROL, COOKIE},
};
use pingora::Result;
use pingora_http::{RequestHeader, ResponseHeader};

/// Fields that go before `Cache-Control` at caches between here and the client.
static FOR_CACHES: [HeaderName; 2] =
    [HeaderName::from_static("cdn-cache-control"), HeaderName::from_static("surrogate-control")];

/// The beginnings of the names of those cookies, over all routes of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Withheld(Arc<[String]>);

impl FromIterator<String> for Withheld {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Withheld {
    fn is_in(&self, field: &HeaderValue) -> bool {
        let mut names = self.0.iter();
        names.any(|name| memchr::memmem::find(field.as_bytes(), name.as_bytes()).is_some())
    }

    /// What is left of a `Cookie` field; `None` if nothing is.
    pub(super) fn rest(&self, field: &HeaderValue) -> Option<HeaderValue> {
        if !self.is_in(field) {
            return Some(field.clone());
        }
        let is_ours = |pair: &[u8]| self.0.iter().any(|name| pair.starts_with(name.as_bytes()));
        let pairs = field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let others: Vec<_> = pairs.filter(|pair| !is_ours(pair)).collect();
        let left = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok();
        left.filter(|left| !left.is_empty())
    }

    /// Takes them off what an origin is sent.
    pub(super) fn take_off(&self, header: &mut RequestHeader) -> Result<()> {
        if self.0.is_empty() || !header.headers.get_all(COOKIE).iter().any(|it| self.is_in(it)) {
            return Ok(());
        }
        let fields: Vec<_> = header.headers.get_all(COOKIE).iter().cloned().collect();
        header.remove_header(&COOKIE);
        for left in fields.iter().filter_map(|field| self.rest(field)) {
            header.append_header(COOKIE, left)?;
        }
        Ok(())
    }
}

/// Has nobody keep an answer for others, whatever a policy says: they would be given its cookies.
pub(super) fn keep_for_one(header: &mut ResponseHeader) -> Result<()> {
    let said = header.headers.get_all(CACHE_CONTROL).iter();
    let mut said = said.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !said.any(|word| matches!(word.trim_ascii(), b"no-store" | b"private")) {
        header.insert_header(CACHE_CONTROL, "private")?;
    }
    for name in &FOR_CACHES {
        header.remove_header(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_cookies_of_ours_is_for_one() {
        for (said, left) in [
            ("public, max-age=3600", "private"),
            ("max-age=60, private", "max-age=60, private"),
            ("no-store", "no-store"),
        ] {
            let mut header = ResponseHeader::build(200, None).unwrap();
            header.append_header(CACHE_CONTROL, said).unwrap();
            header.append_header("cdn-cache-control", "max-age=60").unwrap();
            keep_for_one(&mut header).unwrap();
            assert_eq!(header.headers[CACHE_CONTROL], left);
            assert!(!header.headers.contains_key("cdn-cache-control"));
        }
    }

    #[test]
    fn origins_get_the_other_cookies() {
        let names = ["__Host-crestline-1", "__Host-crestline-2"].map(str::to_owned);
        let withheld: Withheld = names.into_iter().collect();
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        let field = "a=1; __Host-crestline-1=1x; __Host-crestline-2-sign-in-2=y;b=2";
        header.append_header(COOKIE, field).unwrap();
        header.append_header(COOKIE, "__Host-crestline-1-1=z").unwrap();
        header.append_header(COOKIE, "c=__Host-crestline-3").unwrap();
        withheld.take_off(&mut header).unwrap();
        let left: Vec<_> = header.headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, ["a=1; b=2", "c=__Host-crestline-3"]);
    }
}
