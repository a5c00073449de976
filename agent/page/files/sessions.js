// The sessions: filters, a table sorted by any column, the action that helps, and actions on many.
import { answers, may } from "/page/answers.js";
import { ACTIONS, helpful, isFit, perform, performAll, prolongsBan } from "/page/actions.js";
import { createInstance } from "/page/create.js";
import { actButton, confirm, note } from "/page/dialogs.js";
import { button, empty, input, keyed, make, makeEach } from "/page/dom.js";
import { setAttribute, setPill, setText } from "/page/dom.js";
import * as words from "/page/words.js";

const MOST = matchMedia("(max-width: 48rem)").matches ? 30 : 300; // rows, until all are asked for
/** @type {Record<string, [string, (instance: any) => boolean]>} */
const FILTERS = {
  all: ["All", () => true],
  trouble: ["In trouble", words.isUnwell],
  scan: ["To scan", (instance) => instance.connection_status === "QR_REQUIRED"],
  connected: ["Connected", (instance) => instance.connection_status === "CONNECTED"],
  off: ["Not running", (instance) => !instance.should_run],
};
const rateOf = ({ id }) => answers.figures[id]?.messagesPerMinute || 0;

// Each column: its head, the class of its width, and what it is sorted by.
/** @type {[string, string, (instance: any) => any][]} */
const COLUMNS = [
  ["Session", "cell-name", ({ id }) => id],
  ["State", "cell-state", words.rank],
  ["Why", "cell-why", words.troubleOf],
  ["For", "cell-time", (instance) => -Date.parse(instance.since || 0)],
  ["Memory", "cell-figure", (instance) => -(instance.memory_bytes || 0)],
  ["Messages/min", "cell-figure", (instance) => -rateOf(instance)],
];

const BULK = "start stop restart enable disable check-now recover snapshot".split(" ");

export function makeSessions() {
  const state = { filter: "all", words: "", all: false, column: 1, back: false, chosen: new Set() };
  const change = (how) => {
    Object.assign(state, how);
    draw();
  };
  const chipOf = (filter) => button("", () => change({ filter, all: false }), { class: "chip" });
  const chips = Object.keys(FILTERS).map(chipOf);
  const find = () => change({ words: search.value.trim().toLowerCase(), all: false });
  const label = { placeholder: "Search", "aria-label": "Search the sessions" };
  const search = input({ type: "search", ...label, input: find });
  const newOne = () => actButton("New instance", createInstance, { class: "primary" });
  const add = newOne();
  const filters = make("div.chips", { role: "group", "aria-label": "Which sessions" }, chips);
  const tools = make("div.tools", filters, make("div.tools-end", search, add));
  const heads = COLUMNS.map(([label, width], column) => {
    const sort = () => change({ back: state.column === column && !state.back, column });
    return make("th." + width, { scope: "col" }, button(label, sort, { class: "quiet sort" }));
  });
  const picked = () => new Set(pickAll.checked ? shown().map(({ id }) => id) : []);
  const shape = { type: "checkbox", "aria-label": "Choose all that are shown" };
  const pickAll = make("input", { ...shape, change: () => change({ chosen: picked() }) });
  const body = make("tbody");
  const drawRows = keyed(body, "id", ({ id }) => makeRow(id, state, () => draw()));
  const many = makeBulk(state);
  const helps = make("th.cell-help", make("span.unseen", "Help"));
  const head = make("thead", make("tr", make("th.pick", pickAll), heads, helps));
  const table = make("div.table-scroll", make("table.sessions", head, body));
  const more = button("", () => change({ all: true }));
  const hint = "Create the first one. Its page shows the code to scan.";
  const first = empty("No instance yet", hint, newOne());
  const unseen = empty("No session", "Your key may see no session.");
  const unfit = empty("Nothing fits", "No session matches your search and filters.");
  const parts = [tools, many.place, table, more, first, unseen, unfit];
  const place = make("section", { "aria-label": "Sessions" }, parts);

  function shown() {
    const key = COLUMNS[state.column][2];
    const [, fits] = FILTERS[state.filter];
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return [...answers.instances.values()]
      .filter((instance) => fits(instance) && textOf(instance).includes(state.words))
      .sort((a, b) => (state.back ? -1 : 1) * compare(key(a), key(b)) || compare(a.id, b.id));
  }

  function draw() {
    const all = [...answers.instances.values()];
    Object.entries(FILTERS).forEach(([filter, [label, fits]], place) => {
      setText(chips[place], all.filter(fits).length + " " + label);
      setAttribute(chips[place], "aria-pressed", filter === state.filter);
    });
    heads.forEach((head, column) => {
      const order = state.back ? "descending" : "ascending";
      setAttribute(head, "aria-sort", column === state.column ? order : null);
    });
    const found = shown();
    for (const id of state.chosen) if (!found.some((one) => one.id === id)) state.chosen.delete(id);
    drawRows(state.all ? found : found.slice(0, MOST));
    pickAll.checked = found.length > 0 && state.chosen.size === found.length;
    pickAll.indeterminate = state.chosen.size > 0 && !pickAll.checked;
    many.draw();
    tools.hidden = !all.length;
    table.hidden = !found.length;
    add.hidden = pickAll.disabled = !may("operate");
    more.hidden = state.all || found.length <= MOST;
    setText(more, "Show all " + found.length);
    first.hidden = all.length > 0 || !may("operate");
    unseen.hidden = all.length > 0 || may("operate");
    unfit.hidden = !all.length || found.length > 0;
  }

  return {
    place,
    draw,
    // The sessions on one backend: what a person would type, and can change.
    showOnly(text) {
      search.value = text;
      change({ filter: "all", words: text, all: false });
      search.scrollIntoView({ block: "center" });
      search.focus();
    },
  };
}

