// Evidence of a failing session: its worker's last lines, its page, failed starts.
import { get, getOrNull, send } from "/page/agent.js";
import { pathOf } from "/page/actions.js";
import { answers, may } from "/page/answers.js";
import { actButton, copyButton } from "/page/dialogs.js";
import { make, makeEach, panel, row, setText } from "/page/dom.js";
import { clock } from "/page/words.js";

const timeOf = (name) => name.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1-$2-$3T$4:$5:$6Z");

export function makeEvidence() {
  const state = { id: null, urls: [] };
  const lines = make("pre.lines", { tabindex: "0", "aria-label": "The last lines of its worker" });
  const [hint, command] = makeEach("p.soft.small", "code.command");
  const copy = copyButton(() => command.textContent, "Copy the command");
  const output = make("div", hint, make("div.actions", command, copy), lines);
  const [picture, starts] = makeEach("div", "ul");
  const read = actButton("Its worker's last lines", showLines);
  const look = actButton("Picture of its page", async () => {
    const image = await pictureOf("/screenshot", "The page of " + state.id);
    const words = "As of " + clock(Date.now()) + "; codes are hidden in it.";
    picture.replaceChildren(image, make("p.soft.small", words));
  });
  const place = panel("Look closer", make("div.actions", read, look), output, picture, starts);

  async function showLines() {
    const answer = await get(pathOf(state.id) + "/worker-lines");
    const known = answer.lines || [];
    output.hidden = false;
    const here = "The same on the agent's machine:";
    const same = known.length ? here : "Its worker wrote nothing yet.";
    const there = "The system's journal has the lines. On the agent's machine:";
    setText(hint, answer.lines ? same : there);
    setText(command, answer.command);
    lines.hidden = !known.length;
    setText(lines, known.join("\n"));
    lines.scrollTop = lines.scrollHeight;
  }

  async function pictureOf(rest, alt) {
    const answer = await send("GET", pathOf(state.id) + rest, { accept: "image/*", seconds: 60 });
    const src = URL.createObjectURL(await answer.blob());
    state.urls.push(src);
    return make("img.page-image", { src, alt });
  }

  async function loadStarts(wanted) {
    const answer = await getOrNull(pathOf(wanted) + "/failed-starts");
    if (!answer || wanted !== state.id) return;
    starts.replaceChildren(...answer.failed_starts.map(startRow));
  }

  function startRow(start) {
    const holder = make("div");
    const show = actButton("Picture", async () => {
      const path = "/failed-starts/" + start.name + "/picture";
      holder.replaceChildren(await pictureOf(path, "The page at the failed start"));
    });
    show.hidden = !start.picture || !may("admin");
    const seen = make("pre.lines", JSON.stringify(start.seen, null, 1));
    const title = make("strong", "Failed start, " + clock(timeOf(start.name)));
    const cause = make("span", start.seen.why || "no cause recorded");
    const details = make("details", make("summary", "Diagnostics"), seen);
    return row({}, [title, cause, details, holder], show);
  }

  return {
    place,
    show(id) {
      state.id = id;
      for (const url of state.urls.splice(0)) URL.revokeObjectURL(url);
      output.hidden = true;
      picture.replaceChildren();
      starts.replaceChildren();
      const instance = answers.instances.get(id);
      if (instance && instance.engine === "web" && may("operate", id)) loadStarts(id);
    },
    draw(instance) {
      look.hidden = instance.engine !== "web" || !may("admin");
      place.hidden = !may("operate", instance.id) || Boolean(instance.backend);
    },
  };
}
