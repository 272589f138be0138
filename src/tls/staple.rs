//! OCSP responses that are given as files (RFC 6960), and shown to clients with the certificate.
//!
//! Who signed a response is not checked here: clients do. It is read far enough to tell whether it
//! is one, for which certificate, and until when; after that it is not shown any more.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    diagnostic::Problem,
    tls::{expiry::day, pem},
    yaml::Spanned,
};

/// A response that says that a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staple {
    bytes: Vec<u8>,
    /// When it ends; `None` if it never does.
    pub(super) until: Option<SystemTime>,
}

/// What becomes of a response that can be read.
pub(super) struct Read {
    /// To be shown; `None` if it says nothing good.
    pub(super) staple: Option<Staple>,
    /// What is told of it.
    pub(super) warning: Option<Problem>,
}

impl Staple {
    /// Reads the response for the certificate with this serial number.
    pub(super) fn read(
        written: &Spanned<String>,
        folder: &Path,
        serial: &[u8],
        now: SystemTime,
    ) -> Result<Read, Problem> {
        let name = written.value.as_str();
        let bytes = pem::bytes(&folder.join(name)).map_err(|why| pem::unreadable(name, &why))?;
        let answer = parse(&bytes).ok_or_else(|| {
            let help = "it is made by `openssl ocsp … -respout FILE`, and is DER, not PEM";
            Problem::error(format!("`{name}` is no OCSP response")).help(help)
        })?;
        let again = "ask the authority of the certificate again";
        let Answer::Successful(singles) = answer else {
            let message = format!("the OCSP response in `{name}` is a refusal");
            return Err(Problem::error(message).help(again));
        };
        let Some(single) = singles.into_iter().find(|single| single.serial == serial) else {
            let message = format!("the OCSP response in `{name}` is for another certificate");
            return Err(Problem::error(message).help("fetch one for the certificate beside it"));
        };
        let staple = Self { until: single.until, bytes };
        let unfit = |why: String| {
            Problem::warning(format!("the OCSP response in `{name}` {why}: it is not shown"))
        };
        let warning = if single.is_good {
            let over = staple.until.filter(|until| *until <= now);
            over.map(|until| unfit(format!("expired on {}", day(until))).help(again))
        } else {
            let help = "clients that ask the authority themselves refuse it: get another one";
            Some(unfit("says that the certificate is not good".to_owned()).help(help))
        };
        Ok(Read { staple: single.is_good.then_some(staple), warning })
    }
}

/// What is shown: the certificate with its response, for as long as that is good.
#[derive(Debug)]
pub(super) struct Shown {
    plain: Arc<CertifiedKey>,
    stapled: Option<(Arc<CertifiedKey>, Option<SystemTime>)>,
}

impl Shown {
    pub(super) fn new(plain: Arc<CertifiedKey>, staple: Option<&Staple>) -> Self {
        let stapled = staple.map(|staple| {
            let mut stapled = CertifiedKey::clone(&plain);
            stapled.ocsp = Some(staple.bytes.clone());
            (Arc::new(stapled), staple.until)
        });
        Self { plain, stapled }
    }

    fn at(&self, now: impl Fn() -> SystemTime) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if until.is_none_or(|until| now() < until) => stapled,
            _ => &self.plain,
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now).clone())
    }
}

/// What a responder says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Successful(Vec<Single>),
    Refused,
}

