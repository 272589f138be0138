//! The cookies of sign-ins: what they are called, and how a long one is shared out among several.
//!
//! Their names begin with `__Host-`: browsers take one from this host alone, over TLS, for all
//! paths (RFC 6265bis §4.1.3.2), so that no other host below the same domain can plant one.

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;

use crate::policy::{contract::Facts, variable::cookies};

/// Browsers take a cookie of 4096 bytes, with its name and attributes.
const PART_BYTES_MAX: usize = 3800;
/// So many cookies hold a session.
const PARTS_MAX: usize = 4;
/// So many sign-ins of one browser may be under way.
const SLOTS: u8 = 4;

/// The names of the cookies of one realm.
#[derive(Debug)]
pub(super) struct Cookies {
    base: String,
}

impl Cookies {
    pub(super) fn of(realm: &str) -> Self {
        let digest = digest(&SHA256, realm.as_bytes());
        let digits = digest.as_ref().iter().take(4);
        let digits = digits.fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
        Self { base: format!("__Host-crestline-{digits:08x}") }
    }

    /// With what all their names begin.
    pub(super) fn into_base(self) -> String {
        self.base
    }

    fn part(&self, at: usize) -> String {
        if at == 0 { self.base.clone() } else { format!("{}-{at}", self.base) }
    }

    /// The name of the cookie of a sign-in, by its state.
    fn slot(&self, state: &str) -> String {
        let slot = state.bytes().next().unwrap_or_default() % SLOTS;
        format!("{}-sign-in-{slot}", self.base)
    }

    /// The session's text, of all its parts.
    pub(super) fn session(&self, facts: &Facts<'_>) -> Option<Vec<u8>> {
        let first = only(facts, &self.base)?;
        let (count, text) = first.split_first()?;
        let count = usize::from(count.checked_sub(b'0')?);
        if count == 0 || PARTS_MAX < count {
            return None;
        }
        let mut whole = text.to_vec();
        for at in 1..count {
            whole.extend_from_slice(only(facts, &self.part(at))?);
        }
        Some(whole)
    }

    /// What keeps a session in the browser for so many seconds; `None` if it is too long. Parts of
    /// a longer one that the browser has are taken off.
    pub(super) fn keep(
        &self,
        text: &str,
        seconds: u64,
        facts: &Facts<'_>,
    ) -> Option<Vec<HeaderValue>> {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(PART_BYTES_MAX).collect();
        if parts.is_empty() || PARTS_MAX < parts.len() {
            return None;
        }
        let mut fields = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let part = str::from_utf8(part).ok()?;
            let count = if at == 0 { parts.len().to_string() } else { String::new() };
            fields.push(set(&self.part(at), &format!("{count}{part}"), seconds)?);
        }
        fields.extend(self.forget_from(parts.len(), facts));
        Some(fields)
    }

    /// What takes a session out of the browser.
    pub(super) fn forget(&self, facts: &Facts<'_>) -> Vec<HeaderValue> {
        self.forget_from(0, facts).collect()
    }

    fn forget_from<'a>(
        &'a self,
        first: usize,
        facts: &'a Facts<'_>,
    ) -> impl Iterator<Item = HeaderValue> + 'a {
        let names = (first..PARTS_MAX).map(|at| self.part(at));
        let there = names.filter(|name| cookies(facts, name).next().is_some());
        there.filter_map(|name| set(&name, "", 0))
    }

    /// The text of the sign-in with this state.
    pub(super) fn sign_in<'a>(&self, state: &str, facts: &Facts<'a>) -> Option<&'a [u8]> {
        only(facts, &self.slot(state))
    }

    /// What keeps a sign-in in the browser for so many seconds; 0 takes it out.
    pub(super) fn keep_sign_in(
        &self,
        state: &str,
        text: &str,
        seconds: u64,
    ) -> Option<HeaderValue> {
        set(&self.slot(state), text, seconds)
    }
}

/// The only cookie of a name; of two, neither counts.
fn only<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a [u8]> {
    let mut all = cookies(facts, name);
    let first = all.next()?;
    if all.next().is_some() { None } else { Some(first) }
}

fn set(name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Given;

    fn sent_back(fields: &[HeaderValue]) -> String {
        let pairs = fields.iter().map(|field| field.to_str().unwrap().split(';').next().unwrap());
        pairs.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_long_session_is_shared_out_and_put_together() {
        let (cookies, none) = (Cookies::of("shop"), Given::request("GET", "/"));
        for length in [1, PART_BYTES_MAX, PART_BYTES_MAX + 1, PARTS_MAX * PART_BYTES_MAX] {
            let text = "x".repeat(length);
            let fields = cookies.keep(&text, 60, &none.facts()).unwrap();
            assert_eq!(fields.len(), length.div_ceil(PART_BYTES_MAX));
            assert!(fields.iter().all(|field| field.len() < 4096));
            let back = Given::request("GET", "/").field("cookie", &sent_back(&fields));
            assert_eq!(cookies.session(&back.facts()).unwrap(), text.as_bytes());
            // A shorter one takes the other parts off.
            let shorter = cookies.keep("y", 60, &back.facts()).unwrap();
            assert_eq!(shorter.len(), fields.len());
            assert_eq!(cookies.forget(&back.facts()).len(), fields.len());
        }
        let text = "x".repeat(PARTS_MAX * PART_BYTES_MAX + 1);
        assert_eq!(cookies.keep(&text, 60, &none.facts()), None);
    }

    #[test]
    fn a_cookie_is_for_this_host_over_tls_and_no_script() {
        let cookies = Cookies::of("shop");
        let field = &cookies.keep("x", 60, &Given::request("GET", "/").facts()).unwrap()[0];
        let text = field.to_str().unwrap();
        assert!(text.starts_with("__Host-crestline-"), "{text}");
        assert!(
            text.ends_with("=1x; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"),
            "{text}"
        );
        assert_ne!(Cookies::of("shop").base, Cookies::of("app").base);
    }

    #[test]
    fn parts_that_are_missing_or_there_twice_are_no_session() {
        let cookies = Cookies::of("shop");
        let base = &cookies.base;
        for field in [
            format!("{base}=2x"),
            format!("{base}=0x"),
            format!("{base}=9x"),
            format!("{base}="),
            format!("{base}=1x; {base}=1y"),
            "a=1".to_owned(),
        ] {
            let given = Given::request("GET", "/").field("cookie", &field);
            assert_eq!(cookies.session(&given.facts()), None, "{field}");
        }
    }
}