const textOf = (its) =>
  [its.id, words.placeOf(its), words.accountOf(its), its.sentence].join(" ").toLowerCase();

function makeRow(id, state, changed) {
  const pick = make("input", { type: "checkbox", "aria-label": "Choose " + id });
  pick.addEventListener("change", () => {
    state.chosen[pick.checked ? "add" : "delete"](id);
    changed();
  });
  const [place, pill, why, next] = makeEach("span.soft.small", "span.pill", "span", "span.next");
  const [since, memory, rate] = makeEach("td.cell-time", "td.cell-figure", "td.cell-figure");
  const whyCell = make("td.cell-why", why, " ", next);
  const help = button("", () => perform(help, helpful(answers.instances.get(id)), id));
  const href = "#/instance/" + id;
  const scan = make("a.button", { href, "aria-label": "Scan the code of " + id }, "Scan");
  const name = make("td.cell-name", make("a.row-name", { href, title: id }, id), place);
  const item = make("tr", { "data-id": id }, make("td.pick", pick), name);
  item.append(make("td.cell-state", pill), whyCell, since, memory, rate);
  item.append(make("td.cell-help", scan, help));
  return {
    item,
    draw(instance) {
      const operates = may("operate", id);
      setPill(pill, ...words.stateOf(instance));
      setText(place, words.joined([words.placeOf(instance), words.accountOf(instance)], " · "));
      setText(why, words.troubleOf(instance));
      setAttribute(whyCell, "title", words.troubleOf(instance));
      words.setUntil(next, words.nextOf(instance)[1], "· next try in ");
      words.setSince(since, instance.since);
      setText(memory, instance.memory_bytes ? words.bytes(instance.memory_bytes) : "");
      setText(rate, rateOf(instance) || "");
      pick.checked = state.chosen.has(id);
      pick.disabled = !operates;
      const action = operates ? helpful(instance) : null;
      help.hidden = !action;
      setText(help, action ? action.label : "");
      setAttribute(help, "title", action ? action.line : null);
      const waits = instance.should_run && instance.connection_status === "QR_REQUIRED";
      scan.hidden = !operates || !waits;
    },
  };
}

function makeBulk(state) {
  const [count, progress] = [make("strong"), make("span.soft.small", { role: "status" })];
  const buttonOf = (action) => button(action.label, () => ask(action), { title: action.line });
  const buttons = ACTIONS.filter(({ key }) => BULK.includes(key)).map(buttonOf);
  const more = { hidden: true, role: "group", "aria-label": "Actions for the chosen sessions" };
  const place = make("div.bulk.panel", more, count, buttons, progress);

  function ask(action) {
    const fits = (instance) => isFit(action, instance) && !prolongsBan(action, instance);
    const ids = [...state.chosen].filter((id) => fits(answers.instances.get(id)));
    if (!ids.length) return note(action.label + " fits none of the chosen sessions", true);
    const names = ids.slice(0, 12).join(", ") + (ids.length > 12 ? ", …" : "");
    const title = action.label + ": " + words.counted(ids.length, "session?", "sessions?");
    const text = action.line + " One after another: " + names;
    return confirm({ title, text, yes: action.label }, () => run(action, ids));
  }

  async function run(action, ids) {
    for (const each of buttons) each.disabled = true;
    const tell = (done) => setText(progress, done + " of " + ids.length + " done");
    const failed = await performAll(action, ids, tell);
    for (const each of buttons) each.disabled = false;
    setText(progress, "");
    const said = failed.length + " of " + ids.length + " failed: " + failed.slice(0, 3).join("; ");
    note(failed.length ? said : action.label + ": " + ids.length + " done", failed.length > 0);
  }

  return {
    place,
    draw() {
      place.hidden = !state.chosen.size;
      setText(count, state.chosen.size + " chosen");
    },
  };
}
