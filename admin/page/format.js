"use strict";
// What people are shown of numbers, times and names. Names are anybody's: they become text,
// never markup, and each is kept apart from its neighbours, however it is written.

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

function size(n) {
	if (n < 0) return "not known";
	let unit = 0;
	for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
	return (unit === 0 || n >= 100 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)) + " " + units[unit];
}

function rate(n) { return size(Math.round(n)) + "/s"; }

function clock(ms) { return new Date(ms).toLocaleTimeString(); }

function moment(ms) {
	if (!ms) return "never";
	const d = new Date(ms), today = new Date().toDateString() === d.toDateString();
	return today ? d.toLocaleTimeString() : d.toLocaleString();
}

// Control characters, and those that turn the direction of text or cannot be seen.
const odd = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;

// name shows what a client calls something.
function name(text) {
	const shown = document.createElement("bdi");
	let from = 0;
	for (const m of text.matchAll(odd)) {
		shown.append(text.slice(from, m.index), element("span", "odd", "\\u{" + m[0].codePointAt(0).toString(16) + "}"));
		from = m.index + m[0].length;
	}
	shown.append(text.slice(from));
	return shown;
}

function plain(text) { return text.replace(odd, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}"); }

function element(tag, kind, ...children) {
	const e = document.createElement(tag);
	if (kind) e.className = kind;
	e.append(...children);
	return e;
}

function button(text, about, act) {
	const b = element("button", "", text);
	b.type = "button";
	b.setAttribute("aria-label", text + ": " + plain(about));
	b.addEventListener("click", act);
	return b;
}

function cell(kind, ...children) { return element("td", kind, ...children); }

// rows has the body of a table show a list. Rows that stay are kept as they are, and so is
// what has the focus: only what is new or changed is touched.
function rows(body, list, key, text, make) {
	const old = new Map();
	for (const tr of [...body.children]) old.set(tr.dataset.key, tr);
	let at = body.firstElementChild;
	for (const item of list) {
		const k = key(item), t = text(item);
		let tr = old.get(k);
		old.delete(k);
		if (tr && tr.dataset.text !== t && tr.update) {
			tr.update(item);
			tr.dataset.text = t;
		} else if (!tr || tr.dataset.text !== t) {
			const next = make(item);
			next.dataset.key = k;
			next.dataset.text = t;
			if (tr) {
				if (at === tr) at = tr.nextElementSibling;
				tr.remove();
			}
			tr = next;
		}
		if (tr === at) at = at.nextElementSibling;
		else body.insertBefore(tr, at);
	}
	for (const tr of old.values()) tr.remove();
}
