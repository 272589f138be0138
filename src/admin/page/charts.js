// Lines over the last five minutes.

import { make, mark, put, shape } from "./dom.js";

/** Seconds from the left edge to the right. */
const SECONDS = 300;
const HEIGHT = 100;

/** Prepares a figure to be drawn in: lines are `[key, name]`; amounts are told by `words`. */
export function chart(figure, lines, words) {
  const drawing = shape("svg", {
    viewBox: `0 0 ${SECONDS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
  });
  drawing.append(shape("path", { class: "ground", d: `M0 ${HEIGHT}H${SECONDS}M0 0H${SECONDS}` }));
  const paths = lines.map((_, index) => shape("path", { class: `line-${index}` }));
  drawing.append(...[...paths].reverse()); // the first lies on top
  const [top, now] = [make("span"), make("span", {}, "now")];
  const keys = lines.map(([, name], index) => {
    const sample = shape("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" });
    sample.append(shape("path", { class: `line-${index}`, d: "M0 4H20" }));
    const text = make("span", {}, name);
    return { node: make("li", {}, sample, text), text, name };
  });
  const legend = make("ul", { class: "legend" }, ...keys.map((key) => key.node));
  const axis = make("div", { class: "axis" }, make("span", {}, "5 min ago"), top, now);
  figure.append(drawing, axis, legend);
  const strong = figure.querySelector("strong");

  return (history) => {
    const last = history.at(-1);
    const largest = Math.max(0, ...history.flatMap((second) => lines.map(([key]) => second[key] ?? 0)));
    const ceiling = above(largest);
    const end = last?.at_ms ?? 0;
    lines.forEach(([key, name], index) => {
      mark(paths[index], "d", line(history, key, end, ceiling));
      put(keys[index].text, `${name} ${words(last?.[key] ?? null)}`);
    });
    put(top, `top ${words(ceiling)}`);
    const shown = words(last?.[lines[0][0]] ?? null);
    put(strong, shown);
    mark(drawing, "aria-label", `${figure.querySelector("h2").textContent} of the last five minutes: now ${shown}, at most ${words(largest)}`);
  };
}

/** A path through the seconds; it is broken where there is nothing to show. */
function line(history, key, end, ceiling) {
  let path = "";
  let is_down = false;
  for (const second of history) {
    const amount = second[key];
    if (amount === null) {
      is_down = false;
      continue;
    }
    const x = SECONDS - (end - second.at_ms) / 1000;
    const y = HEIGHT * (1 - amount / ceiling);
    path += `${is_down ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    is_down = true;
  }
  return path || "M0 0";
}

/** The next of 1, 2, 5, 10, 20, … */
function above(amount) {
  const power = 10 ** Math.floor(Math.log10(Math.max(amount, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => amount <= step);
}
