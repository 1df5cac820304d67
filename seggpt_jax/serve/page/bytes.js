// Files made in the page: PNGs of labels, and zips.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

function numbers(...pairs) {
  // Little-endian: (value, bytes), ...
  return Uint8Array.from(
    pairs.flatMap(([value, count]) =>
      Array.from({ length: count }, (_, k) => (value / 256 ** k) & 255)),
  );
}

function chunk(name, content) {
  const body = joined([new TextEncoder().encode(name), content]);
  const size = numbers([content.length, 4]).reverse();
  return joined([size, body, numbers([crc32(body), 4]).reverse()]);
}

// Labels 0..255, row by row -> a PNG of 8 bits with a palette: label -> [r, g, b].
export async function labelPng(labels, width, height, palette) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter, 0
  for (let y = 0; y < height; y++) {
    rows.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const colors = new Uint8Array(256 * 3);
  for (const [label, color] of Object.entries(palette)) colors.set(color, 3 * label);
  const head = joined([
    numbers([width, 4]).reverse(), numbers([height, 4]).reverse(),
    Uint8Array.of(8, 3, 0, 0, 0),
  ]);
  return joined([
    Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), chunk("IHDR", head),
    chunk("PLTE", colors), chunk("IDAT", data), chunk("IEND", new Uint8Array()),
  ]);
}

// [[name, bytes], ...] -> a zip, nothing compressed.
export function zip(files) {
  const parts = [];
  const directory = [];
  let place = 0;
  for (const [name, bytes] of files) {
    const title = new TextEncoder().encode(name);
    // Version 2.0, names in UTF-8, stored, 1980-01-01 00:00.
    const about = numbers(
      [20, 2], [0x800, 2], [0, 2], [0, 2], [33, 2], [crc32(bytes), 4], [bytes.length, 4],
      [bytes.length, 4], [title.length, 2], [0, 2],
    );
    const local = joined([numbers([0x04034b50, 4]), about, title]);
    directory.push(joined([
      numbers([0x02014b50, 4], [20, 2]), about,
      numbers([0, 2], [0, 2], [0, 2], [0, 4], [place, 4]), title,
    ]));
    parts.push(local, bytes);
    place += local.length + bytes.length;
  }
  const list = joined(directory);
  const end = numbers(
    [0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2],
    [list.length, 4], [place, 4], [0, 2],
  );
  return joined([...parts, list, end]);
}
