//! How each proxy is set up: one function for each, with its configuration.
//!
//! Every proxy does the same work as its documentation would have it done: round robin over
//! the origins through kept connections, one response header, an access log where it has one;
//! plaintext on one port, TLS with HTTP/2 on another.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::proxies::Site;
use crate::variant::Variant;

/// Where one proxy is set up.
pub(crate) struct Place<'a> {
    pub(crate) site: &'a Site<'a>,
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: SocketAddr,
    pub(crate) folder: &'a Path,
    pub(crate) program: &'a Path,
}

/// Crestline, with health checks, and otherwise as its variant says.
pub(crate) fn crestline(place: &Place<'_>, variant: Variant) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let file = place.folder.join("crestline.yaml");
    let folder = place.folder.display();
    let text = format!(
        "threads: {threads}
work_stealing: {work_stealing}
pid_file: {folder}/crestline.pid
upgrade_sock: {folder}/upgrade.sock
listeners:
  - {{ address: \"{address}\" }}
  - {{ address: \"{tls_address}\", tls: {{ certificates: [ {{ cert: {cert}, key: {key} }} ] }} }}
{access_log}
upstreams:
  app: {{ backends: [\"{a}\", \"{b}\", \"{c}\"], health_check: {{ tcp: {{}}, every: 1s }} }}
routes:
  - name: all
    upstream: app
    policies:{policies}
      - response_headers: {{ set: {{ key1: value1 }} }}
",
        threads = place.site.threads,
        work_stealing = variant == Variant::WorkStealing,
        access_log = variant.access_log(&folder.to_string()),
        policies = variant.policies(),
        address = place.address,
        tls_address = place.tls_address,
        cert = place.site.certificate.cert.display(),
        key = place.site.certificate.key.display(),
    );
    fs::write(&file, text)?;
    let mut command = Command::new(place.program);
    command.arg("-c").arg(file);
    Ok(command)
}

/// The tuned example of Pingora, `benches/bare.rs`: no log, no checks.
pub(crate) fn bare(place: &Place<'_>) -> Command {
    let mut command = Command::new(place.program);
    let site = place.site;
    command.arg(place.address.to_string()).arg(place.tls_address.to_string());
    command.arg(&site.certificate.cert).arg(&site.certificate.key).arg(site.threads.to_string());
    command.args(site.origins.map(|origin| origin.to_string()));
    command
}

/// nginx, with its access log and kept connections to the origins.
///
/// Its default buffers (eight of 4 KiB) double what a body of 100 KiB costs it; these hold one.
pub(crate) fn nginx(place: &Place<'_>) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let server = format!(
        "  access_log access.log combined;
  upstream app {{
    server {a};
    server {b};
    server {c};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {address};
    listen {tls_address} ssl http2;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
      proxy_max_temp_file_size 0;
      add_header key1 value1;
    }}
  }}
",
        address = place.address,
        tls_address = place.tls_address,
        cert = place.site.certificate.cert.display(),
        key = place.site.certificate.key.display(),
    );
    nginx_command(place.program, place.folder, place.site.threads, &server)
}

/// Writes what every nginx here has in common, around its servers, and the command to start it.
pub(crate) fn nginx_command(
    program: &Path,
    folder: &Path,
    workers: usize,
    http: &str,
) -> Result<Command> {
    let text = format!(
        "daemon off;
user root root;
worker_processes {workers};
pid nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
  keepalive_requests 1000000000;
  client_body_temp_path client;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
{http}}}
"
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    Ok(command)
}

/// `HAProxy`, with checks, and its log on stdout, which is a file.
pub(crate) fn haproxy(place: &Place<'_>) -> Result<Command> {
    let [a, b, c] = place.site.origins;
    let file = place.folder.join("haproxy.cfg");
    let text = format!(
        "global
  nbthread {threads}
  maxconn 8192
  log stdout format raw local0

defaults
  mode http
  log global
  option httplog
  option dontlognull
  option http-keep-alive
  http-reuse always
  timeout connect 1s
  timeout client 75s
  timeout server 60s

frontend edge
  bind {address}
  bind {tls_address} ssl crt {both} alpn h2,http/1.1
  default_backend app

backend app
  balance roundrobin
  http-response set-header key1 value1
  server a {a} check inter 1s
  server b {b} check inter 1s
  server c {c} check inter 1s
",
        threads = place.site.threads,
        address = place.address,
        tls_address = place.tls_address,
        both = place.site.certificate.both.display(),
    );
    fs::write(&file, text)?;
    let mut command = Command::new(place.program);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}
