// The page: cameras, what is drawn over the splats, controls, and where the films come from.

const $ = (id) => document.getElementById(id);
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // of viridis
const UNSEEN = 255, GREY = 0.6; // the byte of a Gaussian that no picture shows, and its colour
const AHEAD = 3; // pictures that are decoded before their frame comes
const LISTED = 64; // names in a legend
const ALIKE = "white"; // bones and outlines, above a dark edge: they are seen on any background
const SLOW = 45, FAST = 20, LEAST_SCALE = 0.5; // ms a frame; fraction of the canvas's pixels along a side

function ramp(value, into) {
  const place = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2);
  for (let k = 0; k < 3; k++) into[k] = (RAMP[low][k] + (place - low) * (RAMP[low + 1][k] - RAMP[low][k])) / 255;
}

const css = (rgb) => `rgb(${rgb.map((value) => Math.round(255 * value)).join(" ")})`;

// ---- the camera: a pose that hands move, or one of those that a scene was filmed by

const times3 = (A, B) => [0, 1, 2].flatMap((i) => [0, 1, 2].map((j) => A[3 * i] * B[j] + A[3 * i + 1] * B[3 + j] + A[3 * i + 2] * B[6 + j]));
const apply3 = (A, p) => [0, 1, 2].map((i) => A[3 * i] * p[0] + A[3 * i + 1] * p[1] + A[3 * i + 2] * p[2]);

function about(axis, angle) { // Rodrigues
  const [x, y, z] = axis, c = Math.cos(angle), s = Math.sin(angle), d = 1 - c;
  return [c + d * x * x, d * x * y - s * z, d * x * z + s * y, d * x * y + s * z, c + d * y * y, d * y * z - s * x, d * x * z - s * y, d * y * z + s * x, c + d * z * z];
}

class Camera {
  constructor() { this.pivot = [0, 0, 0]; this.up = [0, 1, 0]; this.view = null; }

  // Follow a camera of the scene; turned by hand, it stays where it is and is nobody's.
  take(shot, view) {
    this.rotation = [0, 1, 2].flatMap((row) => shot.viewmat.slice(4 * row, 4 * row + 3));
    const moved = apply3(this.rotation, this.pivot);
    this.target = [0, 1, 2].map((row) => moved[row] + shot.viewmat[4 * row + 3]); // the pivot as the camera sees it
    this.K = shot.K;
    this.image = [view.width, view.height];
    this.view = view;
  }
  turn(dx, dy) {
    this.view = null;
    const turned = times3(this.rotation, about(this.up, dx));
    this.rotation = times3(about([1, 0, 0], -dy), turned);
  }
  zoom(factor) { this.view = null; this.target = this.target.map((value) => value * factor); }
  move(dx, dy) { // in pixels of the image
    this.view = null;
    this.target[0] += (dx / this.K[0]) * this.target[2];
    this.target[1] += (dy / this.K[1]) * this.target[2];
  }
  // in a canvas of that size, into which the whole image fits
  within(width, height) {
    const scale = this.scale(width, height), [w, h] = this.image, [fx, fy, cx, cy] = this.K;
    const moved = apply3(this.rotation, this.pivot);
    return {
      rotation: this.rotation, translation: this.target.map((value, k) => value - moved[k]),
      fx: fx * scale, fy: fy * scale, cx: (cx - w / 2) * scale + width / 2, cy: (cy - h / 2) * scale + height / 2,
    };
  }
  scale(width, height) { return Math.min(width / this.image[0], height / this.image[1]); }
}

function project(camera, point) {
  const [x, y, z] = apply3(camera.rotation, point).map((value, k) => value + camera.translation[k]);
  return z > NEAR ? [(camera.fx * x) / z + camera.cx, (camera.fy * y) / z + camera.cy] : null;
}

// ---- one run in its canvases

