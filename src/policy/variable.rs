//! The variables that texts may have: what each is called, and what it stands for.

use std::{
    io::{self, Write},
    str::FromStr,
    time::SystemTime,
};

use form_urlencoded::parse;
use http::{HeaderName, HeaderValue, header::COOKIE};
use jiff::Timestamp;

use crate::{
    diagnostic::suggest_among,
    policy::{exchange::Facts, whereabouts::Code},
};

/// When variables are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While the policies are asked, one after another.
    Asked,
    /// When all of them were.
    Answered,
}

/// What one stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// A thing that every request has one of.
    One(Word),
    /// A header field of the request: the first of its name.
    Header(HeaderName),
    /// A cookie of the request.
    Cookie(String),
    /// A parameter of the query, decoded.
    Query(String),
    /// A claim of the token, or of the session.
    Claim(String),
}

macro_rules! words {
    ($($Name:ident = $word:literal: $doc:literal,)*) => {
        /// A thing that every request has one of, if perhaps an empty one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Word { $(#[doc = $doc] $Name,)* }

        impl Word {
            fn of(name: &str) -> Option<Self> {
                match name { $($word => Some(Self::$Name),)* _ => None }
            }
        }

        /// The names of all variables but those that have a name of yours in them, and what they
        /// stand for.
        pub const WORDS: &[(&str, &str)] = &[$(($word, $doc),)*];
    };
}

words! {
    ApiKey = "api_key": "The name of the key that the request showed to `api_key`.",
    Authority = "authority": "The host that was asked for, with its port if that was written.",
    Backend = "backend": "The backend that is asked, or that answered.",
    Client = "client": "The client's address, as far as trusted proxies tell.",
    GeoAsn = "geo.asn": "The number of the client's autonomous system, by `geo`.",
    GeoContinent = "geo.continent": "The client's continent: `EU`.",
    GeoCountry = "geo.country": "The client's country: `DE`.",
    Host = "host": "The host that was asked for, without a port.",
    Id = "id": "The request's id.",
    Method = "method": "The method.",
    Path = "path": "The path that its route was found by.",
    Query = "query": "The query, without its question mark.",
    Route = "route": "The name of the route.",
    Scheme = "scheme": "`http` or `https`.",
    Status = "status": "The status of the answer.",
    Time = "time": "The time of day in UTC: `2026-01-31T23:59:59Z`.",
    TimeUnix = "time.unix": "The time in seconds since 1970.",
    TlsCipher = "tls.cipher": "How the client's connection is encrypted.",
    TlsClientFingerprint = "tls.client.fingerprint": "The SHA-256 of the client's certificate.",
    TlsClientSans = "tls.client.sans": "The other names in the client's certificate.",
    TlsClientSubject = "tls.client.subject": "The name in the client's certificate.",
    TlsSni = "tls.sni": "The name that the client asked for in the handshake.",
    TlsVersion = "tls.version": "The version of TLS: `TLSv1.3`.",
    Upstream = "upstream": "The name of the upstream.",
    Uri = "uri": "The path and the query, as the client sent them.",
    User = "user": "The user, by the first of `basic_auth`, `forward_auth`, `jwt` and `oidc` that tells one.",
}

/// Who tells countries.
const GEO_COUNTRY: &str = "`geo` with `country`";

/// The beginnings of the others.
const NAMED: [&str; 4] = ["claim.", "cookie.", "header.", "query."];

/// A variable that there is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown variable `{{{name}}}`\nhelp: {help}; write `{{{{{name}}}` for a brace")]
pub struct Unknown {
    name: String,
    help: String,
}

impl FromStr for Variable {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        let unknown = || {
            let braced: Vec<String> = WORDS
                .iter()
                .map(|(word, _)| format!("{{{word}}}"))
                .chain(NAMED.iter().map(|name| format!("{{{name}NAME}}")))
                .collect();
            let written = format!("{{{name}}}");
            let help = suggest_among("Known here", &written, braced.iter().map(String::as_str));
            Unknown { name: name.to_owned(), help }
        };
        if let Some(word) = Word::of(name) {
            return Ok(Self::One(word));
        }
        match name.split_once('.') {
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| unknown()),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("claim", name)) if !name.is_empty() => Ok(Self::Claim(name.to_owned())),
            _ => Err(unknown()),
        }
    }
}

