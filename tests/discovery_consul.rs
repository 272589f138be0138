//! Backends that Consul tells of: answers as the real agent gives them, blocking queries included.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::watch, time};

use crate::support::{After, Crestline, Exchange, Origin};

/// What the agent knows of the service.
#[derive(Clone, Default)]
struct Known {
    index: u64,
    instances: Vec<Value>,
    /// Whether its servers are without a leader.
    leaderless: bool,
}

/// An agent of Consul.
struct Agent {
    origin: Origin,
    known: Arc<watch::Sender<Known>>,
}

impl Agent {
    fn start() -> Self {
        let known = Arc::new(watch::Sender::new(Known::default()));
        let told = known.clone();
        let origin = Origin::with(move |exchange| answer(exchange, told.subscribe()));
        Self { origin, known }
    }

    /// Replaces the instances, at an index.
    fn set(&self, index: u64, instances: &[(&Origin, u64)]) {
        let instances = instances.iter().map(|(origin, weight)| instance(origin, *weight));
        let instances = instances.collect();
        self.known.send_replace(Known { index, instances, leaderless: false });
    }

    /// What it was asked for, without the path and what all questions have.
    fn asked(&self) -> Vec<String> {
        let all = self.origin.requests().into_iter();
        let targets = all.map(|request| {
            assert_eq!(request.fields.get("x-consul-token"), Some("opensesame"));
            let path = "/v1/health/service/web?passing=true&tag=v1";
            request.target.strip_prefix(path).expect("the path").to_owned()
        });
        targets.collect()
    }
}

fn instance(origin: &Origin, weight: u64) -> Value {
    let text = origin.to_string();
    let (_, port) = text.split_once(':').unwrap();
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "n1", "Address": "127.0.0.1",
            "Datacenter": "dc1", "TaggedAddresses": { "lan": "127.0.0.1", "wan": "127.0.0.1" },
            "Meta": { "consul-network-segment": "" }, "CreateIndex": 5, "ModifyIndex": 8,
        },
        "Service": {
            "ID": format!("web-{port}"), "Service": "web", "Tags": ["v1"], "Address": "",
            "Meta": null, "Port": port.parse::<u16>().unwrap(),
            "Weights": { "Passing": weight, "Warning": 1 }, "EnableTagOverride": false,
            "Proxy": { "Mode": "", "MeshGateway": {}, "Expose": {} }, "Connect": {},
            "CreateIndex": 14, "ModifyIndex": 14,
        },
        "Checks": [{
            "Node": "n1", "CheckID": "serfHealth", "Name": "Serf Health Status",
            "Status": "passing", "Notes": "", "Output": "Agent alive and reachable",
        }],
    })
}

/// Waits for a change as the agent does, if it is asked to.
async fn answer(exchange: Exchange, mut known: watch::Receiver<Known>) -> After {
    let target = exchange.request.target.clone();
    let value = |name: &str| {
        target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    if let Some(index) = value("index") {
        let index: u64 = index.parse().unwrap();
        let wait: u64 = value("wait").unwrap().strip_suffix("ms").unwrap().parse().unwrap();
        // A test that changes something has changed it when this looks.
        let changed = known.wait_for(|known| known.index != index || known.leaderless);
        let _ = time::timeout(Duration::from_millis(wait), changed).await;
    }
    let Known { index, instances, leaderless } = known.borrow().clone();
    if leaderless {
        return exchange.answer("500 Internal Server Error", "", "No cluster leader").await;
    }
    let fields = format!(
        "Content-Type: application/json\r\nX-Consul-Index: {index}\r\nX-Consul-Knownleader: true\r\n"
    );
    exchange.answer("200 OK", &fields, Value::from(instances).to_string()).await
}

#[tokio::test]
async fn instances_that_pass_their_checks_are_backends_and_an_index_may_go_back() {
    let [first, second] = ["1", "2"].map(Origin::replying);
    let agent = Agent::start();
    agent.set(41, &[(&first, 1)]);
    let yaml = format!(
        "
        upstreams:
          app:
            discovery:
              consul: {{ url: \"http://{}\", service: web, tag: v1, token_file: token }}
        ",
        agent.origin
    );
    let proxy = Crestline::start_among(&[("token", "opensesame\n")], &[], &yaml).await;
    assert_eq!(proxy.get("/").await.text(), "1");

    // They appear and vanish.
    agent.set(44, &[(&first, 1), (&second, 2)]);
    proxy.finds(&[(&first, 1), (&second, 2)]).await;
    agent.set(45, &[(&second, 3)]);
    proxy.finds(&[(&second, 3)]).await;
    assert_eq!(proxy.texts(3).await, ["2", "2", "2"]);
    let waits = |index: u64| format!("&index={index}&wait=300000ms");
    crate::support::eventually("a question", || agent.asked().len() == 4).await;
    assert_eq!(agent.asked(), [String::new(), waits(41), waits(44), waits(45)]);

    // The index goes back, as after a snapshot was restored: the next question does not wait.
    agent.set(7, &[(&first, 1)]);
    proxy.finds(&[(&first, 1)]).await;
    crate::support::eventually("two questions", || agent.asked().len() == 6).await;
    assert_eq!(agent.asked()[4..], [String::new(), waits(7)]);

    // An agent whose servers have no leader is not believed.
    agent.known.send_modify(|known| (known.leaderless, known.instances) = (true, Vec::new()));
    let why = proxy.misses("No cluster leader").await;
    assert_eq!(why, "the answer was 500 Internal Server Error: No cluster leader");
    assert_eq!(proxy.get("/").await.text(), "1");
    agent.set(8, &[(&second, 1)]);
    proxy.finds(&[(&second, 1)]).await;

    // While there is none the last good set serves.
    agent.origin.kill().await;
    proxy.misses(&format!("http://{}: ", agent.origin)).await;
    assert_eq!(proxy.texts(2).await, ["2", "2"]);
    let told = proxy.command(&["status"]).await.stderr;
    let by = format!("by consul web tag v1 at http://{}: 1 backend, in touch ", agent.origin);
    assert!(told.contains(&by), "{told}");
    agent.set(9, &[(&first, 1), (&second, 1)]);
    agent.origin.revive();
    proxy.finds(&[(&first, 1), (&second, 1)]).await;
    assert!(proxy.log_with("opensesame").is_empty(), "no log shows a token");
}
