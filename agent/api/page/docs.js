"use strict";
function make(kind, text, name) {
  const found = document.createElement(kind);
  if (text) found.textContent = text;
  if (name) found.className = name;
  return found;
}

function fieldTable(rows) {
  const table = make("table");
  for (const [name, schema, required, where] of rows) {
    const row = table.insertRow();
    row.insertCell().append(make("code", name));
    row.insertCell().textContent = where + (required ? ", required" : "");
    row.insertCell().textContent = [].concat(schema.type).join(" or ");
    const choices = schema.enum || (schema.items && schema.items.enum);
    row.insertCell().textContent = (schema.description || schema.pattern || "") + (choices ? ": " + choices.join(", ") : "");
  }
  return table;
}

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  const all = document.getElementById("routes");
  all.textContent = "";
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      if (path.startsWith("/page/")) continue;
      const title = make("h2");
      title.append(make("span", method.toUpperCase() + " " + path, "path"));
      all.append(title, make("p", route.summary + ". " + route.description));
      const rows = route.parameters.map((one) => [one.name, one.schema, one.required, one.in]);
      if (route.requestBody) {
        const schema = route.requestBody.content["application/json"].schema;
        for (const [name, one] of Object.entries(schema.properties)) {
          rows.push([name, one, schema.required.includes(name), "body"]);
        }
      }
      if (rows.length) all.append(fieldTable(rows));
    }
  }
});
