"use strict";
// The HTTP interface for people, from its OpenAPI description: routes, rights and fields.
/** @type {[string, RegExp][]} */
const AREAS = [
  ["Backends", /\/(backends|hooks|removed|remote-settings)\b/],
  ["Messages", /\/(messages|outbox)\b/],
  ["Events to other programs", /\/webhooks\b/],
  ["Copies of sessions", /\/(snapshots|export|import|trash)\b/],
  ["Repairing", /reconnect|reset-circuit|recover|cleanup|ensure-healthy|\/setup|incidents|\/repairs/],
  ["Instances", /^\/(api\/instance|whatsapp)/],
  ["Keys", /^\/api\/(keys|caller)/],
  ["Watching", /^\/(api|metrics|healthz|readyz|performance)/],
  ["Pages", /./],
];

function make(kind, text, name) {
  const element = document.createElement(kind);
  if (text) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function link(text, target) {
  const element = make("a", text);
  element.href = target;
  return element;
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
  const rows = (route.parameters || []).map((parameter) => [
    parameter.name,
    parameter.schema,
    parameter.required,
    parameter.in,
  ]);
  const content = route.requestBody ? route.requestBody.content["application/json"] : null;
  // Some bodies are any object at all: those have no properties to tell of.
  const { properties = {}, required = [] } = content ? content.schema : {};
  for (const [name, schema] of Object.entries(properties))
    rows.push([name, schema, required.includes(name), "body"]);
  return rows;
}

function section(path, method, route) {
  const part = make("section");
  part.id = (method + path)
    .replace(/[^a-z0-9]+/gi, "-")
    .replace(/-$/, "")
    .toLowerCase();
  const title = make("h2");
  title.append(make("span", method.toUpperCase(), "method " + method), make("code", path));
  part.append(title, make("p", route.summary + "."), make("p", route.description, "soft small"));
  const rows = fieldsOf(route);
  if (rows.length) part.append(fieldTable(rows));
  return part;
}

function draw(api) {
  const areas = new Map(AREAS.map(([name]) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    if (path.startsWith("/page/")) continue;
    const [usual] = AREAS.find(([, fits]) => fits.test(path));
    for (const [method, route] of Object.entries(methods)) {
      areas.get(usual).push([path, method, route]);
    }
  }
  const all = document.getElementById("routes"),
    index = document.getElementById("index");
  all.replaceChildren();
  // The most used first, the others last; the order above is the order of asking.
  const first = ["Instances", "Watching", "Repairing", "Copies of sessions", "Backends", "Keys", "Pages"];
  for (const name of new Set([...first, ...areas.keys()])) {
    const routes = areas.get(name);
    if (!routes.length) continue;
    const group = make("div");
    group.append(make("h3", name));
    for (const [path, method, route] of routes) {
      const part = section(path, method, route);
      const entry = link(route.summary, "#" + part.id);
      entry.title = method.toUpperCase() + " " + path;
      group.append(entry);
      all.append(part);
      part.dataset.words = entry.dataset.words = [method, path, route.summary, name].join(" ").toLowerCase();
    }
    index.append(group);
  }
  all.removeAttribute("role");
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function filter(words) {
  /** @type {NodeListOf<HTMLElement>} */
  const entries = document.querySelectorAll("[data-words]");
  for (const entry of entries) entry.hidden = !words.every((word) => entry.dataset.words.includes(word));
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
