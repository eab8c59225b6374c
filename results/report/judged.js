// Judged pairs, some at a time: both grids, and every reply as it came.
const PER_PAGE = 10;

const disagrees = (pair) => distinct(pair.replies.map((reply) => reply.choice ?? "")).length > 1;
const AGREEMENT = {
  disagree: ["they disagree", disagrees],
  agree: ["they agree", (pair) => pair.replies.length > 1 && !disagrees(pair)],
  none: ["no majority", (pair) => pair.consensus === null],
};

function pairs() {
  const form = byId("pairs-form");
  if (!form) return;
  const pager = byId("pairs-pager");
  const list = byId("pairs-list");
  const [site, panel, kind, method, agreement] = form.querySelectorAll("select");
  const real = DATA.judged.filter((pair) => !pair.rung);
  const methods = distinct(real.flatMap((pair) => [pair.a.label, pair.b.label])).sort();
  const kinds = [["", "all"], ["real", "of methods"], ["planted", "planted pairs"]];
  const choices = Object.entries(AGREEMENT).map(([key, [text]]) => [key, text]);
  const section = sectionOf(form);
  bindStates(form);
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", () => change({ jn: "" }, section));
  kind.parentElement.hidden = real.length === DATA.judged.length;
  form.hidden = false;
  let last = "";
  let n = 0;
  pager.addEventListener("click", (event) => {
    const by = Number(event.target.dataset?.step);
    if (by) change({ jn: String(Math.min(Math.max(Number(readState().jn || 1) + by, 1), Math.ceil(n / PER_PAGE))) }, section);
  });
  watch((state) => {
    fillSelect(site, withAll("all", distinct(DATA.judged.map((pair) => pair.site))), state.js ?? "");
    fillSelect(panel, withAll("all", distinct(DATA.judged.map((pair) => pair.panel))), state.jp ?? "");
    fillSelect(kind, kinds, state.jk ?? "");
    fillSelect(method, withAll("all", methods), state.jm ?? "");
    fillSelect(agreement, [["", "all"], ...choices], state.jd ?? "");
    const now = JSON.stringify([state.js, state.jp, state.jk, state.jm, state.jd, state.jn]);
    if (now === last) return;
    last = now;
    const found = DATA.judged.filter(
      (pair) =>
        (!state.js || pair.site === state.js) &&
        (!state.jp || pair.panel === state.jp) &&
        (!state.jk || Boolean(pair.rung) === (state.jk === "planted")) &&
        (!state.jm || (!pair.rung && (pair.a.label === state.jm || pair.b.label === state.jm))) &&
        (!AGREEMENT[state.jd] || AGREEMENT[state.jd][1](pair)),
    );
    n = found.length;
    const pages = Math.max(1, Math.ceil(n / PER_PAGE));
    const at = Math.min(Math.max(Number.parseInt(state.jn, 10) || 1, 1), pages);
    list.replaceChildren(...found.slice((at - 1) * PER_PAGE, at * PER_PAGE).map(pairCard));
    byId("pairs-count").textContent = `${n} of ${DATA.judged.length} pairs${pages > 1 ? `, page ${at} of ${pages}` : ""}`;
    pager.hidden = pages < 2;
    pager.querySelector("span").textContent = `${at} of ${pages}`;
    const [before, after] = pager.querySelectorAll("button");
    before.disabled = at === 1;
    after.disabled = at === pages;
  });
}

function pairCard(pair) {
  const verdict = pair.consensus === null ? "no majority" : `majority: ${named(pair, pair.consensus)}${graded(pair, pair.consensus)}`;
  const told = [verdict, pair.site, pair.panel, ...(pair.rung ? [`planted: ${pair.rung}`, answerTo(pair)] : [`seed ${pair.t}`])];
  return make(
    "article",
    { className: "pair" },
    make("header", {}, make("h3", {}, `${pair.a.label} or ${pair.b.label}`), make("p", {}, told.join(" · "))),
    make("div", { className: "grids" }, gridOf(pair, "A", pair.a), gridOf(pair, "B", pair.b)),
    ...pair.replies.map((reply) => replyOf(pair, reply)),
  );
}

// Of a planted pair somebody knows which side is right, unless its sides are alike on purpose.
const answerTo = (pair) => (pair.right === null ? "no side is right" : `right: ${named(pair, pair.right)}`);
const graded = (pair, choice) => (pair.right === null ? "" : choice === pair.right ? ", right" : ", wrong");
const named = (pair, choice) => `${choice} (${choice === "A" ? pair.a.label : pair.b.label})`;

function gridOf(pair, letter, shown) {
  const place = placeOf(pair, shown);
  const words = shown.atom === null ? shown.label : `${shown.label}, atom ${shown.atom}`;
  const title = make("h4", {}, `${letter}: `, place ? make("a", { href: hashOf(place) }, words) : words);
  const cells = shown.x.map((image) => make("figure", {}, picture(pair.site, image)));
  return make("div", { className: pair.consensus === letter ? "chosen" : "" }, title, make("div", { className: "grid" }, ...cells));
}

// Where the explorer shows that atom, if it does.
function placeOf(pair, shown) {
  if (shown.atom === null) return null;
  const method = DATA.explored.find((one) => one.site === pair.site && one.label === shown.label && one.t === pair.t);
  const unit = method?.units.find((one) => one.p.some((atom) => atom.i === shown.atom));
  return unit ? { at: "units", us: pair.site, a: keyOfMethod(method), au: nameOfUnit(unit), ap: shown.atom } : null;
}

function replyOf(pair, reply) {
  const chose = reply.choice === null ? "names neither" : `chose ${named(pair, reply.choice)}${graded(pair, reply.choice)}`;
  const body = [];
  const reasons = [["of A", reply.a], ["of B", reply.b]].filter(([, text]) => text);
  if (reasons.length) body.push(make("dl", { className: "reasons" }, ...reasons.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
  if (reply.text) body.push(make("pre", { tabIndex: 0, role: "group", "aria-label": `reply of ${reply.judge} as it came` }, reply.text));
  if (!body.length) return make("p", { className: "said" }, `${reply.judge} ${chose}`);
  const details = make("details", {}, make("summary", {}, `${reply.judge} ${chose}`));
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(...body));
  return details;
}
