"""What a JSON Web Token says about itself (RFC 7519), in the words of the Python tool."""

import base64
import binascii
import json
from datetime import datetime
from typing import Any, Dict


def info(token: str) -> Dict[str, Any]:
    """The claims, with times of this machine's zone. A ValueError says why it is no token."""
    claims = _claims(token)
    about: Dict[str, Any] = {
        "subject": claims.get("sub"),
        "client_id": claims.get("client_id"),
        "scopes": str(claims.get("scope", "")).split(" "),
        "issuer": claims.get("iss"),
        "audience": claims.get("aud"),
    }
    expires, issued = claims.get("exp"), claims.get("iat")
    if expires:
        at, now = _local(expires), datetime.now()
        about["expires_at"] = at.isoformat()
        about["expires_in_minutes"] = int((at - now).total_seconds() / 60)
        about["is_expired"] = now >= at
    if issued:
        about["issued_at"] = _local(issued).isoformat()
    return about


def _claims(token: str) -> Dict[str, Any]:
    # No message repeats any of it: it may be a secret that is only damaged.
    if not isinstance(token, str) or token.count(".") != 2:
        raise ValueError("not a token: it has not three parts")
    payload = token.split(".")[1]
    try:
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        claims = json.loads(text)
    except (binascii.Error, ValueError):
        raise ValueError("not a token: its payload is not JSON in base64") from None
    if not isinstance(claims, dict):
        raise ValueError("not a token: its payload is no object")
    return claims


def _local(seconds: Any) -> datetime:
    try:
        return datetime.fromtimestamp(float(seconds))
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError("not a token: a time in it is no time") from None
