// The page: reads the table, keeps the edit, asks for its model, and draws both.

import { Edit, History, restored, written } from "./edit.js";
import { drawExplanation } from "./explain.js";
import { byId, counted, make } from "./format.js";
import { Grid } from "./grid.js";
import * as model from "./model.js";
import { get, post } from "./requests.js";
import { Rows, SCORES, TESTS } from "./rows.js";

const about = await get("/api/table").catch((error) => stop(error));
const history = new History(changed);
const rows = new Rows(about, history);
const grid = new Grid(byId("grid"), rows, { select: drawSelection, sort: sortBy, key: shortcut, problem });
const filters = [];
let sort = null;
let asking = null; // aborts the request that is under way
let answers = 0;
let shownTotal = -1; // rows when the order was last made

function stop(error) {
  problem(error);
  throw error;
}

// --- problems -----------------------------------------------------------------------------------

function problem(error) {
  if (error.name === "AbortError") return;
  byId("problem").hidden = false;
  byId("problem").firstElementChild.textContent = error.message;
}

byId("problem").querySelector("button").addEventListener("click", () => { byId("problem").hidden = true; });

// --- the model ----------------------------------------------------------------------------------

async function ask() {
  asking?.abort();
  const now = new AbortController();
  asking = now;
  const { signal } = now;
  const edit = history.now.message(about);
  byId("model").classList.add("waiting");
  try {
    const answer = await post("/api/answer", { edit }, signal);
    draw(answer, edit, signal);
    byId("problem").hidden = true;
    if (answer.can_bound) {
      const { certificate } = await post("/api/bound", { edit }, signal);
      Object.assign(answer, { certificate, bounded: true });
      model.drawHow(answer, () => confirm(edit, signal));
    }
  } catch (error) {
    problem(error);
  } finally {
    if (asking === now) byId("model").classList.remove("waiting");
  }
}

async function confirm(edit, signal) {
  byId("confirm").disabled = true;
  try {
    draw(await post("/api/retrain", { edit }, signal), edit, signal);
  } catch (error) {
    problem(error);
    if (byId("confirm")) byId("confirm").disabled = false;
  }
}

function draw(answer, edit, signal) {
  byId("model").classList.remove("waiting");
  model.drawHow(answer, () => confirm(edit, signal));
  model.drawScores(answer);
  model.drawNotes(answer);
  model.drawCoefficients(answer);
  model.drawFlips(answer, about, (row) => explain({ row }));
  model.drawCalibration(answer);
  model.drawUncertain(answer, (row) => explain({ row }));
  answers += 1;
  document.documentElement.dataset.answers = answers; // the number of answers drawn, for tests and benchmarks
}

// --- the edit -----------------------------------------------------------------------------------

function changed() {
  grid.marked.clear();
  if (mayReorder()) show();
  else grid.refresh();
  drawEdit();
  remember();
  ask();
}

async function remember() {
  const text = await written(history.now, about);
  try {
    window.history.replaceState(null, "", text ? `#edit=${text}` : window.location.pathname);
  } catch { /* browsers limit how often a page may do this; the next edit writes the address again */ }
}

