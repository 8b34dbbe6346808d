// The viewer: a virtualised list with filters, an attempt with its chain of states, two attempts side
// by side. The part of the address after `#` says what is shown, so links, back and forward work.
// Texts become text nodes, never markup.
"use strict";
(() => {
  const ROW = 66; // pixels of a row of the list, as in the style
  const LONG = 20000; // characters of a text that are shown at once
  const HEAD = 300; // characters of an action in its step's line
  const FACTS = { selected: 1, through: 2, recovery: 4, harmful: 8 };
  const FACT_NAMES = {
    through: "won only through a failure",
    recovery: "recovery",
    selected: "trained on",
    harmful: "harmful actions",
  };
  const SELECTS = { run: "method", kind: "played by", round: "round", outcome: "outcome", tag: "tag" };
  const KINDS = { expert: "expert", explore: "exploration", evaluate: "held-out test" };
  const HIDDEN = /[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

  const $ = (id) => document.getElementById(id);
  let data = null; // the index, with its rows as arrays
  let found = []; // rows that pass the filters
  let state = new URLSearchParams();
  let shown = null; // the attempt of the detail: {row, record, steps, other}

  // --- small things ---------------------------------------------------------------------------

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  // A text whose hidden characters are named, so that none of them turns what is around it.
  function text(value) {
    const parts = document.createDocumentFragment();
    let done = 0;
    for (const match of value.matchAll(HIDDEN)) {
      const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parts.append(value.slice(done, match.index), el("i", { class: "hidden" }, `U+${code}`));
      done = match.index + match[0].length;
    }
    parts.append(value.slice(done));
    return parts;
  }

  const inShort = (value) => (value.length > HEAD ? `${value.slice(0, HEAD)} …` : value);

  function block(value, name) {
    const box = el("pre", { class: "text", tabindex: "0", "aria-label": name });
    box.append(text(value.slice(0, LONG)));
    if (value.length > LONG) {
      const more = el("button", { type: "button", class: "quiet" });
      more.textContent = `Show all ${value.length.toLocaleString("en")} characters`;
      more.addEventListener("click", () => box.replaceChildren(text(value)));
      box.append(more);
    }
    return box;
  }

  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

  async function unpack(node) {
    const packed = atob(node.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(plain).text());
  }

  const chunks = new Map(); // the last ones that were unpacked
  async function chunk(number) {
    if (!chunks.has(number)) {
      if (chunks.size > 24) chunks.delete(chunks.keys().next().value);
      chunks.set(number, unpack(document.getElementsByClassName("chunk")[number]));
    }
    return chunks.get(number);
  }

  // --- data -----------------------------------------------------------------------------------

  const ready = new Promise((resolve) => {
    if (document.readyState !== "loading") resolve();
    else document.addEventListener("DOMContentLoaded", resolve);
  });

  let loading = null;
  function load() {
    loading ??= ready.then(() => unpack($("index"))).then(prepare);
    return loading;
  }

  function prepare(index) {
    const rows = index.rows;
    const size = rows.id ? rows.id.length : 0;
    data = { ...index, size, byNumber: new Map(), byKey: new Map(), byTask: new Map(), hay: [] };
    data.stageOf = index.stages.map((stage) => ({
      name: stage,
      kind: stage.split("/").at(-1),
      round: stage.includes("/") ? Number(stage.split("/")[0].replace("round_", "")) : -1,
    }));
    for (let row = 0; row < size; row++) {
      const task = index.tasks[rows.task[row]];
      data.byNumber.set(rows.number[row], row);
      data.byKey.set(`${rows.run[row]} ${index.stages[rows.stage[row]]} ${rows.id[row]}`, row);
      if (!data.byTask.has(task.id)) data.byTask.set(task.id, []);
      data.byTask.get(task.id).push(row);
      data.hay.push(`${task.goal} ${rows.id[row]} ${rows.actions[row]}`.toLowerCase());
    }
    makeFilters();
  }

  const taskOf = (row) => data.tasks[data.rows.task[row]];
  const stageOf = (row) => data.stageOf[data.rows.stage[row]];
  const has = (row, fact) => (data.rows.facts[row] & FACTS[fact]) !== 0;

  function stageLabel(row) {
    const { kind, round } = stageOf(row);
    if (kind === "expert") return `expert ${data.rows.agent[row]}`;
    const policy = data.runs[data.rows.run[row]].rounds[kind === "explore" ? round - 1 : round];
    return kind === "explore" ? `round ${round}, by ${policy}` : `held-out, ${policy}`;
  }

  // An attempt with all its steps: {observation, message, action, reward, expert}.
  async function attempt(row) {
    const { records, texts } = await chunk(data.rows.chunk[row]);
    const record = records[data.rows.place[row]];
    const own = record.steps.map(([observation, message, action, reward, expert]) => ({
      observation: texts[observation],
      message: texts[message],
      action: action < 0 ? null : texts[action],
      reward,
      expert: expert === 1,
    }));
    let before = [];
    if (record.parent !== undefined) {
      const parent = await attempt(data.byNumber.get(record.parent));
      before = parent.steps.slice(0, data.rows.fork[row]);
    }
    const chains = (record.chains ?? []).map((chain) => ({
      ...chain,
      verdicts: chain.verdicts.map((all) => all.map(([reason, words]) => ({ reason, words: texts[words] }))),
      unused: chain.unused.map((words) => texts[words]),
      states: chain.states.map((s) => (
        { ...s, words: texts[s.words], way: texts[s.way], notes: s.notes.map((note) => texts[note]) })),
    }));
    return { row, record, chains, steps: [...before, ...own], final: texts[record.final] };
  }

  // --- the list and its filters ---------------------------------------------------------------

  function choices() {
    const rows = data.rows;
    const all = (make) => [...new Set(Array.from({ length: data.size }, (_, row) => make(row)))];
    const tags = [...new Set(data.tasks.flatMap((task) => task.tags))];
    return {
      run: data.runs.map((run, number) => [String(number), run.label]),
      kind: Object.entries(KINDS).filter(([kind]) => data.stageOf.some((s) => s.kind === kind)),
      round: [...new Set(data.stageOf.map((s) => s.round))].filter((n) => n >= 0)
        .sort((a, b) => a - b).map((n) => [String(n), `round ${n}`]),
      outcome: all((row) => rows.outcome[row]).map((name) => [name, name.replaceAll("_", " ")]),
      tag: tags.map((tag) => [tag, tag]),
    };
  }

  function makeFilters() {
    const known = choices();
    for (const [name, label] of Object.entries(SELECTS)) {
      if (known[name].length < 2) continue;
      const select = el("select", { id: `by-${name}`, "aria-label": label, onchange: refilter });
      select.append(el("option", { value: "" }, `any ${label}`));
      for (const [value, title] of known[name]) select.append(el("option", { value }, text(title)));
      $("selects").append(select);
    }
    for (const [name, label] of Object.entries(FACT_NAMES)) {
      if (!data.rows.facts || !data.rows.facts.some((facts) => facts & FACTS[name])) continue;
      const box = el("input", { type: "checkbox", id: `only-${name}`, onchange: refilter });
      $("flags").append(el("label", {}, box, label));
    }
    $("search").addEventListener("input", refilter);
    $("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  function refilter() {
    for (const name of Object.keys(SELECTS)) put(`f_${name}`, $(`by-${name}`)?.value);
    for (const name of Object.keys(FACTS)) put(`f_${name}`, $(`only-${name}`)?.checked ? "1" : "");
    put("q", $("search").value);
    replace();
    apply();
    document.body.dataset.settled = location.hash;
  }

  function put(name, value) {
    if (value) state.set(name, value);
    else state.delete(name);
  }

  function showFilters() {
    for (const name of Object.keys(SELECTS)) {
      if ($(`by-${name}`)) $(`by-${name}`).value = state.get(`f_${name}`) ?? "";
    }
    for (const name of Object.keys(FACTS)) {
      if ($(`only-${name}`)) $(`only-${name}`).checked = state.has(`f_${name}`);
    }
    if (document.activeElement !== $("search")) $("search").value = state.get("q") ?? "";
  }

  const filters = () => JSON.stringify([...state].filter(([name]) => name === "q" || name.startsWith("f_")));
  let applied = ""; // the filters of `found`

  function apply() {
    performance.mark("filter-begin");
    applied = filters();
    const words = (state.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const facts = Object.keys(FACTS).filter((name) => state.has(`f_${name}`))
      .reduce((bits, name) => bits | FACTS[name], 0);
    const [run, kind, round, outcome, tag] = Object.keys(SELECTS).map((n) => state.get(`f_${n}`));
    const task = state.get("f_task");
    found = [];
    for (let row = 0; row < data.size; row++) {
      const stage = stageOf(row);
      if (run && data.rows.run[row] !== Number(run)) continue;
      if (kind && stage.kind !== kind) continue;
      if (round && stage.round !== Number(round)) continue;
      if (outcome && data.rows.outcome[row] !== outcome) continue;
      if ((data.rows.facts[row] & facts) !== facts) continue;
      if (task && taskOf(row).id !== task) continue;
      if (tag && !taskOf(row).tags.includes(tag)) continue;
      if (words.every((word) => data.hay[row].includes(word))) found.push(row);
    }
    const said = count(found.length, "trajectory").replace("trajectorys", "trajectories");
    $("count").replaceChildren(said);
    if (task) {
      const clear = el("button", { type: "button", class: "chip", onclick: () => go({ f_task: "" }) });
      clear.append("task ", text(task), " ✕");
      $("count").append(" ", clear);
    }
    $("list").scrollTop = 0;
    drawn = "";
    draw();
    performance.measure("filter", "filter-begin");
  }

  let drawn = ""; // which rows are drawn
  function draw() {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const now = `${first} ${last} ${selected()}`;
    if (now === drawn) return;
    drawn = now;
    const rows = $("rows");
    rows.style.height = `${found.length * ROW}px`;
    rows.replaceChildren(...found.slice(first, last).map((row, i) => item(row, first + i)));
    const active = found.indexOf(selected());
    if (active >= first && active < last) list.setAttribute("aria-activedescendant", `row-${active}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function item(row, place) {
    const won = data.rows.win[row] === 1;
    const line = el("div", {
      class: "row", role: "option", id: `row-${place}`, "aria-selected": String(row === selected()),
      "aria-posinset": place + 1, "aria-setsize": found.length, onclick: () => open(row),
    });
    line.style.top = `${place * ROW}px`;
    const marks = [];
    if (has(row, "through")) marks.push(el("span", { class: "mark through" }, "through failure"));
    if (has(row, "recovery")) marks.push(el("span", { class: "mark recovery" }, "recovery"));
    if (has(row, "selected")) marks.push(el("span", { class: "mark trained" }, "trained on"));
    const fork = data.rows.fork[row] ? ` · from step ${data.rows.fork[row]}` : "";
    const run = data.runs.length > 1 ? `${data.runs[data.rows.run[row]].label} · ` : "";
    line.append(
      el("span", { class: `dot ${won ? "won" : "lost"}`, "aria-hidden": "true" }),
      el("span", { class: "goal" }, text(taskOf(row).goal)),
      el("span", { class: "sub" }, text(`${run}${stageLabel(row)}${fork}`)),
      el("span", { class: "sub end" }, ...marks,
        `${data.rows.outcome[row].replaceAll("_", " ")} · ${count(data.rows.length[row], "step")}`),
    );
    return line;
  }

  // --- where we are ---------------------------------------------------------------------------

  const keyOf = (row, prefix = "") => ({
    [`${prefix}run`]: String(data.rows.run[row]),
    [`${prefix}stage`]: data.stages[data.rows.stage[row]],
    [`${prefix}id`]: data.rows.id[row],
  });
  const NONE = { run: "", stage: "", id: "", step: "", at: "", with_run: "", with_stage: "", with_id: "" };

  function rowOf(prefix = "") {
    const key = ["run", "stage", "id"].map((name) => state.get(prefix + name));
    return data.byKey.get(key.join(" "));
  }
  const selected = () => rowOf() ?? -1;

  // The address with some values changed; the rest stays.
  function address(changes) {
    const next = new URLSearchParams(state);
    for (const [name, value] of Object.entries(changes)) {
      if (value === "") next.delete(name);
      else next.set(name, value);
    }
    if (!next.has("view")) next.set("view", "list");
    return `#${next}`;
  }
  const go = (changes) => { location.hash = address(changes); };
  const open = (row) => go({ ...NONE, ...keyOf(row) });

  function replace(changes = {}) {
    const hash = address(changes);
    state = new URLSearchParams(hash.slice(1));
    history.replaceState(null, "", hash);
  }

  // Show what the address says; the body's `settled` says when it is all there.
  async function route() {
    const wanted = location.hash;
    const hash = wanted.slice(1);
    const viewing = hash.includes("=");
    document.body.classList.toggle("viewing", viewing);
    $("viewer").hidden = !viewing;
    $("report").hidden = viewing;
    $("to-viewer").toggleAttribute("aria-current", viewing);
    $("to-report").toggleAttribute("aria-current", !viewing);
    if (viewing) {
      state = new URLSearchParams(hash);
      await load();
      showFilters();
      if (filters() !== applied) apply();
      await follow();
    } else if (hash) {
      document.getElementById(hash)?.scrollIntoView();
    }
    document.body.dataset.settled = wanted;
  }

  // Show in list and detail what the address names.
  async function follow() {
    const wanted = location.hash;
    reveal(found.indexOf(selected()));
    draw();
    await show();
    document.body.dataset.settled = wanted;
  }

  function reveal(place) {
    const list = $("list");
    if (place < 0) return;
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    const over = (place + 1) * ROW - list.clientHeight - list.scrollTop;
    if (over > 0) list.scrollTop += over;
  }

  // --- an attempt -----------------------------------------------------------------------------

  async function show() {
    const row = selected();
    const detail = $("detail");
    document.body.classList.toggle("reading", row >= 0);
    if (row < 0) {
      shown = null;
      const missing = state.has("id");
      detail.replaceChildren(el("p", { class: "empty" }, missing
        ? "This trajectory is not in this page."
        : "Choose a trajectory. Keys: j k or ↓ ↑ in the list, ← → through the steps, / searches, Esc goes back."));
      return;
    }
    const wanted = location.hash;
    const other = rowOf("with_");
    const [one, two] = await Promise.all([attempt(row), other === undefined ? null : attempt(other)]);
    if (wanted !== location.hash) return;
    const same = shown && shown.row === row && shown.other === other && shown.at === state.get("at");
    if (!same) {
      shown = { ...one, other, at: state.get("at") };
      detail.replaceChildren(...header(one), ...(two ? beside(one, two) : chainOrSteps(one)));
      detail.scrollTop = 0;
    }
    if (!two) await openStep(state.has("step") ? Number(state.get("step")) : -1);
  }

  function header({ row, record }) {
    const task = taskOf(row);
    const won = data.rows.win[row] === 1;
    const back = el("button", { type: "button", class: "quiet back", onclick: () => go(NONE) }, "← list");
    const facts = [
      stageLabel(row),
      count(data.rows.length[row], "step"),
      `reward ${data.rows.reward[row]}`,
      ...task.tags,
    ];
    const all = el("a", { href: address({ ...NONE, f_task: task.id, q: "" }) }, "all attempts at this task");
    const said = data.rows.outcome[row].replaceAll("_", " ") + (record.reason ? `: ${record.reason}` : "");
    return [
      el("div", { class: "bar" }, back, all, compareChoice(row)),
      el("h2", { class: "goal" }, text(task.goal)),
      el("p", { class: "facts" }, el("span", { class: `badge ${won ? "won" : "lost"}` }, text(said)),
        ...facts.map((fact) => el("span", { class: "fact" }, text(fact)))),
      el("p", { class: "id" }, text(data.rows.id[row])),
    ];
  }

  function compareChoice(row) {
    const others = data.byTask.get(taskOf(row).id).filter((other) => other !== row);
    if (!others.length) return null;
    const now = rowOf("with_");
    const select = el("select", { "aria-label": "Compare with", id: "compare" });
    select.append(el("option", { value: "" }, "compare with …"));
    for (const other of others.slice(0, 500)) {
      const run = data.runs.length > 1 ? `${data.runs[data.rows.run[other]].label}: ` : "";
      const fork = data.rows.fork[other] ? `, from step ${data.rows.fork[other]}` : "";
      const name = `${run}${stageLabel(other)}${fork}, ${data.rows.outcome[other]}`;
      select.append(el("option", { value: other, selected: other === now }, text(name)));
    }
    select.addEventListener("change", () => {
      const none = { with_run: "", with_stage: "", with_id: "" };
      go(select.value ? keyOf(Number(select.value), "with_") : none);
    });
    return select;
  }

  function chainOrSteps(one) {
    const chains = one.chains;
    if (!chains.length) return plainSteps(one);
    const wanted = state.get("at");
    const chain = chains.find((c) => String(c.round) === wanted)
      ?? chains.findLast((c) => c.states.length) ?? chains.at(-1);
    const nodes = [];
    if (chains.length > 1) nodes.push(roundChoice(chains, chain));
    if (chain.states.length) nodes.push(map(one, chain));
    const list = el("ol", { class: "steps" });
    for (let i = 0; i <= one.steps.length; i++) {
      const here = chain.states.find((s) => s.step === i);
      if (here) list.append(stateItem(here));
      if (i < one.steps.length) list.append(stepItem(one, i, chain.verdicts[i], chain.unused[i]));
    }
    list.append(endItem(one));
    return [...nodes, list];
  }

  function roundChoice(chains, chain) {
    const group = el("div", { class: "rounds", role: "group", "aria-label": "Round" });
    for (const each of chains) {
      const label = each.round ? `round ${each.round}` : "clone";
      const pressed = String(each === chain);
      const click = () => go({ at: String(each.round), step: "" });
      group.append(el("button", { type: "button", "aria-pressed": pressed, onclick: click }, label));
    }
    return group;
  }

  const given = (reason) => ({ reason, words: inWords(reason) });
  const inWords = (reason) => (data.why[reason] ? `${reason.split(":")[0]}: ${data.why[reason]}` : reason);
  const kindOf = (reason) => (reason.startsWith("kept") ? "kept" : reason.includes("harmful") ? "harmful" : "context");
  const kindOfAll = (verdicts) => (verdicts.length ? kindOf(verdicts[0].reason) : "none");

  // The chain in one line: states as circles, actions as blocks between them.
  function map(one, chain) {
    const line = el("div", { class: "map", role: "img", "aria-label": described(one, chain) });
    for (let i = 0; i <= one.steps.length; i++) {
      const here = chain.states.find((s) => s.step === i);
      if (here) {
        const share = here.completed ? `${here.wins}/${here.completed}` : "–";
        line.append(el("span", { class: `node ${labelOf(here)}` },
          el("b", {}, here.name), el("span", {}, share)));
      }
      if (i < one.steps.length) line.append(el("span", { class: `act ${kindOfAll(chain.verdicts[i])}` }));
    }
    line.append(el("span", { class: `node end ${data.rows.win[one.row] ? "passed" : "failed"}` }, data.rows.win[one.row] ? "won" : "lost"));
    const legend = el("p", { class: "legend" });
    const kinds = [["kept", "kept"], ["harmful", "harmful"], ["context", "context"], ["none", "not used"]];
    const learned = chain.states.filter((s) => data.byNumber.has(s.solution));
    if (learned.length) kinds.push(["own", "the policy's own winning actions"]);
    for (const [kind, name] of kinds) {
      legend.append(el("span", {}, el("i", { class: `act ${kind}` }), name));
    }
    return el("div", { class: "mapbox" }, line, ...learned.map(learnedLine), legend);
  }

  // What is learned from an important state: the expert's actions, then the policy's own up to the win.
  function learnedLine(here) {
    const row = data.byNumber.get(here.solution);
    const fork = Math.max(data.rows.fork[row], here.step);
    const [kept, own] = [fork - here.step, data.rows.length[row] - fork];
    const label = `${here.name} is solved by ${kept} of the expert's actions and ${own} of the policy's`;
    const line = el("div", { class: "map learned", role: "img", "aria-label": label });
    line.append(el("b", {}, `${here.name} solved by`));
    for (let i = 0; i < kept + own; i++) line.append(el("span", { class: `act ${i < kept ? "kept" : "own"}` }));
    line.append(el("b", { class: "won" }, "won"));
    return line;
  }

  function described(one, chain) {
    const states = chain.states.map((s) => `${s.name} after ${count(s.step, "action")} ${s.words}`);
    return `Chain of states: ${states.join("; ")}`;
  }

  const labelOf = (s) => (s.passed === null ? "unlabelled" : s.passed ? "passed" : "failed");

  function stateItem(here) {
    const line = el("li", { class: `state ${labelOf(here)}` });
    line.append(el("p", {}, el("b", {}, here.name), " ", here.words));
    for (const note of here.notes) line.append(el("p", { class: "why" }, note));
    const rollouts = el("p", { class: "rollouts" });
    here.rollouts.forEach((number, i) => rollouts.append(rolloutLink(number, `rollout ${i + 1}`)));
    line.append(rollouts);
    if (here.solution >= 0) line.append(solution(here));
    return line;
  }

  function rolloutLink(number, name) {
    const row = data.byNumber.get(number);
    if (row === undefined) return el("span", { class: "chip gone", title: "not in this page" }, name);
    const won = data.rows.win[row] === 1;
    const link = el("a", { class: `chip ${won ? "won" : "lost"}`, href: address({ ...NONE, ...keyOf(row) }) });
    link.append(`${name}: ${data.rows.outcome[row].replaceAll("_", " ")}`);
    return link;
  }

  // The winning continuation: what is learned from an important state.
  function solution(here) {
    const row = data.byNumber.get(here.solution);
    const box = el("div", { class: "solution" });
    if (row === undefined) {
      box.append(el("p", {}, `${here.name} is solved by a rollout that is not in this page.`));
      return box;
    }
    const fork = data.rows.fork[row];
    const actions = data.rows.actions[row].split(" → ").slice(Math.max(fork, here.step));
    const path = el("p", { class: "path" });
    actions.forEach((action, i) => path.append(i ? " → " : "", el("code", { class: "kept" }, text(action))));
    box.append(
      el("p", {}, el("b", {}, "Winning continuation. "), `${here.name} is solved by ${here.way}: `,
        el("a", { href: address({ ...NONE, ...keyOf(row) }) }, "the selected trajectory"), ", ",
        el("a", { href: address({ ...keyOf(row, "with_"), step: "" }) }, "side by side"), "."),
      path,
    );
    return box;
  }

  function plainSteps(one) {
    const verdicts = one.record.verdicts;
    const verdict = verdicts.find((v) => String(v.round) === state.get("at")) ?? verdicts.at(-1);
    const nodes = [];
    if (verdict) nodes.push(el("p", { class: "facts" }, `Trained on in round ${verdict.round} as ${verdict.role.replaceAll("_", " ")}`
      + (verdict.state ? `, from the state after ${count(verdict.state, "action")}` : "") + "."));
    const list = el("ol", { class: "steps" });
    const fork = data.rows.fork[one.row];
    one.steps.forEach((_, i) => {
      if (fork && i === fork) list.append(forkItem(one));
      list.append(stepItem(one, i, verdict ? [given(verdict.reasons[i])] : [], ""));
    });
    list.append(endItem(one));
    return [...nodes, list];
  }

  function forkItem(one) {
    const line = el("li", { class: "state fork" });
    const parent = data.byNumber.get(data.rows.parent[one.row]);
    line.append(el("p", {}, "From here the policy plays on; before it, ",
      parent === undefined ? "the expert's actions." : el("a", { href: address({ ...NONE, ...keyOf(parent) }) }, "the expert's actions.")));
    return line;
  }

  function endItem(one) {
    const won = data.rows.win[one.row] === 1;
    const line = el("li", { class: `state end ${won ? "passed" : "failed"}` });
    const last = el("details", {}, el("summary", {}, "last page"), block(one.final, "Last page"));
    line.append(el("p", {}, `${data.rows.outcome[one.row].replaceAll("_", " ")}, reward ${data.rows.reward[one.row]}`));
    if (one.final) line.append(last);
    return line;
  }

  // --- a step ---------------------------------------------------------------------------------

  function stepItem(one, i, verdicts, unused) {
    const step = one.steps[i];
    const line = el("li", { class: `step ${kindOfAll(verdicts)}`, id: `step-${i}` });
    const button = el("button", { type: "button", class: "step-head", "aria-expanded": "false" });
    button.append(
      el("span", { class: "no" }, String(i + 1)),
      el("code", {}, text(inShort(step.action ?? "(no action)"))),
      el("span", { class: "by" }, step.expert ? "expert" : "policy"),
    );
    if (verdicts.length) button.append(el("span", { class: `verdict ${kindOfAll(verdicts)}` }, kindOfAll(verdicts)));
    button.addEventListener("click", () => {
      go({ step: state.get("step") === String(i) ? "" : String(i) });
    });
    line.append(button);
    for (const { words } of verdicts) {
      line.append(el("p", { class: "why" }, text(words)));
    }
    if (unused) line.append(el("p", { class: "why" }, unused));
    return line;
  }

  async function openStep(i) {
    for (const line of document.querySelectorAll("#detail .step.open")) {
      if (line.id !== `step-${i}`) {
        line.classList.remove("open");
        line.querySelector(".step-head").setAttribute("aria-expanded", "false");
        line.querySelector(".step-body")?.remove();
      }
    }
    const line = $(`step-${i}`);
    if (!line || line.classList.contains("open") || !shown) return;
    line.classList.add("open");
    line.querySelector(".step-head").setAttribute("aria-expanded", "true");
    line.append(body(shown, i));
    line.scrollIntoView({ block: "nearest" });
  }

  function body(one, i) {
    const step = one.steps[i];
    const thought = thoughtOf(step);
    const parts = [el("h3", {}, "Observation"), block(step.observation, "Observation")];
    if (thought) parts.push(el("h3", {}, "Thought"), block(thought, "Thought"));
    parts.push(el("h3", {}, "Action"), block(step.action ?? "(no action)", "Action"));
    if (step.action === null) parts.push(el("h3", {}, "Message"), block(step.message, "Message"));
    parts.push(el("p", { class: "facts" }, el("span", { class: "fact" }, `reward of this step ${step.reward}`)));
    const fold = el("details", { class: "tokens" }, el("summary", {}, "tokens with weights"));
    fold.addEventListener("toggle", () => fold.open && fold.childElementCount < 2 && tokens(fold, one, i));
    parts.push(fold);
    return el("div", { class: "step-body" }, ...parts);
  }

  // What a message says before its action.
  function thoughtOf(step) {
    if (step.action === null) return "";
    const at = step.message.lastIndexOf(step.action);
    const before = at < 0 ? step.message : step.message.slice(0, at);
    return before.replace(/\n?\s*(action\s*:|<action>)?\s*$/i, "").trim();
  }

  async function tokens(fold, one, i) {
    const verdict = one.record.verdicts.filter((v) => v.example)
      .find((v) => String(v.round) === state.get("at")) ?? one.record.verdicts.findLast((v) => v.example);
    if (!verdict) {
      fold.append(el("p", { class: "why" }, one.record.verdicts.length
        ? "The tokens of this example are not in this page."
        : "This trajectory was not trained on. Of an expert's failure, the selected trajectories above hold the trained tokens."));
      return;
    }
    const { records, texts } = await chunk(verdict.example[0]);
    const record = records[verdict.example[1]];
    const pieces = record.tokens.map((number) => texts[number]);
    const weights = record.weights.flatMap(([length, weight]) => Array(length).fill(weight));
    const [begin, end] = placeOf(one.steps, pieces, i);
    const box = el("p", { class: "pieces" });
    for (let t = begin; t < end; t++) {
      const piece = el("span", { class: weights[t] ? "w" : "", title: `weight ${weights[t]}` });
      piece.append(text(pieces[t]));
      box.append(piece);
    }
    const learned = weights.slice(begin, end).filter(Boolean).length;
    fold.append(el("p", { class: "why" }, `As trained in round ${verdict.round}: ${count(end - begin, "token")}, ${learned} learned (marked)`
      + (end - begin === pieces.length && one.steps.length > 1 ? ", the whole example" : "") + "."), box);
  }

  // The tokens from a step's observation to the end of its message; all of them where the text is not found.
  function placeOf(steps, pieces, wanted) {
    const bare = (value) => value.replace(/\s+/g, "").toLowerCase();
    const ends = [];
    let whole = "";
    for (const piece of pieces) ends.push((whole += bare(piece)).length);
    let at = 0;
    let begin = 0;
    for (let i = 0; i <= wanted; i++) {
      begin = whole.indexOf(bare(steps[i].observation), at);
      const message = bare(steps[i].message);
      const said = begin < 0 ? -1 : whole.indexOf(message, begin + bare(steps[i].observation).length);
      if (said < 0) return [0, pieces.length];
      at = said + message.length;
    }
    const first = ends.findIndex((end) => end > begin);
    let last = ends.findIndex((end) => end >= at) + 1;
    if (last < pieces.length && /^<.*>$/.test(pieces[last].trim())) last++; // the end of the turn
    return [first, last];
  }

  // --- two attempts side by side --------------------------------------------------------------

  function beside(one, two) {
    let fork = 0;
    while (fork < Math.min(one.steps.length, two.steps.length) && one.steps[fork].message === two.steps[fork].message) fork++;
    const grid = el("div", { class: "beside" });
    for (const each of [one, two]) {
      grid.append(el("h3", {}, text(`${data.runs.length > 1 ? `${data.runs[data.rows.run[each.row]].label}: ` : ""}${stageLabel(each.row)}`), " ",
        el("span", { class: `badge ${data.rows.win[each.row] ? "won" : "lost"}` }, data.rows.outcome[each.row].replaceAll("_", " "))));
    }
    for (let i = 0; i < fork; i++) grid.append(el("div", { class: "both" }, card(one.steps[i], i)));
    grid.append(el("p", { class: "both forkline" }, fork ? `${count(fork, "equal step")}, then they part` : "They part at the first step"));
    for (let i = fork; i < Math.max(one.steps.length, two.steps.length); i++) {
      for (const each of [one, two]) {
        grid.append(i < each.steps.length ? card(each.steps[i], i) : el("div", { class: "nothing" }));
      }
    }
    return [el("p", {}, el("a", { href: address({ with_run: "", with_stage: "", with_id: "" }) }, "close the comparison")), grid];
  }

  function card(step, i) {
    const fold = el("details", { class: "card-step" }, el("summary", {},
      el("span", { class: "no" }, String(i + 1)), el("code", {}, text(step.action ?? "(no action)"))));
    fold.addEventListener("toggle", () => {
      if (!fold.open || fold.childElementCount > 1) return;
      fold.append(el("h4", {}, "Observation"), block(step.observation, "Observation"), el("h4", {}, "Message"), block(step.message, "Message"));
    });
    return fold;
  }

  // --- keys -----------------------------------------------------------------------------------

  function move(by) {
    if (!found.length) return;
    const at = found.indexOf(selected());
    const next = Math.min(found.length - 1, Math.max(0, at < 0 ? 0 : at + by));
    replace({ ...NONE, ...keyOf(found[next]) });
    follow();
  }

  function moveStep(by) {
    if (!shown || shown.other !== undefined) return;
    const at = state.has("step") ? Number(state.get("step")) : by > 0 ? -1 : shown.steps.length;
    const next = at + by;
    if (next < 0 || next >= shown.steps.length) return;
    replace({ step: String(next) });
    follow();
  }

  function escape() {
    if (state.has("with_id")) go({ with_run: "", with_stage: "", with_id: "" });
    else if (state.has("step")) go({ step: "" });
    else if (state.has("id")) go(NONE);
    else if ([...state.keys()].length > 1) go(Object.fromEntries([...state.keys()].filter((k) => k !== "view").map((k) => [k, ""])));
    else location.hash = "results";
  }

  const KEYS = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    ArrowRight: () => moveStep(1), ArrowLeft: () => moveStep(-1), Escape: escape,
    "/": () => { $("search").focus(); $("search").select(); },
  };

  document.addEventListener("keydown", (event) => {
    if ($("viewer").hidden || !data || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input[type=search], select, textarea");
    if (typing) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target === $("search"))) $("list").focus();
      return;
    }
    const act = KEYS[event.key];
    if (!act) return;
    if (event.key.startsWith("Arrow") && event.target.matches("pre, .scroll")) return;
    event.preventDefault();
    act();
  });

  // --- start ----------------------------------------------------------------------------------

  function dark() {
    const now = document.documentElement.style.colorScheme;
    return now ? now === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // Before the data is parsed: the page can be read, and its links followed, while the rest loads.
  $("theme").addEventListener("click", () => {
    document.documentElement.style.colorScheme = dark() ? "light" : "dark";
  });
  $("list").addEventListener("scroll", () => requestAnimationFrame(draw));
  addEventListener("resize", () => { if (data) { drawn = ""; draw(); } });
  addEventListener("hashchange", route);
  route();
})();
