// Sets the chosen theme before anything is painted; theme.js does the rest.
try {
  const theme = JSON.parse(localStorage.getItem("allranks.theme"));
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser without storage follows the system's theme.
}
