//! Clients that ask once: whether a server answers as it has to, and connections that then wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;
use crate::load::{LARGE_BODY, SMALL_BODY};
use crate::proc::{Process, wait_for};

/// Connections that wait while memory is read.
pub(crate) const IDLE_CONNECTIONS: usize = 2_000;

/// A single request has this long; on loopback even a loaded proxy answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until a server that was just started answers as all of them have to: with the right
/// bodies, and with the injected header when it is a proxy.
pub(crate) fn check(
    process: &mut Process,
    address: SocketAddr,
    header: Option<&str>,
) -> Result<()> {
    let limit = Duration::from_secs(15);
    let small = wait_for("starting", limit, || {
        process.check()?;
        Ok(get(address, "/").ok().filter(|answer| answer.starts_with("HTTP/1.1 200 ")))
    })?;
    let large = get(address, "/large")?;
    let injected = header.is_none_or(|header| small.to_ascii_lowercase().contains(header));
    if !small.ends_with(SMALL_BODY) || large.len() < LARGE_BODY || !injected {
        return Err(format!("a wrong answer, or a short one:\n{small}").into());
    }
    Ok(())
}

/// Asks once, on a connection of its own, and answers with head and body.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Keep-alive connections that have made one request each and now wait.
#[derive(Debug)]
pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens them one after another, each when the one before has its answer.
    pub(crate) fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = connect(address)?;
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(SMALL_BODY.as_bytes()) {
                let mut piece = [0; 2048];
                let length = stream.read(&mut piece)?;
                if length == 0 {
                    return Err("a connection that was to stay idle was closed".into());
                }
                answer.extend_from_slice(&piece[..length]);
            }
            streams.push(stream);
        }
        Ok(Self(streams))
    }

    /// Fails when the proxy has closed any of them meanwhile: its memory would not count.
    pub(crate) fn check(self) -> Result<()> {
        for stream in self.0 {
            stream.set_nonblocking(true)?;
            let waits = stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            if !waits {
                return Err("a connection that was to stay idle was closed".into());
            }
        }
        Ok(())
    }
}
