//! Bodies and answers over HTTP/2 have the same bounds as over HTTP/1, each on its own stream.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::{sync::Notify, time};

use crate::support::{
    Crestline, H2Answer, H2Client, H2Origin, Origin, eventually,
    http2::{H2Stream, piece},
    soon,
};

fn upload() -> Request<()> {
    Request::post("http://a.test/upload").body(()).unwrap()
}

fn ask() -> Request<()> {
    Request::get("http://a.test/").body(()).unwrap()
}

/// A proxy whose clients have these times and limits.
async fn bounded(backend: &impl ToString, listener: &str, more: &str) -> Crestline {
    let backend = backend.to_string();
    Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true, {listener} }}]
        upstreams: {{ app: {{ backends: [\"{backend}\"], health_check: off, {more} }} }}
        "
    ))
    .await
}

/// The end comes in a frame of its own, as most clients send it. Said twice to an origin of
/// HTTP/1, it would be the beginning of another request.
#[tokio::test]
async fn an_origin_is_told_once_that_a_body_has_ended() {
    let has_come = Arc::new(Notify::new());
    let notifies = has_come.clone();
    let origin = Origin::with(move |mut exchange| {
        let notifies = notifies.clone();
        async move {
            exchange.piece().await.unwrap();
            notifies.notify_one();
            exchange.reply("hello").await
        }
    });
    let proxy = bounded(&origin, "", "").await;
    let client = H2Client::connect(&proxy).await;
    for _ in 0..3 {
        let H2Stream { mut up, answer } = client.begin(upload()).await;
        up.send_data(Bytes::from_static(b"some"), false).unwrap();
        soon("the body", has_come.notified()).await;
        up.send_data(Bytes::new(), true).unwrap();
        let answer = H2Answer::read(soon("an answer", answer).await.unwrap()).await;
        assert_eq!(answer.body, b"hello");
    }
    let methods: Vec<_> = origin.requests().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["POST"; 3]);
}

/// A request of which one byte comes gets 408 whoever the origin is; its connection lives on.
#[tokio::test]
async fn a_body_that_stops_gets_408_and_others_on_its_connection_do_not_notice() {
    let (origin, origin2) = (Origin::echoing(), H2Origin::replying("hello").await);
    for (backend, more) in [(origin.to_string(), ""), (origin2.to_string(), "http: 2")] {
        let proxy = bounded(&backend, "timeouts: { body: 1s }", more).await;
        let client = H2Client::connect(&proxy).await;
        let H2Stream { mut up, answer } = client.begin(upload()).await;
        up.send_data(Bytes::from_static(b"x"), false).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), 408, "{more}");
        assert_eq!(client.ask(upload(), "whole").await.head.status(), 200);
        proxy.refuses_for("client_timeout", 1).await;
        let line = proxy.access_line(|line| line["status"] == 408).await;
        assert_eq!(
            (&line["reason"], &line["protocol"]),
            (&"client_timeout".into(), &"HTTP/2.0".into())
        );
    }
}

#[tokio::test]
async fn a_body_that_drips_gets_408() {
    let origin = Origin::echoing();
    let bounds = "timeouts: { body: 2s }, limits: { body_rate: 1KiB }";
    let proxy = bounded(&origin, bounds, "").await;
    let client = H2Client::connect(&proxy).await;
    let H2Stream { mut up, answer } = client.begin(upload()).await;
    let drips = tokio::spawn(async move {
        while up.send_data(Bytes::from_static(b"x"), false).is_ok() {
            time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 408);
    drips.abort();
    proxy.refuses_for("body_too_slow", 1).await;
    let line = &proxy.access_log(1).await[0];
    assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"body_too_slow".into()));
}

/// What the origin does not read fills the windows, and the client can send no more.
#[tokio::test]
async fn a_client_that_waits_for_a_slow_origin_is_not_blamed() {
    let origin = Origin::with(async |mut exchange| {
        time::sleep(Duration::from_secs(4)).await;
        let length = exchange.body().await.len();
        exchange.reply(length.to_string()).await
    });
    let bounds = "timeouts: { body: 1s }, limits: { body_rate: 1MiB }";
    let proxy = bounded(&origin, bounds, "").await;
    let client = H2Client::connect(&proxy).await;
    let body = vec![b'x'; 16 * 1024 * 1024];
    let answer = client.ask(upload(), body).await;
    assert_eq!(answer.body, b"16777216");
}

