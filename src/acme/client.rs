//! How a CA is asked: HTTP/1.1 over TLS, with bounds on time and size.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time;

use crate::client::{retry_after::retry_after, roots::Roots, words::words};

/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(30);
/// The largest answer: a chain takes a few thousand bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a connection is kept for the next question.
const IDLE: Duration = Duration::from_secs(20);

/// When a CA said that it may be asked again, as long as that is to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Named(Arc<Mutex<Option<SystemTime>>>);

impl Named {
    /// The time of the last question that was refused; asking forgets it.
    pub(super) fn take(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, at: Option<SystemTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Asks a CA.
pub(super) struct Client {
    hyper: Hyper<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    named: Named,
}

impl Client {
    pub(super) fn new(roots: &Roots, named: Named) -> Result<Self, Error> {
        let verifier = roots.verifier().map_err(|why| Error::Other(why.into()))?;
        let config = verifier.with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config);
        let connector = connector.https_only().enable_http1().build();
        let mut builder = Hyper::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
        Ok(Self { hyper: builder.build(connector), named })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (asked, named) = (self.hyper.request(request), self.named.clone());
        Box::pin(async move {
            let whole = async {
                let answer =
                    asked.await.map_err(|why| other(format!("{host}: {}", words(&why))))?;
                let (parts, body) = answer.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|why| other(format!("{host}: {}", words(&*why))))?;
                Ok::<_, Error>((parts, body.to_bytes()))
            };
            let too_slow = |_| other(format!("{host}: no answer within {WITHIN:?}"));
            let (parts, body) = time::timeout(WITHIN, whole).await.map_err(too_slow)??;
            if parts.status.is_client_error() || parts.status.is_server_error() {
                let now = SystemTime::now();
                let after = retry_after(&parts.headers, now);
                named.note(after.and_then(|after| now.checked_add(after)));
                let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                if !kind.is_some_and(|kind| kind.contains("json")) {
                    return Err(other(format!("{host}: the answer was {}", told(parts.status))));
                }
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

fn other(why: String) -> Error {
    Error::Other(why.into())
}

fn told(status: StatusCode) -> String {
    status.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_named_is_taken_once() {
        let named = Named::default();
        let at = SystemTime::UNIX_EPOCH;
        named.clone().note(Some(at));
        assert_eq!(named.take(), Some(at));
        assert_eq!(named.take(), None);
    }
}
