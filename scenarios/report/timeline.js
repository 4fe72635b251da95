"use strict";
// Names, errors and traces are hostile: they are only ever set as text, never as markup.
const run = JSON.parse(document.getElementById("data").textContent);
const results = run.results || [];
const $ = id => document.getElementById(id);
const kinds = ["step", "command", "interrupt", "state", "ioctl", "vsock", "heartbeat", "console", "nsm", "fault", "note"];
const titles = { step: "Steps", command: "Device commands", interrupt: "Interrupts", state: "States", ioctl: "Driver calls",
  vsock: "Vsock", heartbeat: "Heartbeat", console: "Console", nsm: "NSM", fault: "Faults", note: "Notes" };
const statuses = ["failed", "error", "passed", "skipped"];
const gutter = 168, axis = 26, rowHeight = 24, logHeight = 20, mostRows = 60;

function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className.replaceAll("not run", "not-run");
  if (text !== undefined) e.textContent = text;
  return e;
}
const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
const trim = (number, digits) => String(Number(number.toFixed(digits)));
function length(ns) {
  if (ns >= 60e9) return Math.floor(ns / 60e9) + " min " + trim(ns % 60e9 / 1e9, 1) + " s";
  if (ns >= 1e9) return trim(ns / 1e9, 3) + " s";
  if (ns >= 1e6) return trim(ns / 1e6, 2) + " ms";
  return trim(ns / 1e3, 1) + " µs";
}
const stamp = ns => "+" + (ns / 1e9).toFixed(6) + " s";
const clean = text => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "·");
const bad = status => status === "failed" || status === "error";

// firstFrom is the first position whose value is not below v.
function firstFrom(count, value, v) {
  let low = 0, high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value(middle) < v) low = middle + 1; else high = middle;
  }
  return low;
}

// --- the list of scenarios ---

let shown = "all", current = -1;
const buttons = results.map((r, i) => {
  const b = make("button", r.status);
  b.append(make("span", "dot"), make("span", "", clean(r.name)), make("small", "", length(r.elapsed_ns)));
  b.title = r.status + ": " + clean(r.file) + ":" + r.line;
  b.setAttribute("aria-label", clean(r.name) + ", " + r.status);
  b.onclick = () => choose(i);
  const item = make("li");
  item.append(b);
  $("list").append(item);
  return b;
});
const haystacks = results.map(r => [r.name, r.file, r.error, r.engine, ...(r.tags || [])].join("\n").toLowerCase());

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(w => w);
  let found = 0;
  results.forEach((r, i) => {
    const fits = (shown === "all" || r.status === shown) && words.every(w => haystacks[i].includes(w));
    buttons[i].parentNode.hidden = !fits;
    found += fits;
  });
  $("found").textContent = found === results.length ? "" : found + " of " + results.length + " scenarios";
  for (const b of $("filter").children) b.setAttribute("aria-pressed", b.dataset.status === shown);
}

function heading() {
  const count = s => results.filter(r => r.status === s).length;
  const total = results.reduce((sum, r) => sum + r.elapsed_ns, 0);
  const told = [results.length + (results.length === 1 ? " scenario" : " scenarios")];
  for (const s of statuses) {
    if (!count(s)) continue;
    told.push(count(s) + " " + s);
    const part = make("i");
    part.style.cssText = "flex:" + count(s) + ";background:var(--" + s + ")";
    $("bar").append(part);
  }
  if (run.shard) told.push("shard " + clean(run.shard));
  told.push(length(total), clean(run.nesim_version || ""), new Date(run.started).toLocaleString());
  $("run").textContent = told.filter(t => t).join(" · ");
  for (const s of ["all", ...statuses.filter(count)]) {
    const b = make("button", "", s === "all" ? "All " + results.length : s + " " + count(s));
    b.dataset.status = s;
    b.onclick = () => { shown = s; filter(); };
    $("filter").append(b);
  }
}

$("search").oninput = filter;
$("list").onkeydown = event => {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const visible = buttons.filter(b => !b.parentNode.hidden);
  const next = visible[clamp(visible.indexOf(document.activeElement) + by, 0, visible.length - 1)];
  if (next) { next.focus(); next.click(); }
};

// --- the chosen scenario ---

