// Sessions as a table: a hundred at a glance, sorted by any column, acted on together.
import { answers, may } from "/page/answers.js";
import { ACTIONS, performAll } from "/page/actions.js";
import { placeOf } from "/page/backends.js";
import { arrange } from "/page/arrange.js";
import { confirm, note } from "/page/dialogs.js";
import { menuButton } from "/page/menu.js";
import {
  bytes,
  make,
  rank,
  setAttribute,
  setPill,
  setSince,
  setText,
  statusOf,
  troubleOf,
  whyOf,
} from "/page/show.js";
import { accountWord } from "/page/words.js";

const rateOf = (instance) => {
  const kept = answers.figures.get(instance.id);
  return kept && kept.now ? kept.now.messagesPerMinute : 0;
};

// Each column: its head, what it is sorted by, and the class of its width.
/** @type {[string, (instance: any) => any, string][]} */
const COLUMNS = [
  ["Session", (instance) => instance.id, "cell-name"],
  ["State", (instance) => rank(instance), "cell-state"],
  ["Why", (instance) => whyOf(instance), "cell-why"],
  ["For", (instance) => -Date.parse(instance.since || 0), "cell-time"],
  ["Last answer", (instance) => -Date.parse(instance.proved || 0), "cell-time"],
  ["Memory", (instance) => -(instance.memory_bytes || 0), "cell-figure"],
  ["Messages/min", (instance) => -rateOf(instance), "cell-rate"],
];

export function makeTable(changed) {
  const state = { column: 1, back: false, chosen: new Set() };
  const rows = new Map();
  const body = make("tbody");
  const all = make("input", { type: "checkbox", "aria-label": "Choose all that are shown" });
  const heads = COLUMNS.map(([label, , width], place) =>
    make(
      "th",
      { scope: "col", name: width },
      make("button", {
        type: "button",
        name: "quiet sort",
        text: label,
        click: () => {
          state.back = state.column === place && !state.back;
          state.column = place;
          changed();
        },
      }),
    ),
  );
  const many = makeBulk(state, changed);
  const table = make(
    "table",
    { name: "sessions" },
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { name: "pick" }, all),
        ...heads,
        make("th", { name: "cell-menu" }, make("span", { name: "unseen", text: "Actions" })),
      ),
    ),
    body,
  );
  all.addEventListener("change", () => {
    for (const id of rows.keys())
      if (rows.get(id).item.isConnected) state.chosen[all.checked ? "add" : "delete"](id);
    changed();
  });
  return {
    place: make("div", { name: "table-place" }, many.place, make("div", { name: "table-scroll" }, table)),
    draw(chosen) {
      const [, key] = COLUMNS[state.column];
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        return x < y ? -1 : x > y ? 1 : a.id < b.id ? -1 : 1;
      };
      const sorted = [...chosen].sort((a, b) => (state.back ? -order(a, b) : order(a, b)));
      heads.forEach((head, place) =>
        setAttribute(
          head,
          "aria-sort",
          place === state.column ? (state.back ? "descending" : "ascending") : null,
        ),
      );
      const shown = new Set(sorted.map((instance) => instance.id));
      for (const id of state.chosen) if (!shown.has(id)) state.chosen.delete(id); // no action for a row out of sight
      arrange(
        body,
        sorted.map((instance) => {
          if (!rows.has(instance.id)) rows.set(instance.id, makeRow(instance.id, state, changed));
          const row = rows.get(instance.id);
          drawRow(row, instance, state);
          return row.item;
        }),
      );
      for (const id of rows.keys()) if (!answers.instances.has(id)) rows.delete(id);
      all.checked = sorted.length > 0 && state.chosen.size === sorted.length;
      all.indeterminate = state.chosen.size > 0 && !all.checked;
      many.draw();
    },
  };
}

function makeRow(id, state, changed) {
  const row = {
    pick: make("input", { type: "checkbox", "aria-label": "Choose " + id }),
    place: make("span", { name: "soft small" }),
    pill: make("span", { name: "pill" }),
    why: make("td", { name: "cell-why" }),
    since: make("td"),
    proof: make("td"),
    memory: make("td"),
    rate: make("td"),
    menu: menuButton(id, () => answers.instances.get(id)),
  };
  row.pick.addEventListener("change", () => {
    state.chosen[row.pick.checked ? "add" : "delete"](id);
    changed();
  });
  row.item = make(
    "tr",
    { "data-id": id },
    make("td", { name: "pick" }, row.pick),
    make(
      "td",
      { name: "cell-name" },
      make("a", { name: "row-name", href: "#/instance/" + id, title: id, text: id }),
      row.place,
    ),
    make("td", {}, row.pill),
    row.why,
    row.since,
    row.proof,
    row.memory,
    row.rate,
    make("td", { name: "cell-menu" }, row.menu),
  );
  return row;
}

function drawRow(row, instance, state) {
  const [tone, word] = statusOf(instance);
  setPill(row.pill, tone, word);
  setText(row.place, [placeOf(instance), accountWord(instance)].filter(Boolean).join(" · "));
  setText(row.why, troubleOf(instance));
  setAttribute(row.why, "title", whyOf(instance));
  setAttribute(row.place, "title", row.place.textContent);
  setSince(row.since, instance.since);
  setSince(row.proof, instance.proved, " ago");
  if (!instance.proved) setText(row.proof, "none");
  setText(row.memory, instance.memory_bytes === null ? "" : bytes(instance.memory_bytes));
  setText(row.rate, rateOf(instance) || "");
  row.pick.checked = state.chosen.has(instance.id);
  row.pick.disabled = row.menu.hidden = !may("operate", instance.id);
}

function makeBulk(state, changed) {
  const count = make("strong"),
    progress = make("span", { name: "soft small", role: "status" });
  const buttons = ACTIONS.filter((action) => action.bulk).map((action) =>
    make("button", {
      type: "button",
      text: action.label,
      title: action.line,
      "data-bulk": action.key,
      click: () => ask(action),
    }),
  );
  const place = make(
    "div",
    { name: "bulk panel", hidden: true, role: "group", "aria-label": "Actions for the chosen sessions" },
    count,
    ...buttons,
    progress,
  );
  function ask(action) {
    const ids = [...state.chosen].filter((id) => action.fits(answers.instances.get(id)));
    if (!ids.length) {
      note(action.label + " fits none of the chosen sessions", true);
      return;
    }
    confirm(
      {
        title: action.label + ": " + ids.length + (ids.length === 1 ? " session?" : " sessions?"),
        text:
          action.line + " One after another: " + ids.slice(0, 12).join(", ") + (ids.length > 12 ? ", …" : ""),
        yes: action.label,
      },
      async () => {
        for (const button of buttons) button.disabled = true;
        const failed = await performAll(action, ids, (done) =>
          setText(progress, done + " of " + ids.length + " done"),
        );
        for (const button of buttons) button.disabled = false;
        setText(progress, "");
        note(
          failed.length
            ? failed.length + " of " + ids.length + " failed: " + failed.slice(0, 3).join("; ")
            : action.label + ": " + ids.length + " done",
          failed.length > 0,
        );
        changed();
      },
    );
  }
  return {
    place,
    draw() {
      place.hidden = !state.chosen.size;
      setText(count, state.chosen.size + " chosen");
    },
  };
}