/// As in calls of gRPC that stream: the client listens, and its silence is no offence.
#[tokio::test]
async fn a_conversation_goes_on_while_the_origin_speaks_and_ends_when_both_are_silent() {
    const TICKS: usize = 20;
    let origin = H2Origin::with(|request, mut respond| async move {
        let _body = request.into_body();
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        for _ in 0..TICKS {
            time::sleep(Duration::from_millis(300)).await;
            if stream.send_data(Bytes::from_static(b"tick"), false).is_err() {
                return; // the client has left
            }
        }
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    })
    .await;
    let proxy = bounded(&origin, "timeouts: { body: 3s }", "http: 2").await;
    let client = H2Client::connect(&proxy).await;
    let H2Stream { mut up, answer } = client.begin(upload()).await;
    up.send_data(Bytes::from_static(b"x"), false).unwrap();
    let mut body = soon("a head", answer).await.unwrap().into_body();
    let mut heard = 0;
    let broken = loop {
        match soon("a tick, or the end", piece(&mut body)).await.expect("no proper end") {
            Ok(piece) => heard += piece.len(),
            Err(why) => break why,
        }
    };
    assert_eq!(heard, TICKS * 4);
    assert!(broken.is_reset(), "{broken}");
    drop(up);
    let H2Stream { answer, .. } = client.begin(upload()).await;
    assert_eq!(soon("a head", answer).await.unwrap().status(), 200, "the connection lives on");
    proxy.refuses_for("client_timeout", 1).await;
}

/// A stream whose client opens no window is given up, whatever it sent itself.
#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up_and_counted() {
    let origin = Origin::with(async |mut exchange| {
        exchange.body().await;
        exchange.reply(vec![b'x'; 1_000_000]).await
    });
    let proxy = bounded(&origin, "timeouts: { write: 1s }", "").await;
    let client = H2Client::connect(&proxy).await;
    let taken_not = async |request, body: &'static [u8]| {
        let H2Stream { mut up, answer } = client.begin(request).await;
        up.send_data(Bytes::from_static(body), true).unwrap();
        soon("a head", answer).await.unwrap().into_body()
    };
    // Their windows are never opened beyond the first 64 KiB.
    let bodies = [taken_not(ask(), b"").await, taken_not(upload(), b"some").await];
    for mut body in bodies {
        let broken = loop {
            let next = std::future::poll_fn(|cx| body.poll_data(cx));
            match soon("the end", next).await.expect("no proper end") {
                Ok(_) => {}
                Err(why) => break why,
            }
        };
        assert!(broken.is_reset(), "{broken}");
    }
    proxy.refuses_for("write_timeout", 2).await;
    eventually("lines", || 2 <= proxy.access_lines().len()).await;
    for line in proxy.access_log(2).await {
        assert_eq!(line["reason"], "write_timeout");
    }
}

/// As browsers do with what is left, before there is an answer and amid it.
#[tokio::test]
async fn a_stream_that_its_client_resets_is_logged_as_one_that_it_left() {
    let (waiting, gate) = Origin::gated("");
    let sends = Origin::with(|mut exchange| async move {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour").await;
        exchange.hang().await
    });
    for (origin, status) in [(&waiting, 499), (&sends, 200)] {
        let proxy = bounded(origin, "", "").await;
        let client = H2Client::connect(&proxy).await;
        let answer = client.send(ask()).await;
        if status == 200 {
            let mut body = soon("a head", answer).await.unwrap().into_body();
            soon("a piece", piece(&mut body)).await.unwrap().unwrap();
        } else {
            eventually("it is asked", || origin.count() == 1).await;
            drop(answer);
        }
        let line = &proxy.access_log(1).await[0];
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &"client_abort".into()));
    }
    drop(gate);
}
