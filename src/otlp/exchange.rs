//! One attempt to bring records to a receiver, and what it says.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prost::Message;

use crate::{
    client::{
        channel::{Channel, Whole},
        retry_after::retry_after,
    },
    otlp::{
        config::Protocol,
        grpc::{self, Status},
        proto::Taken,
    },
};

/// So much of what a receiver says is told.
const TOLD_MAX: usize = 200;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They were taken, but for some that never will be.
    Taken { rejected: u64, why: String },
    /// They may be taken another time, not before the receiver's word.
    Later { why: String, after: Option<Duration> },
    /// They never will be taken.
    Never { why: String },
}

/// Sends a message once.
pub(super) async fn send(
    channel: &mut Channel,
    protocol: Protocol,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
    within: Duration,
) -> Outcome {
    match channel.post(path, headers, body, within).await {
        Err(why) => Outcome::Later { why, after: None },
        Ok(answer) if answer.status != StatusCode::OK => of_status(&answer),
        Ok(answer) => match protocol {
            Protocol::Http => taken(&answer.body),
            Protocol::Grpc => of_call(&answer),
        },
    }
}

/// What a status other than 200 means, over HTTP and gRPC alike.
fn of_status(answer: &Whole) -> Outcome {
    let why = format!("the answer was {}{}", answer.status, told(&answer.body));
    match answer.status.as_u16() {
        200..300 => Outcome::Taken { rejected: 0, why },
        429 | 502 | 503 | 504 => {
            Outcome::Later { why, after: retry_after(&answer.headers, SystemTime::now()) }
        }
        _ => Outcome::Never { why },
    }
}

fn of_call(answer: &Whole) -> Outcome {
    let Some(status) = Status::of(&answer.headers, &answer.trailers) else {
        return Outcome::Later { why: "the call ended without a status".to_owned(), after: None };
    };
    if status.code == 0 {
        return taken(&grpc::unframed(&answer.body).unwrap_or_default());
    }
    let why = format!("the call ended with {}{}", status.code, told(status.message.as_bytes()));
    if status.is_passing() {
        Outcome::Later { why, after: status.retry_after }
    } else {
        Outcome::Never { why }
    }
}

/// What the message of an answer says; one that cannot be read says nothing.
fn taken(body: &[u8]) -> Outcome {
    let partial = Taken::decode(body).ok().and_then(|taken| taken.partial).unwrap_or_default();
    let rejected = u64::try_from(partial.rejected).unwrap_or(0);
    Outcome::Taken {
        rejected,
        why: format!("some were refused{}", told(partial.message.as_bytes())),
    }
}

/// What is said beside a status, in short.
fn told(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String =
        text.trim().chars().filter(|letter| !letter.is_control()).take(TOLD_MAX).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::proto::Partial;

    fn answer(status: u16, fields: &[(&'static str, &str)], body: &[u8]) -> Whole {
        let field = |(name, value): &(&'static str, &str)| {
            ((*name).parse().unwrap(), value.parse().unwrap())
        };
        Whole {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields.iter().map(field).collect(),
            body: Bytes::copy_from_slice(body),
            trailers: HeaderMap::new(),
        }
    }

    #[test]
    fn a_receiver_says_what_will_never_be_taken_and_what_later() {
        let later = of_status(&answer(503, &[("retry-after", "7")], b"busy\n"));
        let why = "the answer was 503 Service Unavailable: busy".to_owned();
        assert_eq!(later, Outcome::Later { why, after: Some(Duration::from_secs(7)) });
        for status in [429, 502, 504] {
            assert!(matches!(of_status(&answer(status, &[], b"")), Outcome::Later { .. }));
        }
        for status in [301, 400, 401, 404, 500] {
            assert!(matches!(of_status(&answer(status, &[], b"")), Outcome::Never { .. }));
        }
        assert!(matches!(of_status(&answer(202, &[], b"")), Outcome::Taken { rejected: 0, .. }));
    }

    #[test]
    fn a_call_is_judged_by_its_status_in_trailers_or_fields() {
        let told = of_call(&answer(200, &[("grpc-status", "14"), ("grpc-message", "down")], b""));
        let why = "the call ended with 14: down".to_owned();
        assert_eq!(told, Outcome::Later { why, after: None });
        let never = of_call(&answer(200, &[("grpc-status", "7")], b""));
        assert!(matches!(never, Outcome::Never { .. }));
        assert!(matches!(of_call(&answer(200, &[], b"")), Outcome::Later { .. }), "it was cut off");
    }

    #[test]
    fn what_was_rejected_is_counted() {
        let partial = Some(Partial { rejected: 3, message: "too old".to_owned() });
        let body = Taken { partial }.encode_to_vec();
        let why = "some were refused: too old".to_owned();
        assert_eq!(taken(&body), Outcome::Taken { rejected: 3, why: why.clone() });
        let mut whole = answer(200, &[], &grpc::framed(&body));
        whole.trailers.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(of_call(&whole), Outcome::Taken { rejected: 3, why });
        assert!(matches!(taken(b"\xff"), Outcome::Taken { rejected: 0, .. }));
    }
}
