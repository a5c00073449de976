// Incidents and alerts, the worst first, each with its advice.
import { answers, may } from "/page/answers.js";
import { release } from "/page/actions.js";
import { act } from "/page/dialogs.js";
import { make, setAttribute, setPill, setSince, setText } from "/page/show.js";

const SHOWN = matchMedia("(max-width: 36rem)").matches ? 3 : 5;
const ALIKE = 1; // more of one name are one row
const NAMED = 8;

// A list that is drawn again and again: rows stay where they are, open ones stay open.
export function makeAttention(label) {
  const part = {
    rows: make("ul"),
    known: new Map(),
    all: false,
    more: make("button", {
      type: "button",
      name: "quiet",
      click: () => {
        part.all = true;
        part.draw();
      },
    }),
    quiet: make("p", { name: "soft small" }),
    draw: () => {},
  };
  part.place = make(
    "section",
    { name: "panel attention", "aria-label": label, hidden: true },
    part.rows,
    make("div", { name: "attention-end" }, part.more, part.quiet),
  );
  return part;
}

export function drawAttention(part, instance) {
  part.draw = () => drawAttention(part, instance);
  const wanted = instance
    ? rowsOf(instance)
    : [...(answers.incidents || []).map(incidentRow), ...rowsOf(null)];
  const shown = part.all || wanted.length <= SHOWN + 1 ? wanted : wanted.slice(0, SHOWN);
  part.place.hidden = !wanted.length;
  if (!wanted.length) part.all = false;
  const keep = new Set(shown.map((one) => one.key));
  for (const [key, row] of part.known)
    if (!keep.has(key)) {
      row.item.remove();
      part.known.delete(key);
    }
  shown.forEach((one, place) => {
    if (!part.known.has(one.key)) part.known.set(one.key, makeRow());
    const row = part.known.get(one.key);
    drawRow(row, one);
    if (part.rows.children[place] !== row.item)
      part.rows.insertBefore(row.item, part.rows.children[place] || null);
  });
  part.more.hidden = shown.length === wanted.length;
  setText(part.more, "Show all " + wanted.length);
  const silenced = instance ? 0 : loud().filter((one) => one.silenced_by).length;
  part.quiet.hidden = !silenced;
  setText(
    part.quiet,
    silenced + (silenced === 1 ? " more alert follows" : " more alerts follow") + " from these",
  );
}

const loud = () => (answers.alerts || []).filter((one) => one.state === "firing" && one.severity !== "none");
const began = (one) => Date.parse(one.fired || one.since);

// A page that shows the code leaves out the alert about the missing scan.
const saidByCode = (one) => one.name === "WaSessionNeedsScan" && may("operate", one.instance);

// An incident has a row of its own, with its members and the button that releases them.
const alertOf = (group) => loud().find((one) => one.name === "WaFleetIncident" && groupOf(one) === group);
const groupOf = ({ labels }) => [labels.engine, labels.backend].filter(Boolean).join("/");
const saidByIncident = (one) =>
  one.name === "WaFleetIncident" && (answers.incidents || []).some(({ group }) => group === groupOf(one));

function rowsOf(instance) {
  const heard = loud()
    .filter(
      (one) =>
        !one.silenced_by &&
        !saidByIncident(one) &&
        (!instance || (one.instance === instance && !saidByCode(one))),
    )
    .sort(
      (a, b) => Number(b.severity === "critical") - Number(a.severity === "critical") || began(b) - began(a),
    );
  const alike = new Map();
  for (const one of heard) alike.set(one.name, [...(alike.get(one.name) || []), one]);
  const rows = [];
  for (const one of heard) {
    const group = alike.get(one.name);
    if (group.length <= ALIKE) rows.push(alertRow([one], one.name + JSON.stringify(one.labels), !instance));
    else if (group[0] === one) rows.push(alertRow(group, one.name, true));
  }
  return rows;
}

function alertRow(group, key, linked) {
  const [one] = group;
  const critical = one.severity === "critical";
  return {
    key,
    tone: critical ? "bad" : "warn",
    label: critical ? "Critical" : "Warning",
    text:
      begun(one.sentence, one.instance) +
      (group.length > 1 ? ", and " + (group.length - 1) + " more alike" : ""),
    name: one.name,
    since: group.map((each) => each.fired || each.since).sort()[0],
    advice: group.length > 1 ? ofAnybody(one.what_to_do, one.instance) : one.what_to_do,
    runbook: one.runbook,
    scan: one.name === "WaSessionNeedsScan",
    instances: linked ? group.map((each) => each.instance).filter(Boolean) : [],
  };
}

