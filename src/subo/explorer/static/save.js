// What is taken away from the page: a picture as PNG, a table as CSV, the lines of Python that compute it.

function _offer(name, url) {
  const link = document.createElement("a");
  [link.download, link.href] = [name, url];
  link.click();
}

function _button(text, title, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.title = title;
  button.addEventListener("click", act);
  return button;
}

// Buttons under a picture or a table: canvases become PNG, rows CSV; python is a function that gives lines.
export function takeaways({ name, canvas, rows, python }) {
  const bar = document.createElement("div");
  bar.className = "takeaways";
  if (canvas) bar.append(_button("PNG", "Save this picture", () => _offer(`${name}.png`, canvas().toDataURL("image/png"))));
  if (rows) {
    bar.append(
      _button("CSV", "Save this table", () => {
        const url = URL.createObjectURL(new Blob([rows().map(csvLine).join("")], { type: "text/csv" }));
        _offer(`${name}.csv`, url);
        setTimeout(() => URL.revokeObjectURL(url), 1000);
      }),
    );
  }
  if (python) {
    const copy = _button("Copy Python", "Copy the lines that compute this", async () => {
      const text = python();
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        shown.hidden = false; // a file opened by a double click may not write to the clipboard
        shown.textContent = text;
      }
      setTimeout(() => (copy.textContent = "Copy Python"), 1500);
    });
    const shown = document.createElement("pre");
    shown.hidden = true;
    bar.append(copy, shown);
  }
  return bar;
}

// A line of CSV; a cell that a spreadsheet would take for a formula is quoted as text.
export function csvLine(cells) {
  const written = cells.map((cell) => {
    let text = cell === null || cell === undefined ? "" : String(cell);
    if (/^[=+@\t\r]/.test(text) || (/^-/.test(text) && Number.isNaN(Number(text)))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  });
  return `${written.join(",")}\n`;
}
