// The page of the agent itself: its keys, its webhooks, the trash, sessions of another machine.
import { Refused, get, keyId, post, send } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { makeImport, makeTrash } from "/page/copies.js";
import { act, actButton, askForm, confirm, copyButton } from "/page/dialogs.js";
import { closeDialog, openDialog } from "/page/dialogs.js";
import { button, empty, field, fill, headed, input, keyed } from "/page/dom.js";
import { make, makeEach, panel, row, select, setPill, setText } from "/page/dom.js";
import { counted, joined, moment, since } from "/page/words.js";

export function makeManage(place) {
  const [keys, webhooks, trash, archive] = [makeKeys(), makeWebhooks(), makeTrash(), makeImport()];
  const wrong = make("p.wrong", { role: "alert" });
  const left = make("div", keys.place, webhooks.place);
  place.append(wrong, make("div.columns.halves", left, make("div", trash.place, archive)));

  async function draw(...parts) {
    const lacks = "Keys, exports and imports need a key with the scope admin.";
    try {
      for (const part of parts) await part.draw();
      setText(wrong, may("admin") ? "" : lacks);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(wrong, error.message);
    }
  }

  return {
    async show() {
      keys.place.hidden = archive.hidden = !may("admin");
      await draw(...(may("admin") ? [keys] : []), webhooks, trash);
    },
    refresh: () => draw(webhooks),
  };
}

const SCOPES = [
  ["read", "read: see every session, change nothing"],
  ["operate", "operate: also act on every session"],
  ["admin", "admin: also keys, exports and imports"],
  ["some", "operate, but only on some sessions"],
];

// The keys of this interface: list, make one and show it once, revoke.
function makeKeys() {
  const list = make("ul");
  const add = button("New key", () => askKey(draw), { "data-do": "new-key" });
  const hint = "A program or a person without a way to this machine needs a key.";
  const place = headed("Keys", add, make("p.soft", hint), list);
  place.id = "keys";

  function makeRow(key) {
    const own = key.id === keyId();
    const text = own
      ? "This page uses it: the agent refuses this page from then on, and you need another key."
      : "The agent refuses it from then on. A program that uses it needs another one.";
    const question = { title: "Revoke the key " + key.name + "?", text, yes: "Revoke" };
    const work = async () => {
      await send("DELETE", "/api/keys/" + key.id);
      if (!own) await draw();
      return "the key " + key.name + " is revoked";
    };
    const ask = () => confirm(question, () => act(revoke, work));
    const revoke = button("Revoke", ask, { "aria-label": "Revoke " + key.name });
    const unused = "not used since the agent started";
    const used = key.last_used ? "last used " + moment(key.last_used) : unused;
    const name = make("strong", key.name + (own ? " (this page)" : ""));
    const said = [key.scopes.join(", "), "made " + moment(key.created) + "; " + used];
    const words = said.map((text) => make("span.soft.small", text));
    return row({ "data-key": key.id }, [name, ...words], revoke);
  }

  async function draw() {
    const rows = (await get("/api/keys")).keys.map(makeRow);
    fill(list, rows, "No key", "Only this machine reaches the interface.");
  }
  return { place, draw };
}

function askKey(made) {
  const name = input({ id: "key-name", required: true, maxlength: 64 });
  const choices = [...answers.instances.keys()].sort().map((id) => [id, id]);
  const some = select(choices, { id: "key-sessions", multiple: true, size: 6 });
  const which = field("Sessions", some);
  which.hidden = true;
  const change = () => (which.hidden = scope.value !== "some");
  const scope = select(SCOPES, { id: "key-scope", change });
  const fields = [field("Name, such as its program", name), field("What it may do", scope), which];
  askForm("New key", "Make the key", fields, async () => {
    const chosen = [...some.selectedOptions].map(({ value }) => "instance:" + value);
    const scopes = scope.value === "some" ? chosen : [scope.value];
    showOnce(await post("/api/keys", { name: name.value, scopes }));
    await made();
  });
  name.focus();
}

// The agent keeps a hash of the key only: the page shows the key this once.
function showOnce(key) {
  const close = button("Done", closeDialog, { class: "primary" });
  const copy = copyButton(() => key.token, "Copy the key");
  const hint = make("p", "Copy it now: the agent keeps only its hash and shows it this once.");
  const token = make("code.command", { id: "new-key" }, key.token);
  openDialog("The key " + key.name, hint, token, make("div.actions", copy, close));
  copy.focus(); // another Enter must not close it
}

const STATES = {
  idle: ["good", "All delivered"],
  sending: ["busy", "Sending"],
  failing: ["bad", "Failing"],
};

// The webhooks: what each has delivered, what waits, what its target refused, and a try by hand.
function makeWebhooks() {
  const list = make("ul");
  const place = make("section.panel", { id: "webhooks" }, make("h2", "Webhooks"), list);
  const words = "[[webhook]] in agent.toml names the targets of events.";
  const none = () => make("li", empty("No webhook", words));
  const drawRows = keyed(list, "name", ({ name }) => makeWebhook(name), none);
  return { place, draw: async () => drawRows((await get("/api/webhooks")).webhooks) };
}

function makeWebhook(name) {
  const path = "/api/webhooks/" + encodeURIComponent(name) + "/";
  const [pill, url] = makeEach("span.pill", "span.soft.small");
  const [state, problem] = makeEach("span.small", "span.wrong.small");
  const retry = actButton("Send now", async () => {
    await post(path + "retry", {});
    return name + " is tried now";
  });
  const test = actButton("Send a test", async () => {
    const answer = await post(path + "test", {}, 90);
    const said = answer.status ? "answered " + answer.status : answer.problem;
    if (!answer.delivered) throw new Refused(0, name + " took no test event: " + said);
    return name + " took a test event in " + answer.seconds + " s";
  });
  const head = make("div.row-head", make("strong", name), pill);
  return {
    item: row({ "data-webhook": name }, [head, url, state, problem], test, retry),
    draw(webhook) {
      setPill(pill, ...(STATES[webhook.state] || ["off", webhook.state]));
      setText(url, webhook.url);
      setText(state, stateOf(webhook));
      setText(problem, webhook.problem);
      retry.hidden = test.hidden = !may("operate");
      retry.disabled = !webhook.waiting;
    },
  };
}

function stateOf({ delivered, waiting, oldest, dead, circuit, next_try: next }) {
  const first = oldest ? ", the oldest since " + moment(oldest) : "";
  const parts = [
    delivered ? "last delivered " + since(delivered) + " ago" : "nothing delivered yet",
    waiting && counted(waiting, "waits", "wait") + first,
    dead && dead + " refused and given up",
    circuit !== "closed" && "it pauses after failures",
    next && "next try " + moment(next),
  ];
  return joined(parts, "; ");
}
