//! A receiver of syslog as the operator writes it.

use std::{fmt, io, os::unix::net::UnixDatagram, path::PathBuf, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    units::ByteSize,
    yaml::{self, Spanned, Word},
};

/// What every receiver must take over UDP and IPv4 (RFC 5426, §3.2).
const SIZE_MIN: u64 = 480;
/// What fits into a datagram.
const SIZE_MAX: u64 = 60 * 1024;

/// A receiver of syslog. Its address alone is the short form.
///
/// What the operator writes under `syslog:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Syslog")]
pub struct Config {
    /// Where it listens: over UDP, over TCP, or on a Unix socket for datagrams.
    pub address: Spanned<Address>,
    /// Which part of a system messages are said to come from. Default: `local0`.
    #[serde(default)]
    pub facility: Facility,
    /// The largest message, 480B to 60KiB: the end of a longer line is cut off. Default: `8KiB`,
    /// what most receivers take.
    #[serde(default = "max_size", deserialize_with = "size")]
    pub max_size: ByteSize,
}

const fn max_size() -> ByteSize {
    ByteSize::from_kib(8)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if (SIZE_MIN..=SIZE_MAX).contains(&size.0) {
        return Ok(size);
    }
    Err(serde::de::Error::custom(format!("`{size}` is out of range: 480B to 60KiB")))
}

impl FromStr for Config {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let address = Spanned::new(text.parse()?);
        Ok(Self { address, facility: Facility::default(), max_size: max_size() })
    }
}

impl Word for Config {
    fn word(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Address>()
    }
}

/// Where a receiver listens.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "SyslogAddress")]
#[schemars(example = &"udp://127.0.0.1:514", example = &"tcp://logs.internal:601", example = &"unix:/dev/log")]
#[schemars(extend("pattern" = r"^((udp|tcp)://[^/?#@]+:[0-9]+|unix:/.+)$"))]
pub enum Address {
    /// Over UDP, at a host and a port.
    Udp(String, u16),
    /// Over TCP.
    Tcp(String, u16),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// What is no address of a receiver.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of syslog\nhelp: write `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix:/PATH`, such as `unix:/dev/log`"
)]
pub struct NoAddress(String);

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let wrong = || NoAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel takes 107 bytes.
            let fits = path.starts_with('/') && 1 < path.len() && path.len() <= 107;
            return if fits { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let is_port = port.bytes().all(|digit| digit.is_ascii_digit());
        let port = port.parse().ok().filter(|port| is_port && *port != 0).ok_or_else(wrong)?;
        let bare = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')),
            None => Some(host).filter(|host| !host.contains(':')),
        };
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        let host = bare.filter(|host| !host.is_empty() && host.bytes().all(is_part));
        let host = host.ok_or_else(wrong)?.to_owned();
        match scheme {
            "udp" => Ok(Self::Udp(host, port)),
            "tcp" => Ok(Self::Tcp(host, port)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Udp(host, port) => ("udp", host, port),
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an address such as `udp://127.0.0.1:514`")
    }
}

macro_rules! facilities {
    ($($(#[$default:meta])? $Name:ident = $code:literal: $meaning:literal,)*) => {
        /// Which part of a system messages come from (RFC 5424, §6.2.1).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "SyslogFacility")]
        pub enum Facility {
            $(#[doc = $meaning] $(#[$default])? $Name = $code,)*
        }
    };
}

facilities! {
    User = 1: "Programs of users.",
    Mail = 2: "Mail.",
    Daemon = 3: "Services of the system.",
    Auth = 4: "Security.",
    Syslog = 5: "Syslog itself.",
    Lpr = 6: "Printers.",
    News = 7: "Network news.",
    Uucp = 8: "UUCP.",
    Cron = 9: "Clocks.",
    Authpriv = 10: "Security, not for everybody's eyes.",
    Ftp = 11: "FTP.",
    #[default] Local0 = 16: "Local use 0.",
    Local1 = 17: "Local use 1.",
    Local2 = 18: "Local use 2.",
    Local3 = 19: "Local use 3.",
    Local4 = 20: "Local use 4.",
    Local5 = 21: "Local use 5.",
    Local6 = 22: "Local use 6.",
    Local7 = 23: "Local use 7.",
}

/// What runs: where messages go, and what is the same in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pub(super) address: Address,
    pub(super) facility: u8,
    pub(super) size_max: usize,
}

impl Config {
    /// The receiver that is meant.
    pub fn receiver(&self) -> Receiver {
        Receiver {
            address: self.address.value.clone(),
            facility: self.facility as u8,
            size_max: usize::try_from(self.max_size.0).unwrap_or(usize::MAX),
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Receiver {
    /// Looks for what will be wrong at any time. A receiver that is not there may come later.
    ///
    /// # Errors
    /// If its socket is of another kind, or not for us.
    pub fn probe(&self) -> io::Result<()> {
        let Address::Unix(path) = &self.address else { return Ok(()) };
        match UnixDatagram::unbound()?.connect(path) {
            Err(why) if is_absent(&why) => Ok(()),
            tried => tried,
        }
    }
}

fn is_absent(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_transport_and_a_place() {
        let parsed = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(parsed("udp://127.0.0.1:514"), Address::Udp("127.0.0.1".to_owned(), 514));
        assert_eq!(
            parsed("tcp://logs.internal:601"),
            Address::Tcp("logs.internal".to_owned(), 601)
        );
        assert_eq!(parsed("tcp://[::1]:601"), Address::Tcp("::1".to_owned(), 601));
        assert_eq!(parsed("unix:/dev/log"), Address::Unix("/dev/log".into()));
        for text in ["udp://127.0.0.1:514", "tcp://[::1]:601", "unix:/dev/log"] {
            assert_eq!(parsed(text).to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:514",
            "udp://127.0.0.1",
            "udp://127.0.0.1:0",
            "udp://127.0.0.1:+1",
            "udp://127.0.0.1:65536",
            "udp://:514",
            "udp://::1:514",
            "udp://[a]:514",
            "tls://a:6514",
            "tcp://a/b:601",
            "tcp://a@b:601",
            "unix:log",
            "unix:/",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_receiver_may_come_later_but_not_be_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let address = Address::Unix(folder.path().join(name));
            Receiver { address, facility: 16, size_max: 8192 }
        };
        at("nothing").probe().unwrap();
        let _stream = std::os::unix::net::UnixListener::bind(folder.path().join("stream")).unwrap();
        at("stream").probe().unwrap_err();
        let _datagrams = UnixDatagram::bind(folder.path().join("datagrams")).unwrap();
        at("datagrams").probe().unwrap();
    }
}
