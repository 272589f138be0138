// The requests that are recorded: lists of them, and the story of each.

import { keep, make, mark, put } from "./dom.js";
import { story } from "./story.js";
import { Refused, why } from "./stream.js";
import { moment, took } from "./words.js";

/** So many are shown unless all are asked for. */
const SHOWN = 50;
/** More than any list has. */
const ALL = 1000;
/** The pause between two looks. */
const AGAIN_AFTER = 2000;

const NONE = {
  failed: "No request that failed is recorded.", refused: "No request that was refused is recorded.",
  slow: "No request is recorded yet.",
};

const at = (id) => document.getElementById(id);

/**
 * Prepares the lists; `shown()` is what shows the token, and what is returned looks for news. A
 * list that somebody reads stays as it is.
 */
export function requests(shown, notice) {
  const list = at("recorded");
  const kinds = [...document.querySelectorAll("#kinds button")];
  let [kind, limit] = ["failed", SHOWN];
  let [turn, seen, lookedAt] = [0, null, -AGAIN_AFTER];

  const isRead = () => list.querySelector("details[open], :focus-visible") !== null || list.matches(":hover");

  async function look(isChosen) {
    turn += 1;
    const mine = turn;
    const answer = await fetch(`/v1/requests?kind=${kind}&limit=${limit}`, { headers: shown(), cache: "no-store" });
    if (!answer.ok) throw new Refused(answer.status, await why(answer));
    const told = await answer.json();
    if (mine === turn && (isChosen || !isRead())) draw(told[kind]);
  }

  function draw(told) {
    // Rows stay, and what they show changes: nothing moves under the eyes of whoever looks.
    keep(list, told.map((record, index) => ({ record, index })), ({ index }) => index, entry, (line, { record }) => line.show(record));
    list.hidden = told.length === 0;
    at("recorded-none").hidden = 0 < told.length;
    put(at("recorded-none"), NONE[kind]);
    at("recorded-more").hidden = limit === ALL || told.length < SHOWN;
  }

  function choose(wanted, most) {
    [kind, limit] = [wanted, most];
    for (const button of kinds) mark(button, "aria-pressed", String(button.dataset.kind === kind));
    for (const open of list.querySelectorAll("details[open]")) open.open = false;
    look(true).catch(() => notice("The process was not reached."));
  }

  for (const button of kinds) button.addEventListener("click", () => choose(button.dataset.kind, SHOWN));
  at("recorded-more").addEventListener("click", () => choose(kind, ALL));
  at("find").addEventListener("submit", (event) => {
    event.preventDefault();
    find(at("find-id").value.trim(), shown, notice);
  });

  return ({ reasons }) => {
    const ended = Object.values(reasons).reduce((sum, some) => sum + some, 0);
    const now = performance.now();
    if (document.hidden || ended === seen || isRead() || now < lookedAt + AGAIN_AFTER) return;
    [seen, lookedAt] = [ended, now];
    look(false).catch(() => { seen = null; }); // it is asked again
  };
}

/** Shows the one with an id. */
async function find(id, shown, notice) {
  if (id === "") return;
  try {
    const answer = await fetch(`/v1/requests/${encodeURIComponent(id)}`, { headers: shown(), cache: "no-store" });
    if (!answer.ok) return notice(await why(answer));
    const { node, show } = entry();
    show(await answer.json());
    at("found").replaceChildren(node);
    at("found").hidden = false;
    node.open = true;
    node.firstElementChild.focus();
  } catch {
    notice("The process was not reached.");
  }
}

/** A line that unfolds. */
function entry() {
  const cells = ["", "status", "target", "quiet", "number"].map((name) => make("span", { class: name }));
  const node = make("details", {}, make("summary", {}, ...cells));
  let record = null;
  node.addEventListener("toggle", () => {
    if (node.open && node.childElementCount === 1) node.append(story(record));
  });
  const show = (other) => {
    if (record?.id === other.id) return;
    record = other;
    node.open = false;
    node.querySelector(".story")?.remove();
    const { time, status, reason, method, host, path, total_ms: total, attempts } = record;
    const via = attempts.map(({ backend, outcome }) => `${backend}: ${outcome}`).join(", ");
    [moment(Date.parse(time)), `${status} ${reason}`, `${method} ${host}${path}`, via, took(total)]
      .forEach((text, index) => put(cells[index], text));
    mark(node, "data-is", reason === "ok" && status < 500 ? "good" : "bad");
  };
  return { node, show };
}
