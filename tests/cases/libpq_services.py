#!/usr/bin/env python3
"""libpq_services.py - ask the REAL libpq what it makes of a connection service file.

stdin : JSON lines {"file_b64": "...", "service": str}
stdout: JSON lines {"error": str|null, "settings": {keyword: value}} as libpq read them; an error is one about the service
        file, not one about the connection that then fails.

PQconnectStartParams() reads the service file before anything else; PQconninfo() tells what came of it. A hostaddr is given, so
that no name is ever looked up. Only the Python standard library is used. --version prints PQlibVersion() and stops.
"""
import base64, ctypes, ctypes.util, json, os, re, sys, tempfile

for name in list(os.environ):
    if name.startswith("PG"):
        del os.environ[name]


class Option(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")]
    _fields_.append(("dispsize", ctypes.c_int))


lib = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
lib.PQconnectStartParams.restype = lib.PQconninfo.restype = ctypes.c_void_p
lib.PQconninfo.argtypes = lib.PQfinish.argtypes = lib.PQconninfoFree.argtypes = [ctypes.c_void_p]
lib.PQerrorMessage.argtypes, lib.PQerrorMessage.restype = [ctypes.c_void_p], ctypes.c_char_p


def ask(service):
    given = {b"service": service.encode(), b"hostaddr": b"127.0.0.1"}
    keys = (ctypes.c_char_p * 3)(*given.keys(), None)
    values = (ctypes.c_char_p * 3)(*given.values(), None)
    connection = lib.PQconnectStartParams(keys, values, 0)
    error = lib.PQerrorMessage(connection).decode(errors="replace").strip()
    # Neither the file's name nor where in it matters to who compares.
    error = re.sub(r"line \d+", "line", error.replace(os.environ["PGSERVICEFILE"], ""))
    settings = {}
    options = lib.PQconninfo(connection)
    entry = ctypes.cast(options, ctypes.POINTER(Option))
    index = 0
    while options and entry[index].keyword:
        if entry[index].val is not None:
            settings[entry[index].keyword.decode()] = entry[index].val.decode("latin-1")
        index += 1
    lib.PQconninfoFree(options)
    lib.PQfinish(connection)
    about_file = any(words in error for words in ("service file", "definition of service", "nested"))
    return {"error": error if about_file else None, "settings": settings}


if "--version" in sys.argv:
    print(lib.PQlibVersion())
    sys.exit()
with tempfile.TemporaryDirectory() as scratch:
    path = os.path.join(scratch, "services")
    os.environ["PGSERVICEFILE"] = path
    os.environ["PGSYSCONFDIR"] = scratch
    for line in sys.stdin:
        question = json.loads(line)
        with open(path, "wb") as file:
            file.write(base64.b64decode(question["file_b64"]))
        print(json.dumps(ask(question["service"])), flush=True)
