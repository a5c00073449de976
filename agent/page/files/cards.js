// Sessions as cards: status, reason, next try, two lines, the action that helps, a menu.
import { answers, may } from "/page/answers.js";
import { helpful, perform } from "/page/actions.js";
import { arrange } from "/page/arrange.js";
import { placeOf } from "/page/backends.js";
import { menuButton } from "/page/menu.js";
import {
  bytes,
  drawSpark,
  make,
  makeSpark,
  setAttribute,
  setPill,
  setSince,
  setText,
  setUntil,
  statusOf,
  troubleOf,
} from "/page/show.js";
import { accountWord, pauseWord, plain, verdictWord } from "/page/words.js";

export function makeCards() {
  const list = make("ul", { name: "cards" });
  const cards = new Map();
  return {
    place: list,
    draw(chosen) {
      const wanted = chosen.map((instance) => {
        if (!cards.has(instance.id)) cards.set(instance.id, makeCard(instance.id));
        const card = cards.get(instance.id);
        drawCard(card, instance);
        return card.item;
      });
      arrange(list, wanted);
      for (const id of cards.keys()) if (!answers.instances.has(id)) cards.delete(id);
    },
  };
}

const fact = (label, value) => make("div", {}, make("dt", { text: label }), make("dd", {}, value));

function makeCard(id) {
  const current = () => answers.instances.get(id);
  const card = {
    link: make("a", { name: "card-name", href: "#/instance/" + id, text: id }),
    pill: make("span", { name: "pill" }),
    engine: make("span", { name: "soft small" }),
    why: make("p", { name: "card-why" }),
    since: make("span"),
    proof: make("span"),
    verdict: make("span"),
    next: make("p", { name: "card-next" }),
    nextText: make("span"),
    nextTime: make("strong"),
    memory: make("span", { name: "figure" }),
    memoryLine: makeSpark(),
    messages: make("span", { name: "figure" }),
    messagesLine: makeSpark(),
    help: makeHelp(id, current),
    menu: menuButton(id, current),
  };
  card.next.append(card.nextText, card.nextTime);
  card.item = make(
    "li",
    { name: "card", "data-id": id },
    make("div", { name: "card-head" }, make("h3", {}, card.link), card.pill, card.menu),
    card.engine,
    card.why,
    card.next,
    card.help.place,
    make(
      "dl",
      { name: "card-facts" },
      fact("In this state", card.since),
      fact("Last answer", card.proof),
      fact("Health", card.verdict),
    ),
    make(
      "div",
      { name: "card-lines" },
      make("div", {}, card.memory, card.memoryLine),
      make("div", {}, card.messages, card.messagesLine),
    ),
  );
  return card;
}

// The button of the action that helps now; a code is scanned on the session's own page.
export function makeHelp(id, current) {
  const scan = make("a", {
    name: "button primary",
    href: "#/instance/" + id,
    text: "Scan",
    hidden: true,
    "aria-label": "Scan the code of " + id,
  });
  const state = { id };
  const button = make("button", { type: "button", name: "primary", hidden: true });
  const line = make("span", { name: "soft small" });
  const place = make("p", { name: "help" }, scan, button, line);
  button.addEventListener("click", () => perform(button, helpful(current()), state.id));
  return {
    place,
    forget(wanted) {
      state.id = wanted;
    },
    draw(instance, { onPage = false } = {}) {
      const action = may("operate", instance.id) ? helpful(instance) : null;
      scan.hidden =
        onPage ||
        instance.connection_status !== "QR_REQUIRED" ||
        instance.reason === "passkey_required" ||
        !instance.should_run ||
        Boolean(action) ||
        !may("operate", instance.id);
      setText(scan, instance.reason === "qr_idle" ? "New code" : "Scan");
      button.hidden = !action;
      if (action) setText(button, action.label);
      setAttribute(button, "data-helps", action ? action.key : null);
      setText(line, onPage && action ? action.line : "");
      setAttribute(button, "title", action ? action.line : null);
      place.hidden = scan.hidden && button.hidden;
    },
  };
}

function drawCard(card, instance) {
  const [tone, word] = statusOf(instance);
  setPill(card.pill, tone, word);
  setAttribute(card.item, "data-status", instance.connection_status);
  card.item.className = "card " + tone;
  setText(card.engine, [placeOf(instance), accountWord(instance)].filter(Boolean).join(" · "));
  setText(card.why, troubleOf(instance));
  card.why.hidden = !card.why.textContent;
  setSince(card.since, instance.since);
  setSince(card.proof, instance.proved, " ago");
  if (!instance.proved) setText(card.proof, "none");
  setText(card.verdict, verdictWord(instance));
  card.menu.hidden = !may("operate", instance.id);
  drawNext(card, instance);
  card.help.draw(instance);
  drawFigures(card, instance, answers.figures.get(instance.id));
}

export function drawNext(card, instance) {
  const parts = [];
  if (instance.attempts)
    parts.push(instance.attempts + (instance.attempts === 1 ? " try so far" : " tries so far"));
  if (instance.circuit !== "closed") parts.push(pauseWord(instance));
  if (instance.wait_reason && instance.reason !== instance.wait_reason)
    parts.push(plain(instance.wait_reason));
  const when =
    instance.circuit === "open" ? instance.circuit_opens || instance.next_attempt : instance.next_attempt;
  if (when) parts.push("next try ");
  setText(card.nextText, parts.join(", "));
  setUntil(card.nextTime, when);
  card.next.hidden = !parts.length;
}

export const memoryWords = (instance) => {
  if (instance.memory_bytes !== null) return bytes(instance.memory_bytes) + " memory";
  if (instance.backend) return "No memory here";
  return instance.worker === "active" ? "Memory not known yet" : "No memory in use";
};

export function rateOf(figures) {
  const rate = figures && figures.now ? figures.now.messagesPerMinute : null;
  return (rate === null || rate === undefined ? "0" : rate) + " messages/min";
}

function drawFigures(card, instance, figures) {
  setText(card.memory, memoryWords(instance));
  setText(card.messages, rateOf(figures));
  if (figures) {
    drawSpark(card.memoryLine, figures.memory, 4 << 20, { name: "Memory of " + instance.id, words: bytes });
    drawSpark(card.messagesLine, figures.messages, 4, {
      name: "Messages of " + instance.id,
      words: (rate) => rate + " a minute",
    });
  }
}
