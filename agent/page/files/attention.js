// Incidents and troubles, the worst first, each with its advice.
import { post } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { actButton } from "/page/dialogs.js";
import { keyed, linksTo, make, makeEach, setAttribute, setPill, setText } from "/page/dom.js";
import { counted, grouped, joined, setSince } from "/page/words.js";

const NARROW = matchMedia("(max-width: 48rem)"); // closed there: the sessions come first

// `whole`: the troubles of the machine, those of a kind as one; else of one session, with advice.
export function makeAttention(label, whole = true) {
  const list = make("ul");
  const summary = make("summary");
  const place = whole
    ? make("details.panel.attention", { open: !NARROW.matches, "aria-label": label }, summary, list)
    : make("section.panel.attention", { "aria-label": label }, list);
  const drawRows = keyed(list, "key", (entry) => makeRow(entry, whole));
  return {
    place,
    draw(id = "") {
      const incidents = id ? [] : answers.incidents.map(incidentEntry);
      const entries = [...incidents, ...troublesOf(id)];
      place.hidden = !entries.length;
      const critical = entries.filter(({ tone }) => tone === "bad").length;
      const others = entries.length - critical;
      const mild = others && counted(others, "warning", "warnings");
      setText(summary, joined([critical && critical + " critical", mild]));
      drawRows(entries);
    },
  };
}

// A page that shows the code leaves out the trouble about the missing scan.
const shownByCode = (trouble) => trouble.kind === "needs_scan" && may("operate", trouble.instance);
// An incident has a row of its own, with its members and the button that releases them.
const shownByIncident = (trouble) =>
  trouble.group && answers.incidents.some(({ group }) => group === trouble.group);

// The troubles of a session; without one all of them, those of a kind as one entry.
function troublesOf(id) {
  const found = answers.troubles.filter((trouble) =>
    id ? trouble.instance === id && !shownByCode(trouble) : !shownByIncident(trouble),
  );
  return grouped(found, ({ kind }) => kind).map(troubleEntry); // the agent names the worst first
}

function troubleEntry(group) {
  const [{ kind, severity, sentence, advice, instance }] = group;
  const critical = severity === "critical";
  const more = group.length - 1;
  return {
    key: kind,
    tone: critical ? "bad" : "warn",
    label: critical ? "Critical" : "Warning",
    text: sentence + (more ? ", and " + more + " more" : ""),
    kind,
    since: group.map((each) => each.since).sort()[0],
    advice: more ? ofAny(advice, instance) : advice,
    instances: group.map((each) => each.instance).filter(Boolean),
  };
}

function incidentEntry({ group, members, canary, sentence, since }) {
  return {
    key: "incident " + group,
    tone: "bad",
    label: "Incident",
    text: sentence,
    since,
    held: members.length + " held" + (canary ? "; " + canary + " goes first" : "") + ", for ",
    advice: answers.troubles.find((trouble) => trouble.group === group)?.advice,
    instances: members,
    group,
  };
}

const release = (group) => async () => {
  await post("/api/incidents/" + group + "/release", {});
  return "the members of " + group + " may try again";
};

function makeRow({ group, label, tone, kind }, whole) {
  const [pill, text, held, since] = makeEach("span.pill", "span", "span", "span");
  const [links, advice] = makeEach("p.attention-links", "p");
  setPill(pill, tone, label);
  const folded = whole
    ? make("details.advice", make("summary", "Advice"), advice)
    : make("div.advice", advice);
  const acts = make("div.attention-acts", links);
  if (group && may("operate")) acts.prepend(actButton("Let all try", release(group)));
  const said = make("p.attention-text", text, make("span.soft.small", held, since));
  const item = make("li.attention-row", { "data-trouble": kind }, pill, said, acts, folded);
  return {
    item,
    draw(entry) {
      setText(text, entry.text);
      setText(held, entry.held || "for ");
      setSince(since, entry.since);
      folded.hidden = !entry.advice;
      const drawn = entry.advice + entry.instances;
      if (item.dataset.drawn === drawn) return;
      setAttribute(item, "data-drawn", drawn);
      advice.replaceChildren(...withCode(entry.advice || ""));
      links.replaceChildren(...linksTo(whole ? entry.instances : []));
    },
  };
}

// The commands as they stand in the advice, for no instance in particular.
const ofAny = (text, instance) =>
  mapCode(text, (command) => command.split(instance).join("ID")).join("`");

const withCode = (text) => mapCode(text, (command) => make("code", command));
const mapCode = (text, change) =>
  text.split("`").map((part, place) => (place % 2 ? change(part) : part));
