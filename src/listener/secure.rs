//! The TLS handshake of a connection, within its time, before anything else is read.

use std::sync::Arc;

use log::{debug, info};
use pingora_core::protocols::Stream;
use pingora_timeout::timeout;

use crate::{
    downstream::{connection::Connection, stream::Downstream},
    http1::refusal::Refusal,
    listener::{refuse::Refuser, serve::Speaks},
    snapshot::Listener,
    tls::accept::{self, Established, Failure},
};

/// The client asks without TLS where TLS is spoken.
const PLAINTEXT: Refusal = Refusal { status: 400, reason: "plain_http_on_tls" };

/// Makes the handshake; `None` if it failed and the connection is closed.
pub(super) async fn handshake(
    socket: Stream,
    connection: Connection,
    listener: Listener,
    refuser: &Refuser,
) -> Option<(Box<Downstream>, Speaks)> {
    let keyring = listener.tls.as_ref()?.now();
    let within = listener.bounds.handshake_timeout;
    let failure = match timeout(within, accept::accept(socket, &keyring)).await {
        Ok(Ok(Established { stream, facts, is_http2 })) => {
            listener.handshakes.done.increment();
            let connection = Arc::new(connection.over_tls(facts));
            let speaks = if is_http2 { Speaks::Http2 } else { Speaks::Http1 };
            return Some((Box::new(Downstream::new(Box::new(stream), connection)), speaks));
        }
        Ok(Err(Failure::Gone)) => return None,
        Ok(Err(Failure::Validated(name))) => {
            info!("acme: {name} was looked at, on {}", listener.address);
            return None;
        }
        Ok(Err(failure)) => Some(failure),
        Err(_) => None,
    };
    listener.handshakes.failed.increment();
    let address = &listener.address;
    let client = connection.client.map_or("unix".to_owned(), |client| client.to_string());
    match failure {
        Some(Failure::Plaintext(socket, read)) => {
            debug!("handshake of {client} on {address} failed: it speaks HTTP without TLS");
            let mut stream = Downstream::new(socket, Arc::new(connection));
            stream.unread(&read);
            refuser.refuse(&mut stream, PLAINTEXT).await;
        }
        Some(failure) => debug!("handshake of {client} on {address} failed: {failure}"),
        None => debug!("handshake of {client} on {address} failed: not done within {within:?}"),
    }
    None
}
