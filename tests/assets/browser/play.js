// Plays and seeks what /plan lists, reads the number in the pictures shown, posts what it saw to /result.
"use strict";

const CELLS = 20;
const canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });

const pause = ms => new Promise(done => setTimeout(done, ms));

// Resolves with the event, rejects on an error of the element or after a while.
function once(element, event, ms = 20000) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`no ${event} within ${ms} ms`)), ms);
    element.addEventListener(event, () => { clearTimeout(timer); done(); }, { once: true });
    element.addEventListener("error", () => {
      clearTimeout(timer);
      fail(new Error(`media error ${element.error && element.error.code}: ${element.error && element.error.message}`));
    }, { once: true });
  });
}

// The number in the top ninth of the picture: see tests/media/picture.rs.
function numberOf(video) {
  const width = video.videoWidth, height = video.videoHeight;
  canvas.width = width;
  canvas.height = height;
  context.drawImage(video, 0, 0, width, height);
  const row = context.getImageData(0, Math.floor(height / 18), width, 1).data;
  const bits = [];
  for (let cell = 0; cell < CELLS; cell++) {
    const from = Math.ceil((cell + 0.3) * width / CELLS), to = Math.floor((cell + 0.7) * width / CELLS);
    let sum = 0;
    for (let x = from; x < to; x++) sum += row[x * 4];
    bits.push(sum / (to - from) > 125 ? 1 : 0);
  }
  const number = bits.slice(2, 18).reduce((number, bit) => number * 2 + bit, 0);
  const parity = bits.slice(2, 18).reduce((sum, bit) => sum + bit, 0) % 2;
  return bits[0] && !bits[1] && bits[18] === parity && bits[19] !== parity ? number : null;
}

// The number shown once it can be read and has stood still for a few looks.
async function settled(video) {
  let last = null, same = 0;
  for (let tries = 0; tries < 200 && same < 4; tries++) {
    await pause(25);
    const number = numberOf(video);
    same = number !== null && number === last ? same + 1 : 0;
    last = number;
  }
  return last;
}

// Goes to a moment, gives the number shown there.
async function shownAt(video, at) {
  const seeked = once(video, "seeked");
  // none comes when the picture is the one that is shown already
  const presented = new Promise(done => video.requestVideoFrameCallback(done));
  video.currentTime = at;
  await seeked;
  await Promise.race([presented, pause(1500)]);
  return { at, number: await settled(video) };
}

// Plays from where it stands; gives time and number of every picture presented, until `seconds` have passed or the end.
async function play(video, seconds) {
  const seen = [];
  let more = true;
  const each = (_, meta) => {
    seen.push({ at: meta.mediaTime, number: numberOf(video) });
    if (more) video.requestVideoFrameCallback(each);
  };
  video.requestVideoFrameCallback(each);
  const until = video.currentTime + seconds;
  await video.play();
  const began = performance.now();
  while (!video.ended && video.currentTime < until && performance.now() - began < seconds * 4000 + 5000) await pause(20);
  more = false;
  video.pause();
  return seen;
}

// Opens the item, gives its duration as soon as something can be shown.
async function open(video, item) {
  if (!item.hls) {
    video.src = item.url;
    await once(video, "loadeddata");
    return video.duration;
  }
  const hls = new Hls({ startPosition: 0, maxBufferLength: 120 });
  const broken = new Promise((_, fail) => hls.on(Hls.Events.ERROR, (_, data) => {
    if (data.fatal) fail(new Error(`hls.js: ${data.type} ${data.details} ${data.reason || ""}`));
  }));
  hls.loadSource(item.url);
  hls.attachMedia(video);
  await Promise.race([once(video, "loadeddata"), broken]);
  const duration = video.duration;
  const filled = async () => {
    while (video.duration < item.growsTo - 0.5 || !video.buffered.length || video.buffered.end(video.buffered.length - 1) < video.duration - 0.5) await pause(50);
  };
  await Promise.race([filled(), broken, pause(20000)]);
  return duration;
}

async function look(item) {
  const figure = document.createElement("figure");
  const video = document.createElement("video");
  const caption = document.createElement("figcaption");
  video.playsInline = true;
  video.width = 320;
  figure.append(video, caption);
  document.getElementById("stage").append(figure);
  const result = { name: item.name, first: null, durationAtOpen: 0, duration: 0, shown: [], played: [], last: null, durationAtEnd: 0, audioBytes: 0, error: null };
  try {
    result.durationAtOpen = await open(video, item);
    result.duration = video.duration;
    result.first = await settled(video);
    for (const at of item.at) result.shown.push(await shownAt(video, at));
    await shownAt(video, item.playFrom);
    result.played = await play(video, item.playSeconds);
    await shownAt(video, Math.max(0, video.duration - 0.6));
    const ended = once(video, "ended");
    await video.play();
    await ended;
    result.last = await settled(video);
    result.durationAtEnd = video.duration;
    result.audioBytes = video.webkitAudioDecodedByteCount || 0;
    // for the screenshot: the last moment asked for
    const end = await shownAt(video, item.at[item.at.length - 1]);
    caption.textContent = `${item.name}: ${end.number} at ${end.at.toFixed(3)} s of ${video.duration.toFixed(3)} s`;
  } catch (error) {
    result.error = String(error);
    caption.textContent = `${item.name}: ${error}`;
  }
  return result;
}

(async () => {
  const plan = await (await fetch("/plan")).json();
  const results = [];
  for (const item of plan) results.push(await look(item));
  await fetch("/result", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(results) });
})();
