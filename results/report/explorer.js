// The unit explorer: one pane, or two side by side; `a` and `b` are their keys in the address, with `u` for the unit
// and `p` for the part (empty: the whole unit, or the first part where there is no whole).
const DATA = JSON.parse(byId("data").textContent);
const PANES = ["a", "b"];
const REFERENCES = new Set([...document.querySelectorAll("tr[data-reference=true]")].map((row) => row.dataset.label));

const keyOfMethod = (one) => `${one.label}~${one.t}~${one.i}`;
const nameOfUnit = (unit) => String(unit.u ?? unit.p[0].i);
const atSite = (site) => DATA.explored.filter((one) => one.site === site);

function wordsOfMethod(one, all) {
  const several = all.filter((other) => other.label === one.label).length > 1;
  return several ? `${one.label} (seeds ${one.t}, ${one.i})` : one.label;
}

function wordsOfUnit(unit) {
  if (unit.u === null) return `atom ${unit.p[0].i}`;
  return unit.p.length > 1 ? `unit ${unit.u}, ${unit.p.length} parts` : `unit ${unit.u}`;
}

// Parts are counted from 1 for people; the atom is what programs, judged pairs and the address call it.
const wordsOfPart = (unit, atom) => `part ${unit.p.indexOf(atom) + 1}, atom ${atom.i}`;

function wordsOfAtom(unit, atom) {
  if (unit.u === null) return `Atom ${atom.i}`;
  if (atom === unit.w) return `Unit ${unit.u}, whole`;
  return `Unit ${unit.u}, ${wordsOfPart(unit, atom)}`;
}

const headingOf = ({ methods, method, unit, atom }) => `${wordsOfMethod(method, methods)}: ${wordsOfAtom(unit, atom)}`;

// What an address names, or the nearest there is.
function chosen(state, side) {
  const site = DATA.explored.some((one) => one.site === state.us) ? state.us : DATA.explored[0].site;
  const methods = atSite(site);
  const splits = methods.filter((one) => one.units.some((unit) => unit.p.length > 1));
  const rich = splits.find((one) => !REFERENCES.has(one.label)) ?? splits[0] ?? methods[0];
  const method = methods.find((one) => keyOfMethod(one) === state[side]) ?? (side === "a" ? rich : methods.find((one) => one !== rich) ?? rich);
  const unit = method.units.find((one) => nameOfUnit(one) === state[side + "u"]) ?? method.units[0];
  const atom = unit && (unit.p.find((one) => String(one.i) === state[side + "p"]) ?? unit.w ?? unit.p[0]);
  return { site, methods, method, unit, atom };
}

// What an address names and this page lacks, in words.
function lacking(state, side) {
  const { site, methods, method, unit, atom } = chosen(state, side);
  const [key, name, part] = [state[side], state[side + "u"], state[side + "p"]];
  const said = (what, shown) => `${what} is not on this page; ${shown} is shown`;
  if (side === "a" && state.us && state.us !== site) return [said(`site ${state.us}`, site)];
  if (key && key !== keyOfMethod(method)) {
    const [t, i] = key.split("~").slice(-2);
    const label = key.split("~").slice(0, -2).join("~") || key;
    const seeds = methods.some((one) => one.label === label) ? ` (seeds ${t}, ${i})` : "";
    return [said(`${label}${seeds} at ${site}`, wordsOfMethod(method, methods))];
  }
  if (!unit) return [];
  const kind = unit.u === null ? "atom" : "unit";
  if (name && name !== nameOfUnit(unit)) return [said(`${kind} ${name} of ${method.label}`, `${kind} ${nameOfUnit(unit)}`)];
  const missing = part && part !== String(atom.i);
  return missing ? [said(`atom ${part} of ${kind} ${nameOfUnit(unit)} of ${method.label}`, wordsOfAtom(unit, atom))] : [];
}

// The unit of that name is asked of another method only where that method shows it.
const sameUnit = (method, name) => (method.units.some((unit) => nameOfUnit(unit) === name) ? name : "");