// An instance's name is written as it is, and so is a code.
const begun = (text, name) =>
  (name && text.startsWith(name)) || /^[a-z]+_/.test(text) ? text : text[0].toUpperCase() + text.slice(1);

function incidentRow(one) {
  const many = one.members.length > NAMED;
  const held = one.members.slice(0, NAMED).join(", ") + (many ? ", …" : "");
  const said = alertOf(one.group);
  return {
    key: "incident " + one.group,
    tone: "bad",
    label: "Incident",
    text: begun(one.sentence, ""),
    since: one.since,
    name: one.members.length + " held: " + held + (one.canary ? "; " + one.canary + " goes first" : ""),
    advice: said ? said.what_to_do : "",
    runbook: said ? said.runbook : "",
    instances: [],
    release: may("operate") ? one.group : "",
  };
}

const numbers = { next: 1 };
function makeRow() {
  const id = "advice-" + numbers.next++;
  const row = {
    pill: make("span", { name: "pill" }),
    text: make("p", { name: "attention-text" }),
    name: make("span"),
    since: make("span"),
    show: make("a"),
    ask: make("button", {
      type: "button",
      name: "quiet",
      text: "Advice",
      "aria-expanded": "false",
      "aria-controls": id,
    }),
    free: make("button", { type: "button", text: "Let all try" }),
    advice: make("div", { name: "advice", id, hidden: true }),
    drawn: "",
  };
  row.ask.addEventListener("click", () => {
    row.advice.hidden = !row.advice.hidden;
    row.ask.setAttribute("aria-expanded", String(!row.advice.hidden));
  });
  row.free.addEventListener("click", () => act(row.free, "", release(row.group)));
  row.item = make(
    "li",
    { name: "attention-row" },
    row.pill,
    make(
      "div",
      { name: "attention-what" },
      row.text,
      make("p", { name: "soft small" }, row.name, " · for ", row.since),
    ),
    make("div", { name: "attention-acts" }, row.free, row.show, row.ask),
    row.advice,
  );
  return row;
}

function drawRow(row, one) {
  setPill(row.pill, one.tone, one.label);
  setText(row.text, one.text);
  setText(row.name, one.name);
  setSince(row.since, one.since);
  setAttribute(row.item, "data-alert", one.name);
  const [only, ...others] = one.instances;
  row.show.hidden = !only || others.length > 0;
  if (!row.show.hidden) {
    setAttribute(row.show, "href", "#/instance/" + only);
    setText(row.show, one.scan && may("operate", only) ? "Scan" : "Show " + only);
  }
  row.show.className = one.scan && may("operate", only) && !row.show.hidden ? "button primary" : "";
  row.group = one.release;
  row.free.hidden = !one.release;
  row.ask.hidden = !one.advice && !others.length;
  const wanted = JSON.stringify([one.advice, one.runbook, one.instances]);
  if (row.drawn === wanted) return;
  row.drawn = wanted;
  row.advice.replaceChildren(
    make("p", {}, ...withCode(one.advice)),
    others.length
      ? make(
          "p",
          { name: "attention-all" },
          ...one.instances.map((id) => make("a", { href: "#/instance/" + id, text: id })),
        )
      : "",
    one.runbook
      ? make("p", {}, make("a", { href: placeOfRunbook(one.runbook), text: "In the runbook" }))
      : "",
  );
}

// The agent's own page is reached as this one is, through a tunnel too.
function placeOfRunbook(link) {
  const { protocol, pathname, hash } = new URL(link, location.href);
  if (pathname === "/runbook") return pathname + hash;
  return protocol === "http:" || protocol === "https:" ? link : "/runbook" + hash;
}

// The commands again as they stand in the runbook, for no instance in particular.
function ofAnybody(text, instance) {
  const word = (one) => (one === instance ? "ID" : one);
  return text
    .split("`")
    .map((one, place) =>
      place % 2
        ? one
            .split(/([\s=/])/)
            .map(word)
            .join("")
        : one,
    )
    .join("`");
}

const withCode = (text) =>
  text.split("`").map((one, place) => (place % 2 ? make("code", { text: one }) : one));