let entries = [], rows = [], bars = [], failing = null, chosen = -1, hover = -1, chosenRow = 0;
let byOrder = false, view = { from: 0, to: 1 }, whole = { from: 0, to: 1 };
const at = i => byOrder ? i : entries[i].at_ns;

function choose(i) {
  if (current >= 0) buttons[current].removeAttribute("aria-current");
  current = i;
  const r = results[i];
  buttons[i].setAttribute("aria-current", "true");
  buttons[i].scrollIntoView({ block: "nearest" });
  history.replaceState(null, "", "#" + (i + 1));
  entries = (r.trace || []).map((e, n) => [e, n]).sort((a, b) => a[0].at_ns - b[0].at_ns || a[1] - b[1]).map(p => p[0]);
  const steps = r.steps || [];
  failing = steps.find(s => bad(s.status)) || null;
  chosen = hover = -1;
  const instants = new Set(entries.map(e => e.at_ns)).size;
  byOrder = entries.length > 1 && instants * 2 < entries.length;
  arrange(steps);
  about(r);
  listSteps(steps);
  listFaults(r.faults || []);
  setAxis(byOrder);
  details();
  $("rows").style.height = entries.length * logHeight + "px";
  const near = failing ? firstOf(failing) : 0;
  $("log").scrollTop = Math.max(0, near - 3) * logHeight;
  drawLog();
}

// arrange makes the lanes: one for each kind of entry and whom it happened to, or for the kind alone if they are many.
function arrange(steps) {
  let named = true;
  for (;;) {
    const lanes = new Map();
    const lane = (kind, who) => {
      const key = kind + "\n" + (named ? who : "");
      if (!lanes.has(key)) lanes.set(key, { kind, who: named ? who : "", list: [] });
      return lanes.get(key);
    };
    entries.forEach((e, i) => lane(e.kind, e.lane).list.push(i));
    rows = [...lanes.values()];
    if (rows.length <= mostRows || !named) break;
    named = false;
  }
  if (steps.length && !rows.some(l => l.kind === "step")) rows.push({ kind: "step", who: "", list: [] });
  rows.sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind) || (a.list[0] ?? 0) - (b.list[0] ?? 0));
  const rowOf = new Map();
  rows.forEach((l, n) => { if (l.kind === "step") for (const i of l.list) rowOf.set(entries[i].step, n); });
  const first = new Map(), last = new Map();
  entries.forEach((e, i) => { if (!first.has(e.step)) first.set(e.step, i); last.set(e.step, i); });
  bars = steps.filter(s => s.status !== "not run").map(s => {
    const near = firstFrom(entries.length, i => entries[i].at_ns, s.start_ns);
    return { step: s, row: rowOf.get(s.number) ?? 0,
      order: [(first.get(s.number) ?? near) - .5, (last.get(s.number) ?? near - 1) + .5], time: [s.start_ns, s.start_ns + s.elapsed_ns] };
  });
}

const firstOf = step => Math.max(0, entries.findIndex(e => e.step === step.number));
const spanOf = bar => byOrder ? bar.order : bar.time;

function about(r) {
  document.querySelector("main").hidden = false;
  $("name").textContent = clean(r.name);
  $("status").textContent = r.status;
  $("status").className = "chip " + r.status;
  const told = [clean(r.file) + ":" + r.line, clean(r.engine), "seed " + r.seed, length(r.elapsed_ns), entries.length + " entries"];
  if (r.tags && r.tags.length) told.push(clean(r.tags.join(", ")));
  $("meta").textContent = told.join(" · ");
  $("description").textContent = r.description ? clean(r.description) : "";
  $("error").textContent = clean(r.error || "");
  $("error").hidden = !r.error;
  $("fail").disabled = !failing;
}

function listSteps(steps) {
  $("steps").replaceChildren(...steps.map(s => {
    const b = make("button", s.status), item = make("li");
    b.append(make("small", "", s.number), make("span", "", clean((s.branch ? s.branch + ": " : "") + s.name)),
      make("small", "", s.status === "passed" ? length(s.elapsed_ns) : s.status));
    if (s.error) b.append(make("em", "", clean(s.error)));
    b.title = clean(s.file) + ":" + s.line;
    b.onclick = () => goTo(s);
    item.append(b);
    return item;
  }));
}

