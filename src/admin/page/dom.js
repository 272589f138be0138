// Nodes of the page, made and kept. Only text is put into them, never HTML: much of it is from
// clients.

/** Makes an element with attributes and children, which are nodes or texts. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Makes an element of a drawing. */
export function shape(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Puts a text into a node, if it is another one. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, or takes it away. */
export function mark(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const kept = new WeakMap();

/**
 * Keeps one child for each item, in their order. Children are found again by their keys and never
 * made anew, so that what has the focus keeps it.
 */
export function keep(parent, items, keyOf, begin, update) {
  const before = kept.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const child = before.get(key) ?? begin(item);
    now.set(key, child);
    update(child, item);
  }
  for (const [key, child] of before) if (!now.has(key)) child.node.remove();
  let next = parent.firstElementChild;
  for (const { node } of now.values()) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  kept.set(parent, now);
}

/** A row of a table: its first cell is its head. */
export function row(...classes) {
  const cells = classes.map((name, index) =>
    index === 0 ? make("th", { scope: "row", class: name }) : make("td", { class: name }));
  return { node: make("tr", {}, ...cells), cells };
}
