//! Connections to one backend, counted from the moment before they are made until they are closed:
//! in use, in Pingora's pool, and being made. Those of checks are not among them.
//!
//! A connection that would be one too many is not made: the count is taken before the kernel is
//! asked, and given back when Pingora drops the connection, wherever that happens.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use async_trait::async_trait;
use pingora::{Error, ErrorType, Result};
use pingora_core::{
    connectors::L4Connect,
    protocols::l4::{socket::SocketAddr, stream::Stream},
    upstreams::peer::{Tracer, Tracing},
};

/// The error of a connection that would have been one too many.
pub const TOO_MANY: &str = "as many connections as there may be";

/// How many connections there are.
#[derive(Debug, Default)]
pub struct Connections(AtomicU32);

impl Connections {
    /// How many there are now.
    pub fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }

    /// Takes one, unless there are `max`.
    fn take(self: &Arc<Self>, max: u32) -> Option<Counted> {
        let one_more = |now: u32| (now < max).then_some(now + 1);
        self.0.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(Counted(Some(self.clone())))
    }
}

/// Counts a connection that is being made.
#[derive(Debug)]
struct Counted(Option<Arc<Connections>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(connections) = &self.0 {
            connections.0.fetch_sub(1, SeqCst);
        }
    }
}

/// Counts a connection that was made: Pingora says when it is closed.
#[derive(Clone, Debug)]
struct Made(Arc<Connections>);

impl Tracing for Made {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.0.fetch_sub(1, SeqCst);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

/// Makes connections to one backend as `inner` does, as long as there are not too many.
#[derive(Debug)]
pub struct Bounded {
    /// How they are made.
    pub inner: Arc<dyn L4Connect + Send + Sync>,
    /// How many there are.
    pub connections: Arc<Connections>,
    /// How many there may be.
    pub max: u32,
}

#[async_trait]
impl L4Connect for Bounded {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(mut counted) = self.connections.take(self.max) else {
            return Err(Error::explain(ErrorType::Custom(TOO_MANY), "not connected").into_up());
        };
        let mut stream = self.inner.connect(address).await?;
        // From now on the connection counts itself.
        stream.tracer = counted.0.take().map(|made| Tracer(Box::new(Made(made))));
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::link::dial::Dial;

    fn bounded(max: u32) -> Bounded {
        let inner =
            Dial { timeout: Duration::from_secs(30), sources: Arc::default(), header: None };
        Bounded { inner: Arc::new(inner), connections: Arc::default(), max }
    }

    #[tokio::test]
    async fn a_connection_counts_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        let bounded = bounded(2);
        let [one, two] =
            [bounded.connect(&address).await.unwrap(), bounded.connect(&address).await.unwrap()];
        assert_eq!(bounded.connections.get(), 2);
        let third = bounded.connect(&address).await.unwrap_err();
        assert_eq!(third.etype, ErrorType::Custom(TOO_MANY));
        drop(one);
        assert_eq!(bounded.connections.get(), 1);
        let _three = bounded.connect(&address).await.unwrap();
        drop(two);
        assert_eq!(bounded.connections.get(), 1);
    }

    #[tokio::test]
    async fn one_that_is_not_made_counts_no_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        drop(listener);
        let bounded = bounded(1);
        assert!(bounded.connect(&address).await.is_err());
        assert_eq!(bounded.connections.get(), 0);
    }
}
