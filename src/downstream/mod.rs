//! The side toward the client: what is known of a connection, and the stream that frames it.
//!
//! `listener` accepts and reads request heads, `proxy` answers them; both meet here.

pub mod clients;
pub mod config;
pub mod connection;
pub mod error;
mod http2;
mod pace;
pub mod proxy_protocol;
pub mod refused;
pub mod relayed;
pub mod seat;
pub mod socket;
pub mod stream;
mod tunnel;
pub mod upload;
