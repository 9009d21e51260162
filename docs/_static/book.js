"use strict";

// Before a page is printed its folds are opened; afterwards they are as they were.
{
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const fold of closed) fold.open = true;
  });
  window.addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));
}

// What is too wide scrolls in its own box: with the arrow keys, too.
{
  const reach = () => {
    for (const box of document.querySelectorAll("article :is(pre, table, .equation.display)")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  window.addEventListener("load", reach);
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, { capture: true }); // a fold was opened
}
