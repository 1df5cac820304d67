// The routes of openapi.json, as text. (Pages for this usually load scripts from afar.)

const schema = await (await fetch("openapi.json")).json();

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

function resolved(part) {
  return part?.$ref ? part.$ref.split("/").slice(1).reduce((at, key) => at[key], schema) : part;
}

function table(heads, rows) {
  const head = element("tr", "", ...heads.map((text) => element("th", text)));
  return element("table", "", head, ...rows.map((cells) =>
    element("tr", "", ...cells.map((text) => element("td", text)))));
}

function typeOf(field) {
  const choices = field.anyOf?.filter((each) => each.type !== "null") ?? [field];
  return choices.map((each) => {
    if (each.enum) return each.enum.join(" or ");
    if (each.contentMediaType === "application/octet-stream") return "file";
    return each.type === "array" ? `${typeOf(each.items)}, repeated` : each.type;
  }).join(" or ");
}

for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const parts = [element("h2", `${method.toUpperCase()} ${path}`)];
    for (const text of (route.description ?? "").split("\n\n")) parts.push(element("p", text));
    const form = resolved(Object.values(route.requestBody?.content ?? {})[0]?.schema);
    if (form) {
      const fields = Object.entries(form.properties).map(([name, field]) => [
        name, typeOf(field), form.required?.includes(name) ? "needed" : "", field.description ?? "",
      ]);
      parts.push(table(["field", "type", "", "meaning"], fields));
    }
    const answers = Object.entries(route.responses).map(([status, answer]) => [
      status, answer.description, Object.keys(answer.content ?? {}).join(", "),
    ]);
    parts.push(table(["status", "meaning", "content"], answers));
    document.getElementById("routes").append(element("section", "", ...parts));
  }
}