class View {
  constructor(figure) {
    this.figure = figure;
    this.overlay = figure.querySelector(".overlay");
    this.caption = figure.querySelector("figcaption");
    this.splats = new Splats(figure.querySelector(".splats"));
    this.film = null;
    this.last = -1;
  }
  show(film) {
    this.film = film;
    this.last = -1;
    this.figure.hidden = !film;
    if (film) this.reach = this._reach();
  }
  // the distance that nearly no Gaussian goes farther from where it was at first, at the last frames too
  _reach() {
    if (!this.film.linked) return 0;
    let most = 0;
    for (let k = 1; k <= 8; k++) {
      const { moved, count } = this.film.at(Math.round((k / 8) * (this.film.frames - 1)));
      most = Math.max(most, [...moved.subarray(0, count)].sort((a, b) => a - b)[Math.floor(0.99 * (count - 1))]);
    }
    return most;
  }
  tint(mode) {
    const { film } = this, { pose } = film;
    if (mode === "keypoint") return (i, _, into) => { const at = 3 * (film.row("owners", pose.frame) + i); for (let k = 0; k < 3; k++) into[k] = film.owners[at + k] / 255; };
    if (mode === "error") {
      const first = film.errors ? film.row("errors", pose.frame) : 0, step = film.header.errors_top / main().header.errors_top / (UNSEEN - 1);
      return (i, _, into) => { const level = film.errors ? film.errors[first + i] : UNSEEN; level === UNSEEN ? into.fill(GREY) : ramp(level * step, into); };
    }
    if (mode === "motion") return (i, _, into) => ramp(pose.moved[i] / (this.reach || 1), into);
    if (mode === "opacity") return (i, _, into) => ramp(pose.alphas[i], into);
    if (film.harmonics) return (i, [x, y, z], into) => { const n = Math.hypot(x, y, z) || 1; film.seen(i, x / n, y / n, z / n, into); };
    return (i, _, into) => { for (let k = 0; k < 3; k++) into[k] = pose.rgb[3 * i + k]; };
  }
  // fit the canvases to the page; the splats may have fewer pixels than the rest
  _resize(scale) {
    const box = this.figure.getBoundingClientRect(), ratio = Math.min(devicePixelRatio, 2);
    for (const [canvas, factor] of [[this.splats.canvas, ratio * scale], [this.overlay, ratio]]) {
      const width = Math.max(1, Math.round(box.width * factor)), height = Math.max(1, Math.round(box.height * factor));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    }
  }
  draw(camera, place, scale) {
    if (!this.film) return;
    this._resize(scale);
    const own = Math.min(place, this.film.frames - 1);
    if (own !== this.last) { this.film.at(own); this.last = own; }
    const { canvas } = this.splats;
    this.splats.draw($("splats").checked ? this.film.pose : null, camera.within(canvas.width, canvas.height), this.tint(state.colour), state.background);
    this._annotate(camera, own);
  }
  _annotate(camera, place) {
    const canvas = this.overlay, draw = canvas.getContext("2d"), seen = camera.within(canvas.width, canvas.height);
    const unit = canvas.width / Math.max(1, this.figure.getBoundingClientRect().width);
    draw.clearRect(0, 0, canvas.width, canvas.height);
    draw.lineCap = draw.lineJoin = "round";
    if (camera.view) outline(draw, camera, canvas, unit);
    const { names, parents } = this.film.header, points = this.film.keypointsAt(place).map((point) => project(seen, point));
    if ($("trails").checked) this._trails(draw, seen, place, unit);
    if ($("skeleton").checked)
      parents.forEach((parent, child) => parent >= 0 && points[child] && points[parent] && line(draw, [points[parent], points[child]], ALIKE, 2 * unit, 4.5 * unit));
    if ($("keypoints").checked)
      points.forEach((point, joint) => point && dot(draw, point, css(state.hues[joint]), unit));
    if ($("names").checked) {
      draw.font = `${12 * unit}px system-ui, sans-serif`;
      draw.textBaseline = "middle";
      labels(draw, points.map((point, joint) => point && [words(names[joint]), ...point]).filter(Boolean), unit);
    }
  }
  _trails(draw, seen, place, unit) {
    const count = this.film.header.names.length, paths = Array.from({ length: count }, () => []);
    for (let frame = 0; frame <= place; frame++) this.film.keypointsAt(frame).forEach((point, joint) => paths[joint].push(project(seen, point)));
    this.film.keypointsAt(place).forEach((point, joint) => paths[joint].push(project(seen, point)));
    paths.forEach((path, joint) => line(draw, path.filter(Boolean), css(state.hues[joint]), 2 * unit, 3.5 * unit));
  }
}

