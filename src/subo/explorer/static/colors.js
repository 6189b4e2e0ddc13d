// Colors that color-blind readers can tell apart: Okabe and Ito's for classes, viridis for numbers.

const _CLASSES = [
  "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a08a1c", "#8f6fd1", "#8c8c8c", "#a0522d",
  "#7fb800", "#c8405a",
];
const _VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37],
];
const _UNKNOWN = "#9999";

export function classColor(k) {
  return _CLASSES[k % _CLASSES.length];
}

// Viridis at a share from 0 to 1.
export function shade(share) {
  return `rgb(${shadeParts(share).join(",")})`;
}

export function shadeParts(share) {
  const at = Math.min(Math.max(share || 0, 0), 1) * (_VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), _VIRIDIS.length - 2);
  return _VIRIDIS[low].map((value, k) => Math.round(value + (at - low) * (_VIRIDIS[low + 1][k] - value)));
}

// A color for each value, and the legend: names of classes, or the range of numbers (its outer hundredths cut off).
export function colored(values) {
  if (!values) return { colors: null, legend: [] };
  const known = values.filter((value) => value !== null);
  if (known.some((value) => typeof value === "string")) {
    const counts = new Map();
    for (const value of known) counts.set(value, (counts.get(value) || 0) + 1);
    const names = [...counts.keys()].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const index = new Map(names.map((name, k) => [name, k]));
    const colors = values.map((value) => (value === null ? _UNKNOWN : classColor(index.get(value))));
    return { colors, legend: names.map((name, k) => ({ name, color: classColor(k) })) };
  }
  const sorted = [...known].sort((a, b) => a - b);
  const [low, high] = [0.01, 0.99].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  const colors = values.map((value) => (value === null ? _UNKNOWN : shade((value - low) / (high - low || 1))));
  return { colors, legend: [], range: [low, high] };
}

// The page's own colors, light or dark.
export function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { ink: of("ink"), faint: of("faint"), paper: of("paper"), accent: of("accent"), second: of("second") };
}
