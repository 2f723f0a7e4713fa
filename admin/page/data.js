"use strict";
// The server's API, with the token, which is kept for this tab alone and goes nowhere but
// into the header of requests to where the page came from.

const isoTime = /^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/;
const timeKeys = new Set(["now", "started", "opened", "began", "seen", "received", "at", "oldest", "expires", "changed"]);

// moments makes milliseconds of points in time.
function moments(key, v) { return timeKeys.has(key) && typeof v === "string" && isoTime.test(v) ? Date.parse(v) : v; }

class Refused extends Error {
	constructor(status, text) {
		super(text);
		this.status = status;
	}
}

const api = {
	get token() { return sessionStorage.getItem("token") || ""; },
	set token(t) { t ? sessionStorage.setItem("token", t) : sessionStorage.removeItem("token"); },

	async ask(path, options = {}) {
		const headers = {...options.headers};
		if (this.token) headers.Authorization = "Bearer " + this.token;
		const r = await fetch("/api/v1/" + path, {...options, headers, cache: "no-store", credentials: "omit", redirect: "error"});
		if (r.ok) return r;
		const text = await r.text();
		let error = text.trim();
		try { error = JSON.parse(text).error; } catch { /* it is plain */ }
		throw new Refused(r.status, error);
	},

	async get(path, query = {}) { return JSON.parse(await (await this.ask(path + "?" + new URLSearchParams(query))).text(), moments); },

	async act(path, body) {
		return (await this.ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)})).json();
	},

	// watch calls tell(event, data) for each event of the stream until that ends.
	async watch(tell, signal) {
		const silence = new AbortController();
		const stop = () => silence.abort();
		signal.addEventListener("abort", stop);
		let timer = setTimeout(stop, 6000); // a frame comes each second
		try {
			const r = await this.ask("stream", {signal: silence.signal});
			const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
			for (let text = ""; ;) {
				const {value, done} = await reader.read();
				if (done) return;
				clearTimeout(timer);
				timer = setTimeout(stop, 6000);
				text += value;
				for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
					const m = /^event: (.*)\ndata: (.*)$/.exec(text.slice(0, end));
					if (m) tell(m[1], JSON.parse(m[2], moments));
				}
			}
		} finally {
			clearTimeout(timer);
			signal.removeEventListener("abort", stop);
		}
	},
};
