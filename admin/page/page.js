"use strict";

const $ = (id) => document.getElementById(id);
const body = (id) => $(id).querySelector("tbody");
const count = (id, text) => { $(id).querySelector(".count").textContent = text; };

// say tells a screen reader, and nobody else.
function say(text) { $("said").textContent = text; }

// ---- Actions ----

// ask has a person confirm something.
function ask(title, text, yes) {
	const d = $("ask");
	$("ask-title").textContent = title;
	$("ask-text").replaceChildren(...text);
	$("ask-yes").textContent = yes;
	return new Promise((resolve) => {
		const end = (answer) => () => { d.close(); resolve(answer); };
		$("ask-yes").onclick = end(true);
		$("ask-no").onclick = end(false);
		d.oncancel = () => resolve(false);
		d.showModal();
		$("ask-no").focus();
	});
}

async function act(what, path, about) {
	try {
		const result = await api.act(path, about);
		say(what);
		return result;
	} catch (e) {
		problem(what + " failed: " + e.message);
		return null;
	}
}

function problem(text) {
	const close = element("button", "", "OK");
	close.type = "button";
	close.onclick = () => $("notice").replaceChildren();
	$("notice").replaceChildren(plain(text) + " ", close);
}

async function disable(client, called) {
	const yes = await ask("Disable this client?", [name(called), " gets 1607 to everything, and its connections end. Its files stay. It can be enabled again."], "Disable");
	if (yes && await act("Disabled", "clients/disable", {client})) renew("clients");
}

async function enable(client) {
	if (await act("Enabled", "clients/enable", {client})) renew("clients");
}

async function end(c) {
	const yes = await ask("End this connection?", [c.name ? name(c.name) : c.remote, " may come back at once. What it is uploading is cut off."], "End it");
	if (yes) await act("Ended", "connections/end", {connection: c.id});
}

async function remove(f) {
	const yes = await ask("Delete this file for good?", [name(f.path), " of ", name(f.name || f.client), ", " + size(f.bytes) + ". Nobody can bring it back."], "Delete");
	if (yes && await act("Deleted", "files/delete", {client: f.client, path: f.path, version: f.version, verified: f.state !== "unverified"})) renew("files");
}

async function removePartial(p) {
	const yes = await ask("Delete what came of this file?", [name(p.path), " of ", name(p.name || p.client), ", " + size(p.bytes) + ". Its client sends it from the beginning then."], "Delete");
	if (yes && await act("Deleted", "files/delete", {client: p.client, path: p.path, version: p.version, verified: false, partial: true})) renew("partials");
}

async function retry(w) { await act("Told again", "events/retry", {target: w.target}); }

async function drop(w) {
	const yes = await ask("Forget these events?", ["All " + w.count + " for ", name(w.target), ". Nobody is told of them."], "Forget them");
	if (yes) await act("Forgotten", "events/drop", {target: w.target});
}

async function download(f) {
	const offer = await act("Download begins", "downloads", {client: f.client, path: f.path, version: f.version, verified: true});
	if (!offer) return;
	const a = document.createElement("a");
	a.href = offer.location;
	a.download = "";
	a.click();
}

// ---- Tables ----

function row(...cells) { return element("tr", "", ...cells); }

const known = new Map(); // names of clients that were seen, by id

// who shows a client.
function who(called, id) {
	if (called && id) known.set(id, called);
	called ||= known.get(id);
	if (called) return name(called);
	return id ? element("span", "id", id.slice(0, 8)) : element("span", "note", "has not said yet");
}

function transferRow(t) {
	const bar = document.createElement("progress"), far = element("span", ""), speed = cell("few");
	bar.setAttribute("aria-label", "Progress of " + plain(t.file));
	const tr = row(cell("", name(t.file)), cell("", who(t.name, t.client)), cell("", bar, far), speed);
	tr.update = (t) => {
		if (t.total_bytes > 0) {
			bar.max = t.total_bytes;
			bar.value = t.bytes;
		}
		far.textContent = size(t.bytes) + (t.total_bytes >= 0 ? " of " + size(t.total_bytes) : "");
		speed.textContent = rate(t.bytes_per_second);
	};
	tr.update(t);
	return tr;
}

function connectionRow(c) {
	const what = cell("do", button("End", c.name || c.remote, () => end(c)));
	if (c.client) what.append(button("Disable", c.name, () => disable(c.client, c.name)));
	return row(cell("", who(c.name, c.client)), cell("", c.remote + (c.tls ? ", TLS" : ", plain")), cell("few", moment(c.opened)), what);
}

