//! Where a redirect sends a client: made so that it cannot be led elsewhere.

use http::HeaderValue;

use crate::policy::contract::Facts;

/// The value of `Location`; `None` if the text cannot stand there.
///
/// A path that begins with two slashes would be read as another host: it is put behind this one.
pub(super) fn value(text: &str, facts: &Facts<'_>) -> Option<HeaderValue> {
    let is_led_elsewhere = text.starts_with("//") || text.starts_with("/\\");
    let text = if is_led_elsewhere { absolute(facts, text) } else { text.to_owned() };
    // Bytes that no URI holds would be read in different ways (RFC 3986 §2).
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let is_good = !text.is_empty() && text.bytes().all(is_plain);
    is_good.then(|| HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()).flatten()
}

/// The path that was asked for in its one form, and the query.
pub(super) fn target(facts: &Facts<'_>) -> String {
    match facts.query() {
        Some(query) => format!("{}?{query}", facts.path()),
        None => facts.path().to_owned(),
    }
}

/// A path and query on the host that was asked for.
pub(super) fn absolute(facts: &Facts<'_>, target: &str) -> String {
    format!("{}://{}{target}", facts.scheme(), facts.authority())
}

#[cfg(test)]
mod tests {
    use crate::policy::tests::Given;

    #[test]
    fn nobody_is_led_elsewhere() {
        let given = Given::request("GET", "//evil.test/").field("host", "shop.test");
        let value = |text: &str| super::value(text, &given.facts());
        assert_eq!(value("/a?b").unwrap(), "/a?b");
        assert_eq!(value("https://x.test/").unwrap(), "https://x.test/");
        assert_eq!(value("//evil.test/").unwrap(), "http://shop.test//evil.test/");
        assert_eq!(value("/\\evil.test/"), None);
        assert_eq!(value("/a\r\nset-cookie: x"), None);
        assert_eq!(value("/é"), None);
        assert_eq!(value(""), None);
    }
}
