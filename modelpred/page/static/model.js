// The right side: what the model of the edited rows does, beside the model of all rows.

import { counted, drawn, make, number, share, signed, byId } from "./format.js";

const shown = { share, number };

export function drawScores(answer) {
  byId("cards").replaceChildren(...answer.scores.map(card));
  byId("ticker").replaceChildren(...answer.scores.flatMap((score, at) => [
    at ? " · " : "", `${score.name} ${shown[score.kind](score.after)} `, make("span", { class: tone(score) }, change(score)),
  ]));
}

function card(score) {
  const form = shown[score.kind];
  return make("div", { class: "card" },
    make("div", { class: "quiet" }, score.name),
    make("div", { class: "now", "data-score": score.name }, form(score.after)),
    make("div", { class: "was" }, `before ${form(score.before)}, `, make("span", { class: tone(score) }, change(score))));
}

function change(score) {
  if (score.after === null || score.before === null) return "";
  const moved = score.after - score.before;
  if (Math.abs(moved) <= 1e-9 * Math.max(1, Math.abs(score.before))) return "no change";
  const better = (moved > 0) === (score.better === "higher") ? "better" : "worse";
  const size = score.kind === "share" ? `${signed(100 * moved)} points` : signed(moved);
  return `${size}, ${better}`;
}

function tone(score) {
  const moved = score.after - score.before;
  if (Math.abs(moved) <= 1e-9 * Math.max(1, Math.abs(score.before))) return "";
  return (moved > 0) === (score.better === "higher") ? "good" : "bad";
}

// How the numbers were obtained, with the button that confirms a prediction.
export function drawHow(answer, confirm) {
  const how = byId("how");
  if (answer.retrained) {
    how.replaceChildren(make("span", { class: "badge" }, "Retrained"), "All numbers are from exact retraining on the edited rows.");
    return;
  }
  let bound = "no bound for this family";
  if (answer.certificate !== null) bound = `exact retraining differs by at most ${number(answer.certificate)} (norm of parameters)`;
  else if (answer.can_bound) bound = answer.bounded ? "there is no bound for this edit" : "the bound is being computed";
  how.replaceChildren(
    make("span", { class: "badge" }, "Predicted"), `All numbers are from a predicted model; ${bound}. `,
    make("button", { type: "button", id: "confirm", onclick: confirm }, "Confirm by retraining"));
}

export function drawNotes(answer) {
  byId("notes").replaceChildren(...answer.notes.map((note) => make("li", {}, note)));
}

export function drawCoefficients(answer) {
  const place = byId("coefficients");
  const found = answer.coefficients;
  if (!found) {
    place.replaceChildren(make("p", { class: "quiet" }, "This family has no coefficients."));
    return;
  }
  const classes = new Set(found.rows.map((row) => row.class)).size > 1;
  const largest = Math.max(...found.rows.map((row) => Math.abs(relative(row))), 1e-12);
  const head = make("tr", {}, ...[classes && "Class", "Column", "Before", "Now", "Change"].filter(Boolean).map((name) => make("th", { scope: "col", class: ["Before", "Now"].includes(name) ? "number" : "" }, name)));
  const rows = found.rows.slice(0, 40).map((row) => make("tr", {},
    classes ? make("td", {}, String(row.class)) : null,
    make("td", { class: "words", title: row.column }, row.column),
    make("td", { class: "number" }, number(row.before)),
    make("td", { class: "number" }, number(row.after)),
    make("td", {}, bar(relative(row) / largest), ` ${row.moved ? signed(row.after - row.before, 2) : "same"}`)));
  byId("toward").textContent = !classes && found.rows[0]?.class !== undefined ? `toward ${found.rows[0].class}, ` : "";
  place.replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Coefficients" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
  if (found.count > rows.length) place.append(make("p", { class: "quiet" }, `${rows.length} of ${found.count}; the JSON file has all.`));
}

const relative = (row) => row.after - row.before;

function bar(part) {
  const [half, height] = [30, 10];
  const length = Math.abs(part) * half;
  return drawn("svg", { class: "shift", width: 2 * half, height, "aria-hidden": "true" },
    drawn("line", { x1: half, x2: half, y1: 0, y2: height, class: "axis" }),
    drawn("rect", { x: part < 0 ? half - length : half, y: 2, width: length, height: height - 4, class: "after" }));
}

const FIRST = 20; // changed predictions that are drawn at once

