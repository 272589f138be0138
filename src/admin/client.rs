//! Asks a running process: the other end of the admin socket.

use std::{io, path::Path};

use http::{Method, StatusCode, header::CONTENT_LENGTH};
use pingora::Error;
use pingora_core::protocols::{http::v1::client::HttpSession, l4::stream::Stream};
use pingora_http::RequestHeader;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::UnixStream, runtime};

use crate::admin::Refused;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error(
        "no running process can be reached at {0}: {1}\nhelp: this is where a process with this \
         `pid_file` answers; one that was started before the key was changed answers at the old one"
    )]
    Unreachable(String, io::Error),
    /// The exchange broke, or was not understood.
    #[error("the running process did not answer as expected: {0}")]
    Broken(String),
    /// The process refused.
    #[error("{1}")]
    Refused(StatusCode, String),
}

impl From<Box<Error>> for ClientError {
    fn from(why: Box<Error>) -> Self {
        Self::Broken(why.to_string())
    }
}

/// Sends one request and reads its answer; nothing is sent as an empty body.
///
/// # Errors
/// If the process cannot be reached, refuses, or answers nonsense.
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T, ClientError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let unreachable = |why| ClientError::Unreachable(socket.display().to_string(), why);
    runtime.map_err(unreachable)?.block_on(async {
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) =
            exchange(Stream::from(stream), method, path, body.as_bytes()).await?;
        understand(status, &answer)
    })
}

/// Asks for a text, and reads it.
///
/// # Errors
/// If the process cannot be reached, refuses, or answers nonsense.
pub fn text(socket: &Path, path: &str) -> Result<String, ClientError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let unreachable = |why| ClientError::Unreachable(socket.display().to_string(), why);
    runtime.map_err(unreachable)?.block_on(async {
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let (status, answer) = exchange(Stream::from(stream), &Method::GET, path, b"").await?;
        if !status.is_success() {
            return understand(status, &answer);
        }
        String::from_utf8(answer).map_err(|why| ClientError::Broken(why.to_string()))
    })
}

/// Sends one request, and hands each line of the answer on as it comes.
///
/// # Errors
/// If the process cannot be reached, refuses, or answers nonsense.
pub fn follow<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &Value,
    mut told: impl FnMut(T),
) -> Result<(), ClientError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let unreachable = |why| ClientError::Unreachable(socket.display().to_string(), why);
    runtime.map_err(unreachable)?.block_on(async {
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let body = body.to_string();
        let mut session = begin(Stream::from(stream), &Method::POST, path, body.as_bytes()).await?;
        let status = session.get_status().unwrap_or_default();
        let mut rest = Vec::new();
        while let Some(piece) = session.read_body_bytes().await? {
            rest.extend_from_slice(&piece);
            while status.is_success()
                && let Some(end) = memchr::memchr(b'\n', &rest)
            {
                let line: Vec<u8> = rest.drain(..=end).collect();
                told(understand(status, &line)?);
            }
        }
        if status.is_success() { Ok(()) } else { understand(status, &rest) }
    })
}

async fn exchange(
    stream: Stream,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<(StatusCode, Vec<u8>), Box<Error>> {
    let mut session = begin(stream, method, path, body).await?;
    let mut answer = Vec::new();
    while let Some(piece) = session.read_body_bytes().await? {
        answer.extend_from_slice(&piece);
    }
    Ok((session.get_status().unwrap_or_default(), answer))
}

/// Sends a request, and reads the head of its answer.
async fn begin(
    stream: Stream,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<HttpSession, Box<Error>> {
    let mut session = HttpSession::new(Box::new(stream));
    let mut header = RequestHeader::build(method.clone(), path.as_bytes(), None)?;
    header.insert_header("host", "crestline")?;
    header.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    session.write_request_header(Box::new(header)).await?;
    if !body.is_empty() {
        session.write_body(body).await?;
    }
    session.finish_body().await?;
    session.read_response().await?;
    Ok(session)
}

fn understand<T: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<T, ClientError> {
    let broken = |why: serde_json::Error| ClientError::Broken(why.to_string());
    if status.is_success() {
        return serde_json::from_slice(answer).map_err(broken);
    }
    let Refused { error } = serde_json::from_slice(answer).map_err(broken)?;
    Err(ClientError::Refused(status, error))
}