async function recall() {
  const text = window.location.hash.replace(/^#edit=/, "");
  if (!text) return new Edit();
  let message, edit;
  try {
    message = await restored(text);
    edit = Edit.of(message);
    if (![...edit.weights.values()].every(Number.isFinite)) throw new TypeError("a weight is no number");
  } catch {
    throw new Error("the address holds a damaged edit; it is not applied");
  }
  if (message.table !== about.table) throw new Error("the address holds an edit of another table or version; it is not applied");
  return edit;
}

// Whether an edit may change which rows are shown, or their order.
function mayReorder() {
  const edited = ["edit", "label"];
  const moved = rows.total !== shownTotal;
  return moved || edited.includes(sort?.column.key) || filters.some((filter) => edited.includes(filter.column.key));
}

function drawEdit() {
  const { weights, labels, added } = history.now;
  const removed = [...weights.values()].filter((weight) => weight === 0).length;
  const parts = [
    removed && `${removed.toLocaleString("en")} removed`,
    weights.size - removed && `${weights.size - removed} reweighted`,
    labels.size && `${labels.size} relabelled`,
    added.length && `${added.length} added`,
  ].filter(Boolean);
  byId("edited").textContent = parts.length ? parts.join(", ") : "No change yet";
  byId("undo").disabled = !history.past.length;
  byId("redo").disabled = !history.future.length;
  byId("reset").disabled = history.now.empty;
}

function drawSelection() {
  const count = grid.picked.size;
  byId("selected").textContent = count ? `${counted(count, "row")} selected` : "No row selected";
  for (const id of ["remove", "reweight", "relabel", "restore"]) byId(id).disabled = !count;
}

function withPicked(change) {
  const ids = [...grid.picked].map((at) => rows.id(at));
  if (ids.length) history.apply((edit) => ids.forEach((id) => change(edit, id)));
}

const actions = {
  remove: () => withPicked((edit, id) => edit.weights.set(id, 0)),
  reweight: () => {
    const weight = byId("weight").valueAsNumber;
    if (!(weight >= 0 && weight <= 1e6)) {
      problem(new Error("a row can count 0 to 1,000,000 times"));
      return;
    }
    withPicked((edit, id) => (weight === 1 ? edit.weights.delete(id) : edit.weights.set(id, weight)));
  },
  relabel: () => {
    const label = byId("label-input").firstElementChild.value.trim();
    if (about.regression && (label === "" || !Number.isFinite(Number(label)))) {
      problem(new Error("the label is a number; type one"));
      return;
    }
    withPicked((edit, id) => {
      const at = rows.at(id);
      if (at >= rows.count) edit.added[at - rows.count] = { ...edit.added[at - rows.count], label };
      else if (label === rows.givenLabel(at)) edit.labels.delete(id);
      else edit.labels.set(id, label);
    });
  },
  restore: () => withPicked((edit, id) => {
    edit.weights.delete(id);
    edit.labels.delete(id);
  }),
  undo: () => history.undo(),
  redo: () => history.redo(),
  reset: () => history.replace(new Edit()),
  "select-shown": () => grid.pick(grid.order),
  "select-none": () => grid.pick([]),
  "select-group": () => selectGroup(),
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);

function shortcut(event) {
  const control = event.ctrlKey || event.metaKey;
  const name = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[control ? event.key.toLowerCase() : ""] ?? { Delete: "remove", Escape: "select-none" }[event.key];
  if (!name) return false;
  actions[name]();
  return true;
}

// --- the table ----------------------------------------------------------------------------------

function show() {
  const columns = rows.columns();
  const own = (one) => columns.find((column) => column.key === one.key);
  if (sort) sort.column = own(sort.column);
  const order = rows.order(filters, sort);
  grid.show(columns, order, sort);
  drawSort();
  shownTotal = rows.total;
  const left = [...grid.picked].filter((at) => at < rows.total);
  if (left.length < grid.picked.size) grid.picked = new Set(left);
  drawSelection();
}

async function sortBy(one) {
  try {
    await rows.load(one);
  } catch (error) {
    problem(error);
    return;
  }
  const first = one.kind === "number";
  if (sort?.column.key !== one.key) sort = { column: one, descending: first };
  else sort = sort.descending === first ? { column: one, descending: !first } : null;
  show();
}

async function sortFrom() {
  const key = byId("sort-column").value;
  sort = null;
  if (key) await sortBy(rows.columns().find((one) => one.key === key));
  else show();
}

function drawSort() {
  const chosen = sort?.column.key ?? "";
  byId("sort-column").replaceChildren(make("option", { value: "" }, "table's order"), ...rows.columns().map((one) => make("option", { value: one.key }, one.title)));
  byId("sort-column").value = chosen;
  byId("sort-direction").textContent = sort?.descending ? "▼" : "▲";
  byId("sort-direction").disabled = !sort;
}

byId("sort-column").addEventListener("change", sortFrom);
byId("sort-direction").addEventListener("click", () => {
  sort.descending = !sort.descending;
  show();
});

function choices() {
  const columns = rows.columns();
  for (const id of ["filter-column", "group-column"]) {
    const chosen = byId(id).value;
    byId(id).replaceChildren(...columns.filter((one) => id === "filter-column" || one.kind === "text").map((one) => make("option", { value: one.key }, one.title)));
    byId(id).value = columns.some((one) => one.key === chosen) ? chosen : "label";
    if (byId(id).selectedIndex < 0) byId(id).selectedIndex = 0;
  }
  filterColumn();
  groupColumn();
}

const chosenColumn = (id) => rows.columns().find((one) => one.key === byId(id).value);

async function filterColumn() {
  const one = chosenColumn("filter-column");
  byId("filter-test").replaceChildren(...Object.keys(TESTS[one.kind]).map((name) => make("option", {}, name)));
  try {
    if (one.kind !== "text") byId("filter-values").replaceChildren();
    else {
      await rows.load(one);
      byId("filter-values").replaceChildren(...[...rows.levels(one).keys()].slice(0, 200).map((value) => make("option", { value })));
    }
  } catch (error) {
    problem(error);
  }
}

async function groupColumn() {
  const one = chosenColumn("group-column");
  try {
    await rows.load(one);
  } catch (error) {
    problem(error);
    return;
  }
  byId("group-value").replaceChildren(...[...rows.levels(one)].map(([value, count]) => make("option", { value }, `${value} (${count})`)));
}

function selectGroup() {
  const [one, wanted] = [chosenColumn("group-column"), byId("group-value").value];
  const found = [];
  for (let at = 0; at < rows.total; at += 1) if (String(rows.value(one, at) ?? "") === wanted) found.push(at);
  grid.pick(found);
}

byId("filter-column").addEventListener("change", filterColumn);
byId("group-column").addEventListener("change", groupColumn);
byId("filter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [column, name, wanted] = [chosenColumn("filter-column"), byId("filter-test").value, byId("filter-value").value.trim()];
  const test = TESTS[column.kind][name];
  if (name !== "is missing" && column.kind === "number" && (wanted === "" || Number.isNaN(Number(wanted)))) {
    problem(new Error(`${column.title} holds numbers; type one to compare with`));
    return;
  }
  try {
    await rows.load(column);
  } catch (error) {
    problem(error);
    return;
  }
  filters.push({ column, words: `${column.title} ${name} ${name === "is missing" ? "" : wanted}`, passes: (value) => test(value, wanted) });
  byId("filter-value").value = "";
  drawFilters();
});

