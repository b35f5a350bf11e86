"use strict";
// Asks the server how far the run is, and shows it; channels appear as they are drawn in both networks.
(function () {
  const OFTEN = 2000, SELDOM = 10000;
  const said = document.getElementById("said"), bar = document.getElementById("bar");
  const epochs = document.getElementById("epochs"), units = document.getElementById("units");
  const drawn = new Map();
  let before = "";

  function percent(share) { return (100 * share).toFixed(1) + "%"; }

  function picture(unit, network) {
    return made("img", undefined, {
      src: "/live/drawings/" + unit.keys[network] + ".webp", loading: "lazy", width: 128, height: 128,
      alt: unit.layer + " channel " + unit.channel + ", " + network,
    });
  }

  function show(state) {
    const lines = state.progress.sentences.map(function (line) { return made("p", line); });
    if (state.progress.phase === "idle") lines.push(made("p", "Nothing is being tuned or compared in this run."));
    if (state.atlas.error) lines.push(made("p", "The atlas was not written: " + state.atlas.error));
    if (state.atlas.writing) lines.push(made("p", "The atlas is being written anew."));
    else if (state.atlas.there) {
      const line = made("p");
      line.append(made("a", "Open the atlas", { href: "/" }));
      lines.push(line);
    }
    const now = lines.map(function (line) { return line.textContent; }).join("\n");
    if (now !== before) said.replaceChildren(...lines);  // or a screen reader would say it every time
    before = now;
    bar.hidden = !state.progress.of;
    bar.max = state.progress.of || 1;
    bar.value = state.progress.done;
    epochs.hidden = !state.progress.epochs.length;
    epochs.querySelector("tbody").replaceChildren(...state.progress.epochs.map(function (row) {
      const line = made("tr");
      line.append(made("td", row.epoch), made("td", percent(row.top1)), made("td", row.best ? "best so far" : ""));
      return line;
    }));
    const list = units.querySelector("ol");
    state.progress.units.forEach(function (unit) {
      const place = unit.layer + " " + unit.channel;
      if (drawn.has(place)) return;
      const item = made("li");
      item.append(picture(unit, "base"), picture(unit, "tuned"), made("span", place));
      drawn.set(place, item);
      list.prepend(item);
    });
    units.hidden = !drawn.size;
  }

  async function ask() {
    let next = SELDOM;
    try {
      const answer = await fetch("/live/state.json");
      if (!answer.ok) throw new Error("it answers " + answer.status);
      const state = await answer.json();
      show(state);
      next = state.progress.phase === "idle" && !state.atlas.writing ? SELDOM : OFTEN;
    } catch (error) {
      before = "";
      said.replaceChildren(made("p", "The server does not answer (" + error.message + "); is it still running?"));
    }
    setTimeout(ask, next);
  }
  ask();
})();