impl Variable {
    /// Writes what it stands for; to a sink that cannot fail, such as memory.
    pub fn write(&self, facts: &Facts<'_>, status: Option<u16>, out: &mut impl Write) {
        let _ = match self {
            Self::One(word) => word.write(facts, status, out),
            Self::Header(name) => {
                out.write_all(facts.headers().get(name).map_or(&[][..], HeaderValue::as_bytes))
            }
            Self::Cookie(name) => out.write_all(cookie(facts, name).unwrap_or_default()),
            Self::Claim(name) => {
                let claim = facts.who.claim(name);
                out.write_all(claim.as_ref().map_or(&[][..], HeaderValue::as_bytes))
            }
            Self::Query(name) => {
                let mut pairs = parse(facts.query().unwrap_or_default().as_bytes());
                let value = pairs.find(|(key, _)| key == name.as_str()).map(|(_, value)| value);
                // A line break that was encoded must not become one.
                let is_control = |byte: &u8| byte.is_ascii_control();
                let mut pieces = value.iter().flat_map(|value| value.as_bytes().split(is_control));
                pieces.try_for_each(|piece| out.write_all(piece))
            }
        };
    }

    /// What it is called, and which policies tell it, if one must.
    pub(super) fn told(&self) -> Option<(String, &'static str)> {
        match self {
            Self::One(Word::User) => Some((
                "{user}".to_owned(),
                "`basic_auth`, `jwt`, `oidc`, or `forward_auth` with `user`",
            )),
            Self::One(Word::ApiKey) => Some(("{api_key}".to_owned(), "`api_key`")),
            Self::One(Word::GeoCountry) => Some(("{geo.country}".to_owned(), GEO_COUNTRY)),
            Self::One(Word::GeoContinent) => Some(("{geo.continent}".to_owned(), GEO_COUNTRY)),
            Self::One(Word::GeoAsn) => Some(("{geo.asn}".to_owned(), "`geo` with `asn`")),
            Self::Claim(name) => {
                Some((format!("{{claim.{name}}}"), "`jwt`, or `oidc` with it in `claims`,"))
            }
            _ => None,
        }
    }

    /// Whether it is known only once there is an answer.
    pub fn needs_answer(&self) -> bool {
        matches!(self, Self::One(Word::Status))
    }
}

/// The value of a cookie (RFC 6265 §5.4): the first of its name.
pub fn cookie<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a [u8]> {
    cookies(facts, name).next()
}

/// The values of all cookies of a name.
pub fn cookies<'a>(facts: &Facts<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let fields = facts.headers().get_all(COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    })
}

impl Word {
    fn write(self, facts: &Facts<'_>, status: Option<u16>, out: &mut impl Write) -> io::Result<()> {
        let tls = facts.connection.tls_entry();
        let client = |at: usize| tls.client.map_or(&[][..], |client| client[at]);
        let text = match self {
            Self::ApiKey => facts.who.key().unwrap_or_default(),
            Self::Authority => facts.authority().as_bytes(),
            Self::Backend => facts.backend.unwrap_or_default().as_bytes(),
            Self::Host => facts.host().as_bytes(),
            Self::Id => facts.id.as_bytes(),
            Self::Method => facts.header.method.as_str().as_bytes(),
            Self::Path => facts.path().as_bytes(),
            Self::Query => facts.query().unwrap_or_default().as_bytes(),
            Self::Route => facts.route.as_bytes(),
            Self::Scheme => facts.scheme().as_bytes(),
            Self::TlsCipher => tls.cipher.unwrap_or_default().as_bytes(),
            Self::TlsClientSubject => client(0),
            Self::TlsClientSans => client(1),
            Self::TlsClientFingerprint => client(2),
            Self::TlsSni => tls.sni.unwrap_or_default().as_bytes(),
            Self::TlsVersion => tls.version.unwrap_or_default().as_bytes(),
            Self::Upstream => facts.upstream.as_bytes(),
            Self::Uri => facts.header.raw_path(),
            Self::User => facts.who.user().unwrap_or_default(),
            Self::Client
            | Self::GeoAsn
            | Self::GeoContinent
            | Self::GeoCountry
            | Self::Status
            | Self::Time
            | Self::TimeUnix => {
                return self.write_made(facts, status, out);
            }
        };
        out.write_all(text)
    }

    /// Those that are put into words for it.
    fn write_made(
        self,
        facts: &Facts<'_>,
        status: Option<u16>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let place = facts.who.place();
        match (self, facts.client, status) {
            (Self::GeoCountry, ..) => {
                out.write_all(place.country.as_ref().map_or(&[], Code::as_bytes))
            }
            (Self::GeoContinent, ..) => {
                out.write_all(place.continent.as_ref().map_or(&[], Code::as_bytes))
            }
            (Self::GeoAsn, ..) => place.asn.map_or(Ok(()), |number| write!(out, "{number}")),
            (Self::Client, Some(client), _) => write!(out, "{client}"),
            (Self::Client, None, _) => write!(out, "unix"),
            (Self::Status, _, Some(status)) => write!(out, "{status}"),
            (Self::Time, ..) => {
                let now = Timestamp::from_second(seconds()).unwrap_or_default();
                write!(out, "{now}")
            }
            (Self::TimeUnix, ..) => write!(out, "{}", seconds()),
            _ => Ok(()),
        }
    }
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
