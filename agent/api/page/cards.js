// Sessions as cards: status, reason, next try, two lines, the action that helps, a menu.
import { answers, may } from "/page/answers.js";
import { helpful, perform } from "/page/actions.js";
import { arrange } from "/page/arrange.js";
import { placeOf } from "/page/backends.js";
import { isStale, ownerOf, staleWords } from "/page/machines.js";
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
} from "/page/show.js";
import { accountWord, pauseWord, plain, verdictWord } from "/page/words.js";

export function makeCards() {
  const list = make("ul", { name: "cards" });
  const cards = new Map();
  return {
    place: list,
    draw(chosen) {
      const wanted = chosen.map((one) => {
        if (!cards.has(one.id)) cards.set(one.id, makeCard(one.id));
        const card = cards.get(one.id);
        drawCard(card, one);
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
    stale: make("p", { name: "stale-words", hidden: true }),
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
    card.stale,
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
    draw(one, { onPage = false } = {}) {
      const action = may("operate", one.id) ? helpful(one) : null;
      scan.hidden =
        onPage ||
        one.connection_status !== "QR_REQUIRED" ||
        one.reason === "passkey_required" ||
        !one.should_run ||
        Boolean(action) ||
        !may("operate", one.id);
      button.hidden = !action;
      if (action) setText(button, action.label);
      setAttribute(button, "data-helps", action ? action.key : null);
      setText(line, onPage && action ? action.line : "");
      setAttribute(button, "title", action ? action.line : null);
      place.hidden = scan.hidden && button.hidden;
    },
  };
}

function drawCard(card, one) {
  const [tone, word] = statusOf(one);
  setPill(card.pill, tone, word);
  setAttribute(card.item, "data-status", one.connection_status);
  card.item.className = "card " + tone + (isStale(one) ? " stale-state" : "");
  setText(card.stale, staleWords(one));
  card.stale.hidden = !card.stale.textContent;
  setText(card.engine, [placeOf(one), ownerOf(one), accountWord(one)].filter(Boolean).join(" · "));
  setText(card.why, one.sentence);
  card.why.hidden = one.health.healthy; // the pill says so
  setSince(card.since, one.since);
  setSince(card.proof, one.proved, " ago");
  if (!one.proved) setText(card.proof, "none");
  setText(card.verdict, verdictWord(one));
  card.menu.hidden = !may("operate", one.id);
  drawNext(card, one);
  card.help.draw(one);
  drawFigures(card, one, answers.figures.get(one.id));
}

export function drawNext(card, one) {
  const parts = [];
  if (one.attempts) parts.push(one.attempts + (one.attempts === 1 ? " try so far" : " tries so far"));
  if (one.circuit !== "closed") parts.push(pauseWord(one));
  if (one.hold && one.reason !== one.hold) parts.push(plain(one.hold));
  const when = one.circuit === "open" ? one.circuit_opens || one.next_attempt : one.next_attempt;
  if (when) parts.push("next try ");
  setText(card.nextText, parts.join(", "));
  setUntil(card.nextTime, when);
  card.next.hidden = !parts.length;
}

export const memoryWords = (one) => {
  if (one.memory_bytes !== null) return bytes(one.memory_bytes) + " memory";
  if (one.backend) return "No memory here";
  return one.worker === "active" ? "Memory not known yet" : "No memory in use";
};

export function rateOf(figures) {
  const rate = figures && figures.now ? figures.now.messagesPerMinute : null;
  return (rate === null || rate === undefined ? "0" : rate) + " messages/min";
}

function drawFigures(card, one, figures) {
  setText(card.memory, memoryWords(one));
  setText(card.messages, rateOf(figures));
  if (figures) {
    drawSpark(card.memoryLine, figures.memory, 4 << 20, { name: "Memory of " + one.id, words: bytes });
    drawSpark(card.messagesLine, figures.messages, 4, {
      name: "Messages of " + one.id,
      words: (rate) => rate + " a minute",
    });
  }
}