function explorer() {
  const form = byId("units-form");
  const panes = byId("panes");
  if (!form || !panes) return;
  const sites = distinct(DATA.explored.map((one) => one.site));
  bindStates(form);
  form.hidden = false;
  const select = form.querySelector("select");
  const marks = form.querySelector("[data-state=marks]");
  const compareBox = byId("compare");
  const section = sectionOf(form);
  compareBox.addEventListener("change", () => {
    const { methods, method, unit } = chosen(readState(), "a");
    const other = methods.find((one) => one !== method) ?? method;
    const beside = { b: keyOfMethod(other), bu: unit && sameUnit(other, nameOfUnit(unit)) };
    change(compareBox.checked ? beside : { b: "", bu: "", bp: "" }, section);
  });
  const drawn = Object.fromEntries(PANES.map((side) => [side, pane(side)]));
  panes.append(drawn.a.element);
  watch((state) => {
    const two = Boolean(state.b);
    const sides = two ? PANES : ["a"];
    fillSelect(select, sites.map((site) => [site, site]), chosen(state, "a").site);
    marks.checked = state.marks === "1";
    compareBox.checked = two;
    panes.classList.toggle("two", two);
    if (two) panes.append(drawn.b.element);
    else drawn.b.element.remove();
    for (const side of sides) drawn[side].draw(state);
    const shown = sides.map((side) => wordsShown(chosen(state, side))).join("; beside it ");
    const said = [...sides.flatMap((side) => lacking(state, side)), shown].join(". ");
    if (byId("units-said").textContent !== said) byId("units-said").textContent = said;
    byId("units-link").href = linkTo({ at: "units", ...explicit(state, "a"), ...(two ? explicit(state, "b") : {}) });
  });
}

const wordsShown = (found) => (found.unit ? headingOf(found) : `${wordsOfMethod(found.method, found.methods)}: no units`);

// Everything that is shown by default, written out, so that a link means the same on a page with other methods.
function explicit(state, side) {
  const { site, method, unit, atom } = chosen(state, side);
  if (!unit) return { us: site, [side]: keyOfMethod(method) };
  return { us: site, [side]: keyOfMethod(method), [side + "u"]: nameOfUnit(unit), [side + "p"]: atom === unit.w ? "" : atom.i };
}

