// Pictures one after the other as an animated GIF (version 89a): 256 greys, or 216 colors in equal steps.

// The bytes of a file that repeats forever. frames: ImageData of one size; delay: hundredths of a second.
export function gifOf(frames, delay = 8) {
  const { width, height } = frames[0];
  const grey = frames.every(({ data }) => data.every((value, k) => k % 4 === 3 || value === data[k - (k % 4)]));
  const bytes = [];
  const short = (value) => bytes.push(value & 255, value >> 8);
  const text = (word) => bytes.push(...Array.from(word, (letter) => letter.charCodeAt(0)));
  text("GIF89a");
  short(width);
  short(height);
  bytes.push(0xf7, 0, 0, ...(grey ? _greys() : _colors()));
  bytes.push(0x21, 0xff, 11);
  text("NETSCAPE2.0");
  bytes.push(3, 1, 0, 0, 0);
  for (const { data } of frames) {
    bytes.push(0x21, 0xf9, 4, 4);
    short(delay);
    bytes.push(0, 0, 0x2c, 0, 0, 0, 0);
    short(width);
    short(height);
    bytes.push(0, 8);
    const indices = Uint8Array.from({ length: width * height }, (_, k) => (grey ? data[4 * k] : _nearest(data, 4 * k)));
    const packed = compressed(indices);
    for (let at = 0; at < packed.length; at += 255) {
      const block = packed.slice(at, at + 255);
      bytes.push(block.length, ...block);
    }
    bytes.push(0);
  }
  bytes.push(0x3b);
  return Uint8Array.from(bytes);
}

// LZW of bytes: a code for the longest sequence that has been seen, in 9 bits first and in 12 at most.
export function compressed(indices) {
  const [clear, end] = [256, 257];
  const out = [];
  let [buffer, filled, size] = [0, 0, 9];
  let known = new Map();
  let next = end + 1;
  const write = (code) => {
    buffer |= code << filled;
    filled += size;
    while (filled >= 8) {
      out.push(buffer & 255);
      buffer >>>= 8;
      filled -= 8;
    }
  };
  write(clear);
  let prefix = indices[0];
  for (let k = 1; k < indices.length; k++) {
    const key = prefix * 256 + indices[k];
    if (known.has(key)) {
      prefix = known.get(key);
      continue;
    }
    write(prefix);
    if (next === 4096) {
      write(clear);
      [known, next, size] = [new Map(), end + 1, 9];
    } else {
      if (next === 1 << size) size += 1;
      known.set(key, next++);
    }
    prefix = indices[k];
  }
  write(prefix);
  if (next === 1 << size && size < 12) size += 1; // a reader adds one more sequence, and may need a bit more for the end
  write(end);
  if (filled) out.push(buffer & 255);
  return out;
}

function _greys() {
  return Array.from({ length: 768 }, (_, k) => Math.floor(k / 3));
}

function _colors() {
  const steps = Array.from({ length: 216 }, (_, k) => [Math.floor(k / 36), Math.floor(k / 6) % 6, k % 6]);
  return [...steps.flat().map((step) => 51 * step), ...Array(120).fill(0)];
}

function _nearest(data, at) {
  const [red, green, blue] = [0, 1, 2].map((c) => Math.round(data[at + c] / 51));
  return 36 * red + 6 * green + blue;
}