function listFaults(faults) {
  $("faults-title").hidden = !faults.length;
  $("faults").replaceChildren(...faults.map(f => {
    const times = f.struck === 0 ? "never struck" : "struck " + f.struck + (f.struck === 1 ? " time" : " times");
    const item = make("li", f.struck === 0 ? "skipped" : "", clean(f.name) + ": " + times);
    item.title = clean(f.file) + ":" + f.line;
    return item;
  }));
}

// goTo shows a step with some room around it, and picks its first entry.
function goTo(step) {
  const bar = bars.find(b => b.step === step);
  if (!bar) return;
  const [from, to] = spanOf(bar);
  const room = Math.max((to - from) * .25, byOrder ? 2 : (whole.to - whole.from) / 2000);
  setView(from - room, to + room);
  const first = entries.findIndex(e => e.step === step.number);
  if (first >= 0) pick(first);
}

function pick(i) {
  chosen = i;
  if (i >= 0) {
    chosenRow = rows.findIndex(l => l.list.includes(i));
    const span = view.to - view.from;
    if (at(i) < view.from || at(i) > view.to) setView(at(i) - span / 2, at(i) + span / 2);
    const top = i * logHeight, log = $("log");
    if (top < log.scrollTop) log.scrollTop = top;
    if (top + logHeight > log.scrollTop + log.clientHeight) log.scrollTop = top + logHeight - log.clientHeight;
    const box = $("lanes"), y = axis + chosenRow * rowHeight;
    if (y - axis < box.scrollTop) box.scrollTop = y - axis;
    if (y + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = y + rowHeight - box.clientHeight;
  }
  details();
  drawLog();
  draw();
}

function describe(box, i) {
  const e = entries[i], step = (results[current].steps || []).find(s => s.number === e.step);
  const head = stamp(e.at_ns) + " · " + (titles[e.kind] || clean(e.kind)) + " · " + clean(e.lane) +
    (step ? " · step " + step.number + ": " + clean(step.name) : "");
  box.replaceChildren(make("small", "", head), make("code", "", clean(e.text)));
}

function details() {
  const box = $("details");
  box.style.setProperty("--of", chosen < 0 ? "var(--line)" : "var(--" + entries[chosen].kind + ")");
  if (chosen >= 0) describe(box, chosen);
  else box.replaceChildren(make("small", "", entries.length ? "Choose an entry to read it here." : "Nothing was recorded."));
}

// --- the trace in lines: only those in sight are there ---

function drawLog() {
  const log = $("log"), from = Math.max(0, Math.floor(log.scrollTop / logHeight) - 5);
  const to = Math.min(entries.length, from + Math.ceil(log.clientHeight / logHeight) + 10);
  const lines = [];
  for (let i = from; i < to; i++) {
    const e = entries[i], line = make("div", failing && e.step === failing.number ? "of-failing" : "");
    line.id = "entry" + i;
    line.setAttribute("role", "option");
    line.setAttribute("aria-selected", i === chosen);
    line.style.cssText = "top:" + i * logHeight + "px;--of:var(--" + (kinds.includes(e.kind) ? e.kind : "note") + ")";
    line.append(make("i", "", stamp(e.at_ns) + "  " + clean(e.kind).padEnd(10) + clean(e.lane).padEnd(9)), clean(e.text));
    line.title = clean(e.text);
    line.onclick = () => pick(i);
    lines.push(line);
  }
  $("rows").replaceChildren(...lines);
  if (chosen >= from && chosen < to) log.setAttribute("aria-activedescendant", "entry" + chosen);
  else log.removeAttribute("aria-activedescendant");
}
$("log").onscroll = drawLog;
$("log").onkeydown = event => {
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -1e9, End: 1e9 }[event.key];
  if (!by || !entries.length) return;
  event.preventDefault();
  pick(clamp(chosen + by, 0, entries.length - 1));
};

// --- the timeline ---

const canvas = $("timeline"), pen = canvas.getContext("2d");
let palette = {}, waiting = false;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = [...kinds, ...statuses, "ground", "panel", "line", "text", "dim", "pick", "band", "stripe", "grid"];
  palette = Object.fromEntries(names.map(n => [n, style.getPropertyValue("--" + n).trim()]));
}

