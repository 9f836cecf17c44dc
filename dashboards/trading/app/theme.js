// Before the first paint, so that nobody is blinded: the theme that was chosen here, else the system's.
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
try {
  const chosen = JSON.parse(localStorage.getItem("tickcast") ?? "{}").theme;
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's theme then holds.
}
