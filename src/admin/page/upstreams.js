// The upstreams, each with its backends.

import { keep, make, mark, put, row } from "./dom.js";
import { ago, count, rate, some, span } from "./words.js";

/** So many backends of an upstream are shown unless all are asked for, those in trouble first. */
const SHOWN = 24;

/** What each state is a case of. */
const CASES = {
  ready: "good", trial: "warn", full: "warn", draining: "away", unhealthy: "bad", ejected: "bad",
};

export const isBad = (backend) => CASES[backend.availability] === "bad";

/** What stands above all: who is out of service. */
export function verdict(node, upstreams) {
  const all = upstreams.flatMap(({ name, backends }) => backends.map((one) => [name, one]));
  const bad = all.filter(([, backend]) => isBad(backend));
  const drained = all.filter(([, backend]) => backend.availability === "draining").length;
  mark(node, "data-bad", 0 < bad.length && "");
  const rest = drained === 0 ? "" : ` ${drained} drained.`;
  if (bad.length === 0) {
    const told = all.length === 1 ? "The only backend is in service" : `All ${count(all.length)} backends are in service`;
    put(node, drained === 0 ? `${told}.` : `${count(all.length - drained)} of ${some(all.length, "backend")} in service.${rest}`);
  } else {
    const named = bad.slice(0, 20).map(([name, one]) => `${name} ${one.address} (${one.availability})`);
    put(node, `${count(bad.length)} of ${some(all.length, "backend")} out of service: ${named.join(", ")}.${rest}`);
  }
  return bad.length;
}

/** Draws all upstreams; `order(upstream, address, word)` is what buttons do. */
export function upstreams(parent, { list, meters, now }, order) {
  keep(parent, list, (one) => one.name, begin, (card, one) => update(card, one, meters, now, order));
}

function begin({ name }) {
  const title = make("h3", {}, name);
  const [told, load] = [make("p", { class: "quiet" }), make("p", { hidden: "" })];
  const heads = [
    ["State", "state-column"], ["Backend", "address-column"], ["Weight", "number"],
    ["In flight", "number"], ["Requests/s", "number"], ["Failed", "number"], ["Last error", ""],
  ];
  const head = make("tr", {}, ...heads.map(([text, name]) => make("th", { scope: "col", class: name }, text)),
    make("td", { class: "order-column" }));
  const body = make("tbody");
  const sources = make("p", { hidden: "" });
  const more = make("button", { type: "button", hidden: "" });
  const table = make("table", { "aria-label": `Backends of ${name}` }, make("thead", {}, head), body);
  const node = make("article", { class: "upstream" }, make("div", {}, title, told), sources, load, table, more);
  const card = { node, told, sources, load, body, more, showsAll: false };
  more.addEventListener("click", () => { card.showsAll = !card.showsAll; card.again?.(); });
  return card;
}

function update(card, one, meters, now, order) {
  const fit = one.backends.filter((backend) => ["ready", "trial"].includes(backend.availability)).length;
  const passed = rate(meters.rate(`upstream ${one.name}`, one.requests));
  const retries = `${count(one.retries)} ${one.retries === 1 ? "retry" : "retries"}`;
  put(card.told, `${count(fit)} of ${count(one.backends.length)} in service · ${passed} requests/s · ${retries}`);
  sources(card.sources, one.discovery);
  load(card.load, one.load);
  const draw = () => {
    const shown = card.showsAll ? one.backends : chosen(one.backends);
    keep(card.body, shown, (backend) => backend.address, (backend) => beginRow(one.name, backend, order),
      (line, backend) => updateRow(line, one.name, backend, meters, now));
  };
  card.again = draw;
  card.more.hidden = one.backends.length <= SHOWN;
  put(card.more, card.showsAll ? "Show fewer" : `Show all ${count(one.backends.length)}`);
  draw();
}

/** Those in trouble, and others in their order. */
function chosen(backends) {
  if (backends.length <= SHOWN) return backends;
  const bad = backends.filter(isBad).slice(0, SHOWN);
  return bad.concat(backends.filter((one) => !isBad(one)).slice(0, SHOWN - bad.length));
}

function sources(node, list) {
  node.hidden = list.length === 0;
  mark(node, "data-bad", list.some((one) => one.error !== null) && "");
  put(node, list.map(({ source, backends, in_touch_seconds, error }) => {
    const touch = in_touch_seconds === null ? "never in touch" : `in touch ${span(in_touch_seconds)} ago`;
    return `By ${source}: ${some(backends, "backend")}, ${touch}${error === null ? "" : `; ${error}`}.`;
  }).join(" "));
}

function load(node, told) {
  node.hidden = told === null;
  if (told === null) return;
  const { waiting, served, refused, timed_out, left } = told;
  put(node, `${count(waiting)} wait for a place; ${count(served)} waited and got one, ${count(timed_out)} timed out, ${count(left)} left, ${count(refused)} refused.`);
}

function beginRow(upstream, { address }, order) {
  const line = row("state-column", "address", "number", "number", "number", "number", "quiet", "order-column");
  line.state = make("span", { class: "state" });
  line.rest = make("span", { class: "quiet" });
  line.cells[0].append(line.state, " ", line.rest);
  line.button = make("button", { type: "button" });
  line.button.addEventListener("click", async () => {
    if (line.button.getAttribute("aria-disabled") === "true") return;
    mark(line.button, "aria-disabled", "true");
    await order(upstream, address, line.button.dataset.word);
    mark(line.button, "aria-disabled", null);
  });
  line.cells[7].append(line.button);
  return line;
}

function updateRow(line, upstream, backend, meters, now) {
  const { address, availability, weight, weight_in_file, in_flight, drained } = backend;
  const [, place, share, flight, passed, failed, error] = line.cells;
  mark(line.node, "data-is", CASES[availability] ?? "warn");
  mark(line.state, "data-state", availability);
  put(line.state, availability);
  put(line.rest, backend.ejected_seconds === null ? "" : `${span(backend.ejected_seconds)} more`);
  put(place, address);
  put(share, weight_in_file === null ? `${weight}` : `${weight} by order`);
  put(flight, count(in_flight));
  put(passed, rate(meters.rate(`backend ${upstream} ${address}`, backend.attempts)));
  put(failed, count(backend.failures));
  const last = lastError(backend, now);
  put(error, last);
  mark(error, "title", last === "" ? null : last);
  const word = drained ? "ready" : "drain";
  line.button.dataset.word = word;
  put(line.button, drained ? "Ready" : "Drain");
  mark(line.button, "aria-label", `${drained ? "Bring back" : "Drain"} ${address} of ${upstream}`);
}

/** What last went wrong, of requests or of checks. */
function lastError({ last_failure: request, last_check_failure: check }, now) {
  if (request === null && check === null) return "";
  const isRequest = check === null || (request !== null && check.at <= request.at);
  const last = isRequest ? request : check;
  return `${isRequest ? "request" : "check"}: ${last.what}, ${ago(last.at, now)}`;
}
