"use strict";

// The pairs as the page holds them: numbers as columns, texts as indices into lists. Nothing here touches the page.

const DATA = JSON.parse(document.getElementById("pairs").textContent);
const COUNT = DATA.name.length;
const VERDICTS = ["failed", "check", "ok", "none"];
const VERDICT_WORDS = { failed: "failed", check: "check", ok: "ok", none: "no verdict" };

/** Columns with a Float64Array `values`, NaN where a pair has none; Number reads "Infinity", which JSON cannot write. */
const COLUMNS = DATA.columns.map((column, k) => ({
  ...column,
  values: Float64Array.from(DATA.numbers[k], (value) => (value === null ? NaN : Number(value))),
}));

/** A pair's text in one of the fields that are kept as indices. */
function textOf(field, pair) {
  return DATA[field].of[DATA[field].at[pair]];
}

/** "moving → fixed", as far as the file names are known. */
function imagesOf(pair) {
  return [textOf("moving", pair), textOf("fixed", pair)].filter(Boolean).join(" → ");
}

/** The address of a pair's "report", "thumbnail" or "picture"; null if it has none. */
function addressOf(pair, role) {
  const folder = DATA.folder[pair];
  const file = textOf(role, pair);
  if (folder === 0 || !file) return null;
  return `${DATA.base}${folder === 1 ? DATA.name[pair] : folder}/${file}`;
}

/** A number as people read it. */
function shown(value) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size === Infinity) return `${sign}∞`;
  if (Number.isInteger(value) && size < 1e6) return `${sign}${size}`;
  if (size < 0.001 || size >= 1e6) return `${sign}${size.toExponential(1).replace("-", "−")}`;
  return `${sign}${size.toFixed(size < 1 ? 3 : size < 100 ? 2 : 1)}`;
}

/** Text as it is compared: no capitals, letters and their accents in one piece (macOS takes them apart). */
function searched(text) {
  return text.normalize("NFC").toLowerCase();
}

/** Lower-case text that a pair is found by; made when somebody first types. */
const haystacks = [];
function haystack(pair) {
  if (haystacks.length === 0) {
    for (let k = 0; k < COUNT; k += 1) {
      const texts = [DATA.name[k], imagesOf(k), textOf("method", k), ...textOf("reasons", k)];
      haystacks.push(searched(texts.join("\n")));
    }
  }
  return haystacks[pair];
}
