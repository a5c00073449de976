// Incidents and troubles, the worst first, each with its advice.
import { answers, may } from "/page/answers.js";
import { release } from "/page/actions.js";
import { act } from "/page/dialogs.js";
import { linked } from "/page/places.js";
import { make, setAttribute, setPill, setSince, setText } from "/page/show.js";

const SHOWN = matchMedia("(max-width: 36rem)").matches ? 3 : 5;
const ALIKE = 1; // more of one name are one row
const NAMED = 8;

// A list that is drawn again and again: rows stay where they are, open ones stay open.
export function makeAttention(label) {
  const part = {
    rows: make("ul"),
    drawn: new Map(),
    all: false,
    more: make("button", {
      type: "button",
      name: "quiet",
      click: () => {
        part.all = true;
        part.draw();
      },
    }),
    draw: () => {},
  };
  part.place = make(
    "section",
    { name: "panel attention", "aria-label": label, hidden: true },
    part.rows,
    make("div", { name: "attention-end" }, part.more),
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
  const keep = new Set(shown.map((entry) => entry.key));
  for (const [key, row] of part.drawn)
    if (!keep.has(key)) {
      row.item.remove();
      part.drawn.delete(key);
    }
  shown.forEach((entry, place) => {
    if (!part.drawn.has(entry.key)) part.drawn.set(entry.key, makeRow());
    const row = part.drawn.get(entry.key);
    drawRow(row, entry);
    if (part.rows.children[place] !== row.item)
      part.rows.insertBefore(row.item, part.rows.children[place] || null);
  });
  part.more.hidden = shown.length === wanted.length;
  setText(part.more, "Show all " + wanted.length);
}

// A page that shows the code leaves out the trouble about the missing scan.
const shownByCode = (trouble) => trouble.kind === "needs_scan" && may("operate", trouble.instance);

// An incident has a row of its own, with its members and the button that releases them.
const troubleOf = (group) => (answers.troubles || []).find((trouble) => trouble.group === group);
const shownByIncident = (trouble) =>
  trouble.group && (answers.incidents || []).some(({ group }) => group === trouble.group);

function rowsOf(instance) {
  const heard = (answers.troubles || [])
    .filter(
      (trouble) =>
        !shownByIncident(trouble) && (!instance || (trouble.instance === instance && !shownByCode(trouble))),
    )
    .sort(
      (a, b) =>
        Number(b.severity === "critical") - Number(a.severity === "critical") ||
        Date.parse(b.since) - Date.parse(a.since),
    );
  const alike = new Map();
  for (const trouble of heard) alike.set(trouble.kind, [...(alike.get(trouble.kind) || []), trouble]);
  const rows = [];
  for (const trouble of heard) {
    const group = alike.get(trouble.kind);
    if (group.length <= ALIKE) rows.push(troubleRow([trouble], trouble.kind + trouble.instance, !instance));
    else if (group[0] === trouble) rows.push(troubleRow(group, trouble.kind, true));
  }
  return rows;
}

function troubleRow(group, key, linked) {
  const [trouble] = group;
  const critical = trouble.severity === "critical";
  return {
    key,
    tone: critical ? "bad" : "warn",
    label: critical ? "Critical" : "Warning",
    text:
      begun(trouble.sentence, trouble.instance) +
      (group.length > 1 ? ", and " + (group.length - 1) + " more alike" : ""),
    kind: trouble.kind,
    name: "",
    since: group.map((each) => each.since).sort()[0],
    advice: group.length > 1 ? ofAnybody(trouble.advice, trouble.instance) : trouble.advice,
    scan: trouble.kind === "needs_scan",
    instances: linked ? group.map((each) => each.instance).filter(Boolean) : [],
  };
}

// An instance's name is written as it is, and so is a code.
const begun = (text, name) =>
  (name && text.startsWith(name)) || /^[a-z]+_/.test(text) ? text : text[0].toUpperCase() + text.slice(1);

function incidentRow(incident) {
  const many = incident.members.length > NAMED;
  const held = incident.members.slice(0, NAMED).join(", ") + (many ? ", …" : "");
  const trouble = troubleOf(incident.group);
  return {
    key: "incident " + incident.group,
    tone: "bad",
    label: "Incident",
    text: begun(incident.sentence, ""),
    since: incident.since,
    name:
      incident.members.length +
      " held: " +
      held +
      (incident.canary ? "; " + incident.canary + " goes first" : "") +
      " · ",
    advice: trouble ? trouble.advice : "",
    instances: [],
    release: may("operate") ? incident.group : "",
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
      make("p", { name: "soft small" }, row.name, "for ", row.since),
    ),
    make("div", { name: "attention-acts" }, row.free, row.show, row.ask),
    row.advice,
  );
  return row;
}

function drawRow(row, entry) {
  setPill(row.pill, entry.tone, entry.label);
  setText(row.text, entry.text);
  setText(row.name, entry.name);
  setSince(row.since, entry.since);
  setAttribute(row.item, "data-trouble", entry.kind || "");
  const [only, ...others] = entry.instances;
  row.show.hidden = !only || others.length > 0;
  if (!row.show.hidden) {
    setAttribute(row.show, "href", "#/instance/" + only);
    setText(row.show, entry.scan && may("operate", only) ? "Scan" : "Show " + only);
  }
  row.show.className = entry.scan && may("operate", only) && !row.show.hidden ? "button primary" : "";
  row.group = entry.release;
  row.free.hidden = !entry.release;
  row.ask.hidden = !entry.advice && !others.length;
  const wanted = JSON.stringify([entry.advice, entry.instances]);
  if (row.drawn === wanted) return;
  row.drawn = wanted;
  row.advice.replaceChildren(
    make("p", {}, ...withCode(entry.advice)),
    others.length
      ? make(
          "p",
          { name: "attention-all" },
          ...entry.instances.map((id) => make("a", { href: "#/instance/" + id, text: id })),
        )
      : "",
  );
}

// The commands again as they stand in the advice, for no instance in particular.
function ofAnybody(text, instance) {
  const word = (part) => (part === instance ? "ID" : part);
  return text
    .split("`")
    .map((part, place) =>
      place % 2
        ? part
            .split(/([\s=/])/)
            .map(word)
            .join("")
        : part,
    )
    .join("`");
}

const withCode = (text) =>
  text.split("`").flatMap((part, place) => (place % 2 ? [make("code", { text: part })] : linked(part)));
