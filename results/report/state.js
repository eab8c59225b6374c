// What the reader chose stands in the address and nowhere else, so that an address shows what its sender saw and the
// back button goes back. A control changes the address; the address changes the page.
const byId = (id) => document.getElementById(id);
const watchers = [];

function readState() {
  const hash = location.hash.slice(1);
  if (!hash.includes("=")) return hash ? { at: decodeURIComponent(hash) } : {};
  return Object.fromEntries(new URLSearchParams(hash));
}

function hashOf(state) {
  const kept = Object.entries(state).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  kept.sort(([one], [other]) => (one < other ? -1 : 1));
  return "#" + new URLSearchParams(kept).toString();
}

// What was chosen in a section makes the address one of that section, for whoever opens it; here nothing moves. The
// history remembers that it was chosen, so that going back to it moves nothing either.
const CHOSEN = "chosen";

function change(changes, section) {
  const hash = hashOf({ ...readState(), ...changes, at: section });
  if (hash === location.hash) return;
  history.pushState(CHOSEN, "", hash);
  show(false);
}

const sectionOf = (element) => element.closest("main > section").id;

function linkTo(changes) {
  return hashOf({ ...readState(), ...changes });
}

function watch(draw) {
  watchers.push(draw);
}

function show(lands) {
  const state = readState();
  for (const draw of watchers) draw(state);
  const at = lands && state.at && byId(state.at);
  if (at) {
    at.scrollIntoView();
    at.focus({ preventScroll: true });
  }
}

// Text is never read as HTML: every text goes through here.
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key in element && key !== "role" && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function fillSelect(select, options, value) {
  const wanted = JSON.stringify(options);
  if (select.filled !== wanted) {
    select.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, text)));
    select.filled = wanted;
  }
  select.value = value;
}

function bindStates(form) {
  const section = sectionOf(form);
  for (const control of form.querySelectorAll("[data-state]")) {
    const key = control.dataset.state;
    control.addEventListener("change", () =>
      change({ [key]: control.type === "checkbox" ? (control.checked ? "1" : "") : control.value }, section),
    );
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries([...form.querySelectorAll("[data-state]")].map((one) => [one.dataset.state, ""])), section);
  });
}

const distinct = (values) => [...new Set(values)];
const withAll = (text, values) => [["", text], ...values.map((value) => [value, value])];
const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));
