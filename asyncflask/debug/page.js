"use strict";
{
  const { failure, secret, root } = document.body.dataset;

  async function ask(path, data) {
    try {
      const response = await fetch(`${root}/__debugger__/${path}`, {
        method: "POST",
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", "X-Debugger-Secret": secret },
        body: JSON.stringify(data),
      });
      return [response.status, await response.text()];
    } catch {
      return [0, "The server does not answer. Is it running?"];
    }
  }

  // ------------------------------------------------------------------ the PIN

  const dialog = document.querySelector("dialog");
  let unlocked = "pinned" in document.body.dataset;

  function unlock() {
    if (unlocked) return Promise.resolve(true);
    const form = dialog.querySelector("form");
    const wrong = dialog.querySelector(".wrong");
    wrong.textContent = form.pin.value = "";
    dialog.showModal();
    return new Promise((resolve) => {
      form.onsubmit = async (event) => {
        event.preventDefault();
        const [status, text] = await ask("pin", { pin: form.pin.value });
        unlocked = status === 200;
        wrong.textContent = unlocked ? "" : text;
        if (unlocked) dialog.close();
      };
      form.querySelector("[value=cancel]").onclick = () => dialog.close();
      dialog.onclose = () => resolve(unlocked);
    });
  }

  // -------------------------------------------------------------- the consoles

  const past = [];

  for (const console of document.querySelectorAll(".console")) {
    console.hidden = false;
    const log = console.querySelector(".log");
    const input = console.querySelector("textarea");
    let place = past.length;

    const show = (text, kind) => {
      const block = document.createElement("pre");
      block.className = kind;
      block.textContent = text;
      log.append(block);
      return block;
    };

    const fit = () => { input.rows = input.value.split("\n").length; };

    const recall = (step) => {
      place = Math.min(Math.max(place + step, 0), past.length);
      input.value = past[place] ?? "";
      fit();
    };

    async function run() {
      const source = input.value;
      if (!source.trim() || !(await unlock())) return input.focus();
      past.push(source);
      place = past.length;
      input.value = "";
      fit();
      show(source.replace(/^/gm, "... ").replace("... ", ">>> "), "typed");
      const answer = show("", "busy");
      const frame = +console.dataset.frame;
      const [status, text] = await ask("console", { failure, frame, source });
      answer.className = status === 200 ? "output" : "output refused";
      answer.textContent = text;
      if (status === 401) unlocked = false;
      if (!text) answer.remove();
      input.focus();
    }

    // An open bracket, a colon or an indented line want another line.
    const goesOn = () => {
      const { value, selectionEnd } = input;
      const last = value.slice(0, selectionEnd).split("\n").at(-1);
      return selectionEnd < value.length || /[:([{\\]\s*$/.test(last) || /^\s+\S/.test(last);
    };

    input.addEventListener("input", fit);
    input.addEventListener("keydown", (event) => {
      const oneLine = !input.value.includes("\n");
      if (event.key === "Enter" && !event.shiftKey && (event.ctrlKey || !goesOn())) {
        event.preventDefault();
        run();
      } else if (event.key === "ArrowUp" && oneLine) {
        event.preventDefault();
        recall(-1);
      } else if (event.key === "ArrowDown" && oneLine) {
        event.preventDefault();
        recall(+1);
      }
    });
    console.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  }

  // ----------------------------------------------------------------- the text

  const copy = document.querySelector(".copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(copy.nextElementSibling.textContent);
      copy.textContent = "Copied";
    });
  }
}
