// The form for a new instance: this machine's engines first, those of a backend where there is one.
import { Refused, get, post } from "/page/agent.js";
import { closeDialog, note, openDialog } from "/page/dialogs.js";
import { fleet, refreshSoon } from "/page/fleet.js";
import { make } from "/page/show.js";

const ENGINES = {
  web: "WhatsApp Web in a browser of its own",
  baileys: "WhatsApp without a browser, on the library Baileys",
  sandbox: "a simulated session, for trials and drills",
  evolution: "on an Evolution API server",
  whaticket: "on a whaticket-like server",
};
const ELSEWHERE = new Set(["evolution", "whaticket"]);

async function engineNames() {
  const api = await get("/openapi.json");
  const body = api.paths["/api/instance"].post.requestBody.content["application/json"].schema;
  const order = Object.keys(ENGINES);
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return body.properties.engine.enum.sort((a, b) => rank(a) - rank(b));
}

const backendsOf = (engine) => (fleet.backends || []).filter((one) => one.engine === engine);

// In a trial there are sandboxes and nothing else: one more of them is meant.
function usual(engines) {
  const used = new Set([...fleet.instances.values()].map((one) => one.engine));
  if (used.size === 1 && used.has("sandbox")) return "sandbox";
  return engines.find((name) => !ELSEWHERE.has(name)) || engines[0];
}

function engineOption(name) {
  const lacking = ELSEWHERE.has(name) && !backendsOf(name).length;
  const about = lacking ? "agent.toml declares no [[backend]]" : ENGINES[name];
  return make("option", { value: name, text: name + (about ? " – " + about : ""), disabled: lacking });
}

export async function createInstance() {
  const engines = await engineNames().catch(() => ["sandbox"]);
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
    placeholder: "the same as here",
  });
  const elsewhere = make(
    "div",
    { name: "fields", hidden: true },
    make("label", { for: "new-backend", text: "Backend" }),
    backend,
    make("label", { for: "new-remote", text: "Its name there" }),
    remote,
  );
  const enabled = make("input", { id: "new-enabled", type: "checkbox", checked: true });
  const settings = make("textarea", { id: "new-settings", rows: 4, spellcheck: "false", placeholder: "{}" });
  const wrong = make("p", { name: "wrong", role: "alert" });
  const go = make("button", { name: "primary", text: "Create" });
  const chosen = () => {
    elsewhere.hidden = !ELSEWHERE.has(engine.value);
    backend.replaceChildren(
      ...backendsOf(engine.value).map((one) =>
        make("option", { value: one.name, text: one.name + (one.up ? "" : " (down)") }),
      ),
    );
  };
  engine.addEventListener("change", chosen);
  chosen();
  const form = make(
    "form",
    {},
    make("h2", { id: "dialog-title", text: "New instance" }),
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
    ),
    wrong,
    make(
      "div",
      { name: "dialog-end" },
      make("button", { type: "button", text: "Cancel", click: closeDialog }),
      go,
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      const body = {
        id: id.value,
        engine: engine.value,
        enabled: enabled.checked,
        settings: settings.value.trim() ? JSON.parse(settings.value) : {},
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
    } catch (error) {
      wrong.textContent =
        error instanceof Refused ? error.message : "The settings are not JSON: " + error.message;
    } finally {
      go.disabled = false;
    }
  });
  openDialog(form);
  id.focus();
}
