//! The scenarios: what the clients do, over and over, and by which program.

/// One kind of work, repeated as fast as it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Small,
    Close,
    Body,
    /// Small requests over TLS.
    Tls,
    /// Small requests over HTTP/2, and so over TLS.
    Http2,
    /// Connections that make a handshake and leave.
    Handshakes(Handshake),
}

/// One kind of handshake of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// A new session each, and a group that every proxy knows.
    Full,
    /// A new session each; the client prefers the hybrid group of browsers.
    Hybrid,
    /// Goes on with the session of the connection before.
    Resumed,
}

impl Scenario {
    /// Every scenario, in the order in which they are measured.
    pub(crate) const ALL: [Self; 8] = [
        Self::Small,
        Self::Close,
        Self::Body,
        Self::Tls,
        Self::Http2,
        Self::Handshakes(Handshake::Full),
        Self::Handshakes(Handshake::Hybrid),
        Self::Handshakes(Handshake::Resumed),
    ];

    /// Names the scenario in flags and in progress lines.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Close => "close",
            Self::Body => "body",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Handshakes(Handshake::Full) => "handshake",
            Self::Handshakes(Handshake::Hybrid) => "hybrid",
            Self::Handshakes(Handshake::Resumed) => "resumed",
        }
    }

    /// Names the scenario above its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "Small requests, keep-alive",
            Self::Close => "Small requests, `Connection: close`",
            Self::Body => "100 KiB bodies, keep-alive",
            Self::Tls => "Small requests over TLS, keep-alive",
            Self::Http2 => "Small requests over HTTP/2",
            Self::Handshakes(Handshake::Full) => "TLS handshakes, X25519",
            Self::Handshakes(Handshake::Hybrid) => {
                "TLS handshakes of clients that prefer X25519MLKEM768"
            }
            Self::Handshakes(Handshake::Resumed) => "TLS handshakes that resume, X25519",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Handshakes(_) => "handshake",
            _ => "request",
        }
    }

    /// Whether the clients speak TLS.
    pub(crate) fn is_encrypted(self) -> bool {
        !matches!(self, Self::Small | Self::Close | Self::Body)
    }

    /// What is asked for.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Body => "/large",
            _ => "/",
        }
    }

    /// Fields of the request beside those that every client sends, as flags of wrk.
    pub(crate) fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Close => &["-H", "Connection: close"],
            Self::Tls => &["-H", "Host: bench.test"], // what the certificate stands for
            _ => &[],
        }
    }
}
