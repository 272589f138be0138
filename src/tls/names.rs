//! The names of a certificate, and the hosts that they cover.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// So many names are listed before it is said how many more there are.
const LISTED_MAX: usize = 3;

/// The names in a certificate's `subjectAltName`, in lower case; the common name does not count
/// (RFC 9525 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// As they stand in the certificate.
    listed: Vec<String>,
    /// Hosts, and addresses as they stand in URLs; sorted.
    exact: Vec<String>,
    /// What stands behind `*.`; sorted.
    below: Vec<String>,
}

impl Names {
    /// Reads the names of a certificate; other kinds than hosts and addresses are passed over.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        Self::new(names.filter_map(|name| match name {
            GeneralName::DNSName(name) => {
                Some(name.to_ascii_lowercase().trim_end_matches('.').to_owned())
            }
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        }))
    }

    fn new(names: impl Iterator<Item = String>) -> Self {
        let listed: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        let (mut exact, mut below) = (Vec::new(), Vec::new());
        for name in &listed {
            match name.strip_prefix("*.") {
                Some(parent) => below.push(parent.to_owned()),
                None => exact.push(name.clone()),
            }
        }
        exact.sort_unstable();
        below.sort_unstable();
        Self { listed, exact, below }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The names, in the order of the certificate.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(String::as_str)
    }

    /// All of them, in one line.
    pub(super) fn all(&self) -> String {
        self.listed.join(", ")
    }

    /// The names that stand for themselves.
    pub(super) fn exact(&self) -> &[String] {
        &self.exact
    }

    /// The names below which any one label may stand.
    pub(super) fn below(&self) -> &[String] {
        &self.below
    }

    /// Whether a host in lower case and without a port is one of these. `*.` stands for exactly
    /// one label (RFC 9525 §6.3).
    pub fn cover(&self, host: &str) -> bool {
        has(&self.exact, host) || parent(host).is_some_and(|parent| has(&self.below, parent))
    }
}

fn has(sorted: &[String], name: &str) -> bool {
    sorted.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
}

/// What stands behind the first label of a host.
pub(super) fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent)
}

/// An address as it stands in a URL.
pub(super) fn address(bytes: &[u8]) -> Option<String> {
    let v4 = || Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)));
    let v6 = || Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)));
    Some(match v4().or_else(v6)? {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    })
}

/// `a.test, *.a.test and 3 more`.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.listed.len().min(LISTED_MAX);
        f.write_str(&self.listed[..listed].join(", "))?;
        if listed < self.listed.len() {
            write!(f, " and {} more", self.listed.len() - listed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        Names::new(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_wildcard_covers_one_label_and_no_more() {
        let names = names(&["a.test", "*.b.test", "192.0.2.1", "[::1]"]);
        for host in ["a.test", "x.b.test", "192.0.2.1", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        for host in ["", "x.a.test", "b.test", "y.x.b.test", ".b.test", "192.0.2.2", "test"] {
            assert!(!names.cover(host), "{host}");
        }
    }

    #[test]
    fn addresses_read_as_in_urls() {
        assert_eq!(address(&[192, 0, 2, 1]).as_deref(), Some("192.0.2.1"));
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(address(&loopback).as_deref(), Some("[::1]"));
        assert_eq!(address(&[1, 2, 3]), None);
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(names(&["a", "*.a"]).to_string(), "a, *.a");
        assert_eq!(names(&["a", "b", "c", "d", "e"]).to_string(), "a, b, c and 2 more");
    }
}
