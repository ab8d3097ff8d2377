// Runs before the first paint, so that nobody who chose dark sees a white page first.
(() => {
  const remembered = (name) => {
    try {
      return localStorage.getItem(`leadpulse.${name}`);
    } catch {
      return null;
    }
  };
  const theme = remembered("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  const language = remembered("language") ?? navigator.language ?? "en";
  document.documentElement.lang = language.startsWith("fr") ? "fr" : "en";
})();
