"""Which reason a failed start has, and which reasons a fresh copy of the page may cure."""

FRESH_PAGE = frozenset(
    {
        "browser_unsupported",
        "captive_portal",
        "client_outdated",
        "injection_failed",
        "page_elsewhere",
        "page_http_error",
        "page_reloads",
        "page_silent",
    }
)
"""Reasons that an old copy of the page may cause: one load past every cache comes first."""
BROWSER_STAYS = frozenset({"client_outdated"})
"""Of these, the reasons that leave the browser open: its page reports when the fault ends."""

REASON_OF = {
    "page_unreachable": "unreachable",
    "page_silent": "page_silent",
    "page_http_error": "page_http_error",
    "certificate_error": "certificate_error",
    "page_elsewhere": "page_elsewhere",
    "page_missing": "misconfigured",
    "setpriv_missing": "misconfigured",
    "sandbox_not_possible": "misconfigured",
    "browser_missing": "browser_missing",
    "bundle_missing": "bundle_missing",
    "bundle_changed": "bundle_missing",
    "storage_failed": "storage_failed",
    "profile_in_use": "profile_in_use",
}
"""Error code of a start → reason of the claim."""
