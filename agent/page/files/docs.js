// The HTTP interface for people, from its OpenAPI description: routes, rights and fields.
import { get } from "/page/agent.js";
import { at, make } from "/page/dom.js";

/** @type {[string, RegExp][]} */
const AREAS = [
  ["Backends", /\/(backends|hooks|removed)\b/],
  ["Messages", /\/(messages|outbox)\b/],
  ["Events to other programs", /\/webhooks\b/],
  ["Copies of sessions", /\/(snapshots|export|import|trash)\b/],
  [
    "Repairing",
    /reconnect|reset-circuit|recover|cleanup|ensure-healthy|\/setup|incidents|\/repairs/,
  ],
  ["Instances", /^\/(api\/instance|whatsapp)/],
  ["Keys", /^\/api\/(keys|caller)/],
  ["Watching", /^\/(api|metrics|healthz|readyz|performance)/],
  ["Pages", /./],
];

// The most used first, the others last; the order above is the order of asking.
const TOP = [
  "Instances",
  "Watching",
  "Repairing",
  "Copies of sessions",
  "Backends",
  "Keys",
  "Pages",
];
const TONES = { get: "busy", post: "good", put: "warn", patch: "warn", delete: "bad" };

function fieldTable(rows) {
  const heads = ["Field", "Where", "Type", "Meaning"].map((title) => make("th", title));
  const lines = rows.map(([name, schema, required, where]) => {
    const choices = schema.enum || schema.items?.enum;
    const meaning = schema.description || schema.pattern || "";
    return make(
      "tr",
      make("td", make("code", name)),
      make("td", where + (required ? ", required" : "")),
      make("td", [schema.type].flat().join(" or ")),
      make("td", meaning + (choices ? ": " + choices.join(", ") : "")),
    );
  });
  return make("table", make("thead", make("tr", heads)), make("tbody", lines));
}

function fieldsOf(route) {
  const content = route.requestBody?.content["application/json"];
  // Some bodies are any object at all: those name no properties.
  const { properties = {}, required = [] } = content?.schema || {};
  const needs = (name) => required.includes(name);
  return [
    ...(route.parameters || []).map((each) => [each.name, each.schema, each.required, each.in]),
    ...Object.keys(properties).map((name) => [name, properties[name], needs(name), "body"]),
  ];
}

function section(path, method, route) {
  const id = (method + path).replace(/[^a-z0-9]+/gi, "-").replace(/-$/, "");
  const rows = fieldsOf(route);
  return make(
    "section",
    { id: id.toLowerCase() },
    make("h2", make("span.pill." + TONES[method], method.toUpperCase()), make("code", path)),
    make("p", route.summary + "."),
    make("p.soft.small", route.description),
    rows.length > 0 && fieldTable(rows),
  );
}

function draw(api) {
  const areas = new Map(AREAS.map(([name]) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    if (path.startsWith("/page/")) continue;
    const [usual] = AREAS.find(([, fits]) => fits.test(path));
    const routes = areas.get(usual);
    for (const [method, route] of Object.entries(methods)) routes.push([path, method, route]);
  }
  const all = at("routes");
  all.replaceChildren();
  for (const name of new Set([...TOP, ...areas.keys()])) {
    const group = make("div", make("h3", name));
    for (const [path, method, route] of areas.get(name)) {
      const part = section(path, method, route);
      const title = method.toUpperCase() + " " + path;
      const entry = make("a", { href: "#" + part.id, title }, route.summary);
      const words = [method, path, route.summary, name].join(" ").toLowerCase();
      part.dataset.words = entry.dataset.words = words;
      group.append(entry);
      all.append(part);
    }
    if (areas.get(name).length) at("index").append(group);
  }
  all.removeAttribute("role");
  if (location.hash) at(location.hash.slice(1))?.scrollIntoView();
}

at("filter").addEventListener("input", () => {
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  /** @type {NodeListOf<HTMLElement>} */
  const entries = document.querySelectorAll("[data-words]");
  for (const entry of entries) {
    entry.hidden = !words.every((word) => entry.dataset.words.includes(word));
  }
  for (const group of at("index").children) group.hidden = !group.querySelector("a:not([hidden])");
});
get("/openapi.json")
  .then(draw)
  .catch((error) => {
    at("routes").textContent = "The description cannot be read: " + error.message;
  });