function drawFilters() {
  byId("chips").replaceChildren(...filters.map((filter) => make("button", { type: "button", "aria-label": `Remove the filter: ${filter.words}`, onclick: () => { filters.splice(filters.indexOf(filter), 1); drawFilters(); } }, `${filter.words} ✕`)));
  show();
  if (filters.length) byId("chips").append(make("span", { class: "count" }, `${counted(grid.order.length, "row")} of ${rows.total.toLocaleString("en")}`));
}

// --- scores -------------------------------------------------------------------------------------

function drawScoreButtons() {
  byId("scores").replaceChildren(...Object.entries(SCORES).flatMap(([name, score]) => [make("button", { type: "button", id: `score-${name}`, title: score.help, "aria-pressed": String(name in rows.scores), onclick: () => score_(name) }, score.title.toLowerCase()), " "]));
}

async function score_(name) {
  if (name in rows.scores) {
    delete rows.scores[name];
    if (sort?.column.key === name) sort = null;
    filters.splice(0, filters.length, ...filters.filter((filter) => filter.column.key !== name));
    drawFilters();
  } else {
    const button = byId(`score-${name}`);
    button.disabled = true;
    try {
      for (;;) {
        const found = await get(`/api/scores/${name}`);
        if (found.scores) {
          rows.scores[name] = found.scores;
          break;
        }
        button.textContent = `${SCORES[name].title.toLowerCase()}: computing, ${found.seconds} s`;
        await new Promise((done) => setTimeout(done, 400));
      }
      await sortBy(rows.columns().find((one) => one.key === name));
    } catch (error) {
      problem(error);
    }
  }
  drawScoreButtons();
  choices();
  show();
}

// --- explanations -------------------------------------------------------------------------------

