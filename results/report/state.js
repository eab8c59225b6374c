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

// Without `at`, setting the address scrolls nowhere.
function change(changes) {
  const state = readState();
  delete state.at;
  const hash = hashOf({ ...state, ...changes });
  if (hash !== location.hash) location.hash = hash === "#" ? "#=" : hash;
}

function linkTo(changes) {
  return hashOf({ ...readState(), ...changes });
}

function watch(draw) {
  watchers.push(draw);
}

function show() {
  const state = readState();
  for (const draw of watchers) draw(state);
  const at = state.at && byId(state.at);
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
  for (const control of form.querySelectorAll("[data-state]")) {
    const key = control.dataset.state;
    control.addEventListener("change", () =>
      change({ [key]: control.type === "checkbox" ? (control.checked ? "1" : "") : control.value }),
    );
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries([...form.querySelectorAll("[data-state]")].map((one) => [one.dataset.state, ""])));
  });
}

const distinct = (values) => [...new Set(values)];
const withAll = (text, values) => [["", text], ...values.map((value) => [value, value])];
const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));
