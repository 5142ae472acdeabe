// Puts what is new in the place of what is shown, every two seconds. Rows stay the
// elements that they are: what is open stays open, what has the focus keeps it, and the
// page stays where it was scrolled to. Without this script all of the page is there; it
// only stands still.
"use strict";
(() => {
	const every = 2000, patience = 5000, mostOpen = 50;
	const list = document.getElementById("partitions");
	const link = document.getElementById("link");
	const pause = document.getElementById("pause");
	let timer = 0, asking = null, answered = new Date();

	const rows = (root) => [...root.querySelectorAll("details.partition")];
	const paused = () => pause.getAttribute("aria-pressed") === "true";

	// address asks for all there is of the partitions that are open, and for the rows.
	function address() {
		const open = rows(list).filter((row) => row.open);
		const query = new URLSearchParams();
		if (open.length <= mostOpen) {
			query.append("rows", "");
			open.forEach((row) => query.append("open", row.id));
		}
		return location.pathname + "?" + query;
	}

	// put gives an element what another has, if that is something else.
	function put(into, from) {
		if (into.innerHTML !== from.innerHTML) into.replaceChildren(...from.childNodes);
	}

	function update(next) {
		document.title = next.title;
		for (const part of document.querySelectorAll("[data-live]")) {
			const now = next.getElementById(part.id);
			if (now) put(part, now);
		}
		// Nothing moves away under a pointer, a finger or the focus, or from what is read.
		const still = list.matches(":hover, :focus-within") || list.querySelector("[open]");
		const gone = new Map(rows(list).map((row) => [row.id, row]));
		const order = rows(next).map((now) => {
			const row = gone.get(now.id);
			gone.delete(now.id);
			if (!row) return now;
			row.className = now.className;
			put(row.querySelector("summary"), now.querySelector("summary"));
			const body = row.querySelector(".body"), newBody = now.querySelector(".body");
			if (body && newBody) put(body, newBody);
			else if (newBody) row.append(newBody);
			return row;
		});
		gone.forEach((row) => row.remove());
		order.forEach((row, i) => {
			const wrong = still ? row.parentNode !== list : list.children[i] !== row;
			if (wrong) list.insertBefore(row, list.children[i] || null);
		});
	}

	function selecting() {
		const chosen = getSelection();
		return chosen && !chosen.isCollapsed;
	}

	async function refresh() {
		clearTimeout(timer);
		asking?.abort();
		const mine = asking = new AbortController();
		const late = setTimeout(() => mine.abort(), patience);
		try {
			const answer = await fetch(address(), { cache: "no-store", signal: mine.signal });
			if (!answer.ok) throw new Error(answer.statusText);
			const text = await answer.text();
			if (mine !== asking) return;
			if (!selecting()) update(new DOMParser().parseFromString(text, "text/html"));
			answered = new Date();
			say("");
		} catch {
			if (mine !== asking) return; // a later one has been asked
			say("No answer since " + answered.toISOString().slice(11, 19) + " UTC");
		} finally {
			clearTimeout(late);
			if (mine === asking) {
				asking = null;
				plan();
			}
		}
	}

	function say(trouble) {
		document.body.classList.toggle("stale", trouble !== "");
		if (link.textContent !== trouble) link.textContent = trouble;
	}

	function plan() {
		clearTimeout(timer);
		if (!paused() && !document.hidden) timer = setTimeout(refresh, every);
	}

	pause.addEventListener("click", () => {
		pause.setAttribute("aria-pressed", String(!paused()));
		if (paused()) clearTimeout(timer);
		else refresh();
	});
	// What is behind a row that was closed is old, or not there at all.
	list.addEventListener("toggle", (event) => {
		if (event.target.open && (!paused() || !event.target.querySelector(".body"))) refresh();
	}, true);
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) clearTimeout(timer);
		else if (!paused()) refresh();
	});
	pause.hidden = false;
	plan();
})();
