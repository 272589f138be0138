//! Upgrades under load: no request fails, and no connection is lost at what they lead to.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Crestline, Load, Origin, UntilRefused, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_upgrades_under_load_fail_no_request() {
    let origin = Origin::replying("hello");
    let mut proxy = Crestline::start(&format!(
        "grace_period_seconds: 2\ngraceful_shutdown_timeout_seconds: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
    ))
    .await;
    let load = Load::start(proxy.address(), 4, 4);
    let mut processes = vec![proxy.id()];
    for _ in 0..5 {
        load.goes_on().await;
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        processes.push(proxy.in_force().unwrap());
    }
    load.goes_on().await;
    let last = processes.pop().unwrap();
    eventually("the end of the first process", || !proxy.is_running()).await;
    let others = || processes.iter().all(|pid| !proxy.is_of_this_test(*pid));
    eventually("the end of all but the last", others).await;
    assert_eq!(proxy.in_force(), Some(last));
    load.goes_on().await;
    load.stop().await;
}

/// The socket is one that was inherited, and this process is the last that has it.
#[tokio::test]
async fn a_stop_after_an_upgrade_resets_no_connection() {
    let origin = Origin::replying("hello");
    for _ in 0..3 {
        let proxy = Crestline::start(&format!(
            "threads: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}"
        ))
        .await;
        let clients = UntilRefused::start(proxy.address(), 4);
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        clients.goes_on().await;
        let pid = proxy.in_force().unwrap();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::TERM).unwrap();
        clients.end().await;
        eventually("the end of the last process", || !proxy.is_of_this_test(pid)).await;
    }
}

/// It is closed in both processes, and what the kernel has accepted for it is answered before.
#[tokio::test]
async fn a_listener_that_an_upgrade_removes_resets_no_connection() {
    let origin = Origin::replying("hello");
    let upstreams = format!("threads: 1\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n");
    let both =
        "listeners: [{ address: \"127.0.0.1:0\" }, { address: \"127.0.0.2:0\" }]\n".to_owned();
    for _ in 0..3 {
        let proxy = Crestline::start(&(both.clone() + &upstreams)).await;
        let [kept, removed] = [&proxy.addresses[0], &proxy.addresses[1]];
        let load = Load::start(kept, 1, 1);
        let clients = UntilRefused::start(removed, 4);
        clients.goes_on().await;
        proxy.rewrite(&format!("listeners: [{{ address: \"{kept}\" }}]\n{upstreams}"));
        let told = proxy.command(&["upgrade"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        clients.end().await;
        load.goes_on().await;
        load.stop().await;
    }
}
