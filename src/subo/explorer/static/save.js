// What is taken away from the page: a picture as PNG, a table as CSV, the lines of Python that compute it.
import { drawn } from "./axes.js";

function _offer(name, url) {
  const link = document.createElement("a");
  [link.download, link.href] = [name, url];
  link.click();
}

function _offerBytes(name, bytes, type) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  _offer(name, url);
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function _button(text, title, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.title = title;
  button.addEventListener("click", act);
  return button;
}

// The pictures of a part of the page and their captions, as they lie there, on one canvas.
export function montage(element) {
  const frame = element.getBoundingClientRect();
  const canvas = document.createElement("canvas");
  const sharp = 2;
  [canvas.width, canvas.height] = [Math.ceil(sharp * element.scrollWidth), Math.ceil(sharp * element.scrollHeight)];
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(element);
  pen.scale(sharp, sharp);
  pen.fillStyle = getComputedStyle(document.body).backgroundColor;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = false;
  const place = (part) => {
    const box = part.getBoundingClientRect();
    return [box.left - frame.left + element.scrollLeft, box.top - frame.top + element.scrollTop, box.width, box.height];
  };
  for (const picture of element.querySelectorAll("canvas")) if (picture.width && picture.height) pen.drawImage(picture, ...place(picture));
  for (const panel of element.querySelectorAll("svg.curves")) drawn(pen, panel, place(panel));
  pen.fillStyle = style.color;
  pen.font = `12px ${style.fontFamily}`;
  pen.textAlign = "center";
  for (const caption of element.querySelectorAll("figcaption")) {
    const [left, top, width, height] = place(caption);
    pen.fillText(caption.textContent, left + width / 2, top + height - 4, width);
  }
  return canvas;
}

// Buttons under a picture or a table: canvases become PNG, frames GIF, rows CSV; python is a function that gives lines.
export function takeaways({ name, canvas, gif, rows, python }) {
  const bar = document.createElement("div");
  bar.className = "takeaways";
  if (canvas) bar.append(_button("PNG", "Save this picture", () => _offer(`${name}.png`, canvas().toDataURL("image/png"))));
  if (gif) {
    bar.append(
      _button("GIF", "Save this as a moving picture", () => {
        const bytes = gif();
        if (bytes) _offerBytes(`${name}.gif`, bytes, "image/gif");
      }),
    );
  }
  if (rows) {
    bar.append(
      _button("CSV", "Save this table", () => _offerBytes(`${name}.csv`, rows().map(csvLine).join(""), "text/csv")),
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
