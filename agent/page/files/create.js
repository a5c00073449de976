// The form for a new instance: this machine's engines first, those of a backend where there is one.
import { Refused, get, post } from "/page/agent.js";
import { askForm, closeDialog, note } from "/page/dialogs.js";
import { answers, refreshSoon } from "/page/answers.js";
import { make } from "/page/show.js";

const ALONE = [{ name: "sandbox", about: "", remote: false, settings: [] }];

const backendsOf = (engine) => (answers.backends || []).filter((backend) => backend.engine === engine);

// In a trial there are sandboxes and nothing else: one more of them is meant.
function usual(engines) {
  const used = new Set([...answers.instances.values()].map((instance) => instance.engine));
  if (used.size === 1 && used.has("sandbox")) return "sandbox";
  return (engines.find((engine) => !engine.remote) || engines[0]).name;
}

function engineOption({ name, about, remote }) {
  const lacking = remote && !backendsOf(name).length;
  if (lacking) about = "agent.toml declares no [[backend]]";
  return make("option", { value: name, text: name + (about ? " – " + about : ""), disabled: lacking });
}

export async function createInstance() {
  const engines = (await get("/api/engines").catch(() => ({ engines: ALONE }))).engines;
  const id = make("input", {
    id: "new-id",
    required: true,
    pattern: "[a-z0-9][a-z0-9_\\-]{0,47}",
    maxlength: 48,
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    "aria-describedby": "new-id-help",
  });
  const engine = make("select", { id: "new-engine" }, ...engines.map(engineOption));
  engine.value = usual(engines);
  const backend = make("select", { id: "new-backend" });
  const remote = make("input", {
    id: "new-remote",
    maxlength: 128,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "the same as its id",
  });
  const elsewhere = make(
    "div",
    { name: "fields", hidden: true },
    make("label", { for: "new-backend", text: "Backend" }),
    backend,
    make("label", { for: "new-remote", text: "Its name on the backend" }),
    remote,
  );
  const enabled = make("input", { id: "new-enabled", type: "checkbox", checked: true });
  const known = make("ul", { id: "new-known", name: "soft small" });
  const settings = make("textarea", { id: "new-settings", rows: 4, spellcheck: "false", placeholder: "{}" });
  const chosen = () => {
    const entry = engines.find((entry) => entry.name === engine.value);
    elsewhere.hidden = !entry.remote;
    const lines = entry.remote ? [] : entry.settings;
    known.replaceChildren(
      ...lines.map((setting) => make("li", { text: setting.name + ": " + setting.meaning })),
    );
    backend.replaceChildren(
      ...backendsOf(engine.value).map((backend) =>
        make("option", { value: backend.name, text: backend.name + (backend.up ? "" : " (down)") }),
      ),
    );
  };
  engine.addEventListener("change", chosen);
  chosen();
  const fields = [
    make("label", { for: "new-id", text: "Id" }),
    id,
    make("p", {
      id: "new-id-help",
      name: "soft small",
      text: "Small letters, digits, - and _; you cannot change it later.",
    }),
    make("label", { for: "new-engine", text: "Engine" }),
    engine,
    elsewhere,
    make("label", { name: "check", for: "new-enabled" }, enabled, make("span", { text: "Run it at once" })),
    make(
      "details",
      {},
      make("summary", { text: "Engine settings" }),
      make("label", { for: "new-settings", text: "Settings as a JSON object" }),
      settings,
      known,
    ),
  ];
  askForm("New instance", "Create", fields, async () => {
    const body = {
      id: id.value,
      engine: engine.value,
      enabled: enabled.checked,
      settings: settingsOf(settings.value.trim() || "{}"),
    };
    if (!elsewhere.hidden) {
      body.backend = backend.value;
      if (remote.value.trim()) body.remote = remote.value.trim();
    }
    await post("/api/instance", body);
    closeDialog();
    note(id.value + " was created");
    location.hash = "#/instance/" + id.value;
    refreshSoon();
  });
  id.focus();
}

function settingsOf(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refused(0, "The settings are not JSON: " + error.message);
  }
}
