'use strict';
const acts = {
  scan: 'scan its code', passkey: 'want a passkey', log_out: 'log out', message: 'write to it', drop: 'lose the network',
  back: 'find the network', conflict: 'open it elsewhere', tos: 'block it', hang: 'hang 60 s',
};
const act = async (page, what) => {
  const reply = await fetch('/phone', {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ page, do: what }),
  });
  document.getElementById('said').textContent = reply.ok ? 'done' : await reply.text();
  await show();
};
const show = async () => {
  const rows = await (await fetch('/pages')).json();
  document.getElementById('pages').replaceChildren(...rows.map((row) => {
    const line = document.createElement('tr');
    for (const text of [`${row.number} ${row.name}`, row.account || (row.code ? 'shows a code' : '-')]) {
      line.insertCell().textContent = text;
    }
    line.insertCell().append(...Object.entries(acts).map(([what, title]) => {
      const button = document.createElement('button');
      button.textContent = title;
      button.onclick = () => act(row.number, what);
      return button;
    }));
    return line;
  }));
};
addEventListener('load', () => { show(); setInterval(show, 2000) });
