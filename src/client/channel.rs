//! Questions to a service one after another, on one connection, which is made anew when it ended.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time;

use crate::client::{
    answer::Connection,
    endpoint::{Endpoint, Files},
    words::words,
};

/// The largest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2, in plaintext with prior knowledge.
    Two,
}

/// A way to a service, on which there is one question at a time.
pub struct Channel {
    endpoint: Endpoint,
    files: Files,
    version: Version,
    open: Option<Open>,
}

/// An answer that has come whole.
#[derive(Debug)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The fields behind its body.
    pub trailers: HeaderMap,
}

struct Open {
    sender: Sender,
    _connection: Connection,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Channel {
    /// A channel that connects with the first question.
    pub fn new(endpoint: Endpoint, files: Files, version: Version) -> Self {
        Self { endpoint, files, version, open: None }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Posts a body to a path, and reads the answer, all within a time. On a connection that had
    /// been used before it may have ended meanwhile: then it is posted once more, on a new one.
    ///
    /// # Errors
    /// If there is no answer, in words.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        within: Duration,
    ) -> Result<Whole, String> {
        let answer = time::timeout(within, self.post_untimed(path, headers, body)).await;
        answer.unwrap_or_else(|_| {
            self.open = None;
            Err(format!("no answer within {within:?}"))
        })
    }

    async fn post_untimed(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Whole, String> {
        let question = self.question(path, headers, body)?;
        if let Some(mut open) = self.open.take()
            && let Ok(answer) = open.ask(question.clone()).await
        {
            self.open = Some(open);
            return Ok(answer);
        }
        let mut open = self.connect().await?;
        let answer = open.ask(question).await?;
        self.open = Some(open);
        Ok(answer)
    }

    fn question(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let authority = self.endpoint.authority();
        let scheme = if self.endpoint.is_tls() { "https" } else { "http" };
        let uri = match self.version {
            Version::One => path.parse().map_err(http::Error::from),
            Version::Two => {
                Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()
            }
        };
        let mut question = Request::new(Full::new(body.clone()));
        *question.method_mut() = Method::POST;
        *question.uri_mut() = uri.map_err(|why| words(&why))?;
        question.headers_mut().clone_from(headers);
        if self.version == Version::One {
            let host = authority.parse().map_err(|_| format!("`{authority}` is no host"))?;
            question.headers_mut().insert(HOST, host);
        }
        Ok(question)
    }

    async fn connect(&self) -> Result<Open, String> {
        match self.version {
            Version::One => {
                let stream = self.endpoint.connect(&self.files, &[]).await?;
                let made = http1::handshake(TokioIo::new(stream)).await;
                let (sender, connection) = made.map_err(|why| words(&why))?;
                let task = tokio::spawn(async move { drop(connection.await) });
                let connection = Connection(task.abort_handle());
                Ok(Open { sender: Sender::One(sender), _connection: connection })
            }
            Version::Two => {
                let stream = self.endpoint.connect(&self.files, &[b"h2"]).await?;
                let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (sender, connection) = made.map_err(|why| words(&why))?;
                let task = tokio::spawn(async move { drop(connection.await) });
                let connection = Connection(task.abort_handle());
                Ok(Open { sender: Sender::Two(sender), _connection: connection })
            }
        }
    }
}

impl Open {
    async fn ask(&mut self, question: Request<Full<Bytes>>) -> Result<Whole, String> {
        let answer = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.map_err(|why| words(&why))?;
                sender.send_request(question).await
            }
            Sender::Two(sender) => {
                sender.ready().await.map_err(|why| words(&why))?;
                sender.send_request(question).await
            }
        };
        whole(answer.map_err(|why| words(&why))?).await
    }
}

async fn whole(answer: http::Response<Incoming>) -> Result<Whole, String> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|why| words(&*why))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let (status, headers) = (parts.status, parts.headers);
    Ok(Whole { status, headers, body: body.to_bytes(), trailers })
}
