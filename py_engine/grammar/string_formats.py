"""JSON Schema's `format`s of strings as patterns that match nothing but the format.

Where a standard allows more than its checkers agree on (leap seconds, quoted e-mail names, IPv6
addresses that end in an IPv4 one) a pattern leaves that out.
"""

from __future__ import annotations

# Python's dates, which checkers use, begin with the year 1.
_YEAR = r"(\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})"
_LEAP_YEAR = r"(\d\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"{_YEAR}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)"
    rf"|02-(0[1-9]|1\d|2[0-8]))|{_LEAP_YEAR}-02-29"
)
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_CLOCK = r"T(\d+H(\d+M(\d+S)?)?|\d+M(\d+S)?|\d+S)"
_DURATION = rf"P((\d+Y(\d+M(\d+D)?)?|\d+M(\d+D)?|\d+D)({_CLOCK})?|{_CLOCK}|\d+W)"
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_PLAIN_LABEL = r"[a-z]([a-z0-9]{0,62})"
_HOST = rf"({_PLAIN_LABEL}\.){{0,2}}{_PLAIN_LABEL}"
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]{1,20}"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HEX = r"[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        rf"({_HEX}:){{7}}{_HEX}",
        "::",
        rf"({_HEX}:){{1,7}}:",
        rf":(:{_HEX}){{1,7}}",
        *(rf"({_HEX}:){{{n}}}(:{_HEX}){{1,{7 - n}}}" for n in range(1, 7)),
    ]
)
_ESCAPED = "%[0-9A-Fa-f]{2}"
_PATH_CHAR = rf"([\w.~!$&'()*+,;=:@-]|{_ESCAPED})"
_REST = rf"(\?([\w.~!$&'()*+,;=:@/?-]|{_ESCAPED})*)?(#([\w.~!$&'()*+,;=:@/?-]|{_ESCAPED})*)?"
_AUTHORITY = rf"//{_HOST}(:\d{{1,4}})?(/{_PATH_CHAR}*)*"
_SEGMENT = rf"([\w.~!$&'()*+,;=@-]|{_ESCAPED})+"
_NAME = rf"(\w|{_ESCAPED})(\.?(\w|{_ESCAPED}))*"
_VARIABLE = rf"{_NAME}(:[1-9]\d{{0,3}}|\*)?"
_POINTER = r"(/([^~/]|~[01])*)*"

_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"({_DATE})T{_TIME}",
    "duration": _DURATION,
    "email": rf"{_ATOM}(\.{_ATOM}){{0,2}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "ipv6": _IPV6,
    "uuid": "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
    "uri": rf"[a-zA-Z][a-zA-Z0-9+.-]*:({_AUTHORITY}|/?{_PATH_CHAR}+(/{_PATH_CHAR}*)*){_REST}",
    "uri-reference": rf"({_AUTHORITY}|/({_PATH_CHAR}+(/{_PATH_CHAR}*)*)?"
    rf"|{_SEGMENT}(/{_PATH_CHAR}*)*)?{_REST}",
    "uri-template": rf"([!#$&(-;=?-\[\]_a-z~]|{_ESCAPED}"
    rf"|\{{[+#./;?&=,!@|]?{_VARIABLE}(,{_VARIABLE})*\}})*",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(0|[1-9]\d*)(#|{_POINTER})",
}
FORMATS: dict[str, str] = {name: f"^({pattern})$" for name, pattern in _PATTERNS.items()}
"""Patterns of whole strings by the name of the format."""
