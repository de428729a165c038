// One pair in full: its large picture, every number, every reason; arrow keys walk through the pairs that are shown.

const dialog = document.getElementById("look");
let looked = 0; // a position in `order`

function isLooking() {
  return dialog.open;
}

/** Show the pair at a position of `order`. */
function lookAt(position) {
  looked = Math.max(0, Math.min(position, order.length - 1));
  const pair = order[looked];
  document.getElementById("look-name").textContent = DATA.name[pair];
  document.getElementById("look-position").textContent = `${(looked + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  document.getElementById("look-previous").disabled = looked === 0;
  document.getElementById("look-next").disabled = looked === order.length - 1;
  document.getElementById("look-picture").replaceChildren(picture(largest(pair), `Registration ${DATA.name[pair]}`));
  document.getElementById("look-facts").replaceChildren(...facts(pair));
  if (!dialog.open) {
    dialog.showModal();
    document.getElementById("look-next").focus();
  }
  preload(looked + 1);
  preload(looked - 1);
}

function largest(pair) {
  return addressOf(pair, "picture") ?? addressOf(pair, "thumbnail");
}

/** Fetch a neighbor's picture, so that it is there at the next key. */
function preload(position) {
  const address = position in order ? largest(order[position]) : null;
  if (address !== null) new Image().src = address;
}

function facts(pair) {
  const numbers = element("dl");
  for (const column of COLUMNS) {
    if (!Number.isNaN(column.values[pair])) {
      numbers.append(element("dt", "", column.label), element("dd", "", shown(column.values[pair])));
    }
  }
  const reasons = element("ul", "", ...textOf("reasons", pair).map((reason) => element("li", "", reason)));
  const link = reportLink(pair);
  if (link) link.textContent = "Open the report";
  const images = element("p", "quiet", [imagesOf(pair), textOf("method", pair)].filter(Boolean).join(" · "));
  return [element("p", "", badge(pair), " ", link), reasons, images, numbers];
}
