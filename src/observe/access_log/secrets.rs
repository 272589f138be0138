//! What no log may show: values of fields and of parameters that let their reader in somewhere.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &[u8] = b"[hidden]";

/// The fields and parameters whose values are not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Secrets {
    pub(super) headers: Vec<HeaderName>,
    /// Names of parameters, in lower case.
    pub(super) query: Vec<String>,
}

impl Secrets {
    /// The value of a field, or what stands for it.
    pub(super) fn shown<'a>(&self, name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
        if self.headers.contains(name) { HIDDEN } else { value.as_bytes() }
    }

    /// A target, or any URL, without the values that are not shown. It is copied only if there is
    /// one.
    pub(super) fn clean<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(query) = memchr::memchr(b'?', target).map(|at| at + 1) else {
            return Cow::Borrowed(target);
        };
        let mut clean = None;
        let mut at = query;
        for pair in target[query..].split(|byte| *byte == b'&') {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            if name.len() < pair.len() && self.is_secret(name) {
                let clean = clean.get_or_insert_with(|| target[..at].to_vec());
                clean.extend_from_slice(name);
                clean.push(b'=');
                clean.extend_from_slice(HIDDEN);
            } else if let Some(clean) = &mut clean {
                clean.extend_from_slice(pair);
            }
            at += pair.len() + 1;
            if let Some(clean) = clean.as_mut().filter(|_| at <= target.len()) {
                clean.push(b'&');
            }
        }
        clean.map_or(Cow::Borrowed(target), Cow::Owned)
    }

    fn is_secret(&self, name: &[u8]) -> bool {
        self.query.iter().any(|secret| secret.as_bytes().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_parameters_are_hidden_and_all_else_stays() {
        let secrets = Secrets { headers: Vec::new(), query: vec!["token".to_owned()] };
        for (given, shown) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?b=1&c", "/a?b=1&c"),
            ("/a?token=1", "/a?token=[hidden]"),
            ("/a?b=1&Token=x=y&c=2", "/a?b=1&Token=[hidden]&c=2"),
            ("/a?token=1&token=2&", "/a?token=[hidden]&token=[hidden]&"),
            ("/a?token", "/a?token"),
            ("/a?tokens=1", "/a?tokens=1"),
        ] {
            let clean = secrets.clean(given.as_bytes());
            assert_eq!(String::from_utf8_lossy(&clean), shown);
            assert_eq!(matches!(clean, Cow::Owned(_)), given != shown);
        }
    }
}