export function drawFlips(answer, about, explain) {
  const { count, of, rows, columns, cells } = answer.flips;
  const what = about.scored.on;
  byId("flips-title").textContent = about.regression ? "Predictions that change most" : "Predictions that flip";
  const place = byId("flips");
  if (!count) {
    place.replaceChildren(make("p", { class: "quiet", "data-flips": 0 }, about.regression ? `No prediction of ${of} ${what} changes.` : `None of ${of} ${what} flips.`));
    return;
  }
  const sure = rows[0].probability_before !== undefined;
  const names = ["Row", about.label, "Before", "Now", ...(sure ? ["P(label) before", "now"] : []), "Why", ...columns];
  const line = (row, at) => make("tr", {},
    make("td", {}, row.row), make("td", {}, text(row.label)), make("td", {}, text(row.before, 3)), make("td", {}, text(row.after, 3)),
    ...(sure ? [make("td", { class: "number" }, share(row.probability_before)), make("td", { class: "number" }, share(row.probability_after))] : []),
    make("td", {}, make("button", { type: "button", class: "plain", "aria-label": `Explain row ${row.row}`, onclick: () => explain(row.row) }, "explain")),
    ...cells[at].map((cell) => make("td", { class: typeof cell === "number" ? "number" : "words" }, text(cell))));
  const body = make("tbody", {}, ...rows.slice(0, FIRST).map(line));
  const more = rows.length > FIRST && make("button", { type: "button", onclick: () => { body.append(...rows.slice(FIRST).map((row, at) => line(row, at + FIRST))); more.remove(); } }, `Show ${rows.length - FIRST} more`);
  place.replaceChildren(
    make("p", { class: "quiet", "data-flips": count }, about.regression ? `${counted(count, "prediction")} of ${of} ${what} change.` : `${count} of ${of} ${what} flip.`, count > rows.length ? ` The first ${rows.length} are listed.` : ""),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Changed predictions" },
      make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))), body)));
  if (more) place.append(make("div", { class: "bar" }, more));
}

const text = (value, digits = 5) => (value === null ? "" : typeof value === "number" ? number(value, digits) : String(value));

// Rows whose prediction is least certain now, to try an explanation on.
export function drawUncertain(answer, explain) {
  const place = byId("uncertain");
  place.replaceChildren();
  if (!answer.uncertain.length) return;
  place.append("Least certain now: ", ...answer.uncertain.map((row) => make("button", { type: "button", class: "plain", "aria-label": `Explain row ${row}`, onclick: () => explain(row) }, row)));
}

export function drawCalibration(answer) {
  const place = byId("calibration");
  if (!answer.calibration) {
    place.replaceChildren(make("p", { class: "quiet" }, "This family has no probabilities."));
    return;
  }
  const { before, after } = answer.calibration;
  const [size, edge] = [220, 34];
  const at = (part) => edge + part * (size - edge - 8);
  const up = (part) => size - at(part);
  const line = (rows, name) => [
    drawn("polyline", { class: name, points: rows.map((row) => `${at(row.confidence)},${up(row.accuracy)}`).join(" ") }),
    ...rows.map((row) => drawn("circle", { class: name, cx: at(row.confidence), cy: up(row.accuracy), r: 2 + 3 * Math.sqrt(row.count / total(rows)) })),
  ];
  const picture = drawn("svg", { width: size, height: size, role: "img", "aria-label": `Accuracy against confidence. ${said(after)}` },
    drawn("line", { class: "even", x1: at(0), y1: up(0), x2: at(1), y2: up(1) }),
    drawn("line", { class: "axis", x1: at(0), y1: up(0), x2: at(1), y2: up(0) }),
    drawn("line", { class: "axis", x1: at(0), y1: up(0), x2: at(0), y2: up(1) }),
    ...[0, 0.5, 1].flatMap((tick) => [
      drawn("text", { x: at(tick), y: size - 18, "text-anchor": "middle" }, String(tick)),
      drawn("text", { x: edge - 5, y: up(tick) + 4, "text-anchor": "end" }, String(tick)),
    ]),
    drawn("text", { x: at(0.5), y: size - 4, "text-anchor": "middle" }, "confidence"),
    ...line(before, "before"), ...line(after, "after"));
  place.replaceChildren(picture, make("div", { class: "key" },
    make("span", {}, "Expected calibration error"), make("span", {}, "┄ before ", make("b", {}, gap(before))), make("span", {}, "━ now ", make("b", {}, gap(after)))));
}

const total = (rows) => rows.reduce((sum, row) => sum + row.count, 0);

function gap(rows) {
  const sum = rows.reduce((found, row) => found + row.count * Math.abs(row.confidence - row.accuracy), 0);
  return share(sum / total(rows));
}

const said = (rows) => rows.map((row) => `at confidence ${share(row.confidence)}, ${share(row.accuracy)} are right`).join("; ");
