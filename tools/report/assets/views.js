// A pair as a row of the table and as a card of the gallery.

const KEY_COLUMNS = ["dice_before", "dice", "tre_mm"]; // what a phone has room for
const WITHOUT_THEM = "similarity_gain"; // what it shows of a pair that has none of these

/** A button that looks closer at a pair; index.js listens. */
function lookButton(pair, className, child) {
  const button = element("button", className, child);
  button.type = "button";
  button.setAttribute("aria-label", `Look closer at ${DATA.name[pair]}`);
  button.dataset.look = String(pair);
  return button;
}

/** The small picture of a pair, loaded when it comes near; a word where there is none. */
function thumbnail(pair) {
  return picture(addressOf(pair, "thumbnail") ?? addressOf(pair, "picture"));
}

/** A picture by its address; `alt` is empty where what is around it says the same. */
function picture(address, alt = "") {
  const missing = () => element("span", "no-picture", "no picture");
  if (address === null) return missing();
  const image = element("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = alt;
  image.addEventListener("error", () => image.replaceWith(missing()));
  image.src = address;
  return image;
}

function badge(pair) {
  const verdict = textOf("verdict", pair);
  return element("span", `badge ${verdict}`, VERDICT_WORDS[verdict]);
}

/** How many reasons there are besides the first, to stand beside the badge: a long reason is cut off at its end. */
function moreReasons(pair) {
  const reasons = textOf("reasons", pair);
  if (reasons.length < 2) return "";
  const more = element("span", "more", `+${reasons.length - 1}`);
  more.title = reasons.join("\n");
  return more;
}

/** The first reason; all of them are the tooltip. */
function reasonLine(pair) {
  const reasons = textOf("reasons", pair);
  const line = element("span", "reason", reasons[0] ?? "");
  line.title = reasons.join("\n");
  return line;
}

/** A pair's value in a column by its key; NaN where there is none. */
function valueOf(pair, key) {
  return COLUMNS.find((column) => column.key === key)?.values[pair] ?? NaN;
}

/** The columns that a phone shows of a pair. */
function keysOf(pair) {
  const known = (key) => !Number.isNaN(valueOf(pair, key));
  const keys = KEY_COLUMNS.filter(known);
  return keys.length > 0 ? keys : [WITHOUT_THEM].filter(known);
}

function reportLink(pair) {
  const address = addressOf(pair, "report");
  if (address === null) return "";
  const link = element("a", "report", "report");
  link.href = address;
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}

function nameBlock(pair) {
  const details = element("span", "quiet", imagesOf(pair));
  details.title = details.textContent;
  const name = lookButton(pair, "name", DATA.name[pair]);
  name.title = DATA.name[pair];
  const method = textOf("method", pair);
  const last = element("span", "quiet", method ? `${method} ` : "", reportLink(pair));
  return [name, details, last];
}

/** A row of the table. */
function tableRow(pair) {
  const row = element("tr", "item");
  row.dataset.pair = String(pair);
  const look = lookButton(pair, "thumb", thumbnail(pair));
  look.tabIndex = -1; // the name does the same
  row.append(
    element("td", "picture", look),
    element("td", "pair", element("div", "stack", ...nameBlock(pair))),
    element("td", "verdict", element("div", "stack", element("span", "", badge(pair), moreReasons(pair)), reasonLine(pair))),
  );
  const keys = keysOf(pair);
  for (const column of COLUMNS) {
    const cell = element("td", keys.includes(column.key) ? "number key" : "number", shown(column.values[pair]));
    cell.dataset.label = column.label;
    row.append(cell);
  }
  return row;
}

/** "Dice 0.52 → 0.79 · TRE 3.10 → 1.20 mm", without these the similarity gain; and what is sorted by. */
function cardFacts(pair) {
  const value = (key) => valueOf(pair, key);
  const change = (name, key, unit) => {
    const values = [value(`${key}_before`), value(key)].filter((number) => !Number.isNaN(number));
    return values.length > 0 ? `${name} ${values.map(shown).join(" → ")}${unit}` : "";
  };
  const single = (column) => (column ? `${column.label} ${shown(column.values[pair])}` : "");
  const sorted = COLUMNS.find((column) => column.key === sort.key && !/^(dice|tre_mm)(_before)?$/.test(column.key));
  const changes = [change("Dice", "dice", ""), change("TRE", "tre_mm", " mm")].filter(Boolean);
  const instead = COLUMNS.find((column) => column !== sorted && changes.length === 0 && keysOf(pair).includes(column.key));
  return [single(sorted), ...changes, single(instead)].filter(Boolean).join(" · ");
}

/** A card of the gallery. */
function galleryCard(pair) {
  const card = element(
    "article", "item card",
    lookButton(pair, "thumb", thumbnail(pair)),
    element("div", "stack", element("span", "title", DATA.name[pair]),
      element("span", "facts", badge(pair), moreReasons(pair), ` ${cardFacts(pair)}`), reasonLine(pair)),
  );
  card.dataset.pair = String(pair);
  card.querySelector(".title").title = DATA.name[pair];
  return card;
}

/** The table's header: a button a column, by which it is sorted. */
function tableHead() {
  const heads = [["", "Picture"], [NAME, "Pair"], [WORST, "Verdict"], ...COLUMNS.map(({ key, label }) => [key, label])];
  return heads.map(([key, label], k) => {
    const head = element("th", ["picture", "pair", "verdict"][k] ?? "number");
    head.scope = "col";
    head.dataset.key = key;
    const button = element("button", "", label);
    button.type = "button";
    head.append(key ? button : element("span", "sr", label));
    return head;
  });
}
