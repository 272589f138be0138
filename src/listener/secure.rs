//! The TLS handshake of a connection, within its time, before anything else is read.

use std::{io, sync::Arc};

use log::{debug, info};
use pingora_core::protocols::Stream;
use pingora_timeout::timeout;
use rustls::Error;

use crate::{
    downstream::{connection::Connection, stream::Downstream},
    http1::refusal::Refusal,
    listener::{refuse::Refuser, serve::Speaks},
    observe::handshakes::Failed,
    reason::Reason,
    snapshot::Listener,
    tls::accept::{self, Established, Failure},
};

/// The client asks without TLS where TLS is spoken.
const PLAINTEXT: Refusal = Refusal { status: 400, reason: Reason::PlainHttpOnTls };

/// Makes the handshake; `None` if it failed and the connection is closed.
pub(super) async fn handshake(
    socket: Stream,
    connection: Connection,
    listener: &Listener,
    refuser: &Refuser,
) -> Option<(Stream, Connection, Speaks)> {
    let keyring = listener.tls.as_ref()?.now();
    let within = listener.bounds.handshake_timeout;
    let failure = match timeout(within, accept::accept(socket, &keyring)).await {
        Ok(Ok(Established { stream, facts, is_http2 })) => {
            listener.handshakes.done.increment();
            if facts.is_resumed {
                listener.handshakes.resumed.increment();
            }
            let speaks = if is_http2 { Speaks::Http2 } else { Speaks::Http1 };
            return Some((Box::new(stream), connection.over_tls(facts), speaks));
        }
        Ok(Err(Failure::Gone)) => return None,
        Ok(Err(Failure::Validated(name))) => {
            info!("acme: {name} was looked at, on {}", listener.address);
            return None;
        }
        Ok(Err(failure)) => Some(failure),
        Err(_) => None,
    };
    listener.handshakes.fail(failure.as_ref().map_or(Failed::Timeout, reason));
    let address = &listener.address;
    let client = connection.client.map_or("unix".to_owned(), |client| client.to_string());
    match failure {
        Some(Failure::Plaintext(socket, read)) if listener.speaks_http() => {
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

/// Why a handshake failed, in a word.
fn reason(failure: &Failure) -> Failed {
    match failure {
        Failure::Plaintext(..) => Failed::PlainHttp,
        Failure::UnknownName(_) => Failed::UnknownName,
        Failure::TooLong => Failed::TooLong,
        Failure::Client(_) => Failed::ClientCertificate,
        Failure::Tls(why) => of_tls(why),
        // rustls' errors come as errors of the connection that it made the handshake on.
        Failure::Io(why) => match why.get_ref().and_then(|why| why.downcast_ref::<Error>()) {
            Some(why) => of_tls(why),
            None if why.kind() == io::ErrorKind::InvalidData => Failed::Nonsense,
            None => Failed::Broken,
        },
        Failure::Gone | Failure::Validated(_) => Failed::Broken,
    }
}

fn of_tls(why: &Error) -> Failed {
    match why {
        Error::NoCertificatesPresented
        | Error::InvalidCertificate(_)
        | Error::InvalidCertRevocationList(_) => Failed::ClientCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failed::NoAgreement,
        Error::AlertReceived(_) => Failed::Refused,
        _ => Failed::Nonsense,
    }
}
