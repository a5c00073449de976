// Answers each message of a session with its own text, once: `node echo.mjs SESSION`.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

const { WA_AGENT_URL = "http://127.0.0.1:8470", WA_AGENT_KEY } = process.env;
const url = `${WA_AGENT_URL}/api/instance/${process.argv[2]}/messages`;
const place = `echo-${process.argv[2]}.cursor`; // how far it came: after a kill it goes on there
const LATER = [401, 403, 408, 429]; // of the 4xx, these are no verdict on the message

async function ask(query, method, body, more) {
  const headers = { "Content-Type": "application/json", ...more };
  if (WA_AGENT_KEY) headers.Authorization = `Bearer ${WA_AGENT_KEY}`;
  const answer = await fetch(url + query, { method, headers, body, signal: AbortSignal.timeout(90_000) });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer.json();
}
while (true) {
  try {
    const page = await ask(`?after=${existsSync(place) ? readFileSync(place, "utf8") : 0}&wait=30`);
    for (const { id, kind, answerable = true, from_me, chat, text } of page.records) {
      if (kind !== "message" || !answerable || from_me || !text) continue; // a status post, for one
      // The same key is the same answer: asked again after a kill, it goes out once.
      try {
        await ask("", "POST", JSON.stringify({ to: chat, text }), { "Idempotency-Key": id });
      } catch (error) {
        if (!(error.status >= 400 && error.status < 500) || LATER.includes(error.status)) throw error;
        // Asked again, it is refused again: the next message is not to wait for it.
        console.error(`cannot answer ${id}: ${error.message}`);
      }
    }
    writeFileSync(`${place}.new`, String(page.next));
    renameSync(`${place}.new`, place);
  } catch (error) {
    console.error(error.message); // the agent is away or busy: it is asked again
    await new Promise((done) => setTimeout(done, 1000));
  }
}
