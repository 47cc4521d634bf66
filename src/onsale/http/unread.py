"""An order as nearly all of them come, told from its bytes by one regular expression.

To refuse somebody for want of room takes no more of a request than where it ends. A parser that
calls back for each header costs more than the rest of a refusal, and refusals are what keeps an
overloaded process from its orders. What is unusual about a request, or not all here, is left to the
parser; a test holds one against the other.
"""

import re

from onsale.http.answers import Headers

_LENGTH_DIGITS_MAX = 5

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
# What may say where the request ends, or what is to become of the connection.
_OTHER_HEADERS = (
    rb"(?:(?![ceptuCEPTU]"
    rb"(?i:onnection|ontent-length|xpect|roxy-connection|e|railer|ransfer-encoding|pgrade):)"
    rb"%b:%b\r\n|(?i:connection): keep-alive\r\n)*+" % (_TOKEN, _VALUE)
)
_HEAD = re.compile(
    rb"POST /v1/events/[0-9a-f]{32}/orders HTTP/1\.1\r\n"
    rb"%b(?i:content-length): ([0-9]{1,%d})\r\n%b\r\n"
    % (_OTHER_HEADERS, _LENGTH_DIGITS_MAX, _OTHER_HEADERS)
)
_REQUEST_ID = re.compile(rb"\r\n(?i:x-request-id):[ \t]*([^\r]*)(?=\r\n)")


def headers_of_order(data: bytes) -> Headers | None:
    """What a refusal needs to know of the one order that these bytes are; `None` of all others."""
    head = _HEAD.match(data)
    if head is None or len(data) - head.end() != int(head[1]):
        return None
    request_ids = _REQUEST_ID.findall(data, 0, head.end())
    return {b"x-request-id": request_ids[-1]} if request_ids else {}