function fileActions(f) {
	const what = cell("do");
	if (f.state === "verified") what.append(button("Download", f.path, () => download(f)));
	if (f.state === "verified" || f.state === "unverified" || f.state === "missing") what.append(button("Delete", f.path, () => remove(f)));
	return what;
}

function recentRow(f) {
	return row(cell("", name(f.path)), cell("", who(f.name, f.client)), cell("few", size(f.bytes)), cell("few", moment(f.received)), fileActions(f));
}

function fileRow(f) {
	return row(cell("", name(f.path)), cell("", who(f.name, f.client)), cell("few", size(f.bytes)), cell("few", f.state), fileActions(f));
}

function states(c) {
	const all = [c.disabled ? "disabled" : "served"];
	if (c.pinned) all.push("pinned");
	if (c.expires) all.push("until " + moment(c.expires));
	if (c.quota_bytes > 0) all.push("quota " + size(c.quota_bytes));
	if (c.quota_files > 0) all.push("quota " + c.quota_files + " files");
	return all.join(", ");
}

function clientRow(c) {
	const change = c.disabled ? button("Enable", c.name, () => enable(c.id)) : button("Disable", c.name, () => disable(c.id, c.name));
	return row(cell("", name(c.name), " ", element("span", "id", c.id.slice(0, 8))), cell("few", moment(c.seen)),
		cell("few", states(c)), cell("do", change));
}

function refusalRow(l) {
	const more = l.times > 1 ? element("span", "note", " and " + (l.times - 1) + " more") : "";
	return row(cell("few", moment(l.at)), cell("", l.message + (l.file ? " " : ""), l.file ? name(l.file) : "", more),
		cell("", l.client || l.name ? who(l.name, l.client) : l.remote), cell("", plain(String(l.reason || l.error || ""))));
}

// alike puts the lines about one client and one reason together, as the last of them. Numbers do
// not count: those in a reason change with each try.
function alike(lines) {
	const found = new Map();
	for (const l of lines) {
		const key = JSON.stringify([l.message, l.client || (l.remote || "").replace(/:\d+$/, ""), String(l.reason || l.error || "").replace(/\d+/g, "#")]);
		const last = found.get(key);
		if (last) last.times++;
		else found.set(key, {...l, key, times: 1});
	}
	return [...found.values()];
}

function waitingRow(w) {
	return row(cell("", name(w.target)), cell("few", String(w.count)), cell("few", w.oldest ? moment(w.oldest) : ""), cell("", plain(w.problem || "")),
		w.count ? cell("do", button("Retry", w.target, () => retry(w)), button("Forget", w.target, () => drop(w))) : cell("do"));
}

function partialRow(p) {
	return row(cell("", name(p.path)), cell("", who(p.name, p.client)), cell("few", size(p.bytes) + " of " + size(p.total_bytes)), cell("few", moment(p.changed)),
		p.deleted ? cell("few", "is removed") : cell("do", button("Delete", p.path, () => removePartial(p))));
}

// ---- What the stream tells ----

let frame = null, files = [], refusals = [], points = [], started = 0;

const tell = {
	frame(f) {
		if (started && f.started !== started) { // what comes next is of the new start alone, and may be nothing
			[files, refusals, points] = [[], [], []];
			for (const id of ["recent", "refusals"]) body(id).replaceChildren();
		}
		started = f.started;
		frame = f;
		stage(f);
		now(f);
		const transfers = [];
		for (const c of f.connections) for (const t of c.transfers || []) transfers.push({...t, id: c.id, client: c.client, name: c.name});
		transfers.sort((a, b) => a.began - b.began || (a.file < b.file ? -1 : 1));
		rows(body("transfers"), transfers, (t) => t.id + "\n" + t.file + "\n" + t.began, (t) => t.bytes + " " + t.bytes_per_second, transferRow);
		count("transfers", some(transfers.length, f.transfers_in_all));
		rows(body("connections"), f.connections, (c) => c.id, (c) => (c.name || "") + c.client, connectionRow);
		count("connections", some(f.connections.length, f.connections_in_all));
		$("waiting").hidden = f.waiting === null;
		rows(body("waiting"), f.waiting || [], (w) => w.target, (w) => JSON.stringify(w), waitingRow);
		$("limits").querySelector("dl").replaceChildren(...f.limits.map((l) => pair(l.name, l.value)));
		empties();
	},
	history(h) {
		points = points.concat(h.points).slice(-360);
		draw();
	},
	files(f) {
		files = f.files.reverse().concat(files).slice(0, 20);
		rows(body("recent"), files, (f) => f.client + "/" + f.path + "/" + f.version, () => "", recentRow);
		empties();
	},
	refusals(r) {
		refusals = r.lines.reverse().concat(refusals).slice(0, 100);
		rows(body("refusals"), alike(refusals).slice(0, 20), (l) => l.key, (l) => l.at + " " + l.times, refusalRow);
		empties();
	},
	log(l) { lines(l.lines); },
};

