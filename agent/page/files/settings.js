// A session's own settings: a field for each, what its default is; and a message to try it with.
import { Refused, get, send } from "/page/agent.js";
import { may } from "/page/answers.js";
import { act } from "/page/dialogs.js";
import { make, setAttribute, setText } from "/page/show.js";

const FIXED = ["backend", "remote"]; // where its session lives: another place is another session
const asText = (value) =>
  value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
const defaultWord = (value) =>
  value === undefined || value === null || asText(value) === "" ? "not set" : asText(value);

// What a field's text means: a number or a list where the default is one; else it is a text.
function valueOf(text, known) {
  if (known && typeof known.default === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the agent says what is wrong with it
  }
}

function makeControl(id, known, value) {
  const choices =
    known && (known.choices.length ? known.choices : typeof known.default === "boolean" ? [true, false] : []);
  if (!choices || !choices.length)
    return make("input", {
      id,
      value: asText(value),
      placeholder: known ? defaultWord(known.default) : null,
      autocomplete: "off",
      spellcheck: "false",
      autocapitalize: "off",
    });
  const select = make(
    "select",
    { id },
    make("option", { value: "", text: defaultWord(known.default) + " (default)" }),
    ...choices.map((choice) => make("option", { value: asText(choice), text: asText(choice) })),
  );
  select.value = asText(value);
  return select;
}

export function makeSettings(changed) {
  const state = { id: null, shown: "", rows: [], engines: null };
  const list = make("ul", { name: "settings-list" });
  const wrong = make("p", { name: "wrong", role: "alert" });
  const save = make("button", { text: "Save", name: "primary" });
  const undo = make("button", { type: "button", text: "Undo" });
  const form = make("form", { name: "fields" }, list, wrong, make("div", { name: "actions" }, save, undo));
  const summary = make("span", { name: "soft small" });
  const place = make(
    "details",
    { name: "panel folded", id: "settings" },
    make("summary", {}, make("h2", { text: "Settings" }), " ", summary),
    make("p", {
      name: "soft",
      text: "This session's own values; an empty field takes the default. They apply from its next start.",
    }),
    form,
  );

  function makeRow(name, known, value) {
    const id = "setting-" + name;
    const control = makeControl(id, known, value);
    const before = control.value;
    const said = make("span", { name: "soft small" });
    const row = { name, known, value, control, before, changed: () => control.value !== before };
    const follow = () => {
      const own = control.value !== "";
      setText(said, known && own ? "default: " + defaultWord(known.default) : "");
      setAttribute(item, "data-own", own);
      save.disabled = undo.disabled = !state.rows.some((each) => each.changed());
    };
    const item = make(
      "li",
      { name: "setting-row", "data-setting": name },
      make(
        "div",
        { name: "machine-what" },
        make("label", { for: id }, make("code", { text: name })),
        make("span", { name: "soft small", text: known ? known.meaning : "" }),
      ),
      make("div", { name: "setting-value" }, control, said),
    );
    if (FIXED.includes(name)) control.disabled = true;
    control.addEventListener("input", follow);
    return Object.assign(row, { item, follow });
  }

  function drawRows(details) {
    const engine = state.engines.find(({ name }) => name === details.engine);
    const known = engine && !engine.remote ? engine.settings : [];
    const own = Object.keys(details.settings).filter((name) => !known.some((each) => each.name === name));
    state.rows = [...known.map((each) => [each.name, each]), ...own.map((name) => [name, null])].map(
      ([name, each]) => makeRow(name, each, details.settings[name]),
    );
    list.replaceChildren(...state.rows.map(({ item }) => item));
    for (const row of state.rows) row.follow();
    const set = Object.keys(details.settings).length;
    setText(summary, set ? set + " of its own" : "all as by default");
    setAttribute(form, "hidden", state.rows.length ? null : "");
  }

  // A field that was not touched keeps its value as it is, an empty text too.
  const written = () =>
    Object.fromEntries(
      state.rows
        .filter((row) => (row.changed() ? row.control.value !== "" : row.value !== undefined))
        .map((row) => [row.name, row.changed() ? valueOf(row.control.value, row.known) : row.value]),
    );

  undo.addEventListener("click", () => {
    setText(wrong, "");
    for (const row of state.rows) row.control.value = row.before;
    for (const row of state.rows) row.follow();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setText(wrong, "");
    const id = state.id;
    act(save, "", async () => {
      try {
        await send("PATCH", "/api/instance/" + encodeURIComponent(id), { body: { settings: written() } });
      } catch (error) {
        if (error instanceof Refused) setText(wrong, error.message);
        throw error;
      }
      state.shown = ""; // drawn again with what the agent keeps
      changed();
      return "the settings of " + id + " are saved; restart it to use them";
    });
  });
  return {
    place,
    async draw(details) {
      place.hidden = !may("operate", details.id);
      if (place.hidden) return;
      const shown = JSON.stringify([details.id, details.settings]);
      // What is being typed stays.
      const typed = state.shown !== "" && state.rows.some((row) => row.changed());
      if (shown === state.shown || (state.id === details.id && typed)) return;
      Object.assign(state, { id: details.id, shown });
      if (!state.engines) {
        try {
          state.engines = (await get("/api/engines")).engines;
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          state.shown = ""; // with the next look
          return;
        }
      }
      if (state.shown === shown) drawRows(details);
    },
  };
}

export function makeTrial() {
  const state = { id: null };
  const to = make("input", {
    id: "trial-to",
    type: "tel",
    required: true,
    minlength: 5,
    maxlength: 64,
    autocomplete: "off",
    placeholder: "Number",
  });
  const text = make("input", {
    id: "trial-text",
    required: true,
    maxlength: 1000,
    autocomplete: "off",
    value: "A test message",
  });
  const go = make("button", { text: "Send" });
  const form = make(
    "form",
    { name: "fields" },
    make("label", { for: "trial-to", text: "To (with country code)" }),
    to,
    make("label", { for: "trial-text", text: "Text" }),
    text,
    make("div", { name: "actions" }, go),
  );
  const place = make("section", { name: "panel" }, make("h2", { text: "Test message" }), form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const id = state.id;
    act(go, "", async () => {
      const answer = await (
        await send("POST", "/api/instance/" + encodeURIComponent(id) + "/messages?wait=30", {
          body: { to: to.value.trim().replace(/^\+/, ""), text: text.value },
          seconds: 60,
        })
      ).json();
      return "the message is " + (answer.state || answer.status || answer.result || "sent");
    });
  });
  return {
    place,
    draw(instance) {
      if (state.id !== instance.id) to.value = "";
      state.id = instance.id;
      place.hidden =
        !may("operate", instance.id) ||
        instance.connection_status !== "CONNECTED" ||
        instance.engine === "evolution"; // its server's own API sends
    },
  };
}
