//! What it costs the proxy that clients of HTTP/2 keep it busy for nothing (faults C): memory and
//! processor, as the kernel counts them for the real program.
//!
//! `make h2-cost` runs it against a release build, and tells its figures.

use std::time::Duration;

use crate::support::{
    Crestline, Origin,
    frames::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, START, WINDOW_UPDATE,
        asking, fields, frame, next, pseudo,
    },
    get,
};

/// So many connections flood at the same time.
const CONNECTIONS: usize = 20;
/// What a flood may cost in all: the first bound of a connection ends it early, so that this is
/// seconds away from what was measured, also without optimisation and on a busy machine.
const PROCESSOR_MOST: Duration = Duration::from_secs(10);
/// In KiB: less than 2 MiB for each of the connections.
const MEMORY_MOST: u64 = 40 * 1024;

/// All floods by name, each with what one connection sends: megabytes, were it read to the end.
fn floods() -> [(&'static str, Vec<u8>); 8] {
    let streams = || (0..30_000).map(|nth| 2 * nth + 1);
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let mistake = |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let begin = frame(HEADERS, 0, 1, &fields(&pseudo("/")));
    let upload = frame(HEADERS, END_HEADERS, 1, &fields(&pseudo("/")));
    let large = fields(&[("x-some", &"x".repeat(8_000))]);
    let after = |first: &[u8], frame: Vec<u8>, times| [first, &frame.repeat(times)].concat();
    [
        (
            "rapid reset",
            streams().flat_map(|stream| [asking(stream, "/"), reset(stream)].concat()).collect(),
        ),
        (
            "MadeYouReset",
            streams().flat_map(|stream| [asking(stream, "/"), mistake(stream)].concat()).collect(),
        ),
        ("CONTINUATION", after(&begin, frame(CONTINUATION, 0, 1, &large), 500)),
        ("CONTINUATION, empty", after(&begin, frame(CONTINUATION, 0, 1, &[]), 300_000)),
        ("pings", after(&[], frame(PING, 0, 0, &[0; 8]), 200_000)),
        ("settings", after(&[], frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), 200_000)),
        ("empty data", after(&upload, frame(DATA, 0, 1, &[]), 300_000)),
        ("padded data", after(&upload, frame(DATA, 8, 1, &[3, 0, 0, 0]), 300_000)),
    ]
}

#[tokio::test]
async fn floods_move_neither_memory_nor_processor() {
    let origin = Origin::with(async |exchange| match exchange.request.target.as_str() {
        "/other" => exchange.reply("hello").await,
        _ => exchange.hang().await,
    });
    let proxy = Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\", h2c: true, timeouts: {{ body: 2s }} }}]
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        "
    ))
    .await;
    let mut other = proxy.client().await;
    for (name, flood) in floods() {
        let (processor, memory) = (proxy.processor(), proxy.memory());
        let mut attackers = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut client, flood) = (proxy.client().await, [START, &flood].concat());
            attackers.push(tokio::spawn(async move {
                client.send_if_taken(&flood).await;
                while next(&mut client).await.is_some() {}
            }));
        }
        for attacker in attackers {
            attacker.await.unwrap(); // its connection has ended
        }
        let took = proxy.processor().saturating_sub(processor);
        let grown = proxy.memory().saturating_sub(memory);
        let size = flood.len() / 1024;
        println!(
            "{name:20} {CONNECTIONS} × {size:5} KiB   processor {took:6.0?}   memory +{grown} KiB"
        );
        assert!(took < PROCESSOR_MOST, "{name}: {took:?}");
        assert!(grown < MEMORY_MOST, "{name}: {grown} KiB");
        assert_eq!(other.exchange(get("/other")).await.text(), "hello", "{name}");
    }
}
