// Words that name a page of their own link there: no sentence about the trash is a dead end.
import { reads } from "/page/answers.js";
import { make } from "/page/show.js";

/** @type {[RegExp, (id: string) => string][]} */
const PLACES = [[/\b(?:trash|snapshots?)\b/, (id) => "#/copies" + (id ? "/" + encodeURIComponent(id) : "")]];

// For a panel: its words lead to its page.
export function addPlace(word, hrefOf) {
  PLACES.push([word, hrefOf]);
}

// A text as parts to append; `id`: the session that it is about.
export function linked(text, id = "") {
  if (!reads()) return [text];
  for (const [word, hrefOf] of PLACES) {
    const found = word.exec(text);
    if (!found) continue;
    const end = found.index + found[0].length;
    return [
      text.slice(0, found.index),
      make("a", { name: "in-text", href: hrefOf(id), text: found[0] }),
      text.slice(end),
    ].filter(Boolean);
  }
  return [text];
}
