// The HTTP interface for people, from its OpenAPI description: routes, rights and fields.
import { get } from "/page/agent.js";
import { at, make, setText } from "/page/dom.js";

const REPAIRING =
  /re(connect|set-circuit|cover)|cleanup|ensure-healthy|incidents|\/(setup|repairs)/;
// In the order of asking, each with its place in the index: the most used first, the others last.
/** @type {[string, number, RegExp][]} */
const AREAS = [
  ["Backends", 5, /\/(backends|hooks|removed)\b/],
  ["Messages", 8, /\/(messages|outbox)\b/],
  ["Events to other programs", 9, /\/webhooks\b/],
  ["Copies of sessions", 4, /\/(snapshots|export|import|trash)\b/],
  ["Repairing", 3, REPAIRING],
  ["Instances", 1, /^\/(api\/instance|whatsapp)/],
  ["Keys", 6, /^\/api\/(keys|caller)/],
  ["Watching", 2, /^\/(api|metrics|healthz|readyz|performance)/],
  ["Pages", 7, /./],
];

const TONES = { get: "busy", post: "good", put: "warn", patch: "warn", delete: "bad" };

function fieldTable(rows) {
  const heads = ["Field", "Where", "Type", "Meaning"].map((title) => make("th", title));
  const lines = rows.map(([name, schema, required, where]) => {
    const choices = schema.enum || schema.items?.enum;
    const meaning = schema.description || schema.pattern || "";
    const place = where + (required ? ", required" : "");
    const words = meaning + (choices ? ": " + choices.join(", ") : "");
    const cells = [make("code", name), place, [schema.type].flat().join(" or "), words];
    return make("tr", ...cells.map((cell) => make("td", cell)));
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
  const pill = make("span.pill." + TONES[method], method.toUpperCase());
  const words = [make("p", route.summary + "."), make("p.soft.small", route.description)];
  const inside = [make("h2", pill, make("code", path)), ...words];
  return make("section", { id: id.toLowerCase() }, inside, rows.length > 0 && fieldTable(rows));
}

function draw(api) {
  const areas = new Map(AREAS.map(([name]) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    if (path.startsWith("/page/")) continue;
    const [usual] = AREAS.find(([, , fits]) => fits.test(path));
    const routes = areas.get(usual);
    for (const [method, route] of Object.entries(methods)) routes.push([path, method, route]);
  }
  const all = at("routes");
  all.replaceChildren();
  for (const [name] of [...AREAS].sort(([, one], [, other]) => one - other)) {
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
  for (const entry of entries)
    entry.hidden = !words.every((word) => entry.dataset.words.includes(word));
  for (const group of at("index").children) group.hidden = !group.querySelector("a:not([hidden])");
});
get("/openapi.json")
  .then(draw)
  .catch((error) => setText(at("routes"), "The description cannot be read: " + error.message));
