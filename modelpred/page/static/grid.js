// A table of any length: only the rows and columns in view are in the document.

import { make } from "./format.js";

const ROW = 28;
const HEAD = 34;
const SPARE = 6; // rows drawn beyond the view

export class Grid {
  // element: the scrolling container. rows: Rows. on: { select, sort, key, problem }.
  constructor(element, rows, on) {
    this.element = element;
    this.rows = rows;
    this.on = on;
    this.order = [];
    this.picked = new Set();
    this.marked = new Set();
    this.active = -1; // place in order
    this.anchor = 0;
    this.sort = null;
    this.canvas = make("div", { class: "canvas", role: "presentation" });
    this.head = make("div", { class: "head", role: "row", "aria-rowindex": "1" });
    this.body = make("div", { role: "presentation" });
    this.canvas.append(this.head, this.body);
    element.append(this.canvas);
    this.drawn = new Map(); // place in order -> element
    this.waiting = 0;
    element.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(element);
    element.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // no text selection
    this.body.addEventListener("click", (event) => this.click(event));
  }

  show(columns, order, sort) {
    this.columns = columns;
    let left = 0;
    for (const column of columns) {
      column.left = left;
      left += column.width;
    }
    this.width = left;
    this.order = order;
    this.sort = sort;
    if (this.active >= order.length) this.active = order.length - 1;
    this.drawn.forEach((row) => row.remove());
    this.drawn.clear();
    this.headRange = "";
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${HEAD + ROW * order.length}px`;
    this.element.setAttribute("aria-rowcount", order.length + 1);
    this.element.setAttribute("aria-colcount", columns.length);
    this.draw();
  }

  // Cells or edits have changed; the order has not.
  refresh() {
    this.drawn.forEach((row) => { row.stale = true; });
    this.draw();
  }

  later() {
    if (!this.waiting) {
      this.waiting = requestAnimationFrame(() => {
        this.waiting = 0;
        this.draw();
      });
    }
  }

  columnsInView() {
    const { scrollLeft, clientWidth } = this.element;
    return this.columns.filter((one, at) => at === 0 || (one.left + one.width > scrollLeft && one.left < scrollLeft + clientWidth));
  }

  draw() {
    if (!this.columns) return;
    const { scrollTop, clientHeight } = this.element;
    const from = Math.max(0, Math.floor((scrollTop - HEAD) / ROW) - SPARE);
    const to = Math.min(this.order.length, Math.ceil((scrollTop + clientHeight) / ROW) + SPARE);
    const inView = this.columnsInView();
    const range = inView.map((one) => one.key).join(" ");
    const missing = inView.filter((one) => !this.rows.ready(one));
    if (missing.length) Promise.all(missing.map((one) => this.rows.load(one))).then(() => this.refresh(), this.on.problem);
    if (this.headRange !== range) this.drawHead(inView, range);
    const free = []; // rows that have left the view are used again: making elements is what costs
    for (const [place, row] of this.drawn) {
      if (place < from || place >= to) {
        this.drawn.delete(place);
        free.push(row);
      }
    }
    for (let place = from; place < to; place += 1) {
      const row = this.drawn.get(place) ?? this.rowAt(place, free.pop());
      this.drawRow(row, inView, range);
    }
    free.forEach((row) => row.remove());
  }

  rowAt(place, row = make("div", { class: "row", role: "row" })) {
    row.place = place;
    row.id = `row-${place}`;
    row.setAttribute("aria-rowindex", place + 2);
    row.style.transform = `translateY(${HEAD + ROW * place}px)`;
    row.stale = true;
    this.drawn.set(place, row);
    if (!row.isConnected) this.body.append(row);
    return row;
  }

  drawHead(inView, range) {
    this.headRange = range;
    this.head.style.height = `${HEAD}px`;
    this.head.style.width = `${this.width}px`;
    this.head.replaceChildren(...inView.map((one) => {
      const sorted = this.sort?.column.key === one.key ? (this.sort.descending ? "descending" : "ascending") : "none";
      const arrow = { descending: " ▼", ascending: " ▲", none: "" }[sorted];
      const button = make("button", { type: "button", tabindex: "-1", title: one.help ? `${one.title}: ${one.help}` : one.title, onclick: () => this.on.sort(one) }, one.title + arrow);
      return this.placed(make("div", { class: `cell ${one.kind} ${one === this.columns[0] ? "first" : ""}`, role: "columnheader", "aria-sort": sorted, "aria-colindex": this.columns.indexOf(one) + 1 }, button), one);
    }));
  }

  placed(cell, one) {
    cell.style.width = `${one.width}px`;
    if (one !== this.columns[0]) cell.style.left = `${one.left}px`;
    return cell;
  }

  drawRow(row, inView, range) {
    const at = this.order[row.place];
    const kind = this.kindOf(at);
    const name = `row ${kind} ${this.marked.has(at) ? "marked" : ""} ${row.place === this.active ? "active" : ""}`;
    if (row.className !== name) row.className = name;
    const picked = String(this.picked.has(at));
    if (row.getAttribute("aria-selected") !== picked) row.setAttribute("aria-selected", picked);
    if (row.range !== range) {
      row.range = range;
      row.stale = true;
      row.style.width = `${this.width}px`;
      row.replaceChildren(...inView.map((one) => this.placed(make("div", { class: `cell ${one.kind} ${one === this.columns[0] ? "first" : ""}`, role: "gridcell", "aria-colindex": this.columns.indexOf(one) + 1 }), one)));
    }
    if (!row.stale) return;
    row.stale = false;
    inView.forEach((one, place) => {
      const text = this.rows.shown(one, at);
      const cell = row.children[place];
      cell.textContent = text;
      cell.title = text.length > 12 ? text : "";
    });
  }

  kindOf(at) {
    if (this.rows.weight(at) === 0) return "removed";
    if (at >= this.rows.count) return "new";
    return this.rows.edit(at) ? "changed" : "";
  }

  click(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    this.move(row.place, { extend: event.shiftKey, toggle: event.ctrlKey || event.metaKey });
  }

  // Make a row active and select it: alone, to a range from the anchor, or in addition.
  move(place, { extend = false, toggle = false, keep = false } = {}) {
    this.active = Math.max(0, Math.min(place, this.order.length - 1));
    const at = this.order[this.active];
    if (extend) {
      const [from, to] = [Math.min(this.anchor, this.active), Math.max(this.anchor, this.active)];
      this.picked = new Set(this.order.slice(from, to + 1));
    } else if (toggle) {
      if (!this.picked.delete(at)) this.picked.add(at);
      this.anchor = this.active;
    } else if (keep) {
      this.anchor = this.active;
    } else {
      const only = this.picked.size === 1 && this.picked.has(at);
      this.picked = only ? new Set() : new Set([at]);
      this.anchor = this.active;
    }
    this.element.setAttribute("aria-activedescendant", `row-${this.active}`);
    this.on.select();
    this.draw();
  }

  pick(positions) {
    this.picked = new Set(positions);
    this.on.select();
    this.draw();
  }

  scrollTo(place) {
    const top = ROW * place;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + ROW + HEAD > scrollTop + clientHeight) this.element.scrollTop = top + ROW + HEAD - clientHeight;
  }

  key(event) {
    if (event.target !== this.element) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps && !event.ctrlKey && this.order.length) {
      const wanted = this.active < 0 ? 0 : this.active + steps[event.key];
      const place = Math.max(0, Math.min(this.order.length - 1, wanted));
      this.move(place, { extend: event.shiftKey, keep: true });
      this.scrollTo(place);
      this.draw();
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      this.element.scrollLeft += event.key === "ArrowRight" ? 96 : -96;
    } else if (event.key === " " && this.active >= 0) {
      this.move(this.active, { toggle: true });
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      this.pick(this.order);
    } else if (!this.on.key(event)) {
      return;
    }
    event.preventDefault();
  }
}
