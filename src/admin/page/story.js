// The story of a request, drawn over one line of time: steps as ticks, attempts as bars.

import { make, mark, shape } from "./dom.js";
import { clock, count, took } from "./words.js";

/** The length of the line. */
const WIDTH = 1000;
const HEIGHT = 12;
/** What took no time is seen all the same. */
const LEAST = 3;

const STEPS = {
  accepted: "Connection accepted", secured: "TLS handshake over", head_read: "Head read",
  routed: "Route found", policies_asked: "Policies asked", answered: "Answer passed on", ended: "Ended",
};

/** What an origin answered, unless it failed. */
const isGood = (outcome) => /^[1-4]\d\d$/.test(outcome);

/** Draws the story of a record. */
export function story(record) {
  const { id, client, protocol, bytes, time, timeline, attempts, trace_id: trace } = record;
  const x = scale(record);
  const lines = [
    ...timeline.map((one) => [one.event === "ended" ? Infinity : one.at_ms, step(record, one, x)]),
    ...attempts.map((one, index) => [one.began_ms, attempt(one, index + 1, x)]),
  ];
  lines.sort(([one], [other]) => one - other);
  const told = make("p", {}, "Request ", make("code", {}, id),
    `, ${protocol}, from ${client}, at ${clock(Date.parse(time))}; ${count(bytes)} bytes sent. Times count from when its head was read.`,
    ...(trace ? [" Trace ", make("code", {}, trace), "."] : []));
  return make("div", { class: "story" }, told, make("ol", { class: "timeline" }, ...lines.map(([, node]) => node)));
}

/** Where a time lies on the line. A connection that is kept may have been accepted long before. */
function scale({ timeline, attempts }) {
  const times = [...timeline.map((one) => one.at_ms), ...attempts.flatMap((one) => [one.began_ms, one.ended_ms])];
  const end = Math.max(0, ...times);
  const begin = Math.min(0, ...times);
  const from = -begin <= end ? begin : 0;
  const length = end - from || 1;
  return (ms) => Math.min(Math.max((ms - from) / length, 0), 1) * WIDTH;
}

function step(record, { at_ms: at, event }, x) {
  const track = empty();
  track.append(tick(x(at), event === "ended" && record.reason !== "ok" ? "bad" : "step"));
  return line(STEPS[event] ?? event, more(record, event), track, at);
}

/** What is known beside the name of a step. */
function more({ route, upstream, status, reason }, event) {
  if (event === "routed") return [route, upstream && `to upstream ${upstream}`].filter(Boolean).join(", ");
  if (event === "ended") return `${status} ${reason}`;
  return "";
}

function attempt(tried, number, x) {
  const { backend, outcome, began_ms: began, ended_ms: ended, first_byte_ms: first } = tried;
  const track = empty();
  for (const [from, to, name] of parts(tried)) track.append(bar(x(from), x(to), name));
  track.append(tick(x(ended), isGood(outcome) ? "step" : "bad"));
  const how = { made: `connected in ${took(tried.connect_ms)}`, pooled: "a connection of the pool" }[tried.connection] ?? "no connection";
  const tls = tried.tls_ms === null ? [] : [`TLS ${took(tried.tls_ms)}`];
  const answer = first === null ? [] : [`first byte at ${took(first)}`];
  const told = [how, ...tls, ...answer, `over at ${took(ended)}`].join(", ");
  const node = line(`Attempt ${number}: ${backend}`, `${outcome}; ${told}`, track, began);
  mark(node, "data-is", isGood(outcome) ? "good" : "bad");
  return node;
}

/** What an attempt did from when to when. */
function parts({ began_ms: began, ended_ms: ended, connection, connect_ms: connect, tls_ms: tls, first_byte_ms: first }) {
  if (connection === null) return [[began, ended, "connecting"]];
  const connected = began + (connect ?? 0);
  const plain = connected - (tls ?? 0);
  return [
    [began, plain, "connecting"], [plain, connected, "securing"],
    [connected, first ?? ended, "waiting"], [first ?? ended, ended, "answering"],
  ].filter(([from, to]) => from < to);
}

function line(name, told, track, at) {
  const words = make("span", {}, make("strong", {}, name), ...(told === "" ? [] : [" ", make("span", {}, told)]));
  return make("li", {}, words, track, make("span", { class: "number" }, took(at)));
}

/** The line itself: all of it is told in words as well. */
function empty() {
  const track = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  track.append(shape("path", { class: "ground", d: `M0 ${HEIGHT / 2}H${WIDTH}` }));
  return track;
}

function bar(from, to, name) {
  const width = Math.max(to - from, LEAST);
  return shape("rect", { class: name, x: Math.min(from, WIDTH - width), y: 2, width, height: HEIGHT - 4 });
}

function tick(x, name) {
  return shape("path", { class: `tick ${name}`, d: `M${x} 0V${HEIGHT}` });
}
