// The code to scan, drawn again before it runs out; or a code to type on the phone.
import { Refused, post, send } from "/page/agent.js";
import { pathOf } from "/page/actions.js";
import { may } from "/page/answers.js";
import { copyButton, makeForm, note } from "/page/dialogs.js";
import { field, input, make, setAttribute, setText } from "/page/dom.js";
import { setUntil } from "/page/words.js";

const PHONE_WITHOUT = ", if it asks your phone for no passkey";

export function makeCode() {
  const state = { id: null, timer: null, url: null };
  const image = make("img", { alt: "QR code to scan with WhatsApp", width: 320, height: 320 });
  const hint = make("p.soft", { role: "status" });
  const left = make("p.soft.small", { "aria-hidden": "true" });
  const title = make("h2");
  const pairing = makePairing(() => state.id);
  const place = make("section.panel.qr", { hidden: true }, title, image, hint, left, pairing.place);

  function forget() {
    if (state.url) URL.revokeObjectURL(state.url);
    state.url = null;
    pairing.forget();
    image.removeAttribute("src");
    image.hidden = true;
  }

  function stop() {
    clearTimeout(state.timer);
    state.timer = null;
    if (state.url) forget();
  }

  async function fetchCode() {
    const wanted = state.id;
    let pause = 2;
    try {
      const answer = await send("GET", pathOf(wanted) + "/qr", { accept: "image/svg+xml" });
      const seconds = Number(answer.headers.get("X-Qr-Expires-In")) || 0;
      const drawn = URL.createObjectURL(await answer.blob());
      if (wanted !== state.id || state.timer === null) return void URL.revokeObjectURL(drawn);
      if (state.url) URL.revokeObjectURL(state.url);
      state.url = image.src = drawn;
      image.hidden = false;
      setAttribute(image, "data-number", answer.headers.get("X-Qr-Number"));
      setText(hint, "Open WhatsApp on the phone, choose Linked devices, then Link a device.");
      setUntil(left, new Date(Date.now() + seconds * 1000).toISOString(), "A new code comes in ");
      pause = Math.min(Math.max(seconds - 0.5, 0.5), 4);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (wanted !== state.id) return;
      forget();
      setText(hint, error.message);
      setUntil(left, null);
    }
    if (wanted !== state.id || state.timer === null) return;
    state.timer = setTimeout(fetchCode, pause * 1000);
  }

  return {
    place,
    // `instance`: the session whose page is shown; null for none.
    watch(instance) {
      if (!instance || instance.id !== state.id) stop();
      state.id = instance ? instance.id : null;
      const waits = instance?.connection_status === "QR_REQUIRED" && instance.should_run;
      const wanted = Boolean(waits) && may("operate", instance.id);
      place.hidden = !wanted;
      const passkey = instance?.reason === "passkey_required";
      setText(title, "Scan with WhatsApp" + (passkey ? PHONE_WITHOUT : ""));
      // A sandbox's phone has no keys to type on.
      pairing.place.hidden = !wanted || instance.engine === "sandbox";
      if (!wanted) stop();
      else if (state.timer === null) state.timer = setTimeout(fetchCode, 0);
    },
  };
}

function makePairing(current) {
  const sizes = { minlength: 7, maxlength: 32 };
  const phone = input({ type: "tel", placeholder: "+49 151 2345678", required: true, ...sizes });
  const code = make("output.pairing-code");
  const copy = copyButton(() => code.textContent, "Copy the pairing code");
  const show = (text) => {
    setText(code, text);
    copy.hidden = !text;
  };
  const submit = async () => {
    const asked = current();
    const body = { phone: phone.value.trim() };
    const answer = await post(pathOf(asked) + "/pairing-code?wait=80", body, 90);
    if (asked !== current()) return;
    show(answer.code);
    note("type the code on the phone: Linked devices, Link with phone number");
  };
  const label = "Or type a code on the phone; the account's number with its country code:";
  const form = makeForm([field(label, phone)], make("button", "Get a code"), submit);
  return {
    place: make("div.pairing", form, make("div.actions", code, copy)),
    forget() {
      phone.value = "";
      show("");
    },
  };
}
