"use strict";
// What the live pages share: the theme that the atlas keeps, and small elements.
(function () {
  try {
    const kept = localStorage.getItem("transferscope-theme");
    if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  } catch (denied) { /* the system's */ }

  // An element with text, never markup: names are data.
  window.made = function (tag, text, values) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    return Object.assign(element, values);
  };
})();
