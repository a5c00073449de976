"use strict";
// The HTTP interface for people, from its OpenAPI description: routes, rights and fields.
/** @type {[string, RegExp][]} */
const AREAS = [
  ["Backends", /\/(backends|hooks|removed|remote-settings)\b/],
  ["Copies of sessions", /\/(snapshots|export|import|trash)\b/],
  ["Repairing", /reconnect|reset-circuit|recover|cleanup|ensure-healthy|\/setup|incidents|\/repairs/],
  ["Instances", /^\/(api\/instance|whatsapp)/],
  ["Webhooks", /^\/api\/webhooks/],
  ["Keys", /^\/api\/(keys|caller)/],
  ["Watching", /^\/(api|metrics|healthz|readyz|performance)/],
  ["Pages", /./],
];

function make(kind, text, name) {
  const found = document.createElement(kind);
  if (text) found.textContent = text;
  if (name) found.className = name;
  return found;
}

function link(text, target) {
  const found = make("a", text);
  found.href = target;
  return found;
}

function fieldTable(rows) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of ["Field", "Where", "Type", "Meaning"]) head.append(make("th", title));
  const body = table.createTBody();
  for (const [name, schema, required, where] of rows) {
    const row = body.insertRow();
    row.insertCell().append(make("code", name));
    row.insertCell().textContent = where + (required ? ", required" : "");
    row.insertCell().textContent = [].concat(schema.type).join(" or ");
    const choices = schema.enum || (schema.items && schema.items.enum);
    row.insertCell().textContent =
      (schema.description || schema.pattern || "") + (choices ? ": " + choices.join(", ") : "");
  }
  return table;
}

function fieldsOf(route) {
  const rows = (route.parameters || []).map((one) => [one.name, one.schema, one.required, one.in]);
  const content = route.requestBody ? route.requestBody.content["application/json"] : null;
  // Some bodies are any object at all: those have no properties to tell of.
  const { properties = {}, required = [] } = content ? content.schema : {};
  for (const [name, one] of Object.entries(properties))
    rows.push([name, one, required.includes(name), "body"]);
  return rows;
}

function section(path, method, route) {
  const found = make("section");
  found.id = (method + path)
    .replace(/[^a-z0-9]+/gi, "-")
    .replace(/-$/, "")
    .toLowerCase();
  const title = make("h2");
  title.append(make("span", method.toUpperCase(), "method " + method), make("code", path));
  found.append(title, make("p", route.summary + "."), make("p", route.description, "soft small"));
  const rows = fieldsOf(route);
  if (rows.length) found.append(fieldTable(rows));
  return found;
}

function draw(api) {
  const areas = new Map(AREAS.map(([name]) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    if (path.startsWith("/page/")) continue;
    const [area] = AREAS.find(([, fits]) => fits.test(path));
    for (const [method, route] of Object.entries(methods)) areas.get(area).push([path, method, route]);
  }
  const all = document.getElementById("routes"),
    index = document.getElementById("index");
  all.replaceChildren();
  // The most used first; the order above is the order of asking.
  for (const name of [
    "Instances",
    "Watching",
    "Repairing",
    "Copies of sessions",
    "Backends",
    "Webhooks",
    "Keys",
    "Pages",
  ]) {
    const routes = areas.get(name);
    if (!routes.length) continue;
    const group = make("div");
    group.append(make("h3", name));
    for (const [path, method, route] of routes) {
      const one = section(path, method, route);
      const entry = link(route.summary, "#" + one.id);
      entry.title = method.toUpperCase() + " " + path;
      group.append(entry);
      all.append(one);
      one.dataset.words = entry.dataset.words = [method, path, route.summary, name].join(" ").toLowerCase();
    }
    index.append(group);
  }
  all.removeAttribute("role");
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function filter(words) {
  /** @type {NodeListOf<HTMLElement>} */
  const entries = document.querySelectorAll("[data-words]");
  for (const one of entries) one.hidden = !words.every((word) => one.dataset.words.includes(word));
  /** @type {NodeListOf<HTMLElement>} */
  const groups = document.querySelectorAll("#index > div");
  for (const group of groups) group.hidden = !group.querySelector("a:not([hidden])");
}

document
  .getElementById("filter")
  .addEventListener("input", (/** @type {any} */ event) =>
    filter(event.target.value.toLowerCase().split(/\s+/).filter(Boolean)),
  );
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(draw)
  .catch((error) => {
    document.getElementById("routes").textContent = "The description cannot be read: " + error.message;
  });
