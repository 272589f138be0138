//! Who asks: a user of this machine, or a program over TCP, known by its certificate at best.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use log::debug;
use pingora_core::protocols::{Stream, l4::stream::Stream as L4};
use tokio::{io::AsyncWriteExt as _, time};

use crate::tls::{
    accept::{self, Established, Failure},
    identity::Identity,
    keyring::Keyring,
};

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What a program is told that speaks plaintext where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    content-length: 52\r\nconnection: close\r\n\r\n\
    {\"error\":\"TLS is spoken here: ask with `https://`\"}\n";

/// Who asks.
#[derive(Debug)]
pub(super) enum Who {
    /// A user of this machine, on the socket that only the owner may open.
    User(u32),
    /// A program, over TCP.
    Peer(Peer),
}

/// A program that asks over TCP.
#[derive(Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    pub(super) is_over_tls: bool,
    /// Who it is by its certificate; `None` if it showed none.
    pub(super) client: Option<Box<Identity>>,
}

impl Peer {
    /// How it was asked for.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_over_tls { "https" } else { "http" }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Peer(Peer { address, client: None, .. }) => address.fmt(f),
            Self::Peer(Peer { address, client: Some(client), .. }) => {
                let Identity { subject, sans, fingerprint, .. } = &**client;
                let names = [subject, sans, fingerprint].into_iter();
                let name =
                    names.filter_map(|name| name.to_str().ok()).find(|name| !name.is_empty());
                write!(f, "{:?} at {address}", name.unwrap_or("?"))
            }
        }
    }
}

/// Meets a program: in plaintext, or by a handshake where there are certificates; `None` if it
/// failed.
pub(super) async fn meet(
    stream: L4,
    address: SocketAddr,
    keyring: Option<Arc<Keyring>>,
) -> Option<(Stream, Who)> {
    let stream: Stream = Box::new(stream);
    let Some(keyring) = keyring else {
        return Some((stream, Who::Peer(Peer { address, is_over_tls: false, client: None })));
    };
    match time::timeout(HANDSHAKE_WITHIN, accept::accept(stream, &keyring)).await {
        Ok(Ok(Established { stream, facts, .. })) => {
            let peer = Peer { address, is_over_tls: true, client: facts.client };
            return Some((Box::new(stream), Who::Peer(peer)));
        }
        Ok(Err(Failure::Plaintext(mut socket, _))) => {
            // Who does not wait for the answer has none.
            let _ = socket.write_all(SPEAK_TLS).await;
            let _ = socket.shutdown().await;
        }
        Ok(Err(why)) => debug!("admin: handshake of {address} failed: {why}"),
        Err(_) => debug!("admin: handshake of {address} failed: not done in {HANDSHAKE_WITHIN:?}"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plaintext_is_as_long_as_it_says() {
        let text = std::str::from_utf8(SPEAK_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
