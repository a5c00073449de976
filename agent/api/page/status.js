"use strict";
// Everything foreign is put in as text, never as HTML.
const at = (id) => document.getElementById(id);
const unwell = new Set(["degraded", "stuck", "corrupted"]);
let key = sessionStorage.getItem("wa-agent-key") || "";
let shown = null;
let drawn = null;

async function get(path, accept) {
  const headers = { Accept: accept || "application/json" };
  if (key) headers.Authorization = "Bearer " + key;
  return fetch(path, { headers, cache: "no-store" });
}

function cell(row, text, kind) {
  const found = row.insertCell();
  found.textContent = text;
  if (kind) found.className = kind;
  return found;
}

function duration(seconds) {
  if (seconds === null) return "";
  const days = Math.floor(seconds / 86400);
  const rest = new Date((seconds % 86400) * 1000).toISOString().slice(11, 19);
  return days ? days + " d " + rest : rest;
}

function draw(instances) {
  const rows = document.createElement("tbody");
  rows.id = "rows";
  for (const one of instances) {
    const row = rows.insertRow();
    cell(row, one.id, "path");
    cell(row, one.engine);
    cell(row, one.connection_status, one.connection_status === "CONNECTED" ? "good" : "");
    cell(row, one.health.verdict, one.health.healthy ? "good" : unwell.has(one.health.verdict) ? "bad" : "");
    cell(row, one.sentence, "soft");
    cell(row, duration(one.uptime_seconds));
    cell(row, one.memory_bytes === null ? "" : Math.round(one.memory_bytes / 1048576) + " MiB");
    const last = cell(row, "");
    if (one.connection_status === "QR_REQUIRED") {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "QR";
      button.onclick = () => { shown = one.id; showCode(); };
      last.append(button);
    }
  }
  at("rows").replaceWith(rows);
}

async function showCode() {
  if (!shown) return;
  const id = shown;
  const answer = await get("/api/instance/" + encodeURIComponent(id) + "/qr", "image/svg+xml");
  if (shown !== id) return;
  at("code").hidden = false;
  at("code-title").textContent = "Scan with WhatsApp: " + id;
  if (drawn) URL.revokeObjectURL(drawn);
  drawn = null;
  at("code-image").hidden = !answer.ok;
  if (answer.ok) {
    drawn = URL.createObjectURL(await answer.blob());
    at("code-image").src = drawn;
    at("code-note").textContent = "WhatsApp replaces the code every few seconds; so does this page.";
  } else {
    at("code-note").textContent = (await answer.json()).message;
  }
}

async function allInstances() {
  const found = [];
  let after = "";
  do {
    const answer = await get("/api/instances?limit=1000" + (after && "&after=" + after));
    if (!answer.ok) return answer;
    const page = await answer.json();
    found.push(...page.instances);
    after = page.next;
  } while (after);
  return found;
}

async function refresh() {
  try {
    const found = await allInstances();
    const refused = !Array.isArray(found);
    at("ask").hidden = !refused || found.status !== 401;
    if (refused) {
      at("summary").textContent = (await found.json()).message;
    } else {
      const well = found.filter((one) => one.connection_status === "CONNECTED").length;
      at("summary").textContent = well + " of " + found.length + " connected, " + new Date().toLocaleTimeString();
      draw(found);
      await showCode();
    }
  } catch (error) {
    at("summary").textContent = "the agent does not answer";
  }
  setTimeout(refresh, 3000);
}

at("ask").onsubmit = (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  sessionStorage.setItem("wa-agent-key", key);
  at("ask").hidden = true;
};
at("code-close").onclick = () => { shown = null; at("code").hidden = true; };
refresh();
