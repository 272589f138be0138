//! Answers to the client: our own, and what is taken off the origin's.

use http::{
    HeaderName, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, UPGRADE},
};
use pingora::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::{
    observe::request_id::X_REQUEST_ID,
    proxy::context::Context,
    reply::{Form, Reply},
};

/// Sends an answer of our own, in the form that the client asked for.
pub(crate) async fn send(session: &mut Session, ctx: &mut Context, reply: Reply) -> Result<()> {
    let form = Form::asked_for(&session.req_header().headers);
    let body = form.body(reply.status, &ctx.id);
    let mut header = ResponseHeader::build(reply.status, Some(6))?;
    header.insert_header(CONTENT_TYPE, form.content_type())?;
    header.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    header.insert_header(X_REQUEST_ID, ctx.id.clone())?;
    if let Some((name, value)) = reply.header {
        header.insert_header(name, value)?;
    }
    let has_body = session.req_header().method != http::Method::HEAD;
    session.write_response_header(Box::new(header), !has_body).await?;
    if has_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Removes the fields that belong to the connection with the origin (RFC 9110 §7.6.1).
/// `Connection` itself and the framing are Pingora's to write.
pub(crate) fn strip_hop_by_hop(header: &mut ResponseHeader) {
    const FIXED: [HeaderName; 4] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("te"),
        TRAILER,
    ];
    while let Some(name) = nominated(header) {
        header.remove_header(&name);
    }
    for name in &FIXED {
        header.remove_header(name);
    }
    if header.status != StatusCode::SWITCHING_PROTOCOLS {
        header.remove_header(&UPGRADE);
    }
}

/// A field that is present and that `Connection` nominates.
fn nominated(header: &ResponseHeader) -> Option<HeaderName> {
    let values = header.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names
        .filter(|name| !name.eq_ignore_ascii_case("close") && !name.eq_ignore_ascii_case("upgrade"))
        .filter(|name| !is_framing(name))
        .find_map(|name| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            header.headers.contains_key(&name).then_some(name)
        })
}

/// What an origin may not have removed by nominating it.
fn is_framing(name: &str) -> bool {
    ["connection", "content-length", "transfer-encoding"]
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name))
}