function some(shown, all) { return all > shown ? "(" + shown + " of " + all + ")" : all ? "(" + all + ")" : ""; }

function empties() {
	for (const note of document.querySelectorAll(".empty")) note.hidden = note.parentElement.querySelector("tbody").childElementCount > 0;
}

function stage(f) {
	const state = element("b", f.ready ? "" : "bad", f.ready ? "ready" : f.stage === "serving" ? "not ready" : f.stage);
	const why = f.reasons.filter((r) => r.reason !== f.stage).map((r) => r.reason.replaceAll("_", " ") + (r.detail ? ": " + plain(r.detail) : "")).join("; ");
	const key = state.textContent + why + f.version + f.started;
	if ($("stage").dataset.key === key) return; // or it would be read out each second
	$("stage").dataset.key = key;
	$("stage").replaceChildren(state, (why ? " (" + why + ")" : "") + ", " + f.version + ", since " + moment(f.started));
}

function pair(what, value, bad) { return element("div", "", element("dt", "", what), element("dd", bad ? "bad" : "", value)); }

function now(f) {
	const low = f.disk.free_bytes >= 0 && f.disk.free_bytes < 2 * f.disk.reserve_bytes;
	$("now").replaceChildren(
		pair("Receiving", rate(f.bytes_per_second)),
		pair("Uploads", String(f.transfers_in_all)),
		pair("Connections", String(f.connections_in_all)),
		pair("Files verified", String(f.totals.verified)),
		pair("Refused, failed", f.totals.refused + ", " + f.totals.failed, f.totals.failed > 0),
		...(f.disk.free_bytes < 0 && f.disk.reserve_bytes < 0 ? [] : [pair("Disk free", size(f.disk.free_bytes), low)]), // else the files are in a bucket
		pair("Memory", size(f.buffers.budget_bytes - f.buffers.free_bytes) + " of " + size(f.buffers.budget_bytes)),
	);
}

function lines(more) {
	const to = $("lines"), follow = $("follow").checked;
	for (const l of more) {
		const {level, at, message, part, ...rest} = l;
		const p = element("p", level === "info" ? "" : level, element("time", "", clock(at)), " ");
		if (level !== "info") p.append(level + " ");
		p.append(element("span", "", plain(message)));
		for (const [k, v] of Object.entries(rest)) p.append(" ", element("span", "key", plain(k) + "="), name(typeof v === "string" ? v : JSON.stringify(v)));
		to.append(p);
	}
	while (to.childElementCount > 500) to.firstElementChild.remove();
	if (follow) to.scrollTop = to.scrollHeight;
}

let plot = null;
const steps = Array.from({length: 40}, (_, i) => 2 ** (i + 7)); // of the axis of rates

function draw() {
	const box = $("chart"), style = getComputedStyle(document.documentElement), color = (v) => style.getPropertyValue(v).trim();
	const end = (points.length ? points.at(-1).at : Date.now()) / 1000;
	const data = [points.map((p) => p.at / 1000), points.map((p) => p.bytes_per_second)];
	const most = Math.max(0, ...data[1]);
	$("chart-text").textContent = points.length ? "At most " + rate(most) + "; " + rate(points.at(-1).bytes_per_second) + " at last." : "The first point comes 10 seconds after the start.";
	if (plot) plot.destroy();
	const axis = {stroke: color("--quiet"), grid: {stroke: color("--line"), width: 1}, ticks: {show: false}, font: "12px system-ui, sans-serif"};
	plot = new uPlot({
		width: box.clientWidth, height: 170, legend: {show: false}, cursor: {show: false}, select: {show: false},
		scales: {x: {range: [end - 3600, end]}, y: {range: [0, Math.max(1024, most * 1.1)]}},
		axes: [{...axis, values: (_, v) => v.map((s) => clock(s * 1000).replace(/:00(?=\D*$)/, ""))}, {...axis, size: 80, incrs: steps, values: (_, v) => v.map((n) => rate(n))}],
		series: [{}, {stroke: color("--mark"), width: 1.5, points: {show: points.length < 4}}],
	}, data, box);
}

