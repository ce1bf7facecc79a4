// Shows the contract of this very gateway, and sends what is tried to it.
window.addEventListener("load", () => {
  window.SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#viewer",
    deepLinking: true,
    displayRequestDuration: true,
    validatorUrl: null,
  });
});
