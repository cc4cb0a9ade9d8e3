"use strict";
// Keeps the page up to date (the server sends HTML of the parts that changed), and listens to keys.
// Everything else works without it.
(() => {
  const state = document.getElementById("state");
  const say = (kind, text) => {
    if (state) { state.dataset.state = kind; state.textContent = text; }
  };

  // -- parts that change ------------------------------------------------------------------------------
  const keyOf = (node) => (node.nodeType === 1 ? node.id || node.getAttribute("data-key") || "" : "");
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  const KEPT = { DETAILS: ["open"], DIALOG: ["open"] };

  function attributes(from, to) {
    const kept = KEPT[from.nodeName] || [];
    for (const { name, value } of [...to.attributes]) {
      if (!kept.includes(name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !kept.includes(name) && name !== "data-on") from.removeAttribute(name);
    }
  }

  // Changes only what differs, so that focus, selections, ticks and opened details stay.
  function morph(from, to) {
    if (from.nodeType === 3) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.nodeType !== 1) return;
    attributes(from, to);
    if (["INPUT", "SELECT", "TEXTAREA"].includes(from.nodeName)) return;
    const keyed = new Map();
    for (const child of from.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let here = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const known = keyOf(wanted) && keyed.get(keyOf(wanted));
      if (known && known !== here && known.nodeName === wanted.nodeName) {
        from.insertBefore(known, here);
        morph(known, wanted);
      } else if (here && alike(here, wanted)) {
        const next = here.nextSibling;
        morph(here, wanted);
        here = next;
      } else {
        from.insertBefore(document.importNode(wanted, true), here);
      }
    }
    while (here) {
      const next = here.nextSibling;
      here.remove();
      here = next;
    }
  }

  function show(parts) {
    for (const [id, html] of Object.entries(parts)) {
      const there = document.getElementById(id);
      if (!there) continue;
      const template = new DOMParser().parseFromString("<body>" + html + "</body>", "text/html").body;
      const box = there.cloneNode(false);
      box.append(...template.childNodes);
      morph(there, box);
    }
    equip();
  }

  // -- the stream -------------------------------------------------------------------------------------
  let source = null;
  let again = 1000;
  const live = document.body.dataset.live;

  function open() {
    if (!live || source || document.hidden) return;
    source = new EventSource(live);
    source.addEventListener("parts", (event) => {
      again = 1000;
      say("live", "live");
      show(JSON.parse(event.data));
    });
    source.addEventListener("trouble", (event) => {
      if (event.data) say("lost", event.data);
      else say("live", "live");
    });
    source.onopen = () => say("live", "live");
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) { // refused: try again, ever more seldom
        source = null;
        setTimeout(open, again);
        again = Math.min(30000, again * 2);
      }
      say("lost", "connection lost");
    };
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); say("paused", "paused"); } else open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);

  // -- buttons that need this script ------------------------------------------------------------------
  const mark = document.body.dataset.mark || ""; // parts are drawn for all who look, forms are for one

  function equip() {
    for (const input of document.querySelectorAll("input[name=mark]")) if (input.value !== mark) input.value = mark;
    for (const button of document.querySelectorAll("[data-copy][hidden], [data-all][hidden]")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const box = button.parentElement.querySelector("pre, code");
    try {
      await navigator.clipboard.writeText(box.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(box);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-all]")) {
      for (const each of document.querySelectorAll('input[name="run"]')) each.checked = box.checked;
    }
  });

  // -- keys -------------------------------------------------------------------------------------------
  const help = document.getElementById("help");
  const WAYS = { o: "/", r: "/runs", w: "/workers", f: "/flows", s: "/schedules" };
  let before = "";

  function rows() {
    return [...document.querySelectorAll("tr[data-row]")];
  }

  function move(by) {
    const all = rows();
    if (!all.length) return;
    const now = all.findIndex((row) => row.contains(document.activeElement));
    const next = all[Math.max(0, Math.min(all.length - 1, now < 0 ? (by > 0 ? 0 : all.length - 1) : now + by))];
    const link = next.querySelector("a");
    if (link) { link.focus(); next.scrollIntoView({ block: "nearest" }); }
  }

  function follow(selector) {
    const link = document.querySelector(selector);
    if (link) link.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing || (help && help.open && event.key !== "?")) return;
    const key = event.key;
    if (before === "g" && WAYS[key]) location.assign(WAYS[key]);
    else if (key === "?") { if (help.open) help.close(); else help.showModal(); }
    else if (key === "j") move(1);
    else if (key === "k") move(-1);
    else if (key === "n") follow("a[rel=next]");
    else if (key === "p") follow("a[rel=prev]");
    else if (key === "u") follow("[data-up]");
    else if (key === "x") {
      const box = document.activeElement.closest("tr")?.querySelector("input[name=run]");
      if (box) box.checked = !box.checked;
    } else if (key === "/") {
      const field = document.querySelector(".filters input, .filters select");
      if (!field) return;
      field.focus();
      event.preventDefault();
    }
    before = key === "g" ? "g" : "";
  });
  for (const button of document.querySelectorAll("[data-help]")) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  }

  equip();
  open();
})();
