//! What Pingora asks of any stream: facts, most of which the stream below knows.

use std::{io, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    listeners::ALPN,
    protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, SocketDigest, Ssl, TimingDigest,
        UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
};

use crate::downstream::stream::Downstream;

#[async_trait]
impl Peek for Downstream {
    /// Shows what is pending: enough for Pingora to recognise the preface of HTTP/2.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let shown = self.pending.len().min(buf.len());
        buf[..shown].copy_from_slice(&self.pending[..shown]);
        Ok(true)
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Downstream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}
