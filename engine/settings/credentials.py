"""Credentials in URIs: they reach nothing that is printed or stored.

Give them by environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, …).
"""

import re

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/@\s'\"]*)@")
_AZURE = ("abfs://", "abfss://")
"""What stands before the @ is a container, and an account's key after a colon."""
_SECRET = re.compile(
    r"(?<=[?&])(?:access_key|secret_key|session_token|sas_token|account_key|token|password|sig|signature|"
    r"awsaccesskeyid|x-amz-[a-z-]+|x-goog-[a-z-]+)=[^&\s'\"]*(&|)",
    re.IGNORECASE,
)
_EMPTY_QUERY = re.compile(r"[?&](?=$|[\s'\",)\]])", re.MULTILINE)


def hide_credentials(text: str) -> str:
    """`text` without the user names, passwords, tokens and signatures of the URIs in it; the URIs stay valid."""
    found = _USER.sub(_without_user, text)
    without = _SECRET.sub("", found)
    return _EMPTY_QUERY.sub("", without) if without != found else without


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    return f"{scheme}{user.partition(':')[0]}@" if scheme.lower() in _AZURE else scheme
