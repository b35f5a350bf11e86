"use strict";
// Theme, search, blink, order of a layer's drawings and channels, keys. The pages work without it.
(function () {
  const page = document.documentElement;
  window.addEventListener("error", function () { page.dataset.atlas = "error"; });

  function stored() {
    try { return localStorage.getItem("transferscope-theme"); } catch (denied) { return null; }
  }
  function store(theme) {
    try { localStorage.setItem("transferscope-theme", theme); } catch (denied) { /* this page only */ }
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  function dark() {
    return page.dataset.theme ? page.dataset.theme === "dark" : system.matches;
  }
  const kept = stored();
  if (kept === "dark" || kept === "light") page.dataset.theme = kept;

  // Both drawings of a channel in one place, in turn; with reduced motion a press turns once.
  function blink() {
    const pair = document.getElementById("pair"), button = pair && pair.querySelector(".blink");
    const sides = pair ? Array.from(pair.querySelectorAll(".side.large img")) : [];
    if (sides.length !== 2) return null;
    const [base, tuned] = sides, own = base.src, alt = base.alt;
    let clock = 0;
    button.hidden = false;
    function show(other) {
      base.src = other ? tuned.src : own;
      base.alt = other ? tuned.alt : alt;
      base.closest(".side").className = "side large " + (other ? "tuned" : "base");
    }
    function turned() { return base.src !== own; }
    function turn() {
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) show(!turned());
      else if (clock) { clearInterval(clock); clock = 0; show(false); }
      else { show(true); clock = setInterval(function () { show(!turned()); }, 700); }
      button.setAttribute("aria-pressed", String(clock !== 0 || turned()));
    }
    button.addEventListener("click", turn);
    return turn;
  }

  // The index is a script of its own, read when it is first asked for.
  function search() {
    const dialog = document.getElementById("search"), hits = document.getElementById("hits");
    const wanted = document.getElementById("wanted"), button = document.getElementById("find");
    if (!button) return null;
    let entries = window.atlasIndex || null;  // there already in a single file
    function list() {
      const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = (entries || []).filter(function (entry) {
        const parts = entry[0].toLowerCase();
        return words.length > 0 && words.every(function (word) { return parts.includes(word); });
      });
      const exact = words.join(" ");
      found.sort(function (a, b) { return (b[0].toLowerCase() === exact) - (a[0].toLowerCase() === exact); });
      hits.replaceChildren(...found.slice(0, 12).map(function (entry, place) {
        const item = document.createElement("li"), link = document.createElement("a");
        link.textContent = entry[0];
        link.href = page.dataset.root + entry[1];
        if (place === 0) item.className = "first";
        item.append(link);
        return item;
      }));
    }
    function open() {
      dialog.showModal();
      if (entries) return list();
      const script = document.createElement("script");
      script.src = page.dataset.root + "assets/index.js";
      script.addEventListener("load", function () { entries = window.atlasIndex; list(); });
      document.head.append(script);
    }
    wanted.addEventListener("input", list);
    wanted.addEventListener("keydown", function (event) {
      const first = hits.querySelector("a");
      if (event.key === "Enter" && first) first.click();
      if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
    });
    hits.addEventListener("click", function () { dialog.close(); });
    button.hidden = false;
    button.addEventListener("click", open);
    return open;
  }

  // Of many rows, only those in sight are in the document; returns a function that shows other rows.
  // What is printed, and what an address asks for, is there all the same.
  const FEW = 60;
  function windowed(list, every) {
    if (every.length <= FEW) {
      return function (items) {
        every.forEach(function (item) { item.hidden = true; });
        items.forEach(function (item) { item.hidden = false; });
        list.append(...items, ...every.filter(function (item) { return item.hidden; }));
      };
    }
    const table = list.tagName === "TBODY", scroller = table ? list.closest(".scroll") : null;
    const [above, below] = ["above", "below"].map(function (name) {
      const space = document.createElement(table ? "tr" : "li");
      space.className = "space " + name;
      space.setAttribute("aria-hidden", "true");
      return space;
    });
    let items = [], pitch = 0, columns = 1, from = -1, to = -1, whole = false;
    function measure() {
      from = to = -1;
      columns = table ? 1 : getComputedStyle(list).gridTemplateColumns.split(" ").length;
      list.replaceChildren(...items.slice(0, columns + 1));
      pitch = items.length > columns ? items[columns].offsetTop - items[0].offsetTop : 1;
    }
    function draw() {
      if (whole) return;
      const rows = Math.ceil(items.length / columns), top = (scroller || list).getBoundingClientRect().top;
      const gone = scroller ? scroller.scrollTop : -top, room = scroller ? scroller.clientHeight : innerHeight;
      const first = Math.max(0, Math.min(rows - 1, Math.floor(gone / pitch)));
      const last = Math.max(first, Math.min(rows, Math.ceil((gone + room) / pitch)));
      if (first === from && last === to) return;
      from = first;
      to = last;
      above.style.height = first * pitch + "px";
      below.style.height = (rows - last) * pitch + "px";
      list.replaceChildren(above, ...items.slice(first * columns, last * columns), below);
    }
    function reveal() {
      const id = decodeURIComponent(location.hash.split("#").pop());  // a single file's has the page before it
      const place = id ? items.findIndex(function (item) { return item.querySelector("#" + CSS.escape(id)); }) : -1;
      if (place < 0) return;
      const down = Math.floor(place / columns) * pitch;
      if (scroller) { scroller.scrollTop = down - pitch; scroller.scrollIntoView(); }
      else scrollTo(0, down + list.offsetTop);
      draw();
      const target = document.getElementById(id);
      if (target) target.classList.add("here");
    }
    (scroller || window).addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", function () { measure(); draw(); });
    addEventListener("beforeprint", function () { whole = true; list.replaceChildren(...items); });
    addEventListener("afterprint", function () { whole = false; from = -1; draw(); });
    addEventListener("hashchange", reveal);
    return function (next) {
      items = next;
      measure();
      draw();
      reveal();
    };
  }

  // What lists are set to stands in the address, `#channels-found=learned`; a single file's has the page before it.
  function settings() {
    const [, before, own] = /^(#[^#]*\.html(?=#|$))?#?(.*)$/.exec(location.hash);
    return [before || "", new URLSearchParams(own.includes("=") ? own : "")];
  }

  // The order of a list, and which of its items are shown: those that have what every select but `order` names.
  function arranged(tools) {
    const list = document.getElementById(tools.dataset.of), items = Array.from(list.children);
    const selects = Array.from(tools.querySelectorAll("select")), count = tools.querySelector("output");
    const filters = selects.filter(function (one) { return one.name !== "order"; });
    const order = selects.find(function (one) { return one.name === "order"; });
    const view = windowed(list, items);
    function arrange() {
      const key = order.value, sign = key === "index" ? 1 : -1;
      function value(item) {
        const text = item.dataset[key];
        return text && Number.isFinite(Number(text)) ? sign * Number(text) : Infinity;
      }
      items.sort(function (a, b) {
        const x = value(a), y = value(b);
        return x === y ? a.dataset.index - b.dataset.index : x < y ? -1 : 1;
      });
      const found = items.filter(function (item) {
        return filters.every(function (one) {
          return !one.value || item.dataset[one.name].split(" ").includes(one.value);
        });
      });
      count.textContent = found.length + " of " + items.length;
      view(found);
    }
    function restore() {
      const kept = settings()[1];
      selects.forEach(function (one) {
        const wanted = kept.get(tools.dataset.of + "-" + one.name);
        const option = Array.from(one.options).find(function (other) { return other.value === wanted; });
        one.value = (option || one.options[0]).value;
      });
      arrange();
    }
    selects.forEach(function (one) {
      one.addEventListener("change", function () {
        const [before, kept] = settings(), name = tools.dataset.of + "-" + one.name;
        if (one.selectedIndex) kept.set(name, one.value);
        else kept.delete(name);
        const own = String(kept);
        history.replaceState(null, "", before + (own ? "#" + own : "") || location.pathname + location.search);
        arrange();
      });
    });
    addEventListener("hashchange", restore);
    tools.hidden = false;
    restore();
  }

  // The map of pictures: point at a dot to see its picture and its twin; press classes to pick them out.
  function maps(map) {
    const dots = Array.from(map.querySelectorAll("svg.map circle"));
    const buttons = Array.from(map.querySelectorAll(".map-classes button"));
    const names = Array.from(document.querySelectorAll("#map-names li"));
    const classOf = new Map(buttons.map(function (one) { return [one.dataset.c, one.textContent]; }));
    const shown = map.querySelector(".map-picture"), told = map.querySelector(".map-name");
    const sheet = map.querySelector(".map-sheet");
    let here = [];
    function point(dot) {
      here.forEach(function (one) { one.classList.remove("here"); });
      const i = dot.dataset.i;
      here = dots.filter(function (one) { return one.dataset.i === i; });
      here.forEach(function (one) { one.classList.add("here"); });
      map.classList.add("pointed");
      told.textContent = classOf.get(dot.dataset.c) + (names[i] && names[i].textContent ? " · " : "");
      if (names[i]) told.append(...names[i].cloneNode(true).childNodes);
      if (!sheet) return;
      const tile = Number(sheet.dataset.tile), columns = Number(sheet.dataset.columns);
      shown.hidden = false;
      shown.style.backgroundImage = 'url("' + sheet.getAttribute("href") + '")';
      shown.style.backgroundPosition = -(i % columns) * tile + "px " + -Math.floor(i / columns) * tile + "px";
    }
    ["pointerover", "click"].forEach(function (kind) {
      map.addEventListener(kind, function (event) {
        const dot = event.target.closest("svg.map circle");
        if (!dot) return;
        point(dot);
        const link = told.querySelector("a");
        if (link && kind === "click" && event.pointerType === "mouse") link.click();
      });
    });
    function asked() {
      const place = /#dot-(\d+)$/.exec(location.hash);  // behind the page's name in a single file
      const dot = place && dots.find(function (one) { return one.dataset.i === place[1]; });
      if (dot) point(dot);
    }
    addEventListener("hashchange", asked);
    asked();
    buttons.forEach(function (button) {
      button.addEventListener("click", function () {
        button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
        const picked = buttons.filter(function (one) { return one.getAttribute("aria-pressed") === "true"; })
          .map(function (one) { return one.dataset.c; });
        map.classList.toggle("picked", picked.length > 0);
        dots.forEach(function (one) { one.classList.toggle("on", picked.includes(one.dataset.c)); });
      });
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    const button = document.getElementById("theme");
    function label() { button.textContent = dark() ? "Light" : "Dark"; }
    button.hidden = false;
    label();
    system.addEventListener("change", label);
    button.addEventListener("click", function () {
      page.dataset.theme = dark() ? "light" : "dark";
      store(page.dataset.theme);
      label();
    });

    document.querySelectorAll(".tools").forEach(arranged);

    const map = document.getElementById("map");
    if (map) maps(map);

    const turn = blink();
    const find = search();
    const keys = document.getElementById("keys");
    document.querySelectorAll(".hint").forEach(function (one) { one.hidden = false; });
    document.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.target.closest("input, select, textarea, dialog, .scroll")) return;
      const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
      const link = way && !event.shiftKey && document.querySelector('link[rel="' + way + '"]');
      if (link) location.href = link.href;
      else if (event.key === "b" && turn) turn();
      else if (event.key === "t") button.click();
      else if (event.key === "?") keys.showModal();
      else if (event.key === "/" && find) { event.preventDefault(); find(); }
    });

    if (page.dataset.atlas !== "error") page.dataset.atlas = "ready";
  });
})();
