//! Who a client is by its certificate, in words for the log and for origins.
//!
//! The words are made once for each connection, of visible ASCII alone: whatever stands in a
//! certificate, it ends no line, and no name can pose as two.

use std::{fmt::Write as _, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::tls::{clients::Forward, expiry, names};

/// What the words may take altogether: origins read heads of 8 KiB.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// What is known of a client by its certificate.
#[derive(Debug)]
pub struct Identity {
    /// Its name, as in RFC 4514: `CN=alice,O=Example`. May be empty.
    pub subject: HeaderValue,
    /// Its other names: `DNS:a.test,URI:spiffe://a.test/b`. May be empty.
    pub sans: HeaderValue,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: HeaderValue,
    /// The fields that tell origins of it.
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// Why a client is not taken that rustls took.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read.
    #[error("its certificate cannot be read")]
    Unreadable,
    /// Its session is older than the end of its certificate.
    #[error("its certificate expired since its session began")]
    Expired,
    /// It has too many names.
    #[error("the names in its certificate take more than {WORDS_BYTES_MAX} bytes")]
    TooLong,
}

impl Identity {
    /// Reads a certificate that was verified, now or when the session began.
    ///
    /// # Errors
    /// If its client is not to be taken.
    pub fn of(der: &[u8], forward: &Forward, now: SystemTime) -> Result<Self, Unfit> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Unfit::Unreadable)?;
        if expiry::at(parsed.validity().not_after.timestamp()) < now {
            return Err(Unfit::Expired);
        }
        let (subject, sans) = (name(parsed.subject()), others(&parsed));
        if WORDS_BYTES_MAX < subject.len() + sans.len() {
            return Err(Unfit::TooLong);
        }
        let mut fingerprint = String::new();
        hex(&mut fingerprint, digest(&SHA256, der).as_ref());
        let [subject, sans, fingerprint] = [subject, sans, fingerprint].map(value);
        let fields = [
            (&forward.subject, &subject),
            (&forward.sans, &sans),
            (&forward.fingerprint, &fingerprint),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        // A copy of text that has one already costs nothing: so it is for every request.
        let fields = fields.filter_map(|(name, value)| Some((name.clone()?, value.clone())));
        Ok(Self { fields: fields.collect(), subject, sans, fingerprint })
    }
}

impl Identity {
    /// How many fields tell origins of it.
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// Tells an origin of it, whatever the fields held before. Nothing is allocated where there is
    /// room for them.
    pub fn tell(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            headers.insert(name.clone(), value.clone());
        }
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("visible ASCII is a value")
}

/// A name as in RFC 4514 §2: the last part first, parts that belong together with `+`.
fn name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter().collect();
    for (index, part) in parts.iter().rev().enumerate() {
        if 0 < index {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if 0 < index {
                text.push('+');
            }
            attribute_to(&mut text, attribute);
        }
    }
    text
}

fn attribute_to(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let (Some(short), Ok(value)) = (short(&oid), attribute.as_str()) else {
        // What is no text, or has no short name, is told by its bytes.
        text.push_str(&oid);
        text.push_str("=#");
        return hex(text, attribute.attr_value().data);
    };
    text.push_str(short);
    text.push('=');
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_edge = (at == 0 && matches!(byte, b' ' | b'#')) || (at == last && byte == b' ');
        escaped(text, byte, is_edge || b",+\"\\<>;=".contains(&byte));
    }
}

/// The short names of RFC 4514 §3, and of two more that are common.
fn short(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// The names beside the subject; other kinds than these are passed over.
fn others(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let mut text = String::new();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        let address;
        let (kind, name) = match name {
            GeneralName::DNSName(name) => ("DNS:", *name),
            GeneralName::RFC822Name(name) => ("email:", *name),
            GeneralName::URI(name) => ("URI:", *name),
            GeneralName::IPAddress(bytes) => {
                let Some(read) = names::address(bytes) else { continue };
                address = read;
                ("IP:", address.as_str())
            }
            _ => continue,
        };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(kind);
        for byte in name.bytes() {
            escaped(&mut text, byte, matches!(byte, b',' | b'\\' | b' '));
        }
    }
    text
}

/// A byte as it is, or as `\2C`: where it must be, and where it is not visible.
fn escaped(text: &mut String, byte: u8, must: bool) {
    if must || !matches!(byte, b' '..=b'~') {
        text.push('\\');
        let _ = write!(text, "{byte:02X}"); // memory takes every letter
    } else {
        text.push(char::from(byte));
    }
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // memory takes every letter
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn made(edit: impl FnOnce(&mut CertificateParams)) -> Result<Identity, Unfit> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        edit(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let forward = Forward {
            subject: Some(HeaderName::from_static("x-subject")),
            sans: Some(HeaderName::from_static("x-sans")),
            fingerprint: None,
        };
        Identity::of(certificate.der(), &forward, SystemTime::now())
    }

    fn subject(parts: &[(DnType, &str)]) -> String {
        let identity = made(|params| {
            for (kind, text) in parts {
                params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*text).into()));
            }
        });
        identity.unwrap().subject.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_subject_reads_as_in_rfc_4514_and_no_part_poses_as_two() {
        let cases: [(&[(DnType, &str)], &str); 5] = [
            (&[], ""),
            (
                &[(DnType::OrganizationName, "Example"), (DnType::CommonName, "alice")],
                "CN=alice,O=Example",
            ),
            (&[(DnType::CommonName, "a,OU=root")], r"CN=a\2COU\3Droot"),
            (
                &[(DnType::CommonName, " #ä\r\n \"+<>;\\ ")],
                r"CN=\20#\C3\A4\0D\0A \22\2B\3C\3E\3B\5C\20",
            ),
            (&[(DnType::CustomDnType(vec![1, 2, 3]), "x")], "1.2.3=#78"),
        ];
        for (parts, expected) in cases {
            assert_eq!(subject(parts), expected);
        }
        assert_eq!(subject(&[(DnType::CommonName, "#1")]), r"CN=\231");
    }

    #[test]
    fn other_names_are_told_with_their_kinds() {
        let identity = made(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("a.test".try_into().unwrap()),
                SanType::Rfc822Name("a@a.test".try_into().unwrap()),
                SanType::URI("spiffe://a.test/b,DNS:root".try_into().unwrap()),
                SanType::IpAddress("::1".parse().unwrap()),
            ];
        });
        let identity = identity.unwrap();
        let expected = r"DNS:a.test,email:a@a.test,URI:spiffe://a.test/b\2CDNS:root,IP:[::1]";
        assert_eq!(identity.sans, expected);
        assert_eq!(identity.fields.len(), 1, "an empty subject is not told");
        assert_eq!(identity.fingerprint.len(), 64);
    }

    #[test]
    fn an_expired_certificate_and_one_with_endless_names_are_refused() {
        let past = SystemTime::now() - Duration::from_secs(60);
        let expired = made(|params| {
            params.not_before = (past - Duration::from_secs(60)).into();
            params.not_after = past.into();
        });
        assert!(matches!(expired, Err(Unfit::Expired)), "{expired:?}");
        let endless = made(|params| {
            params.distinguished_name.push(DnType::CommonName, "x".repeat(WORDS_BYTES_MAX));
        });
        assert!(matches!(endless, Err(Unfit::TooLong)), "{endless:?}");
        let odd = made(|params| {
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![1]);
            params.custom_extensions.push(extension);
        });
        assert_eq!(odd.unwrap().sans, "", "names that cannot be read");
    }
}