// ---- Lists that are asked for ----

const lists = {
	clients: {path: "clients", of: (r) => r.clients, after: (c) => c.name, key: (c) => c.id, row: clientRow, all: []},
	files: {path: "files", of: (r) => r.files, after: (f) => f.client + "/" + f.path, key: (f) => f.client + "/" + f.path + "/" + f.version + f.state, row: fileRow, all: []},
	partials: {path: "partials", of: (r) => r.partials, after: (p) => p.client + "/" + p.path, key: (p) => p.client + "/" + p.path + "/" + p.version, row: partialRow, all: []},
};

async function load(id, anew) {
	const l = lists[id], last = anew ? null : l.all.at(-1);
	try {
		const r = await api.get(l.path, last ? {after: l.after(last)} : {});
		l.all = (anew ? [] : l.all).concat(l.of(r));
		rows(body(id), l.all, l.key, (x) => JSON.stringify(x), l.row);
		$(id).querySelector(".more").hidden = !r.more;
		empties();
	} catch (e) {
		problem("The list failed: " + e.message);
	}
}

function renew(id) { if ($(id).querySelector("details").open) setTimeout(load, 700, id, true); }

// ---- With and without a server ----

let watching = null;

async function watch() {
	const mine = watching = new AbortController();
	let gone = 0, told = false;
	while (!mine.signal.aborted) {
		try {
			await api.watch((event, data) => {
				if (!told && event === "frame") {
					told = true;
					$("entry").hidden = true;
					$("live").hidden = $("leave").hidden = false;
					if (gone) {
						$("notice").replaceChildren();
						say("The server is back" + (data.started !== started ? "; it was started anew." : "."));
						document.body.removeAttribute("data-gone");
						for (const id in lists) renew(id);
					}
					$("lines").replaceChildren();
					[files, refusals, points] = [[], [], []];
					gone = 0;
				}
				tell[event]?.(data);
			}, mine.signal);
		} catch (e) {
			if (mine.signal.aborted) return;
			if (e instanceof Refused && (e.status === 401 || e.status === 403)) return enter(e);
			if (e instanceof Refused) problem(e.message);
		}
		if (mine.signal.aborted) return;
		told = false;
		if (!gone) {
			gone = Date.now();
			$("notice").textContent = "The server has not answered since " + clock(gone) + ". What is below is from before; the page goes on by itself when the server is back.";
			document.body.dataset.gone = "";
			$("stage").dataset.key = "";
			$("stage").replaceChildren(element("b", "bad", "gone"));
		}
		await new Promise((wake) => setTimeout(wake, 1000));
	}
}

// enter asks for the token.
function enter(why) {
	watching?.abort();
	$("live").hidden = $("leave").hidden = true;
	$("notice").replaceChildren();
	$("stage").replaceChildren();
	$("stage").dataset.key = "";
	$("entry").hidden = false;
	$("form").hidden = why?.status === 403;
	$("entry-error").textContent = "";
	if (why?.status === 403) $("entry-error").textContent = "";
	if (why?.status === 403) $("notice").textContent = why.message + ". Nobody is shown names of clients and files without it.";
	else if (api.token) $("entry-error").textContent = "That is not the token of this server.";
	api.token = "";
	if (!$("form").hidden) $("token").focus();
}

$("form").addEventListener("submit", (e) => {
	e.preventDefault();
	api.token = $("token").value.trim();
	$("token").value = "";
	watch();
});
$("leave").addEventListener("click", () => {
	watching?.abort();
	api.token = "";
	location.reload();
});
for (const id in lists) {
	$(id).querySelector("details").addEventListener("toggle", (e) => { if (e.target.open) load(id, true); });
	$(id).querySelector(".more").addEventListener("click", () => load(id, false));
}
$("follow").addEventListener("change", () => { if ($("follow").checked) $("lines").scrollTop = $("lines").scrollHeight; });
new ResizeObserver(() => { if (!$("live").hidden) draw(); }).observe($("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (!$("live").hidden) draw(); });
watch(); // where no token is needed, or one is kept
