"use strict";
// Sends a picture to this machine's server and shows what it answers.
(function () {
  const drop = document.getElementById("drop");
  if (!drop) return;
  const file = document.getElementById("file"), said = document.getElementById("said");
  const buttons = Array.from(document.querySelectorAll("[data-ask]"));
  let picture = null, asked = 0;

  // The server's answer, or null after saying why there is none.
  async function ask(what, query) {
    const number = ++asked;
    said.textContent = { predict: "Predicting …", explain: "Explaining, some seconds …", attack: "Attacking, some seconds …" }[what];
    buttons.forEach(function (button) { button.disabled = true; });
    let found = null, words = "";
    try {
      const answer = await fetch("/live/" + what + query, { method: "POST", body: picture,
        headers: { "Content-Type": "application/octet-stream" } });
      const text = await answer.text();
      if (answer.ok) found = JSON.parse(text);
      else {
        try { words = JSON.parse(text).error; } catch (plain) { words = text || "the server answers " + answer.status; }
      }
    } catch (error) {
      words = "The server does not answer (" + error.message + "); is it still running?";
    }
    if (number !== asked) return null;  // another picture was given meanwhile
    buttons.forEach(function (button) { button.disabled = false; });
    said.textContent = words;
    return found;
  }

  function table(network, answer) {
    const whole = made("table"), head = made("caption", network === "base" ? "before (base)" : "after (tuned)");
    whole.append(head);
    answer.top.forEach(function (guess) {
      const row = made("tr");
      row.append(made("td", guess.class), made("td", (100 * guess.probability).toFixed(1) + "%"));
      whole.append(row);
    });
    return whole;
  }

  function known(answer) {
    if (answer.known === undefined || answer.known === null) return "";
    const share = (100 * answer.familiarity).toFixed(1) + "% of the validation pictures are at most as familiar.";
    return (answer.known ? "Known: " : "A stranger, like none of the classes: ") + share;
  }

  async function given(chosen) {
    if (!chosen) return;
    ["answers", "explained", "attacked"].forEach(function (id) { document.getElementById(id).hidden = true; });
    if (chosen.size > Number(drop.dataset.most)) {
      said.textContent = "The file has " + chosen.size + " bytes, and " + drop.dataset.most + " are taken at most; scale it down.";
      return;
    }
    picture = chosen;
    const found = await ask("predict", "");
    if (!found) return;
    document.getElementById("seen").src = found.seen;
    document.getElementById("tables").replaceChildren(
      ...Object.entries(found.answers).map(function (one) { return table(one[0], one[1]); }));
    document.getElementById("known").textContent = [known(found.answers.tuned), found.note].filter(Boolean).join(" ");
    document.getElementById("answers").hidden = false;
  }

  function figure(source, words, alt) {
    const whole = made("figure");
    whole.append(made("img", undefined, { src: source, alt: alt }), made("figcaption", words));
    return whole;
  }

  const shown = {
    explain: function (found) {
      const parts = found.figures.map(function (one) { return figure(one.picture, one.words, one.alt); });
      if (found.note) parts.push(made("p", found.note));
      return ["explained", parts];
    },
    attack: function (found) {
      const line = made("p");
      line.append(made("a", "Save the picture that fools", { href: found.adversarial, download: "adversarial.png" }));
      return ["attacked", [figure(found.figure, found.words, "The picture, the change amplified, and the picture that fools"), line]];
    },
  };
  buttons.forEach(function (button) {
    button.addEventListener("click", async function () {
      const what = button.dataset.ask, chosen = document.getElementById("class").value;
      const found = await ask(what, chosen === "" ? "" : "?class=" + chosen);
      if (!found) return;
      const [id, parts] = shown[what](found), section = document.getElementById(id);
      section.querySelector("div").replaceChildren(...parts);
      section.hidden = false;
    });
  });
  document.getElementById("asked").addEventListener("submit", function (event) { event.preventDefault(); });
  file.addEventListener("change", function () { given(file.files[0]); });
  ["dragenter", "dragover"].forEach(function (kind) {
    drop.addEventListener(kind, function (event) { event.preventDefault(); drop.classList.add("over"); });
  });
  ["dragleave", "drop"].forEach(function (kind) {
    drop.addEventListener(kind, function () { drop.classList.remove("over"); });
  });
  drop.addEventListener("drop", function (event) { event.preventDefault(); given(event.dataTransfer.files[0]); });
})();
