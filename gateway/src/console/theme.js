// Light or dark: as the system says, unless the button was pressed. Owns `data-theme` of the page.

const CHOICES = ["system", "light", "dark"];
const STORED = "dkvs-theme";

export function start(button) {
  let choice = localStorage.getItem(STORED);
  if (!CHOICES.includes(choice)) choice = "system";

  const apply = () => {
    document.documentElement.dataset.theme = choice;
    button.textContent = `Theme: ${choice}`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem(STORED, choice);
    apply();
  });
  apply();
}
