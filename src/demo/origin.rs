//! An origin of the demonstration: answers `GET /hello/{name}`, and can die like a process.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// The longest request head that an origin reads.
const HEAD_MAX: usize = 64 * 1024;

/// An origin that runs, or is dead.
pub(super) struct Origin {
    address: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl Origin {
    pub(super) fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let running = Some(tokio::spawn(accept(listener, address)));
        Ok(Self { address, running })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and every connection, whatever they are at.
    pub(super) async fn die(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Listens again on the same port.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        let listener = listen(self.address)?;
        self.running = Some(tokio::spawn(accept(listener, self.address)));
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Connections live in the set, and die with it.
async fn accept(listener: TcpListener, address: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, address));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers requests without a body until the client closes.
async fn serve(mut stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if HEAD_MAX < buffer.len() || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let answer = answer(&buffer[..end], address);
        buffer.drain(..end);
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn answer(head: &[u8], address: SocketAddr) -> String {
    let head = String::from_utf8_lossy(head);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match target.strip_prefix("/hello/") {
        Some(name) => ("200 OK", format!("hello, {name}!\n")),
        None => ("404 Not Found", "try /hello/you\n".to_owned()),
    };
    let length = body.len();
    let sent = if head.starts_with("HEAD ") { "" } else { body.as_str() };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
         x-origin: {address}\r\n\r\n{sent}"
    )
}
