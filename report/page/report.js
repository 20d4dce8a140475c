const modelsNamed = name =>
  Bokeh.documents.flatMap(doc => [...doc.all_models]).filter(model => model.name === name);

function showLayers(box) {
  for (const name of box.dataset.layers.split(","))
    for (const model of modelsNamed(name)) model.visible = box.checked;
}

const drawn = Promise.all(
  JSON.parse(document.getElementById("charts").textContent).map(item => Bokeh.embed.embed_item(item))
).then(() => {
  for (const box of document.querySelectorAll("[data-layers]")) {
    box.addEventListener("change", () => showLayers(box));
    showLayers(box);  // a browser may remember what was ticked before
  }
  document.documentElement.dataset.drawn = "yes";
});