const words = (name) => name.replaceAll("_", " ");

function line(draw, path, color, width, edge) {
  if (path.length < 2) return;
  draw.beginPath();
  path.forEach(([x, y], index) => (index ? draw.lineTo(x, y) : draw.moveTo(x, y)));
  for (const [style, wide] of [["rgb(0 0 0 / 55%)", edge], [color, width]]) { draw.strokeStyle = style; draw.lineWidth = wide; draw.stroke(); }
}

function dot(draw, [x, y], color, unit) {
  draw.beginPath();
  draw.arc(x, y, 4.5 * unit, 0, 2 * Math.PI);
  draw.fillStyle = color;
  draw.fill();
  draw.lineWidth = 1.5 * unit;
  draw.strokeStyle = ALIKE;
  draw.stroke();
}

// Names beside their dots, each where it covers no other: right, left, above, below, or not at all.
function labels(draw, names, unit) {
  const gap = 8 * unit, height = 15 * unit;
  const taken = names.map(([, x, y]) => [x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2]);
  draw.lineWidth = 3 * unit;
  draw.strokeStyle = "rgb(0 0 0 / 75%)";
  draw.fillStyle = ALIKE;
  for (const [text, x, y] of names) {
    const width = draw.measureText(text).width;
    const places = [[x + gap, y], [x - gap - width, y], [x - width / 2, y - 1.6 * gap], [x - width / 2, y + 1.6 * gap]];
    const free = places.find(([left, middle]) => taken.every(([a, b, c, d]) => left > c || left + width < a || middle - height / 2 > d || middle + height / 2 < b));
    if (!free) continue;
    taken.push([free[0], free[1] - height / 2, free[0] + width, free[1] + height / 2]);
    draw.strokeText(text, ...free);
    draw.fillText(text, ...free);
  }
}