function setAxis(order) {
  byOrder = order;
  $("byorder").setAttribute("aria-pressed", order);
  $("bytime").setAttribute("aria-pressed", !order);
  let end = 0;
  if (order) end = entries.length - .5;
  else {
    for (const e of entries) end = Math.max(end, e.at_ns);
    for (const b of bars) end = Math.max(end, b.time[1]);
    end = end * 1.02 || 1e6;
  }
  whole = { from: order ? -.5 : 0, to: Math.max(end, .5) };
  setView(whole.from, whole.to);
}

function setView(from, to) {
  const least = byOrder ? 3 : Math.min(1e3, whole.to - whole.from);
  const span = clamp(to - from, Math.min(least, whole.to - whole.from), whole.to - whole.from);
  from = clamp((from + to - span) / 2, whole.from, whole.to - span);
  view = { from, to: from + span };
  draw();
}

const width = () => canvas.clientWidth - gutter - 10;
const x = v => gutter + (v - view.from) / (view.to - view.from) * width();
const value = px => view.from + (px - gutter) / width() * (view.to - view.from);

function zoom(factor, px) {
  const middle = value(px ?? gutter + width() / 2);
  setView(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
}
function pan(share) {
  const by = (view.to - view.from) * share;
  setView(view.from + by, view.to + by);
}

function draw() {
  if (!waiting) requestAnimationFrame(paint);
  waiting = true;
}

function paint() {
  waiting = false;
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = axis + rows.length * rowHeight + 4;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    canvas.style.height = h + "px";
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = palette.panel;
  pen.fillRect(0, 0, w, h);
  pen.textBaseline = "middle";
  for (let n = 0; n < rows.length; n += 2) {
    pen.fillStyle = palette.stripe;
    pen.fillRect(0, axis + n * rowHeight, w, rowHeight);
  }
  pen.save();
  pen.beginPath();
  pen.rect(gutter - 4, 0, w - gutter + 4, h);
  pen.clip();
  paintAxis(h);
  paintFailing(h);
  for (const bar of bars) paintBar(bar);
  let marks = 0;
  rows.forEach((row, n) => { marks += paintRow(row, n); });
  paintChosen(h);
  pen.restore();
  paintGutter(h);
  const seen = firstFrom(entries.length, at, view.to) - firstFrom(entries.length, at, view.from);
  $("range").textContent = byOrder ? seen + " of " + entries.length + " entries in sight"
    : stamp(Math.max(0, view.from)) + " to " + stamp(view.to) + ", " + seen + " entries";
  canvas.setAttribute("aria-label", "Timeline of " + rows.length + " lanes, " + seen + " of " + entries.length + " entries in sight");
  Object.assign(canvas.dataset, { rows: rows.length, marks, from: view.from, to: view.to });
}

function nice(least) {
  const ten = 10 ** Math.floor(Math.log10(least));
  return ten * [1, 2, 5, 10].find(m => ten * m >= least);
}

function paintAxis(h) {
  let gap = nice((view.to - view.from) / (width() / 110));
  if (byOrder) gap = Math.max(1, Math.round(gap));
  pen.font = "11px ui-sans-serif, system-ui, sans-serif";
  let told = "";
  for (let v = Math.ceil(view.from / gap) * gap; v <= view.to; v += gap) {
    const px = Math.round(x(v)) + .5;
    pen.fillStyle = palette.grid;
    pen.fillRect(px, axis - 5, 1, h);
    const text = tick(v, gap);
    pen.fillStyle = palette.dim;
    if (text !== told) pen.fillText(text, px + 4, axis / 2);
    told = text;
  }
}

function tick(v, gap) {
  if (byOrder) return entries[v] ? "+" + length(entries[v].at_ns) : "";
  if (v === 0) return "0";
  const unit = gap >= 1e9 ? [1e9, "s"] : gap >= 1e6 || (gap >= 1e5 && v >= 1e8) ? [1e6, "ms"] : [1e3, "µs"];
  return trim(v / unit[0], 3) + " " + unit[1];
}

function paintFailing(h) {
  const bar = bars.find(b => b.step === failing);
  if (!bar) return;
  const [from, to] = spanOf(bar), left = x(from), wide = Math.max(2, x(to) - left);
  pen.fillStyle = palette.band;
  pen.fillRect(left, axis, wide, h);
  pen.fillStyle = palette.failed;
  pen.fillRect(left, axis, 1, h);
  pen.fillRect(left, axis - 3, wide, 3);
}

function paintBar(bar) {
  const [from, to] = spanOf(bar), left = clamp(x(from), gutter - 8, 1e5), right = Math.min(x(to), canvas.clientWidth + 8);
  if (right < gutter - 4 || left > canvas.clientWidth) return;
  const y = axis + bar.row * rowHeight + 4, wide = Math.max(2, right - left - 1), colour = palette[bar.step.status] || palette.step;
  pen.globalAlpha = .2;
  pen.fillStyle = colour;
  pen.fillRect(left, y, wide, rowHeight - 8);
  pen.globalAlpha = 1;
  pen.fillRect(left, y, Math.min(3, wide), rowHeight - 8);
  label(bar.step.number + " " + bar.step.name, Math.max(left, gutter) + 7, y + rowHeight / 2 - 4, right, palette.text);
}

function label(text, left, y, right, colour) {
  const fits = Math.floor((right - left - 4) / 6.7);
  if (fits < 4) return;
  pen.font = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
  pen.fillStyle = colour;
  text = clean(text.slice(0, fits + 1));
  pen.fillText(text.length > fits ? text.slice(0, fits - 1) + "…" : text, left, y);
}

// paintRow draws a lane's marks that are in sight, those that would cover each other once, and their text where there is room.
function paintRow(row, n) {
  const y = axis + n * rowHeight + 5, list = row.list;
  if (row.kind === "step") return list.length;
  let drawn = 0, last = -1e9;
  const begin = Math.max(0, firstFrom(list.length, i => at(list[i]), view.from) - 1);
  for (let i = begin; i < list.length; i++) {
    const px = x(at(list[i]));
    if (px > canvas.clientWidth + 4) break;
    if (px - last < 1) continue;
    last = px;
    drawn++;
    pen.fillStyle = palette[row.kind] || palette.note;
    pen.fillRect(px - 1.5, y, 3, rowHeight - 10);
    let next = i + 1;
    while (next < list.length && x(at(list[next])) - px < 1) next++;
    const more = next - i - 1, right = next < list.length ? Math.min(x(at(list[next])), canvas.clientWidth) : canvas.clientWidth - 4;
    if (right - px > 34) {
      label((more ? "×" + (more + 1) + " " : "") + entries[list[i]].text, Math.max(px, gutter - 4) + 5, y + rowHeight / 2 - 5, right - 3, palette.dim);
    }
  }
  return drawn;
}

function paintChosen(h) {
  for (const [i, colour] of [[hover, palette.dim], [chosen, palette.pick]]) {
    if (i < 0) continue;
    const n = rows.findIndex(l => l.kind === entries[i].kind && (l.who === entries[i].lane || l.who === ""));
    const px = x(at(i));
    pen.globalAlpha = .5;
    pen.fillStyle = colour;
    pen.fillRect(px - .5, axis, 1, h);
    pen.globalAlpha = 1;
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.strokeRect(px - 5, axis + n * rowHeight + 2, 10, rowHeight - 4);
  }
}

function paintGutter(h) {
  pen.fillStyle = palette.line;
  pen.fillRect(gutter - 5, 0, 1, h);
  let told = "";
  rows.forEach((row, n) => {
    const y = axis + n * rowHeight + rowHeight / 2;
    pen.fillStyle = palette[row.kind] || palette.note;
    pen.fillRect(0, y - rowHeight / 2, 3, rowHeight);
    pen.font = "600 12px system-ui, sans-serif";
    if (row.kind !== told) pen.fillText(titles[row.kind] || row.kind, 10, y);
    const used = row.kind !== told ? pen.measureText(titles[row.kind] || row.kind).width + 18 : 18;
    told = row.kind;
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = palette.dim;
    let who = clean(row.who).slice(0, 30);
    while (who && pen.measureText(who).width > gutter - used - 12) who = who.slice(0, -1);
    pen.fillText(who, gutter - 11 - pen.measureText(who).width, y);
  });
}

// --- mouse, touch and keys ---

// entryAt is the entry under a point, or -1.
function entryAt(px, py) {
  const n = Math.floor((py - axis) / rowHeight);
  if (px < gutter - 4 || n < 0 || n >= rows.length) return -1;
  const list = rows[n].list;
  if (rows[n].kind === "step") {
    const bar = bars.find(b => b.row === n && spanOf(b)[0] <= value(px) && value(px) <= spanOf(b)[1]);
    const i = bar ? list.find(i => entries[i].step === bar.step.number) : undefined;
    return i === undefined ? -1 : i;
  }
  return nearest(list, value(px), 8);
}

function nearest(list, v, within) {
  const n = firstFrom(list.length, i => at(list[i]), v);
  let best = -1, least = Infinity;
  for (const i of [n - 1, n]) {
    if (i < 0 || i >= list.length) continue;
    const far = Math.abs(x(at(list[i])) - x(v));
    if (far <= within && far < least) { least = far; best = list[i]; }
  }
  return best;
}

let drag = null;
canvas.onpointerdown = event => {
  if (event.button) return;
  drag = { x: event.offsetX, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
};
canvas.onpointermove = event => {
  if (drag) {
    const by = (drag.x - event.offsetX) / width() * (drag.to - drag.from);
    drag.moved = drag.moved || Math.abs(drag.x - event.offsetX) > 3;
    if (drag.moved) setView(drag.from + by, drag.to + by);
    return;
  }
  tip(entryAt(event.offsetX, event.offsetY), event);
};
canvas.onpointerup = event => {
  if (drag && !drag.moved) pick(entryAt(event.offsetX, event.offsetY));
  drag = null;
};
canvas.onpointercancel = () => { drag = null; };
canvas.onpointerleave = () => { if (!drag) tip(-1); };

function tip(i, event) {
  if (i !== hover) { hover = i; draw(); }
  const box = $("tip");
  box.hidden = i < 0;
  if (i < 0) return;
  describe(box, i);
  box.style.left = clamp(event.clientX + 14, 0, Math.max(0, innerWidth - box.offsetWidth - 12)) + "px";
  const below = event.clientY + 18;
  box.style.top = (below + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 12 : below) + "px";
}

canvas.addEventListener("wheel", event => {
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / 800);
  else zoom(Math.exp(clamp(event.deltaY, -400, 400) / 400), Math.max(event.offsetX, gutter));
}, { passive: false });

// move goes to the entry beside the chosen one, on its lane or another.
function move(along, across) {
  if (!entries.length) return;
  if (chosen < 0) return pick(firstFrom(entries.length - 1, at, view.from));
  if (along) {
    const list = rows[chosenRow].list, n = list.indexOf(chosen) + along;
    if (n >= 0 && n < list.length) pick(list[n]);
    return;
  }
  for (let n = chosenRow + across; n >= 0 && n < rows.length; n += across) {
    const i = nearest(rows[n].list, at(chosen), Infinity);
    if (i >= 0) return pick(i);
  }
}

const toFailing = () => failing && goTo(failing);
const keys = {
  ArrowRight: () => move(1, 0), ArrowLeft: () => move(-1, 0), ArrowDown: () => move(0, 1), ArrowUp: () => move(0, -1),
  "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1 / .6), "0": () => setView(whole.from, whole.to),
  PageDown: () => pan(.8), PageUp: () => pan(-.8), Home: () => entries.length && pick(0), End: () => pick(entries.length - 1),
  f: toFailing, t: () => setAxis(false), o: () => setAxis(true), Escape: () => pick(-1),
};
canvas.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
};
$("in").onclick = keys["+"];
$("out").onclick = keys["-"];
$("fit").onclick = keys["0"];
$("fail").onclick = toFailing;
$("bytime").onclick = keys.t;
$("byorder").onclick = keys.o;

// --- the beginning ---

matchMedia("(prefers-color-scheme: dark)").onchange = () => { colours(); draw(); };
new ResizeObserver(() => { draw(); drawLog(); }).observe($("lanes"));
colours();
heading();
filter();
const wanted = Number(location.hash.slice(1)) - 1, broken = results.findIndex(r => bad(r.status));
if (results.length) choose(results[wanted] ? wanted : Math.max(0, broken));
else document.querySelector("main").hidden = true;
