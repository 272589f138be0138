//! Asks a running process: the other end of the admin socket.

use std::{io, ops::ControlFlow, path::Path, time::Duration};

use http::{Method, StatusCode, header::CONTENT_LENGTH};
use memchr::memmem;
use pingora::Error;
use pingora_core::protocols::{http::v1::client::HttpSession, l4::stream::Stream};
use pingora_http::RequestHeader;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::UnixStream, runtime, time};

use crate::admin::Refused;

/// A process that says something each second, and nothing for so long, is stuck.
const SILENT_MAX: Duration = Duration::from_secs(6);

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
    converse(socket, async |stream| {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) = exchange(stream, method, path, body.as_bytes()).await?;
        understand(status, &answer)
    })
}

/// Asks for a text, and reads it.
///
/// # Errors
/// If the process cannot be reached, refuses, or answers nonsense.
pub fn text(socket: &Path, path: &str) -> Result<String, ClientError> {
    converse(socket, async |stream| {
        let (status, answer) = exchange(stream, &Method::GET, path, b"").await?;
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
    converse(socket, async |stream| {
        let body = body.to_string();
        let mut session = begin(stream, &Method::POST, path, body.as_bytes()).await?;
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

/// Watches server-sent events, and hands the name and the data of each on as it comes, until that
/// breaks it off or the stream ends.
///
/// # Errors
/// If the process cannot be reached, refuses, falls silent, or answers nonsense.
pub fn watch(
    socket: &Path,
    path: &str,
    mut told: impl FnMut(&str, &str) -> Result<ControlFlow<()>, ClientError>,
) -> Result<(), ClientError> {
    converse(socket, async |stream| {
        let mut session = in_time(begin(stream, &Method::GET, path, b"")).await??;
        let status = session.get_status().unwrap_or_default();
        let mut rest = Vec::new();
        while let Some(piece) = in_time(session.read_body_bytes()).await?? {
            rest.extend_from_slice(&piece);
            while status.is_success()
                && let Some(end) = memmem::find(&rest, b"\n\n")
            {
                let event: Vec<u8> = rest.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let (name, data) = (field("event: "), field("data: "));
                if told(name.unwrap_or_default(), data.unwrap_or_default())?.is_break() {
                    return Ok(());
                }
            }
        }
        if status.is_success() { Ok(()) } else { understand(status, &rest) }
    })
}

/// Reads the data of an event.
///
/// # Errors
/// If it is nonsense.
pub fn read<T: DeserializeOwned>(data: &str) -> Result<T, ClientError> {
    understand(StatusCode::OK, data.as_bytes())
}

/// Waits for something from a process that says something each second.
async fn in_time<T>(something: impl Future<Output = T>) -> Result<T, ClientError> {
    let fell_silent = |_| ClientError::Broken("it fell silent".to_owned());
    time::timeout(SILENT_MAX, something).await.map_err(fell_silent)
}

/// Talks to whoever listens on a socket.
fn converse<T>(
    socket: &Path,
    talk: impl AsyncFnOnce(Stream) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let unreachable = |why| ClientError::Unreachable(socket.display().to_string(), why);
    runtime.map_err(unreachable)?.block_on(async {
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        talk(Stream::from(stream)).await
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
