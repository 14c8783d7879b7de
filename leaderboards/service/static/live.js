// Live progress of a submission; without it the page reloads itself.
const box = document.querySelector("[data-events]");
const feed = new EventSource(box.dataset.events);
feed.onmessage = (event) => {
  const now = JSON.parse(event.data);
  if (now.over || now.state !== box.querySelector(".state").textContent) {
    feed.close();
    location.reload();
    return;
  }
  box.querySelector(".now p").textContent = now.line;
  const bar = box.querySelector("progress");
  bar.max = now.total || 1;
  bar.value = now.done;
};
