// Answers each message of a session with its own text, once: `node echo.mjs SESSION`.
import { existsSync, readFileSync, writeFileSync } from "node:fs";

if (!process.argv[2]) { console.error("usage: node echo.mjs SESSION"); process.exit(2); }
const { WA_AGENT_URL = "http://127.0.0.1:8470", WA_AGENT_KEY: key } = process.env;
const place = `${process.env.HOME}/.echo-${process.argv[2]}.cursor`; // how far it came: after a kill it goes on there
let after = (existsSync(place) && readFileSync(place, "utf8")) || "newest"; // at first: what comes from now on
async function ask(query, more, options) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...more };
  const url = `${WA_AGENT_URL}/api/instance/${process.argv[2]}/messages${query}`;
  const answer = await fetch(url, { headers, signal: AbortSignal.timeout(90_000), ...options });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer.json();
}
for (let at; ; at = undefined) {
  try {
    const page = await ask(`?after=${after}&wait=${existsSync(place) ? 30 : 0}`);
    for (const { id, cursor, answerable, from_me, chat, text } of page.records) {
      at = String(cursor);
      const its = { "Content-Type": "application/json", "Idempotency-Key": id }; // asked again, it goes out once
      if (answerable && text && !from_me) await ask("", its, { method: "POST", body: JSON.stringify({ to: chat, text }) });
    }
    writeFileSync(place, (after = String(page.next)));
  } catch (error) {
    console.error(error.message); // the agent is away or busy: it is asked again
    // Refused for good, it would be refused again: the next one does not wait for it.
    if (at && error.status >= 400 && error.status < 500 && ![401, 403, 408, 429].includes(error.status)) after = at;
    await new Promise((done) => setTimeout(done, 1000));
  }
}
