"use strict";

const element = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

function show(path, method, operation) {
  const names = (operation.parameters || []).map((one) => one.name);
  const fields = names.map((name) => element("input", { name, placeholder: name }));
  const example = operation.requestBody?.content["application/json"].example;
  const body = example === undefined ? null : element("textarea", { value: JSON.stringify(example, null, 1) });
  const answer = element("pre", {});
  const send = element("button", { textContent: "Send" });
  send.onclick = async () => {
    const url = fields.reduce((at, field) => at.replace(`{${field.name}}`, encodeURIComponent(field.value)), path);
    const key = document.getElementById("key").value;
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(url, { method: method.toUpperCase(), headers, body: body?.value });
    answer.textContent = `${response.status}\n${await response.text()}`;
  };
  const summary = element("summary", {}, element("code", { textContent: `${method.toUpperCase()} ${path}` }),
    ` ${operation.summary}`);
  return element("details", {}, summary, ...fields.map((field) => element("label", {}, field)), ...(body ? [body] : []),
    send, answer);
}

fetch("/openapi.json").then((response) => response.json()).then((found) => {
  const calls = Object.entries(found.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => show(path, method, operation)));
  document.getElementById("calls").append(...calls);
});
