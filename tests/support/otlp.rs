//! Receivers of OpenTelemetry, over HTTP and over gRPC, that read what they get by the types that
//! OpenTelemetry generates of its own protocol buffers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message;

use super::{H2Origin, Origin, eventually, http2};

/// What was taken, each request decoded.
#[derive(Clone, Default)]
pub(crate) struct Taken {
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Taken {
    /// Takes what was sent to a path, or with a method, which says of which kind it is.
    fn take(&self, path: &str, message: &[u8]) {
        if path.ends_with("/v1/traces") || path.ends_with(".trace.v1.TraceService/Export") {
            let message = ExportTraceServiceRequest::decode(message).expect("a message of OTLP");
            self.traces.lock().unwrap().push(message);
        } else {
            let message = ExportLogsServiceRequest::decode(message).expect("a message of OTLP");
            self.logs.lock().unwrap().push(message);
        }
    }

    /// The records so far.
    pub(crate) fn records(&self) -> Vec<LogRecord> {
        let taken = self.logs.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        scopes.flat_map(|scope| &scope.log_records).cloned().collect()
    }

    /// Waits for so many records.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<LogRecord> {
        eventually("records", || count <= self.records().len()).await;
        self.records()
    }

    /// The spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.traces.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// Waits for so many spans.
    pub(crate) async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        eventually("spans", || count <= self.spans().len()).await;
        self.spans()
    }

    /// The attributes of the resource of the first request.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let (logs, traces) = (self.logs.lock().unwrap(), self.traces.lock().unwrap());
        let of_logs = logs.first().and_then(|first| first.resource_logs[0].resource.clone());
        let of_traces = traces.first().and_then(|first| first.resource_spans[0].resource.clone());
        texts(&of_logs.or(of_traces).expect("a resource").attributes)
    }
}

/// Attributes as words.
pub(crate) fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let of = |one: &KeyValue| {
        let value = one.value.as_ref().and_then(|value| value.value.as_ref()).expect("a value");
        (one.key.clone(), text(value))
    };
    attributes.iter().map(of).collect()
}

/// A receiver over HTTP. The first requests are answered with these heads (a status, and fields).
pub(crate) struct HttpReceiver {
    pub(crate) origin: Origin,
    pub(crate) taken: Taken,
}

impl HttpReceiver {
    pub(crate) fn start(first: &'static [(&'static str, &'static str)]) -> Self {
        let taken = Taken::default();
        let (takes, refusals) = (taken.clone(), Arc::new(Mutex::new(first.iter())));
        let origin = Origin::with(move |mut exchange| {
            let (takes, refused) = (takes.clone(), refusals.lock().unwrap().next());
            async move {
                let body = exchange.body().await;
                if let Some((status, fields)) = refused {
                    return exchange.answer(status, fields, "not now").await;
                }
                takes.take(&exchange.request.target, &body);
                exchange.reply(ExportLogsServiceResponse::default().encode_to_vec()).await
            }
        });
        Self { origin, taken }
    }
}

impl fmt::Display for HttpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

/// A receiver over gRPC. The first calls end with these codes.
pub(crate) struct GrpcReceiver {
    pub(crate) origin: H2Origin,
    pub(crate) taken: Taken,
}

impl GrpcReceiver {
    pub(crate) async fn start(first: &'static [&'static str]) -> Self {
        let taken = Taken::default();
        let (takes, codes) = (taken.clone(), Arc::new(Mutex::new(first.iter())));
        let origin = H2Origin::with(move |request, mut respond| {
            let (takes, code) = (takes.clone(), codes.lock().unwrap().next());
            async move {
                let method = request.uri().path().to_owned();
                let body = http2::whole(request.into_body()).await;
                let mut answer = Response::new(());
                answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                if let Some(code) = code {
                    answer.headers_mut().insert("grpc-status", code.parse().unwrap());
                    let _ = respond.send_response(answer, true);
                    return;
                }
                assert_eq!(body[0], 0, "it is not compressed");
                let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
                assert_eq!(length, body.len() - 5);
                takes.take(&method, &body[5..]);
                let message = ExportLogsServiceResponse::default().encode_to_vec();
                let mut framed = BytesMut::new();
                framed.put_u8(0);
                framed.put_u32(u32::try_from(message.len()).unwrap());
                framed.put_slice(&message);
                let Ok(mut stream) = respond.send_response(answer, false) else { return };
                let _ = stream.send_data(Bytes::from(framed), false);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let _ = stream.send_trailers(trailers);
            }
        })
        .await;
        Self { origin, taken }
    }
}
