// Sessions out and in: an archive to download, one to upload, an invitation for a desk.
import { post, send } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { act, closeDialog, confirm, copyButton, note, openDialog } from "/page/dialogs.js";
import { make, moment, setAttribute, setText } from "/page/show.js";

const LONG = 3600; // seconds that a large archive may take
const path = (id, rest) => "/api/instance/" + encodeURIComponent(id) + rest;

// A choice of sessions that keeps what was chosen; `none`: what is said where there is none.
function makeChoice(id, label, fits, none) {
  const select = make("select", { id });
  const lacking = make("p", { name: "soft small", text: none });
  const named = make("label", { for: id, text: label });
  const place = make("div", { name: "fields" }, named, select, lacking);
  return {
    place,
    select,
    draw() {
      const ids = [...answers.instances.values()].filter(fits).map((instance) => instance.id);
      const before = select.value;
      if (ids.join() !== [...select.options].map(({ value }) => value).join())
        select.replaceChildren(...ids.sort().map((each) => make("option", { value: each, text: each })));
      if (ids.includes(before)) select.value = before;
      lacking.hidden = ids.length > 0;
      for (const part of [named, select]) setAttribute(part, "hidden", ids.length ? null : "");
      return ids.length > 0;
    },
  };
}

export function makeExport() {
  const choice = makeChoice(
    "export-of",
    "Session",
    (instance) => !instance.backend,
    "There is no session on this machine.",
  );
  const go = make("button", { type: "button", text: "Download the archive", "data-do": "export" });
  const place = make(
    "section",
    { name: "panel", id: "export" },
    make("h2", { text: "Export" }),
    make("p", {
      name: "soft",
      text: "The archive has the pairing: a person who gets it can use the account. Stop the session here before another machine runs it.",
    }),
    choice.place,
    make("div", { name: "actions" }, go),
  );
  go.addEventListener("click", () =>
    act(go, "", async () => {
      const id = choice.select.value;
      const answer = await send("POST", path(id, "/export"), { body: {}, accept: "*/*", seconds: LONG });
      const [, name] = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition")) || ["", id];
      const url = URL.createObjectURL(await answer.blob());
      make("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      return "the archive of " + id + " is " + name;
    }),
  );
  return {
    place,
    draw() {
      go.disabled = !choice.draw();
    },
  };
}

export function makeImport() {
  const file = make("input", {
    id: "import-file",
    type: "file",
    accept: ".gz,application/gzip",
    required: true,
  });
  const id = make("input", {
    id: "import-id",
    maxlength: 48,
    pattern: "[a-z0-9][a-z0-9_\\-]{0,47}",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    placeholder: "the one in the archive",
  });
  const replace = make("input", { id: "import-replace", type: "checkbox" });
  const enable = make("input", { id: "import-enable", type: "checkbox" });
  const check = (box, text) => make("label", { name: "check", for: box.id }, box, make("span", { text }));
  const wrong = make("p", { name: "wrong", role: "alert" });
  const go = make("button", { text: "Import" });
  const form = make(
    "form",
    { name: "fields" },
    make("label", { for: "import-file", text: "Archive" }),
    file,
    make("label", { for: "import-id", text: "Id" }),
    id,
    check(replace, "Replace a session of that id; its files go to the trash"),
    check(enable, "Run it at once"),
    wrong,
    make("div", { name: "actions" }, go),
  );
  const place = make(
    "section",
    { name: "panel", id: "import" },
    make("h2", { text: "Import" }),
    make("p", {
      name: "soft",
      text: "An archive of an export. Its session must not run elsewhere: two copies end the pairing.",
    }),
    form,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setText(wrong, "");
    act(go, "", async () => {
      const query = new URLSearchParams({ replace: String(replace.checked), enable: String(enable.checked) });
      if (id.value) query.set("id", id.value);
      setText(go, "Sending…");
      try {
        const sent = { raw: file.files[0], seconds: LONG };
        const made = await (await send("POST", "/api/import?" + query, sent)).json();
        form.reset();
        note(
          made.id + " is imported" + (made.trash ? "; what it replaced is in the trash: " + made.trash : ""),
        );
        location.hash = "#/instance/" + made.id;
      } catch (error) {
        setText(wrong, error.message);
        throw error;
      } finally {
        setText(go, "Import");
      }
    });
  });
  return { place };
}

export function makeDesk() {
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
