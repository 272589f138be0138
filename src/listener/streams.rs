//! Stands between Pingora's HTTP/2 and the application: streams whose client has more to say are
//! bounded as requests over HTTP/1 are.

use std::{pin::Pin, sync::Arc};

use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};

use crate::downstream::upload;

/// An application, and what is put before it.
pub(super) struct Streams<A>(pub(super) Arc<A>);

impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Streams<A> {
    // Written without `async_trait`, which would put the future of `app` into another box.
    fn process_new_http<'a, 'b, 'c>(
        self: &'a Arc<Self>,
        session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.process_new_http(upload::session_of(session), shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.0.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }
}