/// What it says of one certificate.
#[derive(Debug, PartialEq, Eq)]
struct Single {
    serial: Vec<u8>,
    is_good: bool,
    until: Option<SystemTime>,
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, which holds other values.
const FIRST: u8 = 0xa0;
/// `[0]` without any: the certificate is good.
const GOOD: u8 = 0x80;

/// `id-pkix-ocsp-basic`, the only kind that there is.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];

/// Reads an `OCSPResponse` (RFC 6960 §4.2.1).
fn parse(der: &[u8]) -> Option<Answer> {
    let mut all = Der(der);
    let mut response = Der(all.take(SEQUENCE)?);
    if !all.0.is_empty() {
        return None;
    }
    if response.take(ENUMERATED)? != [0] {
        return Some(Answer::Refused);
    }
    let mut bytes = Der(Der(response.take(FIRST)?).take(SEQUENCE)?);
    if bytes.take(OID)? != BASIC {
        return None;
    }
    let mut basic = Der(Der(bytes.take(OCTETS)?).take(SEQUENCE)?);
    let mut data = Der(basic.take(SEQUENCE)?);
    if data.is_next(FIRST) {
        data.any()?; // its version
    }
    data.any()?; // who answers
    data.take(TIME)?; // when that was
    let mut responses = Der(data.take(SEQUENCE)?);
    let mut singles = Vec::new();
    while !responses.0.is_empty() {
        singles.push(single(responses.take(SEQUENCE)?)?);
    }
    Some(Answer::Successful(singles))
}

/// Reads a `SingleResponse`.
fn single(der: &[u8]) -> Option<Single> {
    let mut single = Der(der);
    let mut id = Der(single.take(SEQUENCE)?);
    id.take(SEQUENCE)?; // how the names of the authority are hashed
    id.take(OCTETS)?;
    id.take(OCTETS)?;
    let serial = id.take(INTEGER)?.to_vec();
    let (status, _) = single.any()?;
    single.take(TIME)?; // from when on
    let until = if single.is_next(FIRST) {
        Some(time(Der(single.take(FIRST)?).take(TIME)?)?)
    } else {
        None
    };
    Some(Single { serial, is_good: status == GOOD, until })
}

/// Reads a time without fractions of a second, as RFC 5280 §4.1.2.5.2 wants it.
fn time(text: &[u8]) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?;
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let seconds = u64::try_from(at.as_second()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Values one after the other, in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag, and what is in it.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// What is in the next value, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    fn is_next(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value in DER; lengths below 128 only.
    fn value(tag: u8, inner: &[&[u8]]) -> Vec<u8> {
        let inner = inner.concat();
        [&[tag, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
    }

    fn response(status: u8, until: Option<&[u8]>) -> Vec<u8> {
        let hash = value(OCTETS, &[b"hash"]);
        let id = value(SEQUENCE, &[&value(SEQUENCE, &[]), &hash, &hash, &value(INTEGER, &[&[7]])]);
        let until = until.map(|until| value(FIRST, &[&value(TIME, &[until])])).unwrap_or_default();
        let from = value(TIME, &[b"20260101000000Z"]);
        let single = value(SEQUENCE, &[&id, &value(status, &[]), &from, &until]);
        let who = value(0xa2, &[&hash]);
        let data = value(SEQUENCE, &[&who, &from, &value(SEQUENCE, &[&single])]);
        let basic = value(OCTETS, &[&value(SEQUENCE, &[&data])]);
        let bytes = value(FIRST, &[&value(SEQUENCE, &[&value(OID, &[BASIC]), &basic])]);
        value(SEQUENCE, &[&value(ENUMERATED, &[&[0]]), &bytes])
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_response_tells_of_which_certificate_it_is_and_until_when() {
        let told = |is_good, until| {
            Some(Answer::Successful(vec![Single { serial: vec![7], is_good, until }]))
        };
        assert_eq!(parse(&response(GOOD, None)), told(true, None));
        assert_eq!(parse(&response(0xa1, None)), told(false, None));
        let until = Some(&b"20010909014640Z"[..]);
        assert_eq!(parse(&response(GOOD, until)), told(true, Some(at(1_000_000_000))));
        let refusal = value(SEQUENCE, &[&value(ENUMERATED, &[&[6]])]);
        assert_eq!(parse(&refusal), Some(Answer::Refused));
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_no_response() {
        let whole = response(GOOD, Some(b"20010909014640Z"));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(&[&whole[..], &[0]].concat()), None);
        assert_eq!(parse(b"-----BEGIN"), None);
        assert_eq!(parse(&[SEQUENCE, 0x84, 255, 255, 255, 255]), None);
        for length in [0x80, 0x85, 0xff] {
            assert_eq!(parse(&[SEQUENCE, length, 0, 0]), None, "{length}");
        }
        assert_eq!(parse(&response(GOOD, Some(b"20011309014640Z"))), None, "no such month");
    }

    #[test]
    fn a_response_is_shown_until_it_ends() {
        let signing = rcgen::KeyPair::generate().unwrap().serialize_der();
        let signing = rustls::pki_types::PrivateKeyDer::try_from(signing).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(signing).unwrap();
        let plain = Arc::new(CertifiedKey::new(Vec::new(), key));
        let shown = |until, now| {
            let staple = Staple { bytes: vec![1], until };
            Shown::new(plain.clone(), Some(&staple)).at(|| at(now)).ocsp.is_some()
        };
        assert!(shown(None, 5) && shown(Some(at(6)), 5));
        assert!(!shown(Some(at(5)), 5));
        assert!(Shown::new(plain.clone(), None).at(|| at(0)).ocsp.is_none());
    }
}
