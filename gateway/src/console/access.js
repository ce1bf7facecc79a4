// The field for an access token, shown when a request was refused for want of one. The token itself
// is kept by api.js.

import { onUnauthorized, setToken, token } from "./api.js";

export function start({ section, why, form, input, forget }, onToken) {
  const show = () => {
    if (section.hidden) {
      section.hidden = false;
      input.focus();
    }
    if (token()) why.textContent = "The gateway does not know the token that you gave. Check it, or ask the operator for another one.";
  };
  onUnauthorized(show);
  forget.hidden = !token();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    // The field is left empty: what is in a page can be looked at over a shoulder.
    input.value = "";
    section.hidden = true;
    forget.hidden = false;
    onToken();
  });
  forget.addEventListener("click", () => {
    setToken(null);
    // Everything on the page was read with it.
    location.reload();
  });
}
