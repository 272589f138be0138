//! The conversation on the wire: messages with a length before them, and descriptors beside them.
//!
//! A frame is the length of its text and the number of its descriptors, four bytes each, the
//! highest first, and the text, which is JSON. Descriptors travel with the first byte of their
//! frame (`SCM_RIGHTS`), so they are there when the frame is whole.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{io::Interest, net::UnixStream};

use crate::handover::message::Message;

/// So many descriptors go with one message; the kernel takes 253.
pub(super) const DESCRIPTORS_MAX: usize = 64;
/// The longest text of a message.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// The two numbers before the text.
const HEAD_BYTES: usize = 8;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// The other side is gone.
    #[error("the other process closed the conversation")]
    Closed,
    /// The system failed.
    #[error("the conversation broke: {0}")]
    Broken(io::Error),
    /// The other side says what makes no sense.
    #[error("the other process does not speak as expected: {0}")]
    Nonsense(String),
}

impl From<io::Error> for ChannelError {
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Broken(why),
        }
    }
}

/// One end of a conversation.
pub(super) struct Channel {
    stream: UnixStream,
    inbound: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    outgoing: Option<Outgoing>,
}

/// A conversation without a runtime.
pub(super) struct Detached {
    stream: net::UnixStream,
    inbound: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    outgoing: Option<Outgoing>,
}

impl Detached {
    /// Goes on in this runtime.
    pub(super) fn attach(self) -> io::Result<Channel> {
        let Self { stream, inbound, descriptors, outgoing } = self;
        Ok(Channel { stream: UnixStream::from_std(stream)?, inbound, descriptors, outgoing })
    }
}

