"use strict";
// Theme, order of a layer's drawings and channels, arrow keys. The pages work without it.
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

  // The map of pictures: point at a dot to see its picture and its twin; press classes to pick them out.
  function maps(map) {
    const dots = Array.from(map.querySelectorAll("svg.map circle"));
    const buttons = Array.from(map.querySelectorAll(".map-classes button"));
    const names = Array.from(document.querySelectorAll("#map-names li"), function (one) { return one.textContent; });
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
      told.textContent = classOf.get(dot.dataset.c) + (names[i] ? " · " + names[i] : "");
      if (!sheet) return;
      const tile = Number(sheet.dataset.tile), columns = Number(sheet.dataset.columns);
      shown.hidden = false;
      shown.style.backgroundImage = 'url("' + sheet.getAttribute("href") + '")';
      shown.style.backgroundPosition = -(i % columns) * tile + "px " + -Math.floor(i / columns) * tile + "px";
    }
    ["pointerover", "click"].forEach(function (kind) {
      map.addEventListener(kind, function (event) {
        const dot = event.target.closest("svg.map circle");
        if (dot) point(dot);
      });
    });
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

    document.querySelectorAll(".tools").forEach(function (tools) {
      const list = document.getElementById(tools.dataset.of);
      const sort = tools.querySelector("select");
      const only = tools.querySelector("input");
      const items = Array.from(list.children);
      function arrange() {
        const key = sort.value;
        const sign = key === "index" ? 1 : -1;
        function value(item) {
          const text = item.dataset[key];
          return text && Number.isFinite(Number(text)) ? sign * Number(text) : Infinity;
        }
        items.sort(function (a, b) {
          const x = value(a), y = value(b);
          return x === y ? a.dataset.index - b.dataset.index : x < y ? -1 : 1;
        });
        items.forEach(function (item) {
          item.hidden = only !== null && only.checked && item.dataset.found !== "1";
        });
        list.append(...items);
      }
      sort.addEventListener("change", arrange);
      if (only) only.addEventListener("change", arrange);
      tools.hidden = false;
      arrange();
    });

    const map = document.getElementById("map");
    if (map) maps(map);

    document.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (event.target.closest("input, select, textarea, .scroll")) return;
      const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
      const link = way && document.querySelector('link[rel="' + way + '"]');
      if (link) location.href = link.href;
    });

    if (page.dataset.atlas !== "error") page.dataset.atlas = "ready";
  });
})();
