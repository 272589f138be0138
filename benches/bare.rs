//! The yardstick of `make bench`: an ordinary Pingora load balancer, and nothing else.
//!
//! Round robin over the given origins, one response header, mimalloc, no work stealing.
//! Run as `bare LISTEN THREADS ORIGIN…`, for example `bare 127.0.0.1:3030 1 127.0.0.1:3031`.

use async_trait::async_trait;
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
    let listen = arguments.next().expect("the first argument is the address to listen on");
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    let threads = threads.expect("the second argument is the number of threads");
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
    server.add_service(service);
    server.run_forever();
}
