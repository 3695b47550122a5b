#!/usr/bin/python3 -IS
"""What a person does in a browser, without one: opens the address, agrees or not, and lets the browser come back.

usage: person.py CA allow|deny|nothing|paste ADDRESS

With `paste` the browser cannot come back, and the address at which it ends is printed.
"""

import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

ca, decision, address = sys.argv[1:4]
context = ssl.create_default_context(cafile=ca)


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


opener = urllib.request.build_opener(
    Stay, urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
)


def open_(url, data=None):
    try:
        answer = opener.open(url, data, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers.get("Location"), answer.read().decode()


status, location, page = open_(address)
while location:
    address = location
    status, location, page = open_(address)
assert status == 200, (status, page)
if decision == "nothing":
    sys.exit()
ticket = re.search(r'name="ticket" value="(\w+)"', page).group(1)
action = urllib.parse.urljoin(address, re.search(r'action="([^"]+)"', page).group(1))
form = urllib.parse.urlencode({"ticket": ticket, "decision": "allow" if decision == "paste" else decision})
status, location, page = open_(action, form.encode())
assert status == 302, (status, page)
if decision == "paste":
    print(location)
else:
    status, _, page = open_(location)
    print(status, re.sub(r"<[^>]+>", " ", page))