function outline(draw, camera, canvas, unit) { // what the picture of this camera shows
  const scale = camera.scale(canvas.width, canvas.height), [w, h] = camera.image.map((side) => side * scale);
  draw.setLineDash([5 * unit, 5 * unit]);
  draw.lineWidth = unit;
  draw.strokeStyle = "rgb(128 128 128 / 60%)";
  draw.strokeRect((canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  draw.setLineDash([]);
}

// ---- what is shown, and the loop that shows it

const state = { playing: false, place: 0, colour: "appearance", background: [1, 1, 1], hues: [], scale: 1, stale: true, beside: true, shot: null };
const camera = new Camera();
const views = [];
let before = 0, mean = 0, since = 0, drawn = 0, recorder = null;

const main = () => views[0].film;
const last = () => main().frames - 1;
const redraw = () => { state.stale = true; };

function tick(now) {
  requestAnimationFrame(tick);
  const passed = Math.min(now - before, 1000);
  before = now;
  if (!main()) return;
  if (state.playing) {
    mean = mean ? 0.9 * mean + 0.1 * passed : passed;
    adapt();
    const place = state.place + (passed / 1000) * main().header.fps * Number($("speed").value);
    if (recorder && place >= last() + 1) return recorder.stop();
    if (!decoded(frameAt(place % (last() + 1)))) return;
    state.place = place % (last() + 1);
    state.stale = true;
  }
  if (!state.stale || !decoded(frameAt(state.place))) return;
  state.stale = false;
  draw();
  drawn++;
  if (now - since < 1000) return;
  const rate = (1000 * drawn) / (now - since);
  $("rate").textContent = state.playing ? `${rate.toFixed(rate < 10 ? 1 : 0)} pictures a second` : "";
  [since, drawn] = [now, 0];
}

// fewer pixels for splats where a frame takes long, as without a GPU
function adapt() {
  if (mean > SLOW && state.scale > LEAST_SCALE) { state.scale = Math.max(LEAST_SCALE, state.scale * 0.85); mean = (SLOW + FAST) / 2; }
  else if (mean < FAST && state.scale < 1) { state.scale = Math.min(1, state.scale / 0.95); mean = (SLOW + FAST) / 2; }
}

// the place in time that is drawn: in-betweens only while it plays
const shown = (place = state.place) => Math.min(state.playing && $("smooth").checked && main().linked ? place : Math.floor(place), last());
const frameAt = (place) => Math.min(Math.round(shown(place)), last());

function draw() {
  const place = shown(), frame = frameAt(state.place);
  if (camera.view) follow(frame);
  for (const view of views) view.draw(camera, place, state.playing ? state.scale : 1);
  drawPhoto(frame);
  $("frame").value = frame;
  const text = `${frame + 1} / ${last() + 1}`;
  if ($("clock").value !== text) $("clock").value = text;
  if (recorder) recorder.frame();
}

const nearest = (view, time) => view.shots.reduce((best, shot) => (Math.abs(shot.time - time) < Math.abs(best.time - time) ? shot : best));

function follow(frame) {
  const shot = nearest(camera.view, main().header.times[frame]);
  if (shot !== state.shot || !camera.rotation) camera.take(shot, camera.view);
  state.shot = shot;
}

// ---- the picture beside it

const pictures = new Map(); // of a shot: null while it is decoded, undefined where it cannot be

function pictureOf(shot) {
  if (!pictures.has(shot)) {
    pictures.set(shot, null);
    const known = (bitmap) => { if (pictures.has(shot)) pictures.set(shot, bitmap); redraw(); };
    createImageBitmap(main().picture(shot.picture)).then(known, () => known(undefined));
  }
  return pictures.get(shot);
}

const photo = () => ($("beside").checked ? state.photo : null);

// The picture beside the splats is never late: a frame waits until its picture is decoded, and asks for the next ones.
function decoded(frame) {
  const view = photo();
  if (!view) return true;
  for (let k = AHEAD; k > 0; k--) pictureOf(nearest(view, main().header.times[(frame + k) % (last() + 1)]));
  return pictureOf(nearest(view, main().header.times[frame])) !== null;
}

function drawPhoto(frame) {
  const view = photo(), figure = $("photo"), wanted = Boolean(view);
  if (figure.hidden === wanted) { figure.hidden = !wanted; redraw(); }
  if (!wanted) return;
  const canvas = figure.querySelector("canvas"), box = figure.getBoundingClientRect(), ratio = Math.min(devicePixelRatio, 2);
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const time = main().header.times[frame], shot = nearest(view, time), bitmap = pictureOf(shot), draw = canvas.getContext("2d");
  draw.fillStyle = css(state.background);
  draw.fillRect(0, 0, canvas.width, canvas.height);
  const scale = Math.min(canvas.width / view.width, canvas.height / view.height), w = view.width * scale, h = view.height * scale;
  if (bitmap) draw.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  const elsewhere = camera.view === view ? "" : ", from its own camera";
  figure.querySelector("figcaption").textContent = `${view.held_out ? "Held-out truth" : "Video"}: ${view.name}${elsewhere}`;
}

// ---- controls

function snap(index) {
  const view = main().header.views[index];
  if (!view) return;
  state.photo = view.shots.some((shot) => shot.picture) ? view : null;
  $("beside-row").hidden = !state.photo;
  state.shot = null;
  camera.view = view;
  $("camera").value = String(index);
  redraw();
}

function moved() { // by hand
  const free = $("camera").querySelector("[value=free]");
  free.hidden = free.disabled = false;
  $("camera").value = "free";
  state.shot = null;
  redraw();
}

function seek(place) {
  state.place = (place + last() + 1) % (last() + 1);
  redraw();
}

function play(on) {
  state.playing = on;
  if (!on) state.place = frameAt(state.place);
  if (!on && state.place > last()) state.place = last();
  mean = 0;
  $("play").classList.toggle("playing", on);
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  redraw();
}

function legend() {
  const box = $("legend"), make = (tag, text, parent = box) => { const made = document.createElement(tag); made.textContent = text; parent.append(made); return made; };
  box.replaceChildren();
  const bar = (text, low, high) => {
    make("p", text);
    const strip = make("div", "");
    strip.className = "ramp";
    strip.style.background = `linear-gradient(to right, ${RAMP.map(([r, g, b]) => `rgb(${r} ${g} ${b})`)})`;
    const ends = make("div", "");
    ends.className = "ends";
    make("span", low, ends);
    make("span", high, ends);
  };
  if (state.colour === "motion") bar("Distance from the place in the first frame, world units", "0", `≥ ${views[0].reach.toPrecision(2)}`);
  if (state.colour === "opacity") bar("Opacity of each Gaussian", "0", "1");
  if (state.colour === "error") bar(`Mean absolute error of ${main().header.errors_of} where each Gaussian is seen, of 1; grey: nowhere seen`, "0", `≥ ${main().header.errors_top.toPrecision(2)}`);
  if (state.colour === "keypoint") {
    make("p", main().header.owned_by);
    const list = make("ul", "");
    list.className = "owners";
    main().header.owner_names.slice(0, LISTED).forEach((name, index) => {
      const item = make("li", "", list);
      make("i", "", item).style.background = css(state.hues[index]);
      make("span", words(name), item);
    });
  }
}

function hands(canvas) {
  const pointers = new Map();
  const unit = () => 1 / camera.scale(...[canvas.clientWidth, canvas.clientHeight]);
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, [event.clientX, event.clientY]); });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const from = pointers.get(event.pointerId);
    if (!from || !main()) return;
    const dx = event.clientX - from[0], dy = event.clientY - from[1];
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const span = (x, y) => Math.hypot(x - other[0], y - other[1]) || 1;
      camera.zoom(span(...from) / span(event.clientX, event.clientY));
      camera.move((dx * unit()) / 2, (dy * unit()) / 2);
    } else if (event.shiftKey || event.buttons & 6) camera.move(dx * unit(), dy * unit());
    else camera.turn(dx * 0.008, dy * 0.008);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    moved();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); if (main()) { camera.zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.0015)); moved(); } }, { passive: false });
  canvas.addEventListener("dblclick", () => main() && snap(Math.max(0, main().header.views.indexOf(state.photo))));
  canvas.addEventListener("keydown", (event) => {
    if (!main()) return;
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (x || y) event.shiftKey ? camera.move(8 * x * unit(), 8 * y * unit()) : camera.turn(0.08 * x, 0.08 * y);
    else if (event.key === "+" || event.key === "=") camera.zoom(0.9);
    else if (event.key === "-") camera.zoom(1 / 0.9);
    else return;
    event.preventDefault();
    moved();
  });
}

