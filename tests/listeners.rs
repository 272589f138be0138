//! Where Crestline listens.

use std::{fs, net::TcpListener, os::unix::net::UnixListener, time::Duration};

use crate::support::{Client, Crestline, Finished, Origin, curl, get};

#[tokio::test]
async fn several_listeners_are_served_each_with_its_own_bounds() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        listeners:
          - address: \"127.0.0.1:0\"
          - {{ address: \"127.0.0.1:0\", limits: {{ target_size: 64B }} }}
        "
    ))
    .await;

    let path = format!("/{}", "x".repeat(100));
    for (address, status) in proxy.addresses.iter().zip([200, 414]) {
        assert_eq!(Client::connect(address).await.exchange(get("/")).await.text(), "hello");
        assert_eq!(Client::connect(address).await.exchange(get(&path)).await.status, status);
    }
}

#[tokio::test]
async fn ipv6_is_served() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        listeners: [{{ address: \"[::1]:0\" }}]
        "
    ))
    .await;

    assert!(proxy.address().starts_with("[::1]:"));
    assert_eq!(proxy.get("/").await.text(), "hello");
    assert_eq!(origin.last().fields.get("x-forwarded-for"), Some("::1"));
    assert_eq!(proxy.access_log(1).await[0]["client"], "::1");
}

/// IPv4 clients come in by `[::]` as well, under their own address.
#[tokio::test]
async fn any_address_means_both_families() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        listeners: [{{ address: \"[::]:0\" }}]
        "
    ))
    .await;

    let port = proxy.address().strip_prefix("[::]:").unwrap();
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let mut connection = Client::connect(&format!("{host}:{port}")).await;
        assert_eq!(connection.exchange(get("/")).await.text(), "hello");
        assert_eq!(origin.last().fields.get("x-forwarded-for"), Some(client));
    }
}

/// What a process that died has left there is replaced.
#[tokio::test]
async fn a_unix_socket_is_served() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left over");
    let proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        listeners: [{{ address: \"unix:{}\" }}]
        ",
        path.display()
    ))
    .await;

    let output = curl(&["--unix-socket", path.to_str().unwrap(), "http://a.test/"]).await;
    assert_eq!(output.stdout, b"hello");
    assert_eq!(proxy.access_log(1).await[0]["client"], "unix");
}

#[tokio::test]
async fn each_unix_socket_has_bounds_of_its_own() {
    let origin = Origin::replying("hello");
    let folder = tempfile::tempdir().unwrap();
    let (wide, narrow) = (folder.path().join("wide.sock"), folder.path().join("narrow.sock"));
    let _proxy = Crestline::start(&format!(
        "
        upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}
        listeners:
          - {{ address: \"unix:{}\" }}
          - {{ address: \"unix:{}\", limits: {{ target_size: 64B }} }}
        ",
        wide.display(),
        narrow.display()
    ))
    .await;

    let url = format!("http://a.test/{}", "x".repeat(100));
    for (path, status) in [(&wide, "200"), (&narrow, "414")] {
        let path = path.to_str().unwrap();
        let arguments = ["-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path, &url];
        let output = curl(&arguments).await;
        assert_eq!(String::from_utf8(output.stdout).unwrap(), status, "{path}");
    }
}

#[tokio::test]
async fn a_unix_socket_in_use_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("served.sock");
    let _served = UnixListener::bind(&path).unwrap();

    let finished = refused(&format!("unix:{}", path.display())).await;
    assert!(finished.stderr.contains(path.to_str().unwrap()), "{}", finished.stderr);
    assert!(path.exists());
}

/// A file that is no socket is left alone.
#[tokio::test]
async fn a_file_where_a_unix_socket_should_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    fs::write(&path, "precious").unwrap();

    refused(&format!("unix:{}", path.display())).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// Pingora by itself retries for half a minute and lives on without a listener.
#[tokio::test]
async fn a_port_in_use_ends_the_start_within_a_second_with_one_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let mut finished = refused(&address).await;
    for _ in 0..20 {
        if Duration::from_secs(1) <= finished.took {
            finished = refused(&address).await; // the machine was busy
        }
    }
    assert!(finished.took < Duration::from_secs(1), "{:?}", finished.took);
    let errors: Vec<&str> =
        finished.stderr.lines().filter(|line| line.contains(&address)).collect();
    assert_eq!(
        errors,
        [format!("error: cannot listen on {address}: another process listens there")]
    );
    assert_eq!(finished.stdout, "");
}

/// A start that cannot listen there.
async fn refused(address: &str) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crestline.yaml");
    let yaml = format!(
        "upstreams: {{ app: {{ backends: [\"127.0.0.1:9\"] }} }}\nlisteners: [{{ address: \"{address}\" }}]\n"
    );
    fs::write(&file, yaml).unwrap();
    let finished = Crestline::run(&["-c", file.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    finished
}
