// A deck: one slide at a time, as large as the window allows; what does not fit goes on another slide.
"use strict";

const WIDTH = 1280, HEIGHT = 720, SMALLEST = 0.62; // of the usual size of letters
const main = document.querySelector("main");
let slides = [], now = 0;

const fits = (content) => content.scrollHeight <= content.clientHeight && content.scrollWidth <= content.clientWidth;

// One block that is too large by itself becomes smaller, as far as it can still be read from afar.
function shrink(content) {
  for (let size = 0.95; !fits(content) && size >= SMALLEST; size -= 0.05) content.style.fontSize = `${size}em`;
}

function goOnAnother(slide) {
  const content = slide.querySelector(".content"), rest = [];
  for (const picture of ["420px", "370px", "320px", ""]) // a smaller picture, if that is enough
    if (!fits(content)) content.style.setProperty("--picture", picture);
  while (!fits(content) && content.children.length > 1) rest.unshift(content.removeChild(content.lastElementChild));
  if (!fits(content)) shrink(content);
  const last = content.lastElementChild; // a result stands below its code
  if (rest[0]?.matches(".output, figure") && last.matches(".input") && content.children.length > 1) rest.unshift(content.removeChild(last));
  if (rest.length === 0) return;
  const next = slide.cloneNode(false), heading = slide.querySelector("header").cloneNode(true);
  const more = content.cloneNode(false);
  more.removeAttribute("style");
  more.append(...rest);
  next.append(heading, more);
  slide.after(next);
  goOnAnother(next);
}

function show(place) {
  now = Math.max(0, Math.min(place, slides.length - 1));
  slides.forEach((slide, i) => slide.classList.toggle("now", i === now));
  document.querySelector("#place").textContent = `${now + 1} / ${slides.length}`;
  history.replaceState(null, "", `#${now + 1}`);
}

function scale() {
  const factor = Math.min(innerWidth / WIDTH, innerHeight / HEIGHT);
  main.style.transform = `translate(${(innerWidth - factor * WIDTH) / 2}px, ${(innerHeight - factor * HEIGHT) / 2}px) scale(${factor})`;
}

window.addEventListener("load", () => {
  document.body.classList.add("deck");
  for (const slide of [...document.querySelectorAll(".slide")]) goOnAnother(slide);
  slides = [...document.querySelectorAll(".slide")];
  document.body.classList.add("ready");
  scale();
  show(parseInt(location.hash.slice(1) || "1") - 1);
});
window.addEventListener("resize", scale);
window.addEventListener("keydown", ({ key, target }) => {
  if (target.matches("input, summary, button")) return; // these keys move them
  if (["ArrowRight", "ArrowDown", "PageDown", " "].includes(key)) show(now + 1);
  if (["ArrowLeft", "ArrowUp", "PageUp"].includes(key)) show(now - 1);
  if (key === "Home") show(0);
  if (key === "End") show(slides.length - 1);
});
document.querySelector("#back").addEventListener("click", () => show(now - 1));
document.querySelector("#on").addEventListener("click", () => show(now + 1));
