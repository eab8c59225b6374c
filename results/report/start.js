// Where everything begins.
function theme() {
  const select = byId("theme");
  const set = (value) => {
    if (value) document.documentElement.dataset.theme = value;
    else delete document.documentElement.dataset.theme;
    select.value = value;
  };
  try {
    set(localStorage.getItem("eludebench-theme") ?? "");
  } catch {
    set(""); // some browsers keep nothing for files
  }
  select.addEventListener("change", () => {
    set(select.value);
    try {
      localStorage.setItem("eludebench-theme", select.value);
    } catch {
      return;
    }
  });
}

// Links to sections keep what was chosen, and the section that is read is marked.
function sections() {
  const links = [...document.querySelectorAll(".sections a, .skip")];
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const at = link.getAttribute("href").slice(1);
      if (readState().at === at) show(true);
      else location.hash = linkTo({ at });
    });
  }
  const marked = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        for (const link of links) {
          if (link.getAttribute("href") === `#${target.id}`) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    },
    { rootMargin: "-15% 0px -80% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) marked.observe(section);
}

document.querySelectorAll("table.sheet").forEach(sortable);
document.querySelectorAll("form[data-filters]").forEach(filtered);
explorer();
pairs();
theme();
sections();
addEventListener("hashchange", () => show(history.state !== CHOSEN));
show(true);
