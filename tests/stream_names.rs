//! TLS that is passed through by the name that clients ask for, untouched.

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    stream::{answering, echo},
    support::{
        Asks, Client, Crestline, Ending, Front, Origin, Pair, TlsClient, get, s_client, soon,
    },
};

/// A first message that asks for a name, as a client of long ago says it.
fn hello(name: &str) -> Vec<u8> {
    let field =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let list = field(&[&[0][..], &field(name.as_bytes())].concat());
    let extensions = field(&[&[0, 0][..], &field(&list)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0, 10, 1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &field(&message)].concat()
}

/// A listener for two names, and what else it says.
fn by_name(one: &str, other: &str, more: &str) -> String {
    format!(
        "
        listeners:
          - address: \"127.0.0.1:0\"
            {more}
            passthrough:
              - {{ match: {{ sni: [a.test] }}, upstream: one }}
              - {{ match: {{ sni: [\"*.b.test\"] }}, upstream: other }}
        upstreams:
          one: {{ backends: [\"{one}\"], health_check: off }}
          other: {{ backends: [\"{other}\"], health_check: off }}
          web: {{ backends: [127.0.0.1:1], health_check: off }}
        "
    )
}

/// Two origins with certificates of their own and HTTPS, all on one port.
#[tokio::test]
async fn some_names_pass_through_and_the_rest_is_answered_over_https() {
    let pairs = [["a.test"], ["x.b.test"], ["web.test"]].map(|names| Pair::of(&names));
    let [a, b, own] = &pairs;
    let (first, second) = (answering("from a").await, answering("from b").await);
    let one = Front::before(&first, Asks::tls(a, &[])).await;
    let other = Front::before(&second, Asks::tls(b, &[])).await;
    let web = Origin::replying("from the web");
    let files =
        [("own.pem", own.cert.as_str()), ("own.key", own.key.as_str()), ("a.pem", a.cert.as_str())];
    let tls = "tls: { certificates: [{ cert: own.pem, key: own.key }] }";
    let yaml = by_name(&one.to_string(), &other.to_string(), tls)
        .replace("127.0.0.1:1]", &format!("\"{web}\"]"))
        + "\n        routes: [{ name: all, upstream: web }]\n";
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let address = proxy.address();

    let mut client = TlsClient::connect(address, "a.test", &a.cert).await;
    assert_eq!(client.until("from a").await, "from a");
    let mut client = TlsClient::connect(address, "x.b.test", &b.cert).await;
    assert_eq!(client.until("from b").await, "from b");
    drop(client);
    let mut client = TlsClient::connect(address, "web.test", &own.cert).await;
    client
        .send(
            get("/")
                .replace("Host: ", "X-Host: ")
                .replace("\r\n\r\n", "\r\nHost: web.test\r\n\r\n"),
        )
        .await;
    assert!(client.until("from the web").await.starts_with("HTTP/1.1 200"));
    let told = s_client(address, &["-servername", "a.test"]).await;
    let shown = a.cert.lines().all(|line| told.contains(line));
    assert!(shown, "the certificate is the origin's: {told}");

    let line = proxy.access_line(|line| line["sni"] == "x.b.test").await;
    assert_eq!((&line["protocol"], &line["upstream"]), (&"TCP".into(), &"other".into()), "{line}");
    assert!(line["tls_version"].is_null(), "it is between the two others: {line}");
    let line = proxy.access_line(|line| line["sni"] == "web.test").await;
    assert_eq!(line["status"], 200);
}

/// The bytes that were looked at reach the origin as they came, however they were cut.
#[tokio::test]
async fn a_first_message_in_pieces_reaches_its_origin_unchanged() {
    let proxy = Crestline::start(&by_name(&echo().await, &echo().await, "protocol: tcp")).await;
    let whole = hello("A.test");
    for size in [1, 7, whole.len()] {
        let mut client = proxy.client().await;
        for piece in whole.chunks(size) {
            client.send(piece).await;
        }
        client.send("more").await;
        assert_eq!(client.bytes(whole.len() + 4).await, [&whole[..], b"more"].concat());
    }
    let line = proxy.access_line(|line| line["sni"] == "a.test").await;
    assert_eq!(line["upstream"], "one");
}

#[tokio::test]
async fn other_names_are_refused_where_there_is_nowhere_to_send_them() {
    const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
    let proxy = Crestline::start(&by_name(&echo().await, &echo().await, "protocol: tcp")).await;
    let answer = async |bytes: &[u8]| {
        let mut client = proxy.client().await;
        client.send(bytes).await;
        client.rest().await.0
    };
    assert_eq!(answer(&hello("c.test")).await, UNRECOGNIZED_NAME);
    proxy.refuses_for("unknown_name", 1).await;
    let line = proxy.access_line(|line| line["reason"] == "unknown_name").await;
    assert_eq!((&line["sni"], &line["status"]), (&"c.test".into(), &404.into()));
    assert_eq!(answer(b"SSH-2.0-x\r\n").await, b"");
    proxy.refuses_for("no_tls", 1).await;
    let long = [&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff][..]].concat();
    assert_eq!(answer(&long).await, b"");
    proxy.refuses_for("hello_too_long", 1).await;
}

#[tokio::test]
async fn what_asks_for_no_such_name_goes_to_the_rest() {
    let more = "protocol: tcp\n            upstream: other";
    let (one, rest) = (answering("one").await, answering("rest").await);
    let proxy = Crestline::start(&by_name(&one, &rest, more)).await;
    for (bytes, expected) in [
        (hello("a.test"), "one"),
        (hello("c.test"), "rest"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "rest"),
    ] {
        let mut client = proxy.client().await;
        client.send(&bytes).await;
        let expected = [expected.as_bytes(), &bytes].concat();
        assert_eq!(client.bytes(expected.len()).await, expected);
    }
}

#[tokio::test]
async fn a_first_message_that_is_never_whole_is_not_waited_for() {
    let more = "protocol: tcp\n            timeouts: { handshake: 500ms }";
    let proxy = Crestline::start(&by_name(&echo().await, &echo().await, more)).await;
    let whole = hello("a.test");
    let mut client = proxy.client().await;
    client.send(&whole[..whole.len() - 1]).await;
    assert_eq!(client.rest().await.0, b"");
    proxy.refuses_for("hello_timeout", 1).await;
    let mut silent: Client = proxy.client().await;
    assert_eq!(silent.rest().await, (Vec::new(), Ending::Closed));
    proxy.refuses_for("silent", 1).await;
    let mut gone = TcpStream::connect(proxy.address()).await.unwrap();
    gone.set_nodelay(true).unwrap();
    drop(soon("nothing", gone.read(&mut [0; 1])).await);
}

#[tokio::test]
async fn what_becomes_of_a_name_is_explained() {
    let proxy = Crestline::start(&by_name(&echo().await, &echo().await, "protocol: tcp")).await;
    let port = proxy.address().rsplit(':').next().unwrap().to_owned();
    let explained = async |url: String| {
        let told = proxy.command(&["explain", "--live", "GET", &url]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        told.stdout + &told.stderr
    };
    let told = explained(format!("tls://x.b.test:{port}")).await;
    assert!(
        told.contains("relayed    to upstream other, TLS untouched, for the name x.b.test"),
        "{told}"
    );
    let told = explained(format!("https://c.test:{port}/")).await;
    assert!(told.contains("in the handshake: unrecognized_name"), "{told}");
}
