// Sessions out and in: an archive to download, one to upload.
import { send } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { act, note } from "/page/dialogs.js";
import { make, setAttribute, setText } from "/page/show.js";

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
