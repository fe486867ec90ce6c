// Searching by what the microphone hears.

const MOST = 30; // seconds

/** Lets a button record, and hands over what was recorded. */
export function recordSound(button, say, upload) {
  const can = navigator.mediaDevices && window.MediaRecorder;
  button.hidden = !can; // a browser gives the microphone to localhost and https alone
  if (!can) return;
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    let stream;
    try {
      // What is heard, and not what a telephone would make of it.
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      say(`The microphone cannot be used: ${error.message}`, true);
      return;
    }
    const parts = [];
    recorder = new MediaRecorder(stream);
    const timer = setTimeout(() => recorder && recorder.stop(), MOST * 1000);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      clearTimeout(timer);
      for (const track of stream.getTracks()) track.stop();
      const { mimeType } = recorder;
      recorder = null;
      button.textContent = "Record";
      button.classList.remove("on");
      button.setAttribute("aria-pressed", "false");
      const suffix = mimeType.includes("mp4") ? "mp4" : mimeType.includes("ogg") ? "ogg" : "webm";
      upload(new Blob(parts, { type: mimeType }), `recording.${suffix}`);
    });
    recorder.start();
    button.textContent = "Stop";
    button.classList.add("on");
    button.setAttribute("aria-pressed", "true");
    say(`Recording, ${MOST} seconds at most. Press Stop to search by it.`);
  });
}
