//! Sends what Pingora's proxy does not send.

use pingora::Result;
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::RequestHeader;

/// Sends a request that has no body. Over HTTP/2 its stream ends with its fields: an origin that
/// answers at once may have closed it before an end that comes in a frame of its own, and that
/// would look like a failure.
///
/// # Errors
/// As Pingora tells them, if the connection takes no more.
pub async fn send(session: &mut HttpSession, head: RequestHeader) -> Result<()> {
    if let HttpSession::H2(stream) = session {
        return stream.write_request_header(Box::new(head), true);
    }
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await
}
