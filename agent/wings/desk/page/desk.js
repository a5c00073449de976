// An invitation for a desk.
import { post, send } from "/page/agent.js";
import { act, closeDialog, confirm, copyButton, openDialog } from "/page/dialogs.js";
import { makeChoice, path } from "/page/moving.js";
import { make, moment } from "/page/show.js";

export function makePanel() {
  const choice = makeChoice(
    "desk-of",
    "Session",
    (instance) => instance.engine === "web" && !instance.paired,
    "No session can be paired at a desk: a desk pairs one of the engine web that is not paired.",
  );
  const go = make("button", { type: "button", text: "Invite", "data-do": "invite" });
  const end = make("button", { type: "button", text: "Revoke the invitation", "data-do": "revoke-invite" });
  const place = make(
    "section",
    { name: "panel", id: "desk" },
    make("h2", { text: "Pair at a desk" }),
    make("p", {
      name: "soft",
      text: "A person pairs the session in a browser of their own, also with a passkey, and the desk sends it here.",
    }),
    choice.place,
    make("div", { name: "actions" }, go, end),
  );
  go.addEventListener("click", () =>
    act(go, "", async () => {
      showLine(await post(path(choice.select.value, "/invite"), {}));
      return "";
    }),
  );
  end.addEventListener("click", () => {
    const id = choice.select.value;
    const question = {
      title: "Revoke the invitation of " + id + "?",
      text: "The line that you gave away opens nothing any more.",
      yes: "Revoke",
    };
    confirm(question, () =>
      act(end, "", async () => {
        const { revoked } = await (await send("DELETE", path(id, "/invite"))).json();
        return revoked ? "the invitation of " + id + " is revoked" : id + " had no unused invitation";
      }),
    );
  });
  return {
    place,
    right: "operate",
    draw() {
      go.disabled = end.disabled = !choice.draw();
    },
  };
}

function showLine(made) {
  const close = make("button", { type: "button", name: "primary", text: "Done", click: closeDialog });
  // Without an address of this agent the desk writes a file, which is imported here.
  const command = "pipx run wa-agent pair --to " + made.line + (made.url ? "" : " --out FILE");
  openDialog(
    make(
      "div",
      { name: "once" },
      make("h2", { id: "dialog-title", text: "Pair " + made.id + " at a desk" }),
      make("p", {
        text:
          "For one pairing, until " +
          moment(made.expires) +
          ", and shown this once. At the desk" +
          (made.url ? ":" : ", and then import FILE here:"),
      }),
      make("code", { name: "command", id: "desk-line", text: command }),
      make("p", { name: "soft small", text: "Fingerprint of this agent: " + made.fingerprint }),
      make("div", { name: "dialog-end" }, copyButton(command, "Copy the command"), close),
    ),
  );
  close.focus();
}
