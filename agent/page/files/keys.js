// The keys of this interface: list, make one and show it once, revoke.
import { get, keyId, post, send } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { act, askForm, closeDialog, confirm, copyButton, openDialog } from "/page/dialogs.js";
import { empty, make, moment } from "/page/show.js";

const SCOPES = [
  ["read", "read: see every session, change nothing"],
  ["operate", "operate: also act on every session"],
  ["admin", "admin: also keys, exports and imports"],
  ["some", "operate, but only on some sessions"],
];

export function makeKeys() {
  const list = make("ul");
  const add = make("button", { type: "button", text: "New key", "data-do": "new-key" });
  add.addEventListener("click", () => askKey(draw));
  const place = make(
    "section",
    { name: "panel", id: "keys" },
    make("div", { name: "panel-head" }, make("h2", { text: "Keys" }), add),
    make("p", { name: "soft", text: "A program or a person without a way to this machine needs a key." }),
    list,
  );

  function makeRow(key) {
    const own = key.id === keyId();
    const button = make("button", { type: "button", text: "Revoke", "aria-label": "Revoke " + key.name });
    const question = {
      title: "Revoke the key " + key.name + "?",
      text: own
        ? "This page uses it: the agent refuses this page from then on, and you need another key."
        : "The agent refuses it from then on. A program that uses it needs another one.",
      yes: "Revoke",
    };
    const work = async () => {
      await send("DELETE", "/api/keys/" + key.id);
      if (!own) await draw();
      return "the key " + key.name + " is revoked";
    };
    button.addEventListener("click", () => confirm(question, () => act(button, "", work)));
    const used = key.last_used ? "last used " + moment(key.last_used) : "not used since the agent started";
    return make(
      "li",
      { name: "copy-row", "data-key": key.id },
      make(
        "div",
        { name: "machine-what" },
        make("strong", { text: key.name + (own ? " (this page)" : "") }),
        make("span", { name: "soft small", text: key.scopes.join(", ") }),
        make("span", { name: "soft small", text: "made " + moment(key.created) + "; " + used }),
      ),
      button,
    );
  }

  async function draw() {
    const rows = (await get("/api/keys")).keys.map(makeRow);
    list.replaceChildren(
      ...(rows.length ? rows : [make("li", {}, empty("No key", "Only this machine reaches the interface."))]),
    );
  }
  return { place, draw };
}

function askKey(made) {
  const name = make("input", { id: "key-name", required: true, maxlength: 64, autocomplete: "off" });
  const scope = make(
    "select",
    { id: "key-scope" },
    ...SCOPES.map(([value, text]) => make("option", { value, text })),
  );
  const some = make(
    "select",
    { id: "key-sessions", multiple: true, size: 6 },
    ...[...answers.instances.keys()].sort().map((id) => make("option", { value: id, text: id })),
  );
  const which = make(
    "div",
    { name: "fields", hidden: true },
    make("label", { for: "key-sessions", text: "Sessions" }),
    some,
  );
  scope.addEventListener("change", () => {
    which.hidden = scope.value !== "some";
  });
  const fields = [
    make("label", { for: "key-name", text: "Name, such as its program" }),
    name,
    make("label", { for: "key-scope", text: "What it may do" }),
    scope,
    which,
  ];
  askForm("New key", "Make the key", fields, async () => {
    const chosen = [...some.selectedOptions].map(({ value }) => "instance:" + value);
    const body = { name: name.value, scopes: scope.value === "some" ? chosen : [scope.value] };
    showOnce(await post("/api/keys", body));
    await made();
  });
  name.focus();
}

// The agent keeps a hash of the key only: the page shows the key this once.
function showOnce(key) {
  const close = make("button", { type: "button", name: "primary", text: "Done", click: closeDialog });
  openDialog(
    make(
      "div",
      { name: "once" },
      make("h2", { id: "dialog-title", text: "The key " + key.name }),
      make("p", { text: "Copy it now: the agent keeps only its hash and shows it this once." }),
      make("code", { name: "command", id: "new-key", text: key.token }),
      make("div", { name: "dialog-end" }, copyButton(key.token, "Copy the key"), close),
    ),
  );
  close.focus();
}
