const loaded = url => new Promise(done => {
  const image = new Image();
  image.onload = image.onerror = done;
  image.src = url;
});

async function fill({html, sources, scales}) {
  for (const [id, text] of Object.entries(html)) document.getElementById(id).innerHTML = text;
  if (sources.pictures) {
    sources.pictures.mixed = sources.pictures.image;
    sources.pictures.image = await mixed(sources.pictures);
  }
  for (const urls of [sources.pictures?.image, sources.pictures?.depth, sources.pictures?.outlines])
    await Promise.all((urls ?? []).map(loaded));  // or the mosaic would flicker
  for (const [name, columns] of Object.entries(sources))
    for (const source of modelsNamed(name)) source.data = columns;
  for (const [name, ends] of Object.entries(scales))
    for (const scale of modelsNamed(name)) [scale.low, scale.high] = ends;
}

function follow(shape) {
  const told = document.getElementById("connection");
  const say = text => { told.textContent = text; told.hidden = !text; };
  const events = new EventSource("events?shape=" + encodeURIComponent(shape));
  events.onopen = () => say("");
  events.onerror = () => say("The connection is lost; this is what came so far. Trying again …");
  events.onmessage = event => drawn.then(() => fill(JSON.parse(event.data)));
  events.addEventListener("reload", () => location.reload());
  events.addEventListener("over", () => {
    events.close();
    say("The run is over. This page stays in its folder as report.html.");
  });
}
