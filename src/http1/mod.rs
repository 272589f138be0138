//! HTTP/1 as bytes: what is refused before anything else reads it. Pure, and without allocation.

pub mod authority;
pub mod chunked;
pub mod head;
pub mod normalize;
mod octets;
pub mod refusal;
pub mod websocket;
