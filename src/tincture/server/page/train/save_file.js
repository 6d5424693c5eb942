(made) => {
  // Puts a file among the downloads; the server holds none of it.
  if (made) {
    const { name, text } = JSON.parse(made);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/toml" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  return [];
}