function pane(side) {
  const words = side === "a" ? "First method" : "Second method";
  const method = make("select");
  const unit = make("select");
  const part = make("select");
  const before = make("button", { type: "button", "aria-label": `${words}: previous unit` }, "‹");
  const after = make("button", { type: "button", "aria-label": `${words}: next unit` }, "›");
  const body = make("div", { className: "looked" });
  const said = make("p", { className: "said" });
  const form = make(
    "form",
    { className: "filters" },
    make("label", {}, "Method ", method),
    make("label", {}, "Unit ", unit),
    make("span", { className: "steps" }, before, after),
    make("label", {}, "Part ", part),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  const element = make("section", { className: "pane", "aria-label": words }, form, said, body);
  const go = (changes) => change({ ...explicit(readState(), side), ...changes }, "units");
  method.addEventListener("change", () => {
    const { methods, unit: at } = chosen(readState(), side);
    const other = methods.find((one) => keyOfMethod(one) === method.value);
    go({ [side]: method.value, [side + "u"]: at && sameUnit(other, nameOfUnit(at)), [side + "p"]: "" });
  });
  unit.addEventListener("change", () => go({ [side + "u"]: unit.value, [side + "p"]: "" }));
  part.addEventListener("change", () => go({ [side + "p"]: part.value }));
  const step = (by) => {
    const { method: now, unit: at } = chosen(readState(), side);
    const other = now.units[now.units.indexOf(at) + by];
    if (other) go({ [side + "u"]: nameOfUnit(other), [side + "p"]: "" });
  };
  before.addEventListener("click", () => step(-1));
  after.addEventListener("click", () => step(1));
  let last = "";
  function draw(state) {
    const found = chosen(state, side);
    fillSelect(method, found.methods.map((one) => [keyOfMethod(one), wordsOfMethod(one, found.methods)]), keyOfMethod(found.method));
    fillSelect(unit, found.method.units.map((one) => [nameOfUnit(one), wordsOfUnit(one)]), found.unit ? nameOfUnit(found.unit) : "");
    const parts = found.unit ? found.unit.p.map((one) => [String(one.i), wordsOfPart(found.unit, one)]) : [];
    if (found.unit?.w) parts.unshift(["", "the whole unit"]);
    fillSelect(part, parts, found.unit && found.atom !== found.unit.w ? String(found.atom.i) : "");
    part.disabled = parts.length < 2;
    const at = found.method.units.indexOf(found.unit);
    before.disabled = at < 1;
    after.disabled = at < 0 || at + 1 >= found.method.units.length;
    const now = JSON.stringify([found.site, keyOfMethod(found.method), at, found.atom?.i, found.atom === found.unit?.w, state.marks]);
    if (now === last) return;
    last = now;
    const { method: one } = found;
    const whole = one.units.length === one.n_units ? `all ${one.n_units}` : `${one.units.length} of ${one.n_units}`;
    said.textContent = `${whole} here, ${one.n_atoms} atoms in all${one.left ? `. ${one.left}` : ""}`;
    const focused = document.activeElement?.dataset?.part;
    const inside = body.contains(document.activeElement);
    body.replaceChildren(...(found.unit ? looked(found, side, state.marks === "1", go) : [make("p", {}, "There is nothing to look at.")]));
    if (inside) body.querySelector(`[data-part="${CSS.escape(focused ?? "")}"]`)?.focus();
  }
  return { element, draw };
}

function looked(found, side, marked, go) {
  const { site, method, unit, atom } = found;
  const pieces = [make("h3", {}, headingOf(found)), numbers(method, atom), exemplars(site, atom, marked)];
  if (atom.d.length) pieces.push(owned(atom));
  if (unit.p.length > 1) {
    pieces.push(make("h4", {}, `The parts of unit ${unit.u}`));
    const atoms = unit.w ? [unit.w, ...unit.p] : unit.p;
    pieces.push(make("ul", { className: "parts" }, ...atoms.map((one) => make("li", {}, thumb(site, unit, one, one === atom, side, go)))));
  }
  return pieces;
}

function numbers(method, atom) {
  const facts = method.scores.map((name, index) => {
    const { heading, unit } = DATA.metrics[name];
    const value = atom.s[index];
    return [heading, value === null || unit === "1" ? number(value) : `${number(value)} ${unit}`];
  });
  if (atom.m !== null) facts.unshift(["instances in its cluster", String(atom.m)]);
  if (atom.n !== null) facts.push(["input dimensions it owns", String(atom.n)]);
  return make("dl", { className: "numbers" }, ...facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
}

function exemplars(site, atom, marked) {
  if (!atom.x.length) return make("p", { className: "said" }, "No image drives it.");
  return make(
    "ol",
    { className: "exemplars", "aria-label": "Images that drive it most, with the largest code in each" },
    ...atom.x.map((image, index) =>
      make("li", {}, make("figure", {}, picture(site, image, marked ? atom.t[index] : undefined), make("figcaption", {}, number(atom.c[index]), ...captioned(site, image)))),
    ),
  );
}

function captioned(site, image) {
  const text = DATA.pictures[site]?.captions[image];
  return text ? [make("br"), text] : [];
}

// Tokens before the patches (CLS) belong to no place: the whole image is framed.
function picture(site, image, token) {
  const held = DATA.pictures[site];
  const box = make("div", { className: "pic" });
  if (!held?.files[image]) {
    box.append(make("span", { className: "none" }, `#${image}`));
    return box;
  }
  const what = held.captions[image];
  const img = make("img", { alt: what ? `image ${image}: ${what}` : `image ${image}`, decoding: "async" });
  img.addEventListener("load", () => img.classList.toggle("small", img.naturalWidth <= 64));
  img.src = held.files[image];
  box.append(img);
  if (token !== undefined && token !== null && held.grid) {
    const [rows, columns] = held.grid;
    const at = token - held.prefix;
    const spot = make("span", { className: "spot" });
    const place = at < 0 ? [0, 0, 100, 100] : [(Math.floor(at / columns) * 100) / rows, ((at % columns) * 100) / columns, 100 / rows, 100 / columns];
    ["top", "left", "height", "width"].forEach((name, index) => (spot.style[name] = `${place[index]}%`));
    img.alt += at < 0 ? "; the token before the patches" : `; patch ${at + 1} of ${rows} by ${columns}`;
    box.append(spot);
  }
  return box;
}

function owned(atom) {
  const most = Math.max(...atom.d.map(([, weight]) => Math.abs(weight)));
  const rows = atom.d.map(([dimension, weight]) => {
    const bar = make("span", { className: weight < 0 ? "minus" : "" });
    bar.style.width = `${most ? (100 * Math.abs(weight)) / most : 0}%`;
    return make("tr", {}, make("th", { scope: "row" }, String(dimension)), make("td", {}, number(weight)), make("td", { className: "bar", "aria-hidden": "true" }, bar));
  });
  return make(
    "table",
    { className: "owned" },
    make("caption", {}, "Input dimensions with the largest weight"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "dimension"), make("th", { scope: "col" }, "weight"), make("td"))),
    make("tbody", {}, ...rows),
  );
}

function thumb(site, unit, atom, pressed, side, go) {
  const name = atom === unit.w ? "" : String(atom.i);
  const shown = make("span", { className: "thumbs", "aria-hidden": "true" }, ...atom.x.slice(0, 4).map((image) => picture(site, image)));
  const size = atom.m === null ? "" : ` · ${atom.m}`;
  const words = atom === unit.w ? "whole" : `${wordsOfPart(unit, atom)}${size}`;
  const button = make("button", { type: "button", "aria-pressed": String(pressed) }, shown, words);
  button.dataset.part = name;
  button.addEventListener("click", () => go({ [side + "p"]: name }));
  return button;
}
