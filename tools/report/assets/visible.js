// Only what can be seen of thousands of items of one height is in the page; spacers stand for the rest.

const SPARE_ROWS = 6; // above and below what can be seen, for scrolling without gaps

/** A new element with a class, texts or elements in it. */
function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Items in `holder`, made by `make(pair)` when they come into sight; `spacer` is an element's tag. */
class VisibleItems {
  constructor(holder, spacer, make) {
    this.holder = holder;
    this.make = make;
    this.spacers = [element(spacer, "spacer"), element(spacer, "spacer")];
    this.drawn = new Map(); // pair -> element: what stays in sight keeps its loaded picture
  }

  get rowHeight() {
    return parseFloat(getComputedStyle(this.holder).getPropertyValue("--row"));
  }

  get perRow() {
    const width = parseFloat(getComputedStyle(this.holder).getPropertyValue("--column"));
    return width ? Math.max(1, Math.floor(this.holder.clientWidth / width)) : 1;
  }

  /** Draw the part of `pairs` that `pane` shows. */
  draw(pane, pairs) {
    const { rowHeight, perRow } = this;
    const rows = Math.ceil(pairs.length / perRow);
    const top = Math.floor(pane.scrollTop / rowHeight) - SPARE_ROWS;
    const first = Math.max(0, Math.min(top, rows - 1));
    const last = Math.min(rows, first + Math.ceil(pane.clientHeight / rowHeight) + 2 * SPARE_ROWS);
    const before = this.drawn;
    this.drawn = new Map();
    for (const pair of pairs.slice(first * perRow, last * perRow)) {
      this.drawn.set(pair, before.get(pair) ?? this.make(pair));
    }
    this.setSpacer(0, first * rowHeight);
    this.setSpacer(1, (rows - last) * rowHeight);
    this.place([this.spacers[0], ...this.drawn.values(), this.spacers[1]]);
  }

  setSpacer(which, height) {
    this.spacers[which].style.height = `${height}px`;
    this.spacers[which].hidden = height === 0;
  }

  /** Make the children these, in this order, without touching those that stand right. */
  place(wanted) {
    const keep = new Set(wanted);
    for (const child of [...this.holder.children]) if (!keep.has(child)) child.remove();
    wanted.forEach((child, k) => {
      if (this.holder.children[k] !== child) this.holder.insertBefore(child, this.holder.children[k] ?? null);
    });
  }

  /** Where to scroll so that an item is in sight; `above` of the pane is covered by a header. */
  scrollTo(pane, position, above) {
    const top = Math.floor(position / this.perRow) * this.rowHeight;
    const room = pane.clientHeight - above;
    if (top < pane.scrollTop) pane.scrollTop = top;
    else if (top + this.rowHeight > pane.scrollTop + room) pane.scrollTop = top + this.rowHeight - room;
  }
}
