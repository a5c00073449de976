// Evidence of a failing session: its worker's last lines, its page, failed starts.
import { Refused, answersTo, get, send } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { act, copyButton } from "/page/dialogs.js";
import { clock, make, setText } from "/page/show.js";

const timeOf = (name) => name.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1-$2-$3T$4:$5:$6Z");

export function makeEvidence() {
  const state = { id: null, urls: [], lines: true };
  const lines = make("pre", { name: "lines", tabindex: "0", "aria-label": "The last lines of its worker" });
  const hint = make("p", { name: "soft small" }),
    command = make("code", { name: "command" });
  const copy = copyButton(() => command.textContent, "Copy the command");
  const starts = make("ul", { name: "starts" });
  const picture = make("div", { name: "page-picture", hidden: true });
  const look = make("button", { type: "button", text: "Picture of its page", "data-do": "picture" });
  const read = make("button", { type: "button", text: "Its worker's last lines", "data-do": "worker-lines" });
  const output = make("div", { hidden: true }, hint, make("div", { name: "actions" }, command, copy), lines);
  const place = make(
    "section",
    { name: "panel", id: "evidence" },
    make("h2", { text: "Look closer" }),
    make("div", { name: "actions" }, read, look),
    output,
    picture,
    starts,
  );

  const path = (rest) => "/api/instance/" + encodeURIComponent(state.id) + rest;

  async function showLines() {
    const answer = await get(path("/worker-lines"));
    output.hidden = false;
    setText(
      hint,
      answer.lines === null
        ? "The system's journal has the lines. On the agent's machine:"
        : answer.lines.length
          ? "The same on the agent's machine:"
          : "Its worker wrote nothing yet.",
    );
    setText(command, answer.command);
    lines.hidden = !answer.lines || !answer.lines.length;
    setText(lines, (answer.lines || []).join("\n"));
    lines.scrollTop = lines.scrollHeight;
  }

  async function pictureOf(rest, alt) {
    const drawn = await (await send("GET", path(rest), { accept: "image/*", seconds: 60 })).blob();
    const url = URL.createObjectURL(drawn);
    state.urls.push(url);
    return make("img", { src: url, alt, name: "page-image" });
  }

  read.addEventListener("click", () => act(read, "the last lines of the worker are shown", showLines));
  look.addEventListener("click", () =>
    act(look, "the picture is shown", async () => {
      const image = await pictureOf("/screenshot", "The page of " + state.id);
      picture.hidden = false;
      picture.replaceChildren(
        image,
        make("p", { name: "soft small", text: "As of " + clock(Date.now()) + "; codes are hidden in it." }),
      );
    }),
  );

  async function loadStarts() {
    const wanted = state.id;
    try {
      const answer = await get(path("/failed-starts"));
      if (wanted !== state.id) return;
      starts.replaceChildren(...answer.failed_starts.map((start) => startRow(start)));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }

  function startRow(start) {
    const seen = make("pre", { name: "lines", text: JSON.stringify(start.seen, null, 1), hidden: true });
    const holder = make("div", { hidden: true });
    const open = make("button", {
      type: "button",
      name: "quiet",
      text: "Diagnostics",
      click: () => {
        seen.hidden = !seen.hidden;
      },
    });
    const show = make("button", {
      type: "button",
      name: "quiet",
      text: "Picture",
      hidden: !start.picture || !may("admin"),
    });
    show.addEventListener("click", () =>
      act(show, "the picture is shown", async () => {
        holder.replaceChildren(
          await pictureOf("/failed-starts/" + start.name + "/picture", "The page at the failed start"),
        );
        holder.hidden = false;
      }),
    );
    return make(
      "li",
      {},
      make(
        "p",
        {},
        make("strong", { text: "Failed start, " + clock(timeOf(start.name)) }),
        make("span", { text: ": " + (start.seen.why || "no cause recorded") }),
      ),
      make("div", { name: "actions" }, open, show),
      seen,
      holder,
    );
  }

  return {
    place,
    show(id) {
      state.id = id;
      for (const url of state.urls.splice(0)) URL.revokeObjectURL(url);
      output.hidden = picture.hidden = true;
      starts.replaceChildren();
      const instance = id === null ? null : answers.instances.get(id);
      if (!instance || !may("operate", id)) return;
      answersTo("/api/instance/{id}/worker-lines").then((has) => (state.lines = has));
      if (instance.engine === "web") loadStarts();
    },
    draw(instance) {
      read.hidden = !state.lines;
      look.hidden = instance.engine !== "web" || !may("admin");
      const nothing = read.hidden && look.hidden;
      place.hidden = nothing || !may("operate", instance.id) || Boolean(instance.backend);
    },
  };
}
