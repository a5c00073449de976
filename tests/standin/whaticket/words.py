"""Such a server writes into its log libsignal 6.0.0's own lines, pino's, and whaticket's."""

import json
import os
import time

HEADER = "Failed to decrypt message with any known session..."
_PLACE = "/app/node_modules/libsignal/src"


def stack(address: str) -> str:
    return "\n".join(
        [
            f"    at Object.verifyMAC ({_PLACE}/crypto.js:87:15)",
            f"    at SessionCipher.doDecryptWhisperMessage ({_PLACE}/session_cipher.js:250:16)",
            f"    at async SessionCipher.decryptWithSessions ({_PLACE}/session_cipher.js:147:29)",
            f"    at async {address} [as awaitable] ({_PLACE}/session_cipher.js:171:28)",
            f"    at async _asyncQueueExecutor ({_PLACE}/queue_job.js:20:29)",
        ]
    )


def bad_mac(address: str, tried: int = 1) -> str:
    error = f"Session error:Error: Bad MAC Error: Bad MAC\n{stack(address)}"
    return "\n".join([HEADER, *[error] * tried])


def of_pm2(said: str) -> str:
    """As a pm2 with `log_type: "json"` writes it."""
    about = {"timestamp": "2026-11-27T11:56:46.981Z", "type": "err", "process_id": 2}
    return json.dumps({"message": said, **about, "app_name": "app"})


def duplicate(address: str) -> str:
    """The newest session has seen the message, an older one does not fit it: benign."""
    text = "MessageCounterError: Key used already or never filled"
    return (
        f"{HEADER}\nSession error:{text} {text}\n{stack(address)}\n"
        f"Session error:Error: Bad MAC Error: Bad MAC\n{stack(address)}"
    )


def secret_buffer(length: int) -> str:
    return "<Buffer " + " ".join(f"{byte:02x}" for byte in os.urandom(length)) + ">"


def closing_session(private: str | None = None) -> str:
    """As `console.info("Closing session:", entry)` prints it, private keys and all."""
    private = private or secret_buffer(32)
    return f"""Closing session: SessionEntry {{
  _chains: {{
    Bf7uzMbX4Lj7dMu01suOxvhpTNBDqt67aqWM0Ntv6qlU: {{ chainKey: [Object], chainType: 2 }},
    'BfIcH8/EGjT31m0is6H7UYrlXS8s9X8UKIRmkjjmrIZQ': {{ chainKey: [Object], chainType: 1 }}
  }},
  registrationId: 12,
  currentRatchet: {{
    ephemeralKeyPair: {{
      pubKey: {secret_buffer(33)},
      privKey: {private}
    }},
    lastRemoteEphemeralKey: {secret_buffer(33)},
    previousCounter: 0,
    rootKey: {secret_buffer(32)}
  }},
  indexInfo: {{
    baseKey: {secret_buffer(33)},
    baseKeyType: 1,
    closed: -1,
    used: 1795176146980,
    remoteIdentityKey: {secret_buffer(33)}
  }}
}}"""


def pino(
    jid: str,
    error: str = "No matching sessions found for message",
    kind: str = "SessionError",
    *,
    from_me: bool = False,
    **fields: object,
) -> str:
    """Baileys' line about a message that it could not read."""
    key = {"remoteJid": jid, "fromMe": from_me, "id": "3EB0" + os.urandom(8).hex().upper()}
    told = {
        "level": 50,
        "time": int(time.time() * 1000),
        "pid": 7,
        "hostname": "app",
        **fields,
        "key": key,
        "err": {"type": kind, "message": error, "stack": f"{kind}: {error}\n    at x (y.js:1:1)"},
        "msg": "failed to decrypt message",
    }
    return json.dumps(told, separators=(",", ":"))


def pretty(
    jid: str,
    error: str = "No matching sessions found for message",
    kind: str = "SessionError",
    **fields: str,
) -> str:
    """The same through pino-pretty, as whaticket sets it up."""
    more = "".join(f'\n    {name}: "{value}"' for name, value in fields.items())
    return f"""ERROR [20-11-2026 12:00:00]: failed to decrypt message{more}
    key: {{
      "remoteJid": "{jid}",
      "fromMe": false,
      "id": "3EB0C767D097B7C7C030"
    }}
    err: {{
      "type": "{kind}",
      "message": "{error}",
      "stack":
          {kind}: {error}
              at SessionCipher.decryptWithSessions ({_PLACE}/session_cipher.js:160:15)
    }}"""


def info(text: str) -> str:
    return f"INFO [20-11-2026 12:00:00]: {text}"
