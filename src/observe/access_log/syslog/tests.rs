//! What becomes of frames when their receiver is away, slow, or gone.

use std::{
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    sync::atomic::AtomicBool,
};

use super::{config::Config, sender::Sender};
use crate::observe::access_log::{
    frame::{self, Severity},
    progress::State,
};

static STAYS: AtomicBool = AtomicBool::new(false);

fn sender(address: &str) -> Sender {
    Sender::new(address.parse::<Config>().unwrap().receiver())
}

fn framed(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        frame::write(Severity::Info, &mut out, |out| out.extend_from_slice(line.as_bytes()));
    }
    out
}

fn is_failing(state: &State) -> bool {
    matches!(state, State::Failing(_))
}

/// The next message of a stream, behind its length.
fn message(stream: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).unwrap();
    let length: usize = str::from_utf8(&length).unwrap().trim_end().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

#[test]
fn each_line_is_a_datagram_and_one_that_was_refused_is_counted() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sender = sender(&format!("udp://{}", receiver.local_addr().unwrap()));
    let (bytes, mut buffer) = (framed(&["a", "b"]), [0; 1024]);
    let sent = sender.send(&bytes, &STAYS);
    assert_eq!((sent.done, sent.lost, sent.state), (bytes.len(), 0, State::Good));
    for line in ["a", "b"] {
        let length = receiver.recv(&mut buffer).unwrap();
        let text = str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("<134>1 ") && text.ends_with(&format!(" - {line}")), "{text}");
    }
    drop(receiver);
    let sent = sender.send(&bytes, &STAYS);
    assert_eq!(sent.done, bytes.len(), "nothing waits for a receiver that may never come");
    assert!(1 <= sent.lost && is_failing(&sent.state), "{sent:?}");
}

#[test]
fn a_datagram_that_is_too_long_is_lost_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    socket2::SockRef::from(&receiver).set_nonblocking(true).unwrap();
    let mut config: Config = format!("unix:{}", path.display()).parse().unwrap();
    config.max_size = crate::units::ByteSize::from_mib(8);
    let mut sender = Sender::new(config.receiver());
    let long = "x".repeat(4 << 20);
    let bytes = framed(&["a", &long, "b"]);
    let sent = sender.send(&bytes, &STAYS);
    assert_eq!((sent.done, sent.lost), (bytes.len(), 1), "{sent:?}");
    let mut buffer = [0; 1024];
    for line in ["a", "b"] {
        let length = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(line.as_bytes()));
    }
}

#[test]
fn lines_wait_for_a_socket_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sender = sender(&format!("unix:{}", path.display()));
    let bytes = framed(&["a"]);
    let sent = sender.send(&bytes, &STAYS);
    assert!(sent.done == 0 && sent.lost == 0 && is_failing(&sent.state), "{sent:?}");
    assert_eq!(sender.send(&bytes, &STAYS).state, State::Waiting, "it is not asked at once");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let last = AtomicBool::new(true);
    assert_eq!(sender.send(&bytes, &last).done, bytes.len(), "but a last time at the end");
    let mut buffer = [0; 1024];
    let length = receiver.recv(&mut buffer).unwrap();
    assert!(buffer[..length].ends_with(b" - a"));
}

#[test]
fn a_receiver_that_closed_is_connected_to_again_before_anything_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = sender(&format!("tcp://{}", listener.local_addr().unwrap()));
    assert_eq!(sender.send(&framed(&["a", "é"]), &STAYS).state, State::Good);
    let mut stream = BufReader::new(listener.accept().unwrap().0);
    assert!(message(&mut stream).ends_with(" - a"));
    assert!(message(&mut stream).ends_with(" - é"));
    drop(stream);
    let (bytes, at_last) = (framed(&["b"]), AtomicBool::new(true));
    // The end of a connection takes a moment to arrive.
    let mut peer = loop {
        let sent = sender.send(&bytes, &at_last);
        if let (Ok((peer, _)), true) = (accepted(&listener), sent.done == bytes.len()) {
            break BufReader::new(peer);
        }
    };
    assert!(message(&mut peer).ends_with(" - b"));
}

fn accepted(listener: &TcpListener) -> std::io::Result<(TcpStream, std::net::SocketAddr)> {
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    listener.set_nonblocking(false)?;
    let (peer, address) = accepted?;
    peer.set_nonblocking(false)?;
    Ok((peer, address))
}

/// What was taken whole is done with; the rest waits for another connection.
#[test]
fn a_receiver_that_reads_nothing_is_given_up_and_whole_lines_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = sender(&format!("tcp://{}", listener.local_addr().unwrap()));
    let line = "x".repeat(4096);
    let bytes = framed(&vec![&*line; 4096]);
    let finish = AtomicBool::new(true);
    let mut done = 0;
    let state = loop {
        let sent = sender.send(&bytes[done..], &finish);
        done += sent.done;
        if is_failing(&sent.state) {
            break sent.state;
        }
        assert!(done < bytes.len(), "no buffer of a system holds that much");
    };
    assert!(format!("{state:?}").contains("it reads nothing"), "{state:?}");
    let whole = frame::frames(&bytes[done..]).next().expect("it goes on with a whole frame");
    assert_eq!(whole.payload.len(), line.len());
}
