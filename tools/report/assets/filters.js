// Which pairs are shown, and in which order.

const WORST = "#worst"; // no signal is called so
const NAME = "#name";

const filter = {
  words: [],
  verdicts: new Set(),
  method: "",
  ranges: new Map(), // column -> {low, high}, both ends included
};
const sort = { key: WORST, reversed: false };

/** Pairs that pass, sorted; what the page shows. */
let order = [];

/** Whether a pair passes every filter. */
function passes(pair) {
  if (filter.verdicts.size > 0 && !filter.verdicts.has(textOf("verdict", pair))) return false;
  if (filter.method && textOf("method", pair) !== filter.method) return false;
  for (const [column, { low, high }] of filter.ranges) {
    const value = column.values[pair];
    if (!(value >= low && value <= high)) return false; // NaN passes no range
  }
  return filter.words.every((word) => haystack(pair).includes(word));
}

/** Whether anything is filtered at all. */
function isFiltered() {
  return filter.words.length > 0 || filter.verdicts.size > 0 || filter.method !== "" || filter.ranges.size > 0;
}

function clearFilters() {
  filter.words = [];
  filter.verdicts.clear();
  filter.method = "";
  filter.ranges.clear();
}

/** Put the pairs that pass into `order`. They come worst first, and stay so among equals of another order. */
function applyFilters() {
  const passing = [];
  for (let pair = 0; pair < COUNT; pair += 1) if (passes(pair)) passing.push(pair);
  order = sorted(passing);
}

function sorted(pairs) {
  if (sort.key === WORST) return sort.reversed ? pairs.reverse() : pairs;
  const values = sort.key === NAME ? nameRanks() : COLUMNS.find((column) => column.key === sort.key).values;
  const sign = sort.reversed ? -1 : 1;
  return pairs.sort((a, b) => {
    if (Number.isNaN(values[a])) return Number.isNaN(values[b]) ? a - b : 1; // what has no value comes last
    if (Number.isNaN(values[b])) return -1;
    return values[a] === values[b] ? a - b : sign * (values[a] < values[b] ? -1 : 1);
  });
}

/** Sort by a key; by the same one again turns it round. Numbers begin with the worse end. */
function sortBy(key) {
  if (sort.key === key) sort.reversed = !sort.reversed;
  else sort.reversed = COLUMNS.some((column) => column.key === key && column.better === "low");
  sort.key = key;
}

let ranks = null;
/** Each name's place in the alphabet, sub-2 before sub-10. */
function nameRanks() {
  if (ranks === null) {
    const collator = new Intl.Collator("en", { numeric: true });
    const byName = [...DATA.name.keys()].sort((a, b) => collator.compare(DATA.name[a], DATA.name[b]));
    ranks = new Float64Array(COUNT);
    byName.forEach((pair, rank) => { ranks[pair] = rank; });
  }
  return ranks;
}
