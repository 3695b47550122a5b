"""Checks objects against the schemas of the Kubernetes API, as PyPI's kubernetes-validate has them.

Reads one JSON array a line, [version, object], and answers one line each: what is wrong with it, or nothing. A body of server-side
apply is such an object, too: of Secrets and Leases no field is required.
"""

import functools
import json
import sys

from kubernetes_validate import utils

# A megabyte of schemas, which it would read for each object: whoever asks has little time.
utils.schema_contents = functools.cache(utils.schema_contents)
utils.all_versions = functools.cache(utils.all_versions)

for line in sys.stdin:
    version, value = json.loads(line)
    try:
        utils.validate(value, version, strict=True)
        said = ""
    except Exception as error:  # whatever it is, the test is to see it
        said = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
    print(said, flush=True)
