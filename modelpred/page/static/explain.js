// The rows that a prediction rests on, and the smallest set found whose removal flips it.

import { counted, make, number, signed } from "./format.js";

// on: { highlight(ids), apply(ids) }
export function drawExplanation(place, found, about, on) {
  const ids = found.rows.map((row) => row.row_id);
  const parts = [
    make("p", {}, `${found.what} is predicted `, make("b", {}, String(about.regression ? number(found.predicted) : found.predicted)),
      about.regression ? "." : `, with a margin of ${number(found.margin)}.`, ` The removal of one row changes the ${about.regression ? "prediction" : "margin"} by:`),
    make("p", { class: "quiet" }, `${found.how}.`),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows that the prediction rests on" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Row", about.label, "Change"].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...found.rows.map((row) => make("tr", {}, make("td", {}, row.row_id), make("td", {}, String(row.label)), make("td", {}, signed(row.effect))))))),
    make("div", { class: "bar" }, make("button", { type: "button", onclick: () => on.highlight(ids) }, "Show these rows in the table")),
  ];
  if (found.flip) parts.push(...flip(found.flip, on));
  place.replaceChildren(...parts);
}

function flip(found, on) {
  if (!found.removed.length) return [make("p", {}, "No set of rows was found whose removal flips this prediction.")];
  let outcome = "retraining did not converge, so this is not confirmed";
  if (found.confirmed) outcome = `retraining confirms: it becomes ${found.becomes}`;
  else if (found.becomes !== null) outcome = `retraining does not confirm: it stays ${found.becomes}`;
  return [
    make("p", { "data-flip": found.removed.length }, `Without ${counted(found.removed.length, "row")} the prediction flips; ${outcome}.`),
    make("div", { class: "bar" },
      make("button", { type: "button", id: "flip-show", onclick: () => on.highlight(found.removed) }, "Show the set in the table"),
      make("button", { type: "button", id: "flip-apply", onclick: () => { on.highlight(found.removed); on.apply(found.removed); } }, "Remove the set")),
  ];
}
