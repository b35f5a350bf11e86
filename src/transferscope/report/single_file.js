"use strict";
// Puts the page that the address names into the document; its scripts then run as they do in the atlas.
(function () {
  const table = document.getElementById("pictures"), pictures = JSON.parse(table.textContent);
  const mark = new RegExp(table.dataset.mark + "(\\d+)~", "g");
  const main = document.getElementById("main");
  function asked() {
    const [page, fragment] = decodeURI(location.hash.slice(1)).split("#");
    return [page || "index.html", fragment];
  }
  function template(page) {
    return Array.from(document.querySelectorAll("template[data-page]"))
      .find(function (one) { return one.dataset.page === page; });
  }
  function reach() {
    const fragment = asked()[1], target = fragment && document.getElementById(fragment);
    if (target) target.scrollIntoView();
  }
  const [page] = asked(), found = template(page) || template("left-out");
  history.scrollRestoration = "manual";
  document.title = found.dataset.title;
  main.innerHTML = found.innerHTML.replace(mark, function (whole, number) { return pictures[number] || ""; });
  if (page === "index.html" && template("left-out").content.querySelector("li")) {
    const note = document.createElement("p"), link = document.createElement("a");
    link.href = "#left-out";
    link.textContent = "Some pages of channels are left out of this file.";
    note.append(link);
    main.prepend(note);
  }
  document.querySelectorAll("nav a").forEach(function (link) {
    if (link.getAttribute("href") === "#" + page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  found.dataset.scripts.split(" ").forEach(function (number) {
    const text = document.querySelector('script[data-script="' + number + '"]');
    const script = document.createElement("script");
    script.textContent = text ? text.textContent : "";
    document.head.append(script);
  });
  // An address within the page keeps the page's name before it.
  document.addEventListener("click", function (event) {
    const link = event.target.closest("a"), own = link && (link.getAttribute("href") || "").slice(1);
    if (!own || template(own.split("#")[0]) || !document.getElementById(own)) return;
    event.preventDefault();
    location.hash = page + "#" + own;
  });
  addEventListener("hashchange", function () {
    if (asked()[0] === page) reach();
    else location.reload();
  });
  addEventListener("load", reach);
})();
