// Numbers and elements for people.

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const size = Math.abs(value);
  if (size && (size < 1e-6 || size >= 1e7)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

export function signed(value, digits = 3) {
  if (value === null) return "–";
  return value === 0 ? "±0" : (value > 0 ? "+" : "−") + number(Math.abs(value), digits);
}

export function share(value) {
  return value === null ? "–" : `${number(100 * value)}%`;
}

export function counted(count, thing) {
  return `${count.toLocaleString("en")} ${count === 1 ? thing : `${thing}s`}`;
}

// An element with attributes and children; text is always text, never markup.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function drawn(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);
