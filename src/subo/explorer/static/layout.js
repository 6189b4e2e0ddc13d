// Sections, and controls bound to the state.

// A section with a title and a line that says what can be done.
export function section(name, title, hint) {
  const element = document.createElement("section");
  element.id = name;
  const head = document.createElement("h2");
  head.textContent = title;
  element.append(head);
  if (hint) element.append(paragraph(hint, "hint"));
  return element;
}

export function paragraph(text, name = "") {
  const element = document.createElement("p");
  element.className = name;
  element.textContent = text;
  return element;
}

// A choice among {value, name}, which the state keeps under a name.
export function control(text, state, name, choices) {
  const label = document.createElement("label");
  label.textContent = `${text} `;
  const select = document.createElement("select");
  for (const { value, name: shown } of choices) {
    const option = document.createElement("option");
    [option.value, option.textContent] = [value, shown];
    select.append(option);
  }
  const show = () => (select.value = state.get(name));
  select.addEventListener("change", () => state.set({ [name]: select.value }));
  state.on([name], show);
  show();
  label.append(select);
  return label;
}

export function button(text, act, title = "") {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.title = title;
  element.addEventListener("click", act);
  return element;
}

// A table of rows of text; the first cell of each is its head.
export function table(rows, name = "numbers") {
  const element = document.createElement("table");
  element.className = name;
  for (const cells of rows) {
    const line = document.createElement("tr");
    cells.forEach((text, k) => {
      const cell = document.createElement(k ? "td" : "th");
      if (!k) cell.scope = "row";
      cell.textContent = text;
      line.append(cell);
    });
    element.append(line);
  }
  return element;
}

export function figure(element, caption) {
  const box = document.createElement("figure");
  const text = document.createElement("figcaption");
  text.textContent = caption;
  box.append(element, text);
  return box;
}
