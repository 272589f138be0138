//! TLS toward clients: certificates, which of them a client is given, and the handshake; and what
//! TLS toward origins is made with ([`origin`]).
//!
//! rustls does the cryptography, with aws-lc-rs. A client's first message is read here before
//! rustls is told of a certificate, so that it is known which one a connection was given, and so
//! that the message has a bound. Nothing here knows of HTTP but its two names in
//! ALPN, and the fields by which origins are told of a client's certificate.

pub mod accept;
pub mod certificate;
pub mod clients;
pub mod config;
pub mod expiry;
pub mod hello;
pub mod identity;
mod key_log;
pub mod keyring;
pub mod names;
pub mod origin;
mod pem;
mod staple;
pub mod stream;
pub mod tickets;
