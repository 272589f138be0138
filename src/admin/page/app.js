// The page: follows `/v1/live`, and draws what it says.

import { chart } from "./charts.js";
import { mark, put } from "./dom.js";
import { requests } from "./requests.js";
import { Refused, events, why } from "./stream.js";
import { certificates, changes, reasons, routes } from "./tables.js";
import { upstreams, verdict } from "./upstreams.js";
import { count, rate, some, span, took } from "./words.js";

const at = (id) => document.getElementById(id);

/** Seconds that are drawn. */
const HISTORY = 300;
/** The pause before the process is asked again. */
const AGAIN_AFTER = 1000;
/** Where the token lies: for this tab, and as long as it is open. */
const KEY = "crestline-token";

/** How fast counts grow, over the last five looks. */
class Meters {
  #looks = new Map();
  #at = 0;

  look(at) { this.#at = at; }

  rate(key, count) {
    const looks = this.#looks.get(key) ?? [];
    if (looks.at(-1)?.at !== this.#at) looks.push({ at: this.#at, count });
    if (6 < looks.length || looks[0].count > count) looks.shift();
    this.#looks.set(key, looks);
    const [first, last] = [looks[0], looks.at(-1)];
    return first && first.at < last.at ? Math.max(0, ((last.count - first.count) * 1000) / (last.at - first.at)) : 0;
  }
}

let world = null;
let isDrawn = true;

const charts = {
  requests: chart(at("requests-chart"), [["requests_per_second", "all"]], (n) => rate(n ?? 0)),
  latency: chart(at("latency-chart"), [["p99_ms", "p99"], ["p90_ms", "p90"], ["p50_ms", "p50"]], took),
  failures: chart(at("failures-chart"), [["failed_per_second", "failed"], ["errors_per_second", "5xx"]], (n) => rate(n ?? 0)),
};

const recorded = requests(shown, notice);

/** Everything, told anew. */
function begin({ status, pulse, routes, history }) {
  const now = history.at(-1)?.at_ms ?? Date.now();
  for (const version of status.configuration.versions) version.since = now - version.age_seconds * 1000;
  const meters = world?.status.pid === status.pid ? world.meters : new Meters();
  world = { status, pulse, routes, history, now, meters };
  meters.look(now);
}

/** What has changed since. */
function go({ second, pulse, upstreams, routes }) {
  world.history.push(second);
  world.history.splice(0, world.history.length - HISTORY);
  Object.assign(world, { pulse, now: second.at_ms });
  world.meters.look(second.at_ms);
  for (const { backends, ...changed } of upstreams) {
    const one = world.status.upstreams.find(({ name }) => name === changed.name);
    Object.assign(one, changed);
    for (const backend of backends) replace(one, backend);
  }
  for (const route of routes) {
    const index = world.routes.findIndex(({ name }) => name === route.name);
    world.routes[index] = route;
  }
}

function replace(upstream, backend) {
  const index = upstream.backends.findIndex(({ address }) => address === backend.address);
  if (0 <= index) upstream.backends[index] = backend;
}

function draw() {
  isDrawn = true;
  const { status, pulse, history, meters, now } = world;
  const { in_flight: flight, overload, state } = pulse;
  const busy = overload === "calm" ? "" : ` · overload: ${overload}`;
  put(at("process"), `${status.program} · process ${status.pid} · up ${span(pulse.uptime_seconds)} · ${state}${busy} · v${status.configuration.version} · ${some(flight.connections, "connection")}, ${some(flight.requests, "request")} in flight`);
  const bad = verdict(at("verdict"), status.upstreams);
  document.title = bad === 0 ? "Crestline" : `(${count(bad)} out of service) Crestline`;
  at("unready").replaceChildren(...pulse.unready.map((reason) => {
    const line = document.createElement("li");
    put(line, `Not ready: ${reason}`);
    return line;
  }));
  for (const drawChart of Object.values(charts)) drawChart(history);
  const last = history.at(-1);
  mark(at("failures-chart"), "data-bad", 0 < (last?.failed_per_second ?? 0) && "");
  upstreams(at("upstreams"), { list: status.upstreams, meters, now }, order);
  routes(world.routes, meters);
  reasons(pulse.reasons, meters);
  changes(status.configuration, now);
  recorded(pulse);
  certificates(status.listeners);
  document.querySelector("main").hidden = false;
}

/** Draws soon; a page that nobody sees draws nothing. */
function drawSoon() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(draw);
}

/** Has a backend drained, or brought back. */
async function order(upstream, address, word) {
  const place = [upstream, address].map(encodeURIComponent).join("/");
  try {
    const answer = await fetch(`/v1/backends/${place}/${word}`, { method: "POST", headers: shown() });
    if (!answer.ok) return notice(await why(answer));
    const { backend } = await answer.json();
    replace(world.status.upstreams.find(({ name }) => name === upstream), backend);
    drawSoon();
  } catch {
    notice("The process was not reached, and nothing was changed.");
  }
}

let fading;
function notice(text) {
  const node = at("notice");
  node.hidden = false;
  mark(node, "data-bad", "");
  put(node, text);
  clearTimeout(fading);
  fading = setTimeout(() => { node.hidden = true; }, 10_000);
}

function link(is, text) {
  mark(at("link"), "data-link", is);
  put(at("link"), text);
}

function shown() {
  const token = sessionStorage.getItem(KEY);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** Waits until somebody gives the token. */
function ask(told) {
  const door = at("door");
  document.querySelector("main").hidden = true;
  at("forget").hidden = true;
  door.hidden = false;
  mark(door, "data-bad", told !== null && "");
  if (told !== null) put(at("door-told"), told);
  link("asking", "the token is asked for");
  at("token").focus();
  return new Promise((given) => {
    door.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, at("token").value.trim());
      at("token").value = "";
      door.hidden = true;
      given();
    }, { once: true });
  });
}

at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});

async function follow() {
  const isAsked = document.documentElement.dataset.token === "asked";
  for (;;) {
    if (isAsked && sessionStorage.getItem(KEY) === null) await ask(null);
    let told = "not reached";
    try {
      for await (const [name, data] of events("/v1/live", shown())) {
        if (name === "start") begin(data);
        else go(data);
        link("live", "live");
        at("forget").hidden = sessionStorage.getItem(KEY) === null;
        drawSoon();
      }
      told = "the process hands over";
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        sessionStorage.removeItem(KEY);
        await ask("This is not the token.");
        continue;
      }
      if (error instanceof Refused) told = error.message;
    }
    link("lost", `${told}; asking again`);
    await new Promise((later) => setTimeout(later, AGAIN_AFTER));
  }
}

follow();
