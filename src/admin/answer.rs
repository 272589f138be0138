//! Requests to the API as they come over a connection, and how answers go back.

use bytes::Bytes;
use http::{
    StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        REFERRER_POLICY, TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{self, Duration},
};

use crate::{
    admin::{
        live::Watcher,
        page::{self, Asset},
    },
    handover::step::Step,
    metrics::Form,
};

/// The largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// So much of a larger one is read and thrown away.
const BODY_READ_MAX: usize = 16 * 1024 * 1024;
/// Who takes nothing of what happens for so long does not watch any more.
const WATCHES_FOR: Duration = Duration::from_secs(30);

/// Why a request to the API was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct Refused {
    /// In words, perhaps several lines.
    pub error: String,
}

/// What a request is answered with.
pub(super) enum Answer {
    /// All at once.
    Whole(StatusCode, Value),
    /// A page of metrics.
    Page(Form, String),
    /// Step by step: a line for each, as it happens.
    Steps(mpsc::Receiver<Step>),
    /// What happens, second by second, until nobody watches.
    Live(Watcher),
    /// The path takes other methods, these.
    OtherMethod(String),
    /// A part of the page.
    Asset(Asset),
}

impl Answer {
    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Whole(status, _) => *status,
            Self::OtherMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Page(..) | Self::Steps(_) | Self::Live(_) | Self::Asset(_) => StatusCode::OK,
        }
    }
}

impl From<(StatusCode, Value)> for Answer {
    fn from((status, value): (StatusCode, Value)) -> Self {
        Self::Whole(status, value)
    }
}

/// Sends an answer.
pub(super) async fn send(session: &mut ServerSession, answer: Answer) -> pingora::Result<()> {
    match answer {
        Answer::Whole(status, value) => {
            whole(session, status, "application/json", line(&value)).await
        }
        Answer::OtherMethod(methods) => {
            let why = refused("this path takes another method");
            let mut header = ResponseHeader::build(StatusCode::METHOD_NOT_ALLOWED, None)?;
            header.insert_header(ALLOW, methods)?;
            send_whole(session, header, "application/json", line(&why)).await
        }
        Answer::Page(form, page) => {
            whole(session, StatusCode::OK, form.content_type(), page.into()).await
        }
        Answer::Steps(mut steps) => {
            begin(session, "application/x-ndjson").await?;
            while let Some(step) = steps.recv().await {
                session.write_response_body(line(&json!(step)), false).await?;
            }
            session.write_response_body(Bytes::new(), true).await
        }
        Answer::Live(mut watcher) => {
            begin(session, "text/event-stream").await?;
            while let Some(event) = watcher.next().await {
                let sent = time::timeout(WATCHES_FOR, session.write_response_body(event, false));
                let Ok(sent) = sent.await else { return Ok(()) };
                sent?;
            }
            session.write_response_body(Bytes::new(), true).await
        }
        Answer::Asset(Asset { content_type, text }) => {
            whole(session, StatusCode::OK, content_type, text.into_owned().into()).await
        }
    }
}

/// Begins an answer that comes piece by piece.
async fn begin(session: &mut ServerSession, content_type: &'static str) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(StatusCode::OK, None)?;
    header.insert_header(CONTENT_TYPE, content_type)?;
    header.insert_header(TRANSFER_ENCODING, "chunked")?;
    guarded(&mut header)?;
    session.write_response_header(Box::new(header)).await
}

/// No answer is kept, taken for something else, or shown within another page; and no page runs
/// anything but its own files.
fn guarded(header: &mut ResponseHeader) -> pingora::Result<()> {
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.insert_header(CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY)?;
    header.insert_header(REFERRER_POLICY, "no-referrer")?;
    header.insert_header(X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

async fn whole(
    session: &mut ServerSession,
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> pingora::Result<()> {
    let header = ResponseHeader::build(status, None)?;
    send_whole(session, header, content_type, body).await
}

async fn send_whole(
    session: &mut ServerSession,
    mut header: ResponseHeader,
    content_type: &'static str,
    body: Bytes,
) -> pingora::Result<()> {
    header.insert_header(CONTENT_TYPE, content_type)?;
    header.insert_header(CONTENT_LENGTH, body.len())?;
    guarded(&mut header)?;
    if header.status == StatusCode::UNAUTHORIZED {
        header.insert_header(WWW_AUTHENTICATE, "Bearer")?;
    }
    session.write_response_header(Box::new(header)).await?;
    session.write_response_body(body, true).await
}

/// Reads the body of a request.
pub(super) async fn body(session: &mut ServerSession) -> Result<Vec<u8>, StatusCode> {
    let (mut body, mut length) = (Vec::new(), 0);
    while let Some(piece) =
        session.read_request_body().await.map_err(|_| StatusCode::BAD_REQUEST)?
    {
        length += piece.len();
        if length <= BODY_BYTES_MAX {
            body.extend_from_slice(&piece);
        }
        // What is not read would make the kernel reset the connection before the answer is read.
        if BODY_READ_MAX < length {
            break;
        }
    }
    if length <= BODY_BYTES_MAX { Ok(body) } else { Err(StatusCode::PAYLOAD_TOO_LARGE) }
}

/// Says why a request is refused.
pub(super) fn refused(why: &(impl ToString + ?Sized)) -> Value {
    json!(Refused { error: why.to_string() })
}
