// The form for a new instance, and the fields of an engine's settings.
import { get, getOrNull, post, send } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { pathOf } from "/page/actions.js";
import { askForm, closeDialog, makeForm, note } from "/page/dialogs.js";
import { at, checkbox, field, folded, input, make, select, setText } from "/page/dom.js";

const FIXED = ["backend", "remote"]; // where its session lives: another place is another session
const backendsOf = (engine) => answers.backends.filter((backend) => backend.engine === engine);

const asText = (value) =>
  typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value);

// The value of a field's text: JSON, such as a number or a list, unless the default is a text.
function valueOf(text, known) {
  if (known && typeof known.default === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the agent says what is wrong with it
  }
}

// A field for each setting of an engine and each that is set; an empty one takes the default.
function settingFields(known, own) {
  const named = new Map(known.map((setting) => [setting.name, setting]));
  for (const name of Object.keys(own)) if (!named.has(name)) named.set(name, null);
  const fields = [...named].map(([name, setting]) => {
    const standard = asText(setting?.default ?? undefined) || "not set";
    const given = setting?.choices ?? [];
    const isFlag = !given.length && typeof setting?.default === "boolean";
    const choices = (isFlag ? [true, false] : given).map((each) => [asText(each), asText(each)]);
    const more = { id: "setting-" + name, placeholder: standard, disabled: FIXED.includes(name) };
    const control = choices.length
      ? select([["", standard + " (default)"], ...choices], more)
      : input(more);
    control.value = asText(own[name]);
    const before = control.value;
    const place = field(make("code", name), make("span.soft.small", setting?.meaning), control);
    // One that was not touched keeps its value as it is, an empty text too.
    const read = () => {
      if (control.value === before) return own[name];
      return control.value ? valueOf(control.value, setting) : undefined;
    };
    return { name, place, read, changed: () => control.value !== before };
  });
  return {
    places: fields.map(({ place }) => place),
    changed: () => fields.some((each) => each.changed()),
    // JSON leaves out the values that are undefined.
    read: () => Object.fromEntries(fields.map(({ name, read }) => [name, read()])),
  };
}

export async function createInstance() {
  const { engines } = await get("/api/engines");
  const id = input({ id: "new-id", required: true });
  const backend = select([], { id: "new-backend" });
  const remote = input({ id: "new-remote", maxlength: 128, placeholder: "the same as its id" });
  const there = [field("Backend", backend), field("Its name on the backend", remote)];
  const elsewhere = make("div.fields", there);
  const enabled = make("input", { type: "checkbox", checked: true });
  const settings = make("details", make("summary", "Engine settings"));
  let fields;
  const choose = () => {
    const entry = engines.find(({ name }) => name === engine.value);
    elsewhere.hidden = !entry.remote;
    settings.hidden = entry.remote;
    fields = settingFields(entry.remote ? [] : entry.settings, {});
    settings.replaceChildren(settings.firstChild, ...fields.places);
    const option = ({ name, up }) => make("option", { value: name }, name + (up ? "" : " (down)"));
    backend.replaceChildren(...backendsOf(engine.value).map(option));
  };
  const engine = select([], { id: "new-engine", change: choose });
  for (const { name, about, remote } of engines) {
    const lacking = remote && !backendsOf(name).length;
    const more = lacking ? "agent.toml declares no [[backend]]" : about;
    const words = name + (more ? " – " + more : "");
    engine.append(make("option", { value: name, disabled: lacking }, words));
  }
  // In a trial there are sandboxes and nothing else: one more of them is meant.
  const used = new Set([...answers.instances.values()].map((instance) => instance.engine));
  const trial = used.size === 1 && used.has("sandbox");
  engine.value = trial ? "sandbox" : (engines.find(({ remote }) => !remote) || engines[0]).name;
  choose();
  const create = async () => {
    const place = elsewhere.hidden ? {} : { backend: backend.value };
    if (!elsewhere.hidden && remote.value.trim()) place.remote = remote.value.trim();
    const body = { id: id.value, engine: engine.value, ...place };
    await post("/api/instance", { ...body, enabled: enabled.checked, settings: fields.read() });
    closeDialog();
    note(id.value + " was created");
    location.hash = "#/instance/" + id.value;
  };
  const hint = "Small letters, digits, - and _; you cannot change it later.";
  const named = field("Id", id, make("span.soft.small", hint));
  const once = checkbox("Run it at once", enabled);
  const parts = [named, field("Engine", engine), elsewhere, once, settings];
  askForm("New instance", "Create", parts, create);
  at("new-id").focus();
}

// A session's own settings.
export function makeSettings(saved) {
  const state = { shown: "", fields: null, engines: null };
  const summary = make("span.soft.small");
  const holder = make("div");
  const hint =
    "This session's own values; an empty field takes the default. They apply from its next start.";
  const place = folded("Settings", make("p.soft", hint), holder);
  place.firstChild.append(" ", summary);

  function draw(details) {
    const engine = state.engines.find(({ name }) => name === details.engine);
    state.fields = settingFields(engine && !engine.remote ? engine.settings : [], details.settings);
    const set = Object.keys(details.settings).length;
    setText(summary, set ? set + " of its own" : "all as by default");
    const save = async () => {
      await send("PATCH", pathOf(details.id), { body: { settings: state.fields.read() } });
      state.shown = ""; // drawn again with what the agent keeps
      saved();
      note("the settings of " + details.id + " are saved; restart it to use them");
    };
    holder.replaceChildren(makeForm(state.fields.places, make("button.primary", "Save"), save));
  }

  return {
    place,
    async draw(details) {
      place.hidden = !may("operate", details.id);
      const shown = JSON.stringify([details.id, details.settings]);
      // Settings that a person has begun to change are not drawn over.
      const typed = state.shown.startsWith(`["${details.id}"`) && state.fields?.changed();
      if (place.hidden || shown === state.shown || typed) return;
      state.shown = shown;
      state.engines ??= (await getOrNull("/api/engines"))?.engines;
      if (!state.engines)
        state.shown = ""; // with the next look
      else if (state.shown === shown) draw(details);
    },
  };
}
