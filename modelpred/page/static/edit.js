// The edit of the training set, its history, and its form in the address. It lives in the page alone.

export class Edit {
  // weights: id -> count; labels: id -> label; added: [{ cells: { column: text }, label }]
  constructor(weights = new Map(), labels = new Map(), added = []) {
    this.weights = weights;
    this.labels = labels;
    this.added = added;
  }

  get empty() {
    return !this.weights.size && !this.labels.size && !this.added.length;
  }

  copy() {
    return new Edit(new Map(this.weights), new Map(this.labels), [...this.added]);
  }

  // What the server reads.
  message(about) {
    const message = {
      table: about.table,
      weights: Object.fromEntries(this.weights),
      labels: Object.fromEntries(this.labels),
    };
    if (this.added.length) {
      message.added = {
        columns: about.needed,
        rows: this.added.map((row) => about.needed.map((name) => row.cells[name] ?? "")),
        labels: this.added.map((row) => row.label),
      };
    }
    return message;
  }

  static of(message) {
    const added = (message.added?.rows ?? []).map((cells, at) => ({
      cells: Object.fromEntries(message.added.columns.map((name, place) => [name, cells[place]])),
      label: message.added.labels[at],
    }));
    return new Edit(new Map(Object.entries(message.weights ?? {})), new Map(Object.entries(message.labels ?? {})), added);
  }
}

export class History {
  constructor(changed) {
    this.now = new Edit();
    this.past = [];
    this.future = [];
    this.changed = changed;
  }

  // Apply a change: a function that alters a copy of the edit.
  apply(change) {
    const next = this.now.copy();
    change(next);
    this.replace(next);
  }

  replace(next) {
    this.past.push(this.now);
    this.future = [];
    this.now = next;
    this.changed();
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.now);
    this.now = this.past.pop();
    this.changed();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.now);
    this.now = this.future.pop();
    this.changed();
  }
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

// The edit as text for the address: JSON, deflated, in the letters of base64url.
export async function written(edit, about) {
  if (edit.empty) return "";
  const json = new TextEncoder().encode(JSON.stringify(edit.message(about)));
  const bytes = await through(json, new CompressionStream("deflate-raw"));
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export async function restored(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(await through(bytes, new DecompressionStream("deflate-raw"))));
}
