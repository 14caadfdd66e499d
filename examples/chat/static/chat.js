"use strict";

const list = document.querySelector("#messages");
const state = document.querySelector("#state");
const form = document.querySelector("#say");
const events = new EventSource(document.body.dataset.events);

events.addEventListener("message", (event) => {
  const { name, text } = JSON.parse(event.data);
  show(name, text);
});

events.addEventListener("listeners", (event) => {
  const count = JSON.parse(event.data);
  state.textContent = count === 1 ? "only you" : `${count} listening`;
});

// The browser comes back by itself and names the last message it saw.
events.addEventListener("error", () => {
  state.textContent = "reconnecting…";
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form));
  const { text } = form.elements;
  text.value = ""; // at once, so that the next message can be typed meanwhile
  text.focus();
  try {
    const response = await fetch(form.action, { method: "POST", body });
    if (!response.ok) throw new Error(`the server said ${response.status}`);
  } catch (error) {
    state.textContent = `not sent: ${error.message}`;
    text.value ||= body.get("text");
  }
});

// What people typed only ever becomes text, never markup.
function show(name, text) {
  const item = document.createElement("li");
  const author = document.createElement("b");
  author.textContent = name;
  const words = document.createElement("span");
  words.textContent = text;
  item.append(author, words);
  item.classList.toggle("mine", name === form.elements.name.value.trim());
  list.append(item);
  item.scrollIntoView({ block: "end" });
}
