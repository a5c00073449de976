// The parts that every view is made of. Foreign text goes in as text, nothing else.

/** @param {string} id @returns {any} an element of the page's own frame */
export const at = (id) => document.getElementById(id);

/** make("p.soft", "text"), make("a.name", { href }, "text", child). A function is a listener.
 * @param {string} what its tag and classes @param {...any} inside @returns {any} */
export function make(what, ...inside) {
  const [kind, ...names] = what.split(".");
  const element = document.createElement(kind);
  if (names.length) element.className = names.join(" ");
  if (inside[0] && Object.getPrototypeOf(inside[0]) === Object.prototype)
    for (const [key, value] of Object.entries(inside.shift()))
      if (typeof value === "function") element.addEventListener(key, value);
      else if (value !== false && value !== null && value !== undefined)
        element.setAttribute(key, value === true ? "" : value);
  element.append(...inside.flat().filter((part) => part || part === 0));
  return element;
}

export const makeEach = (...kinds) => kinds.map((kind) => make(kind));
export const linkTo = (id) => make("a", { href: "#/instance/" + id }, id);
export const linksTo = (ids) => [...ids.slice(0, 3).map(linkTo), ids.length > 3 ? "…" : ""];
export const button = (text, click, more = {}) =>
  make("button", { type: "button", click, ...more }, text);
export const panel = (title, ...inside) => make("section.panel", make("h2", title), ...inside);
export const headed = (title, act, ...inside) =>
  make("section.panel", make("div.panel-head", make("h2", title), act), ...inside);
export const folded = (title, ...inside) =>
  make("details.panel.folded", make("summary", make("h2", title)), ...inside);
export const field = (label, ...inside) => make("label.field", make("span", label), ...inside);
export const checkbox = (label, box) => make("label.check", box, make("span", label));
export const input = (more) =>
  make("input", { autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...more });
export const select = (choices, more = {}) => {
  const options = choices.map(([value, text]) => make("option", { value }, text));
  return make("select", more, options);
};
export const row = (more, words, ...acts) =>
  make("li.row", more, make("div.row-what", words), make("div.actions", acts));
export const empty = (title, text, ...more) =>
  make("div.empty", make("p.empty-title", title), make("p", text), more);

export const fill = (list, rows, title, text) =>
  list.replaceChildren(...(rows.length ? rows : [make("li", empty(title, text))]));

// Only what differs is changed: a reader's scroll, selection and screen reader are not disturbed.
export function setText(element, text) {
  const wanted = String(text ?? "");
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function setPill(pill, tone, word) {
  setText(pill, word);
  setAttribute(pill, "class", "pill " + tone);
}

/** A list that is drawn again and again, and moves as few rows as possible: a reader's focus stays.
 * `key`: the entries' field that tells them apart. `makeRow(entry)` gives a row with its `item`
 * and, where it changes, its `draw(entry)`.
 * @param {any} list @param {string | number} key @param {(entry: any) => any} makeRow
 * @param {() => any} [none] what an empty list shows */
export function keyed(list, key, makeRow, none) {
  const rows = new Map();
  return (entries) => {
    const wanted = new Map(entries.map((entry) => [entry[key], entry]));
    for (const name of rows.keys()) if (!wanted.has(name)) rows.delete(name);
    const items = [...wanted].map(([name, entry]) => {
      if (!rows.has(name)) rows.set(name, makeRow(entry));
      rows.get(name).draw?.(entry);
      return rows.get(name).item;
    });
    if (!items.length && none) return void list.replaceChildren(none());
    const focused = /** @type {any} */ (document.activeElement);
    const keep = new Set(items);
    for (const item of [...list.children]) if (!keep.has(item)) item.remove();
    items.forEach((item, place) => {
      if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
    });
    if (focused !== document.activeElement && list.contains(focused)) focused.focus();
  };
}
