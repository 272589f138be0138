//! TLS toward clients: certificates, which of them a client is given, and the handshake; and what
//! TLS toward origins is made with ([`origin`]).
//!
//! rustls does the cryptography, with aws-lc-rs. A client's first message is read here before
//! rustls is told of a certificate, so that it is known which one a connection was given, and so
//! that the message has a bound. Nothing here knows of HTTP but its two names in ALPN.

pub mod accept;
pub mod certificate;
pub mod config;
pub mod keyring;
pub mod names;
pub mod origin;
mod pem;
pub mod stream;
