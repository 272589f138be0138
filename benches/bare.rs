//! The yardstick of `make bench`: an ordinary Pingora load balancer, and nothing else.
//!
//! Round robin over the given origins, one response header, mimalloc, no work stealing; plaintext
//! on one port, TLS with HTTP/2 on another. Run as `bare LISTEN LISTEN_TLS CERT KEY THREADS
//! ORIGIN…`.

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(LoadBalancer<RoundRobin>);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let backend = self.0.select(b"", 256).expect("no backend is ever taken out");
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        response.insert_header("key1", "value1")
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().expect(what);
    let listen = next("the first argument is the address to listen on");
    let listen_tls = next("the second is that for TLS");
    let (cert, key) = (next("the third is a certificate"), next("the fourth is its key"));
    let threads = next("the fifth is the number of threads").parse();
    let threads = threads.expect("the fifth is a number");
    let origins = LoadBalancer::try_from_iter(arguments).expect("the rest are addresses");

    let conf = ServerConf {
        threads,
        work_stealing: false,
        upstream_keepalive_pool_size: 256,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(origins));
    service.add_tcp(&listen);
    let mut tls = TlsSettings::intermediate(&cert, &key).expect("a certificate and its key");
    tls.enable_h2();
    service.add_tls_with_settings(&listen_tls, None, tls);
    server.add_service(service);
    server.run_forever();
}
