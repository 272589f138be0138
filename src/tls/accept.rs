//! The handshake: the client's first message, the choice of a certificate, and the rest.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use pingora_core::protocols::{Shutdown, Stream};
use rustls::{
    HandshakeKind, ProtocolVersion, ServerConnection,
    server::{Accepted, Acceptor},
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio_rustls::StartHandshake;

use crate::tls::{
    certificate::{ALPN, Certificate},
    identity::{Identity, Unfit},
    keyring::Keyring,
    stream::TlsStream,
};

/// The longest first message of a client; those of browsers take 2 KiB. rustls would take 64.
const HELLO_BYTES_MAX: usize = 16 * 1024;
/// How much is read of it at once.
const READ_AT_ONCE: usize = 4 * 1024;
/// What a client that takes nothing may leave unsent, beside what it did not read.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// How every handshake begins: the type of its first record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// A fatal alert, `unrecognized_name` (RFC 6066 §3); rustls has another one for it.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A connection whose handshake is over.
pub struct Established {
    /// What is spoken within.
    pub stream: TlsStream,
    /// What is known of it.
    pub facts: Facts,
    /// Whether the client chose HTTP/2.
    pub is_http2: bool,
}

/// What is known of a connection over TLS.
#[derive(Debug)]
pub struct Facts {
    /// The version of the protocol: `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// What it was given.
    pub certificate: Arc<Certificate>,
    /// How it is encrypted: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// How the keys were agreed on: `X25519MLKEM768`; `None` where an older session of TLS 1.2
    /// goes on.
    pub group: Option<&'static str>,
    /// Whether an older session goes on.
    pub is_resumed: bool,
    /// Who the client is; `None` if it showed no certificate.
    pub client: Option<Box<Identity>>,
    /// Whether the certificate is one for that name.
    is_covered: bool,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client left without a byte, as a probe does.
    #[error("the client left")]
    Gone,
    /// The client speaks HTTP without TLS; what it said, and the connection to answer on.
    #[error("the client speaks HTTP without TLS")]
    Plaintext(Stream, Vec<u8>),
    /// A CA looked whether a name is ours, and found it; the name.
    #[error("a CA looked for {0:?}")]
    Validated(String),
    /// The client asked for a name in no certificate.
    #[error("no certificate for {0:?}")]
    UnknownName(Option<String>),
    /// Its first message is too long.
    #[error("the first message is longer than {HELLO_BYTES_MAX} bytes")]
    TooLong,
    /// The client was verified, and is not taken for another reason.
    #[error("the client is not taken: {0}")]
    Client(#[from] Unfit),
    /// What was said is no TLS, or nothing that both sides can agree on.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The connection broke, or the client refused what it was given.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes the handshake with a client that has just connected. The caller keeps the time.
///
/// # Errors
/// If there is none; the client was told, as far as TLS has words for it.
pub async fn accept(mut socket: Stream, keyring: &Keyring) -> Result<Established, Failure> {
    let accepted = match first_message(&mut socket).await? {
        First::Hello(accepted) => *accepted,
        First::Http(read) => return Err(Failure::Plaintext(socket, read)),
        First::Bad(why, alert) => {
            tell(&mut socket, &alert).await;
            return Err(Failure::Tls(why));
        }
    };
    let server_name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
    let challenge = keyring.challenges().and_then(|all| all.handshake(&accepted.client_hello()));
    if let Some(config) = challenge {
        // It looks at the handshake and says nothing (RFC 8737 §3).
        let mut stream = StartHandshake::from_parts(accepted, socket).into_stream(config).await?;
        stream.shutdown().await?;
        return Err(Failure::Validated(server_name.unwrap_or_default()));
    }
    let chosen = keyring.answer(server_name.as_deref(), &accepted.client_hello()).cloned();
    let Some(certificate) = chosen else {
        tell(&mut socket, &UNRECOGNIZED_NAME).await;
        return Err(Failure::UnknownName(server_name));
    };
    let start = StartHandshake::from_parts(accepted, socket);
    let rest = start.into_stream_with(certificate.config.clone(), |connection| {
        connection.set_buffer_limit(Some(UNSENT_BYTES_MAX));
    });
    let stream = match rest.into_fallible().await {
        Ok(stream) => stream,
        Err((why, mut socket)) => {
            tell(&mut socket, &[]).await; // the alert that rustls wrote is in the buffer still
            return Err(why.into());
        }
    };
    let connection = stream.get_ref().1;
    let client = match identity(connection, keyring) {
        Ok(client) => client,
        Err(why) => {
            let mut stream = TlsStream::new(stream, false);
            Shutdown::shutdown(&mut stream).await;
            return Err(why.into());
        }
    };
    let is_http2 = connection.alpn_protocol() == Some(ALPN[0]);
    let is_covered = server_name.as_ref().is_some_and(|name| certificate.names.cover(name));
    let facts = Facts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        server_name: server_name.map(String::into_boxed_str),
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        group: connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        client,
        certificate,
        is_covered,
    };
    Ok(Established { stream: TlsStream::new(stream, is_http2), facts, is_http2 })
}

/// Who a client is that was verified, now or when its session began.
fn identity(
    connection: &ServerConnection,
    keyring: &Keyring,
) -> Result<Option<Box<Identity>>, Unfit> {
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    let (Some(shown), Some(clients)) = (shown, keyring.clients()) else { return Ok(None) };
    Identity::of(shown, &clients.forward, SystemTime::now()).map(Box::new).map(Some)
}

impl Facts {
    /// Whether a request for this host, in lower case and without a port, may come by this
    /// connection.
    pub fn cover(&self, host: &str) -> bool {
        (self.is_covered && self.server_name.as_deref() == Some(host))
            || self.certificate.names.cover(host)
    }
}

enum First {
    Hello(Box<Accepted>),
    /// What was read.
    Http(Vec<u8>),
    /// Why, and what to tell the client.
    Bad(rustls::Error, Vec<u8>),
}

async fn first_message(socket: &mut Stream) -> Result<First, Failure> {
    let (mut acceptor, mut length) = (Acceptor::default(), 0);
    loop {
        let before = length;
        let first = poll_fn(|cx| poll_more(socket, &mut acceptor, &mut length, cx)).await?;
        if let Some(first) = first {
            return Ok(first);
        }
        match length {
            0 => return Err(Failure::Gone),
            _ if length == before => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            _ if HELLO_BYTES_MAX < length => return Err(Failure::TooLong),
            _ => {}
        }
    }
}

/// Reads more of the first message. No buffer is held while waiting.
fn poll_more(
    socket: &mut Stream,
    acceptor: &mut Acceptor,
    length: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<First>>> {
    let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(socket).poll_read(cx, &mut read))?;
    let mut bytes = read.filled();
    if *length == 0 && bytes.first().is_some_and(|first| *first != HANDSHAKE && is_http(*first)) {
        return Poll::Ready(Ok(Some(First::Http(bytes.to_vec()))));
    }
    *length += bytes.len();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes)?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) if bytes.is_empty() => {
                return Poll::Ready(Ok(Some(First::Hello(Box::new(accepted)))));
            }
            // Nobody may say more before the answer, and nothing is left behind in silence.
            Ok(Some(_)) => {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            Err((why, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                return Poll::Ready(Ok(Some(First::Bad(why, told))));
            }
        }
    }
    Poll::Ready(Ok(None))
}

/// Methods begin with a capital letter.
fn is_http(first: u8) -> bool {
    first.is_ascii_uppercase()
}

/// Refuses a client whose first message was read, for the name that it asks for.
pub async fn refuse_name(socket: &mut Stream) {
    tell(socket, &UNRECOGNIZED_NAME).await;
}

/// Sends what can still be sent, and closes. Who does not listen is not told.
async fn tell(socket: &mut Stream, alert: &[u8]) {
    if socket.write_all(alert).await.is_ok() {
        Shutdown::shutdown(&mut **socket).await;
    }
}