/// A frame of which a part may have been sent.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (inbound, descriptors) = (Vec::new(), VecDeque::new());
        Self { stream, inbound, descriptors, outgoing: None }
    }

    /// The user of the other process, and its id where that is known here.
    pub(super) fn peer(&self) -> io::Result<(u32, Option<i32>)> {
        let peer = self.stream.peer_cred()?;
        Ok((peer.uid(), peer.pid().filter(|pid| 0 < *pid)))
    }

    /// Leaves the runtime, to go on in another one.
    pub(super) fn detach(self) -> io::Result<Detached> {
        let Self { stream, inbound, descriptors, outgoing } = self;
        Ok(Detached { stream: stream.into_std()?, inbound, descriptors, outgoing })
    }

    /// Says something.
    pub(super) async fn say(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.send(message, &[]).await
    }

    /// Says something, and sends descriptors with it.
    ///
    /// When it is dropped, the rest of the message goes before the next one.
    pub(super) async fn send(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        debug_assert!(descriptors.len() <= DESCRIPTORS_MAX, "more than one message takes");
        let text = serde_json::to_vec(message).map_err(io::Error::from)?;
        let (Ok(length), Ok(count)) = (u32::try_from(text.len()), u32::try_from(descriptors.len()))
        else {
            return Err(ChannelError::Nonsense("a message is too long".to_owned()));
        };
        self.flush().await?;
        let bytes = [&length.to_be_bytes()[..], &count.to_be_bytes(), &text].concat();
        let descriptors: io::Result<_> =
            descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.outgoing = Some(Outgoing { bytes, sent: 0, descriptors: descriptors? });
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(outgoing) = &mut self.outgoing {
            let stream = &self.stream;
            let sent = stream.async_io(Interest::WRITABLE, || outgoing.push(stream.as_fd())).await;
            outgoing.sent += sent?;
            outgoing.descriptors.clear();
            if outgoing.sent == outgoing.bytes.len() {
                self.outgoing = None;
            }
        }
        Ok(())
    }

    /// Waits for the next message, and what came with it. May be dropped at any time.
    pub(super) async fn receive(&mut self) -> Result<(Message, Vec<OwnedFd>), ChannelError> {
        loop {
            if let Some(whole) = self.take()? {
                return Ok(whole);
            }
            let Self { stream, inbound, descriptors, .. } = self;
            let pull = || pull(stream.as_fd(), inbound, descriptors);
            if stream.async_io(Interest::READABLE, pull).await? == 0 {
                return Err(ChannelError::Closed);
            }
        }
    }

    /// Takes a frame that is whole.
    fn take(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ChannelError> {
        let Some((head, rest)) = self.inbound.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let number = |at: usize| {
            head[at..at + 4].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        let (length, count) = (number(0), number(4));
        if TEXT_BYTES_MAX < length || DESCRIPTORS_MAX < count {
            return Err(ChannelError::Nonsense("a message is too long".to_owned()));
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        if self.descriptors.len() < count {
            let why = format!("{count} descriptors were said to come");
            return Err(ChannelError::Nonsense(why));
        }
        let message = serde_json::from_slice(text);
        let message = message.map_err(|why| ChannelError::Nonsense(why.to_string()))?;
        self.inbound.drain(..HEAD_BYTES + length);
        Ok(Some((message, self.descriptors.drain(..count).collect())))
    }
}

impl Outgoing {
    fn push(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let rest = [IoSlice::new(&self.bytes[self.sent..])];
        Ok(sendmsg(socket, &rest, &mut control, SendFlags::NOSIGNAL)?)
    }
}

/// Reads what there is; the number of bytes, zero at the end.
fn pull(
    socket: BorrowedFd<'_>,
    inbound: &mut Vec<u8>,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut bytes = [0; READ_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || DESCRIPTORS_MAX < descriptors.len() {
        return Err(io::Error::other(
            "not all descriptors arrived: is the limit of open files low?",
        ));
    }
    inbound.extend_from_slice(&bytes[..received.bytes]);
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    fn long(letters: usize) -> Message {
        Message::Refused { why: "x".repeat(letters) }
    }

    #[tokio::test]
    async fn descriptors_come_with_their_message_however_many_there_are() {
        let (mut one, mut other) = pair();
        let listeners: Vec<_> =
            (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let sending = async {
            one.say(&Message::Received).await.unwrap();
            for some in listeners.chunks(DESCRIPTORS_MAX) {
                let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
                one.send(&long(some.len()), &some).await.unwrap();
            }
            one.say(&Message::Alone).await.unwrap();
        };
        let mut got = Vec::new();
        let receiving = async {
            loop {
                let (message, descriptors) = other.receive().await.unwrap();
                match message {
                    Message::Alone => return,
                    Message::Refused { why } => assert_eq!(why.len(), descriptors.len()),
                    _ => assert_eq!(descriptors.len(), 0),
                }
                got.extend(descriptors);
            }
        };
        tokio::join!(sending, receiving);
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let got: Vec<_> = got.into_iter().map(|got| address(&TcpListener::from(got))).collect();
        assert_eq!(got, listeners.iter().map(address).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_long_message_that_was_given_up_is_finished_before_the_next() {
        let (mut one, mut other) = pair();
        let full = long(TEXT_BYTES_MAX / 2);
        tokio::select! {
            biased;
            _ = one.send(&full, &[]) => panic!("it cannot fit"),
            () = tokio::task::yield_now() => {}
        }
        let sending = async { one.say(&Message::Alone).await.unwrap() };
        let receiving = async {
            assert_eq!(other.receive().await.unwrap().0, full);
            assert_eq!(other.receive().await.unwrap().0, Message::Alone);
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn nonsense_is_told_from_a_closed_conversation() {
        let said = async |bytes: &[u8]| {
            let (stream, mut stranger) = net::UnixStream::pair().unwrap();
            stranger.write_all(bytes).unwrap();
            drop(stranger);
            stream.set_nonblocking(true).unwrap();
            Channel::new(UnixStream::from_std(stream).unwrap())
                .receive()
                .await
                .unwrap_err()
                .to_string()
        };
        let closed = "the other process closed the conversation";
        assert_eq!(said(b"").await, closed);
        assert_eq!(said(&[0, 0, 0, 9, 0, 0, 0, 0, b'{']).await, closed);
        assert!(said(b"GET / HTTP/1.1\r\n").await.ends_with("a message is too long"));
        assert!(said(&[0, 0, 0, 1, 0, 0, 0, 0, b'{']).await.contains("EOF while parsing"));
        let none = [0, 0, 0, 2, 0, 0, 0, 1, b'{', b'}'];
        assert!(said(&none).await.ends_with("1 descriptors were said to come"));
    }

    /// What was said last is heard, though the other one was not listened to.
    #[tokio::test]
    async fn the_last_word_is_heard_after_the_end() {
        let (mut one, mut other) = pair();
        one.say(&Message::Received).await.unwrap();
        other.say(&Message::TakenBack { why: "late".to_owned() }).await.unwrap();
        drop(other);
        assert!(matches!(one.receive().await, Ok((Message::TakenBack { .. }, _))));
        assert!(matches!(one.receive().await, Err(ChannelError::Closed)));
    }

    /// Nothing is lost of what came meanwhile.
    #[test]
    fn what_is_detached_goes_on_in_another_runtime() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let (detached, mut other) = runtime().block_on(async {
            let (mut one, mut other) = pair();
            other.say(&Message::Received).await.unwrap();
            other.say(&Message::OverToYou).await.unwrap();
            one.receive().await.unwrap();
            (one.detach().unwrap(), other.detach().unwrap().stream)
        });
        runtime().block_on(async {
            let mut one = detached.attach().unwrap();
            assert_eq!(one.receive().await.unwrap().0, Message::OverToYou);
            one.say(&Message::Alone).await.unwrap();
        });
        other.set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        assert!(all.ends_with(b"{\"say\":\"alone\"}"));
    }
}
