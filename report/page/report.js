const modelsNamed = name =>
  Bokeh.documents.flatMap(doc => [...doc.all_models]).filter(model => model.name === name);

function showLayers(box) {
  for (const name of box.dataset.layers.split(","))
    for (const model of modelsNamed(name)) model.visible = box.checked;
}

const channelBoxes = [...document.querySelectorAll("[data-channel]")];

const pictureOf = url => new Promise(done => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = () => done(null);
  image.setAttribute("src", url);  // of this page, or of its server
});

/* The mosaic of the ticked channels, whose colours add up, as the URLs of an image. */
async function mixed(columns) {
  const ticked = channelBoxes.filter(box => box.checked);
  if (ticked.length === channelBoxes.length || !columns.image.length) return columns.mixed ?? columns.image;
  const urls = ticked.map(box => columns["channel" + box.dataset.channel][0]);
  const images = (await Promise.all(urls.map(pictureOf))).filter(Boolean);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, ...images.map(image => image.naturalWidth));
  canvas.height = Math.max(1, ...images.map(image => image.naturalHeight));
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter";
  for (const image of images) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return [canvas.toDataURL("image/jpeg", 0.9)];
}

let mixing = 0;  // the last change of the boxes counts
async function showChannels() {
  const turn = ++mixing;
  for (const source of modelsNamed("pictures")) {
    const all = source.data.mixed ?? source.data.image;
    const image = await mixed(source.data);
    if (turn === mixing) source.data = {...source.data, image, mixed: all};
  }
}

const drawn = Promise.all(
  JSON.parse(document.getElementById("charts").textContent).map(item => Bokeh.embed.embed_item(item))
).then(() => {
  for (const box of document.querySelectorAll("[data-layers]")) {
    box.addEventListener("change", () => showLayers(box));
    showLayers(box);  // a browser may remember what was ticked before
  }
  for (const box of channelBoxes) box.addEventListener("change", showChannels);
  if (channelBoxes.some(box => !box.checked)) showChannels();
  document.documentElement.dataset.drawn = "yes";
});