function figures() {
  const films = views.map((view) => view.film).filter(Boolean), table = $("metrics");
  const keys = [...new Set(films.flatMap((film) => Object.keys(film.header.metrics)))];
  table.hidden = !keys.length;
  const cell = (row, tag, text, scope) => { const made = document.createElement(tag); made.textContent = text; if (scope) made.scope = scope; row.append(made); };
  const head = table.querySelector("thead tr");
  head.replaceChildren();
  cell(head, "th", "metric", "col");
  films.forEach((film, index) => cell(head, "th", films.length > 1 ? "AB"[index] : "value", "col"));
  table.querySelector("tbody").replaceChildren(...keys.map((key) => {
    const row = document.createElement("tr");
    const known = films.map((film) => film.header.metrics[key]);
    cell(row, "th", known.find(Boolean).label, "row");
    row.firstChild.title = known.find(Boolean).meaning;
    known.forEach((metric) => cell(row, "td", metric ? metric.value : "–"));
    return row;
  }));
}

// ---- films come in

function around(film) { // the middle of the first frame's Gaussians: what hands turn the camera about
  const { means, count } = film.at(0);
  return [0, 1, 2].map((k) => {
    const values = Float32Array.from({ length: count }, (_, i) => means[3 * i + k]).sort();
    return values[count >> 1];
  });
}

