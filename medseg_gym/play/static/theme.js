// Before the first paint, so that a dark page does not flash white.
"use strict";
try {
  const wanted = localStorage.getItem("medseg.theme");
  if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
} catch {
  // without storage the theme follows the system
}
