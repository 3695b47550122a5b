"""Reads the manifests below a directory, as kubectl does, and prints them as one JSON array: [file, object].

With --check VERSION... each is checked against the schemas of these versions, too, and what is wrong is printed on standard error.
A kustomization must name resources that are there, and objects that its transformations are about.
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml


def fault(version, value):
    try:
        kubernetes_validate.validate(value, version, strict=True)
        return None
    except kubernetes_validate.ValidationError as error:
        return f"{version}: {str(error).splitlines()[0]}"


def images(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "image" and isinstance(inner, str):
                yield inner.rsplit(":", 1)[0]
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)


root, versions = pathlib.Path(sys.argv[1]), sys.argv[3:]
found, faults = [], []
for path in sorted(root.rglob("*.yaml")):
    objects = [value for value in yaml.safe_load_all(path.read_text()) if value]
    if path.name == "kustomization.yaml":
        (one,) = objects
        known = {"apiVersion", "kind", "resources", "namespace", "images"}
        faults += [f"{path}: {key} is not checked" for key in one.keys() - known]
        members = [path.parent / name for name in one["resources"]]
        faults += [f"{path}: there is no {member}" for member in members if not member.is_file()]
        faults += [f"{path}: it does not name {other}" for other in path.parent.glob("*.yaml") if other != path and other not in members]
        used = {image for member in members for value in yaml.safe_load_all(member.read_text()) for image in images(value)}
        faults += [f"{path}: no image is {image['name']}" for image in one["images"] if image["name"] not in used]
        continue
    for value in objects:
        found.append([str(path.relative_to(root)), value])
        faults += [f"{path}: {value.get('kind')}: {said}" for said in (fault(version, value) for version in versions) if said]
print(json.dumps(found))
for said in faults:
    print(said, file=sys.stderr)
sys.exit(1 if faults else 0)