function receive(film, slot) {
  const first = !views[slot].film;
  views[slot].show(film);
  const both = views.every((view) => view.film);
  views.forEach((view, index) => { if (view.film) view.caption.textContent = both ? `${"AB"[index]}: ${view.film.header.title}` : ""; });
  figures();
  if (slot === 0) settle(film, first);
  redraw();
}

function settle(film, first) {
  const { header } = film;
  $("notice").textContent = "";
  document.title = `${header.title} – kg4d`;
  $("title").textContent = header.title;
  $("subtitle").textContent = [header.note, `${film.most.toLocaleString("en")} Gaussians`, `${film.frames} ${film.frames === 1 ? "frame" : "frames"}`, film.frames > 1 && `${header.fps} fps`].filter(Boolean).join(" · ");
  $("frame").max = last();
  for (const control of [$("frame"), $("play")]) control.disabled = film.frames < 2;
  state.hues = header.hues;
  pictures.clear();
  state.place = Math.min(state.place, last());
  const some = header.names.length > 0;
  for (const id of ["keypoints", "skeleton", "names", "trails"]) { $(id).disabled = !some; $(id).checked &&= some; }
  document.querySelector("[value=keypoint]").disabled = !film.owners;
  document.querySelector("[value=motion]").disabled = !film.linked || film.frames < 2;
  document.querySelector("[value=error]").disabled = !film.errors;
  const colour = document.querySelector("[name=colour]:checked");
  if (colour.disabled) document.querySelector("[value=appearance]").click();
  $("smooth-row").hidden = $("smooth-hint").hidden = !film.linked || film.frames < 2;
  legend();
  const chosen = first ? "0" : $("camera").value;
  $("camera").replaceChildren(...[...header.views.map((view, index) => new Option(`${view.held_out ? "Test view" : "Video"}: ${view.name}`, index)), new Option("Moved by hand", "free")]);
  if (first) {
    camera.pivot = around(film);
    camera.up = header.up;
    state.background = header.background;
    $("background").value = `#${header.background.map((value) => byte(value).toString(16).padStart(2, "0")).join("")}`;
  }
  const free = $("camera").querySelector("[value=free]");
  free.hidden = free.disabled = chosen !== "free";
  if (chosen !== "free") snap(Math.min(Number(chosen), header.views.length - 1));
  else {
    $("camera").value = "free";
    state.photo = header.views.find((view) => view.name === state.photo?.name) ?? null;
  }
  if (first && film.frames > 1) play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  if (film.frames < 2) play(false);
}

// Ask the command that serves this page for a film until it has the last one.
async function listen(address, slot) {
  for (let version = ""; ; await new Promise((done) => setTimeout(done, 400))) {
    let answer;
    try { answer = await fetch(`${address}?after=${version}`, { cache: "no-store" }); } catch {
      if (!views[slot].film) $("notice").textContent = "The command that served this page has ended.";
      return;
    }
    if (answer.status !== 200) continue; // nothing new yet
    version = answer.headers.get("X-Version");
    receive(new Film(await answer.arrayBuffer()), slot);
    if (answer.headers.get("X-Last")) return;
  }
}

