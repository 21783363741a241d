// The training rows as columns: their own cells, which are fetched when they are first needed, the row's edit, and
// scores. Added rows come after the others.

import { column } from "./requests.js";
import { number } from "./format.js";

export const SCORES = {
  value: { title: "Value", help: "Shapley value: by how much the row lowers the test loss on average" },
  suspicion: { title: "Suspicion", help: "how sure models trained without the row are that its label is wrong" },
  memorization: { title: "Memorization", help: "by how much its own label is more probable with the row than without" },
};

export class Rows {
  constructor(about, history) {
    this.about = about;
    this.history = history;
    this.count = about.ids.length;
    this.place = new Map(about.ids.map((id, at) => [id, at]));
    this.loaded = new Map();
    this.loading = new Map();
    this.scores = {};
  }

  get total() {
    return this.count + this.history.now.added.length;
  }

  id(at) {
    return at < this.count ? this.about.ids[at] : `new-${at - this.count}`;
  }

  // The position of an id; the inverse of id.
  at(id) {
    return this.place.get(id) ?? this.count + Number(id.slice("new-".length));
  }

  // All columns that are shown, in order.
  columns() {
    const own = this.about.columns.map((each, at) => ({ key: `c${at}`, at, title: each.name, kind: each.kind, width: each.kind === "number" ? 96 : 132 }));
    const scores = Object.keys(this.scores).map((name) => ({ key: name, title: SCORES[name].title, kind: "number", width: 116, help: SCORES[name].help }));
    return [
      { key: "id", title: "Row", kind: "text", width: 104 },
      { key: "label", title: this.about.label, kind: this.about.regression ? "number" : "text", width: 104, help: "the label" },
      { key: "edit", title: "Edit", kind: "text", width: 116 },
      ...scores,
      ...own,
    ];
  }

  ready(one) {
    return one.at === undefined || this.loaded.has(one.at);
  }

  load(one) {
    if (this.ready(one)) return Promise.resolve();
    if (!this.loading.has(one.at)) {
      const found = column(one.at)
        .then((cells) => this.loaded.set(one.at, cells))
        .finally(() => this.loading.delete(one.at));
      this.loading.set(one.at, found);
    }
    return this.loading.get(one.at);
  }

  label(at) {
    const changed = this.history.now.labels.get(this.id(at));
    return changed !== undefined ? changed : this.givenLabel(at);
  }

  givenLabel(at) {
    if (at >= this.count) return this.history.now.added[at - this.count].label;
    const label = this.about.labels[at];
    return this.about.regression ? String(label) : this.about.classes[label];
  }

  weight(at) {
    return this.history.now.weights.get(this.id(at)) ?? 1;
  }

  // The edit of a row in words; empty for none.
  edit(at) {
    const parts = [];
    const weight = this.weight(at);
    if (at >= this.count) parts.push("added");
    if (weight === 0) parts.push("removed");
    else if (weight !== 1) parts.push(`counts ${number(weight)}×`);
    if (this.history.now.labels.has(this.id(at))) parts.push(`was ${this.givenLabel(at)}`);
    return parts.join(", ");
  }

  // What sorts and filters compare: a number, a text, or null for a missing cell.
  value(one, at) {
    if (one.key === "id") return this.id(at);
    if (one.key === "label") return this.about.regression ? Number(this.label(at)) : this.label(at);
    if (one.key === "edit") return this.edit(at) || null;
    if (one.at === undefined) return (at < this.count ? this.scores[one.key][at] : null) ?? null;
    if (at >= this.count) {
      const cell = this.history.now.added[at - this.count].cells[one.title] ?? "";
      if (cell === "") return null;
      return one.kind === "number" && !Number.isNaN(Number(cell)) ? Number(cell) : cell;
    }
    const cells = this.loaded.get(one.at);
    if (!cells) return null;
    if (cells.numbers) {
      const found = cells.numbers[at];
      return Number.isNaN(found) ? null : found;
    }
    return cells.codes[at] < 0 ? null : cells.texts[cells.codes[at]];
  }

  shown(one, at) {
    if (one.at !== undefined && at < this.count && !this.loaded.has(one.at)) return "…";
    const value = this.value(one, at);
    if (value === null) return "";
    if (typeof value !== "number") return value;
    return one.key in this.scores ? number(value) : number(value, 5); // cells keep more of their digits
  }

  // The different texts of a column, for the choice of a value or a group; none for numbers with many.
  levels(one) {
    const found = new Map();
    for (let at = 0; at < this.total; at += 1) {
      const value = this.value(one, at);
      if (value !== null) found.set(String(value), (found.get(String(value)) ?? 0) + 1);
      if (found.size > 1000) return new Map();
    }
    return new Map([...found].sort(([one_], [other]) => (one_ < other ? -1 : 1)));
  }

  // Positions of the rows that pass all filters, sorted.
  order(filters, sort) {
    const kept = [];
    for (let at = 0; at < this.total; at += 1) {
      if (filters.every((filter) => filter.passes(this.value(filter.column, at)))) kept.push(at);
    }
    if (!sort) return kept;
    const keys = new Array(this.total);
    for (const at of kept) keys[at] = this.value(sort.column, at);
    const sign = sort.descending ? -1 : 1;
    const numeric = sort.column.key === "id" ? compareIds : compare;
    return kept.sort((one, other) => {
      const [left, right] = [keys[one], keys[other]];
      if (left === null || right === null) return (left === null) - (right === null) || one - other; // missing last
      return sign * numeric(left, right) || one - other;
    });
  }
}

function compare(left, right) {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return left < right ? -1 : left > right ? 1 : 0;
}

const ids = new Intl.Collator("en", { numeric: true });
const compareIds = (left, right) => ids.compare(left, right);

// Comparisons of a filter, by the kind of the column.
export const TESTS = {
  text: {
    is: (value, wanted) => value !== null && String(value) === wanted,
    "is not": (value, wanted) => String(value ?? "") !== wanted,
    contains: (value, wanted) => value !== null && String(value).toLowerCase().includes(wanted.toLowerCase()),
    "is missing": (value) => value === null,
  },
  number: {
    "is at least": (value, wanted) => value !== null && value >= Number(wanted),
    "is at most": (value, wanted) => value !== null && value <= Number(wanted),
    is: (value, wanted) => value !== null && value === Number(wanted),
    "is missing": (value) => value === null,
  },
};
