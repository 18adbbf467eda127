// The links are relative, so that the page works behind a proxy that adds a prefix.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: false,
  displayRequestDuration: true,
  docExpansion: "list",
  // Not even the validator's badge comes from elsewhere.
  validatorUrl: null,
});