async function start() {
  for (const id of ["view-a", "view-b"]) views.push(new View($(id)));
  hands(views[0].overlay);
  hands(views[1].overlay);
  requestAnimationFrame(tick);
  const films = [...document.querySelectorAll("script[type='text/kg4d-film']")];
  films.forEach(async (part, slot) => (part.dataset.address ? listen(part.dataset.address, slot) : receive(new Film(await inflated(part.textContent)), slot)));
}

$("play").addEventListener("click", () => play(!state.playing));
$("frame").addEventListener("input", () => { play(false); seek(Number($("frame").value)); });
$("camera").addEventListener("change", () => snap(Number($("camera").value)));
$("colour").addEventListener("change", (event) => { state.colour = event.target.value; legend(); redraw(); });
$("background").addEventListener("input", () => {
  const hex = $("background").value;
  state.background = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  redraw();
});
for (const id of ["layers", "beside-row"]) $(id).addEventListener("change", redraw);
new ResizeObserver(redraw).observe($("views"));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=range]), select, button, summary"); // these take a space themselves
  if (!main() || last() < 1 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !typing) { event.preventDefault(); play(!state.playing); }
  if (event.key === "," || event.key === ".") { play(false); seek(state.place + (event.key === "." ? 1 : -1)); }
});

$("compare").addEventListener("click", () => {
  if (views[1].film) { receive(null, 1); $("compare").textContent = "Compare"; } else $("other").click();
});
$("other").addEventListener("change", async () => {
  const [file] = $("other").files;
  $("other").value = "";
  if (!file) return;
  const part = new DOMParser().parseFromString(await file.text(), "text/html").querySelector("script[type='text/kg4d-film']");
  if (!part?.textContent) return ($("notice").textContent = `${file.name} is not a page that kg4d.export has written.`);
  receive(new Film(await inflated(part.textContent)), 1);
  $("compare").textContent = "End comparison";
});

// ---- pictures and videos of what is shown

function composed(canvas) { // the views side by side, as on the page
  const box = $("views").getBoundingClientRect(), ratio = Math.min(devicePixelRatio, 2), pen = canvas.getContext("2d");
  const [width, height] = [box.width, box.height].map((side) => 2 * Math.floor((side * ratio) / 2)); // videos have even sides
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  for (const part of $("views").querySelectorAll("figure:not([hidden]) canvas")) {
    const place = part.getBoundingClientRect();
    pen.drawImage(part, (place.x - box.x) * ratio, (place.y - box.y) * ratio, place.width * ratio, place.height * ratio);
  }
  return canvas;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const fileName = (ending) => `${main().header.title.replace(/[^\w.-]+/g, "_")}${ending}`;

$("screenshot").addEventListener("click", async () => {
  if (!main()) return;
  while (!decoded(frameAt(state.place))) await new Promise(requestAnimationFrame);
  draw(); // canvases of WebGL are empty after their frame
  composed(document.createElement("canvas")).toBlob((blob) => save(blob, fileName(`_${Number($("frame").value) + 1}.png`)));
});

$("record").addEventListener("click", () => {
  if (recorder) return recorder.stop();
  if (!main() || last() < 1) return;
  const canvas = document.createElement("canvas"), kind = ["video/mp4;codecs=avc1", "video/webm"].find((type) => MediaRecorder.isTypeSupported(type));
  composed(canvas);
  const media = new MediaRecorder(canvas.captureStream(30), { mimeType: kind, videoBitsPerSecond: 8e6 }), parts = [];
  media.ondataavailable = (event) => parts.push(event.data);
  media.onstop = () => save(new Blob(parts, { type: kind.split(";")[0] }), fileName(kind.includes("mp4") ? ".mp4" : ".webm"));
  recorder = {
    frame: () => composed(canvas),
    stop: () => { media.stop(); recorder = null; $("record").setAttribute("aria-pressed", "false"); $("record").textContent = "Record"; play(false); },
  };
  $("record").setAttribute("aria-pressed", "true");
  $("record").textContent = "Stop";
  state.place = 0;
  media.start();
  play(true);
});

start().catch((error) => { $("notice").textContent = error.message; });
