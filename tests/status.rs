//! `crestline status`: what runs, for people and for programs.

use serde_json::Value;

use crate::support::{Crestline, Origin, eventually, get, soon};

#[tokio::test]
async fn programs_are_told_all_that_runs() {
    let (ready, dead) = (Origin::replying("ready"), Origin::refusing());
    let failing = Origin::with(|exchange| exchange.answer("503 Busy", "", "busy"));
    let proxy = Crestline::start(&format!(
        "
        listeners: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", h2c: true }}]
        upstreams:
          app:
            backends: [{{ address: \"{ready}\", weight: 3 }}, \"{failing}\", \"{dead}\"]
            ejection: {{ consecutive_failures: 1, eject_for: 5m }}
          web: {{ backends: [\"{dead}\"], health_check: off }}
        routes: [{{ name: web, match: {{ path: /web }}, upstream: web }}, {{ name: app, upstream: app }}]
        "
    ))
    .await;
    proxy.logs(&format!("health: app {dead} down")).await;
    for _ in 0..4 {
        proxy.get("/").await;
    }
    proxy.logs(&format!("ejection: app {failing} ejected")).await;

    let status = proxy.status().await;
    assert_eq!(status["program"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], proxy.id());
    assert!(status["uptime_seconds"].as_u64().unwrap() < 60, "{status}");
    let configuration = &status["configuration"];
    assert_eq!(configuration["version"], 1);
    assert!(configuration["age_seconds"].as_u64().unwrap() < 60, "{status}");
    assert_eq!(configuration["file"], proxy.file().display().to_string());
    assert_eq!(
        (&configuration["watch"], &configuration["probation"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!(configuration["versions"][0]["summary"], "read at the start");
    for (listener, (address, h2c)) in proxy.addresses.iter().zip([false, true]).enumerate() {
        let told = &status["listeners"][listener];
        assert_eq!((&told["address"], &told["h2c"]), (&Value::from(&**address), &h2c.into()));
    }
    let [app, web] = [&status["upstreams"][0], &status["upstreams"][1]];
    assert_eq!((&app["name"], &app["requests"]), (&"app".into(), &4.into()));
    assert_eq!((&web["name"], &web["requests"]), (&"web".into(), &0.into()));
    let backend = |upstream: &Value, origin: &Origin| {
        let all = upstream["backends"].as_array().unwrap().iter();
        let mut found = all.filter(|backend| backend["address"] == origin.to_string());
        found.next().unwrap().clone()
    };
    for (origin, availability, weight) in
        [(&ready, "ready", 3), (&failing, "ejected", 1), (&dead, "unhealthy", 1)]
    {
        let told = backend(app, origin);
        assert_eq!(told["availability"], availability, "{told}");
        assert_eq!((&told["weight"], &told["in_flight"]), (&weight.into(), &0.into()), "{told}");
        let is_ejected = told["ejected_seconds"].as_u64().is_some_and(|rest| 200 < rest);
        assert_eq!(is_ejected, availability == "ejected", "{told}");
    }
    assert_eq!(backend(web, &dead)["availability"], "ready", "it is trusted");
}

#[tokio::test]
async fn people_are_told_in_words() {
    let (ready, dead) = (Origin::replying("ready"), Origin::refusing());
    let proxy = Crestline::start(&format!(
        "upstreams: {{ app: {{ backends: [\"{ready}\", \"{dead}\"] }} }}"
    ))
    .await;
    proxy.logs(&format!("health: app {dead} down")).await;
    proxy.get("/").await;

    let told = proxy.command(&["status"]).await;
    assert_eq!((told.code, &*told.stdout), (Some(0), ""));
    let lines: Vec<_> = told.stderr.lines().collect();
    let (version, id) = (env!("CARGO_PKG_VERSION"), proxy.id());
    let expected = format!("crestline {version}, process {id}, up ");
    assert!(lines[0].starts_with(&expected), "{}", told.stderr);
    assert!(lines[1].starts_with("serving, "), "{}", told.stderr);
    let expected = format!("configuration v1 of {}, in force for ", proxy.file().display());
    assert!(lines[2].starts_with(&expected), "{}", told.stderr);
    assert_eq!(lines[3], format!("listener {}", proxy.address()));
    assert_eq!(lines[4..6], ["", "upstream app: 1 of 2 in service; requests: 1, retries: 0"]);
    for (origin, word) in [(&ready, "ready    "), (&dead, "unhealthy")] {
        let expected = format!("{word}  weight 1, 0 in flight");
        let line = lines.iter().find(|line| line.contains(&origin.to_string())).unwrap();
        assert!(line.ends_with(&expected), "{}", told.stderr);
    }
}

#[tokio::test]
async fn requests_in_flight_are_counted() {
    let origin = Origin::stalling();
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send(get("/")).await;
    }
    eventually("the requests at the origin", || origin.count() == 2).await;

    let in_flight =
        async || proxy.status().await["upstreams"][0]["backends"][0]["in_flight"].as_u64().unwrap();
    assert_eq!(in_flight().await, 2);
    clients.into_iter().for_each(crate::support::Client::reset);
    soon("their end", async { while in_flight().await != 0 {} }).await;
}

#[tokio::test]
async fn versions_and_their_receipts_are_told_the_newest_first() {
    let origin = Origin::replying("hello");
    let yaml = |more: &str| format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n{more}");
    let proxy = Crestline::start(&yaml("")).await;
    proxy.reload(&yaml("trusted_proxies: [10.0.0.0/8]\n")).await;
    proxy.command(&["reload", "--to", "1"]).await;

    let configuration = proxy.status().await["configuration"].clone();
    assert_eq!(configuration["version"], 3);
    let versions = configuration["versions"].as_array().unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|kept| (kept["version"].as_u64().unwrap(), kept["summary"].as_str().unwrap()))
        .collect();
    let expected = [
        (3, "v2 → v3 (as v1): trusted_proxies changed"),
        (2, "v1 → v2: trusted_proxies changed"),
        (1, "read at the start"),
    ];
    assert_eq!(told, expected);
}
