// Routes, reasons, versions and certificates.

import { keep, mark, put, row } from "./dom.js";
import { clock, count, rate, took } from "./words.js";

/** So many days before a certificate expires it is told. */
const SOON = 14;

const bodyOf = (id) => document.getElementById(id).tBodies[0];

/** Fills a table, and says so where there is nothing to show. */
function fill(id, items, keyOf, classes, update) {
  const body = bodyOf(id);
  keep(body, items, keyOf, () => row(...classes), (line, item) => update(line.cells, item, line.node));
  const frame = body.closest(".wide");
  const none = frame.nextElementSibling;
  if (none?.classList.contains("none")) [frame.hidden, none.hidden] = [items.length === 0, 0 < items.length];
}

const N = "number";

export function routes(list, meters) {
  const all = (route) => Object.values(route.requests).reduce((sum, some) => sum + some, 0);
  fill("routes", list, (one) => one.name, ["", "", N, N, N, N, N, N, N], (cells, one) => {
    const classes = ["2xx", "3xx", "4xx", "5xx"].map((name) => count(one.requests[name]));
    const passed = rate(meters.rate(`route ${one.name}`, all(one)));
    [one.name, one.upstream ?? "–", passed, took(one.p50_ms), took(one.p99_ms), ...classes]
      .forEach((text, index) => put(cells[index], text));
  });
}

/** Ends that are none of a failure: what `ok` stands for. */
const GOOD = new Set(["ok", "redirected", "answered_here", "acme_challenge", "preflight", "closed"]);

export function reasons(all, meters) {
  const bad = Object.entries(all).filter(([reason]) => !GOOD.has(reason));
  bad.sort(([, one], [, other]) => other - one);
  fill("reasons", bad, ([reason]) => reason, ["", N, N], (cells, [reason, times]) => {
    [reason, rate(meters.rate(`reason ${reason}`, times)), count(times)]
      .forEach((text, index) => put(cells[index], text));
  });
}

export function changes({ versions, version, last_refused, probation }, now) {
  fill("changes", versions, (one) => one.version, ["", "", ""], (cells, one) => {
    const trial = one.version === version && probation?.state === "running" ? ", on probation" : "";
    const name = one.version === version ? `v${one.version} (in force${trial})` : `v${one.version}`;
    [name, clock(one.since), one.summary].forEach((text, index) => put(cells[index], text));
  });
  const node = document.getElementById("refused");
  node.hidden = last_refused === null;
  if (last_refused !== null) {
    put(node, `A reload was refused at ${clock(Date.parse(last_refused.at))}, and nothing was changed:\n${last_refused.what}`);
  }
}

export function certificates(listeners) {
  const all = listeners.flatMap(({ address, tls }) =>
    (tls?.certificates ?? []).map((one) => ({ address, ...one })));
  const keyOf = (one) => [one.address, one.key, ...one.names].join(" ");
  fill("certificates", all, keyOf, ["", "", "", "", N, ""], (cells, one, node) => {
    const { names, address, key, expires, days_left, acme } = one;
    mark(node, "data-is", days_left < SOON || acme?.last_error ? "bad" : "good");
    const renewal = acme === null ? "by whoever replaces its files"
      : `${acme.self_signed ? "self-signed meanwhile; ordered" : "by ACME"} at ${clock(Date.parse(acme.next_order))}${acme.last_error ? `; the last order failed: ${acme.last_error}` : ""}`;
    [names.join(", "), address, key, expires, count(days_left), renewal]
      .forEach((text, index) => put(cells[index], text));
  });
}