async function explain(what) {
  const place = byId("explanation");
  place.replaceChildren(make("p", { class: "quiet" }, "Searching for the rows that this prediction rests on ..."));
  try {
    const found = await post("/api/explain", { edit: history.now.message(about), ...what });
    drawExplanation(place, found, about, { highlight, apply: (ids) => history.apply((edit) => ids.forEach((id) => edit.weights.set(id, 0))) });
    place.scrollIntoView({ block: "nearest" });
  } catch (error) {
    place.replaceChildren();
    problem(error);
  }
}

// Mark rows in the table, select them, and show the first.
function highlight(ids) {
  const positions = ids.map((id) => rows.at(id));
  grid.marked = new Set(positions);
  grid.pick(positions);
  const first = grid.order.findIndex((at) => grid.marked.has(at));
  if (first >= 0) grid.scrollTo(first);
  grid.refresh();
}

byId("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  explain({ row: byId("explain-row").value.trim() });
});
byId("explain-typed").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const { rows: typed } = await post("/api/paste", { csv: byId("typed").value, labelled: false });
    await explain({ typed });
  } catch (error) {
    problem(error);
  }
});

// --- CSV in, files out --------------------------------------------------------------------------

byId("paste").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const found = await post("/api/paste", { csv: byId("pasted").value, labelled: true });
    if (found.edit) history.replace(Edit.of(found.edit));
    else history.apply((edit) => edit.added.push(...Edit.of({ added: found.rows }).added));
    byId("pasted").value = "";
    byId("problem").hidden = true;
  } catch (error) {
    problem(error);
  }
});
byId("header").addEventListener("click", () => {
  const quoted = [...about.needed, about.label].map((name) => (/[",\n\r]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name));
  byId("pasted").value = `${quoted.join(",")}\n${byId("pasted").value}`;
  byId("pasted").focus();
});

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    byId("exported").replaceChildren(make("p", {}, `${what} copied.`), make("pre", { tabindex: "0" }, text));
  } catch {
    byId("exported").replaceChildren(make("p", {}, `${what}: the browser does not let pages copy; select it here.`), make("pre", { tabindex: "0" }, text));
  }
}

function download(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
  byId("exported").replaceChildren(make("p", {}, `Saved as ${name}.`), make("pre", { tabindex: "0" }, text.length > 5000 ? `${text.slice(0, 5000)}\n...` : text));
}

byId("exports").addEventListener("click", async (event) => {
  const { form } = event.target.dataset;
  if (event.target.id === "link") copy(window.location.href, "Link");
  if (!form) return;
  try {
    const { text, name } = await post("/api/export", { edit: history.now.message(about), form });
    if (form === "python") copy(text, "Python");
    else download(text, name);
  } catch (error) {
    problem(error);
  }
});

// --- light and dark -----------------------------------------------------------------------------

function theme(chosen) {
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.theme = chosen;
  byId("theme").textContent = dark ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
  return dark;
}

byId("theme").addEventListener("click", () => theme(theme(document.documentElement.dataset.theme) ? "light" : "dark"));

// A link that is opened in the same tab changes the address only.
window.addEventListener("hashchange", async () => {
  try {
    history.replace(await recall());
  } catch (error) {
    problem(error);
  }
});

// --- start --------------------------------------------------------------------------------------

document.title = `What if? ${about.name}`;
byId("subject").textContent = `${about.name}: ${counted(about.ids.length, "training row")}, ${about.family} model of ${about.label}, scored on ${counted(about.scored.ids.length, about.scored.on.replace(/s$/, ""))}`;
byId("label-input").append(about.regression ? make("input", { size: 8, "aria-label": "New label" }) : make("select", { "aria-label": "New label" }, ...about.classes.map((name) => make("option", {}, name))));
byId("explain-rows").append(...about.scored.ids.slice(0, 500).map((value) => make("option", { value })));
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.target.closest("input, textarea, .grid") && "zy".includes(event.key.toLowerCase()) && shortcut(event)) event.preventDefault();
});
theme();
drawScoreButtons();
choices();
drawSelection();
let broken = null;
try {
  history.now = await recall();
} catch (error) {
  broken = error;
}
show();
drawEdit();
await ask();
if (broken) problem(broken); // after the answer, which takes earlier problems away
document.documentElement.dataset.ready = "yes";
