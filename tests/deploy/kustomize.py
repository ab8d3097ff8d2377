"""Kustomizations resolved in Python: the few features that deploy/kubernetes uses, and an error for any other."""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]
KNOWN: Final = {
    *("apiVersion", "kind", "namespace", "resources", "replicas", "images"),
    *("configMapGenerator", "patches"),
}
CLUSTER_WIDE: Final = {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def resolve(folder: Path) -> list[Object]:
    """Return the objects of a kustomization, as `kubectl kustomize` would print them.

    Raises:
        ValueError: if it uses what is not known here, or names a file that is not there.
    """
    objects = _resolved(folder)
    _rename_config_maps(objects)
    return objects


def objects_of(file: Path) -> list[Object]:
    """Return the objects of a YAML file."""
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def _resolved(folder: Path) -> list[Object]:
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = told.keys() - KNOWN
    if unknown:
        msg = f"{folder}: expected {', '.join(sorted(KNOWN))}, got {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    objects: list[Object] = []
    for name in told.get("resources", ()):
        place = (folder / name).resolve()
        objects += _resolved(place) if place.is_dir() else objects_of(place)
    for maker in told.get("configMapGenerator", ()):
        _add_config_map(objects, maker, folder)
    for patch in told.get("patches", ()):
        _patch(objects, patch, folder)
    for wanted in told.get("replicas", ()):
        _one(objects, "Deployment", wanted["name"])["spec"]["replicas"] = wanted["count"]
    for image in told.get("images", ()):
        _set_image(objects, image)
    for one in objects:
        if "namespace" in told and one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = told["namespace"]
    return objects


def _one(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def _add_config_map(objects: list[Object], maker: Object, folder: Path) -> None:
    data = {name: (folder / name).read_text() for name in maker["files"]}
    if maker.get("behavior") == "replace":
        _one(objects, "ConfigMap", maker["name"])["data"] = data
        return
    metadata = {"name": maker["name"]}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _patch(objects: list[Object], patch: Object, folder: Path) -> None:
    target = _one(objects, patch["target"]["kind"], patch["target"]["name"])
    for step in yaml.safe_load((folder / patch["path"]).read_text()):
        *way, last = [part for part in step["path"].split("/") if part]
        place: Any = target
        for part in way:
            place = place[_key(place, part)]
        _apply(place, _key(place, last), step)


def _key(place: Any, part: str) -> Any:
    return int(part) if isinstance(place, list) else part


def _apply(place: Any, key: Any, step: Object) -> None:
    if step["op"] in ("remove", "replace"):
        place[key]  # it has to be there
    if step["op"] == "remove":
        del place[key]
    elif isinstance(place, list) and step["op"] == "add":
        place.insert(key, step["value"])
    else:
        place[key] = step["value"]


def _set_image(objects: list[Object], image: Object) -> None:
    for one in objects:
        for container in containers(one):
            name, _, tag = container["image"].rpartition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def containers(one: Object) -> list[Object]:
    """Return the containers of a workload, those that run first included; of others none."""
    pod = one.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def _rename_config_maps(objects: list[Object]) -> None:
    """Give each ConfigMap a name that changes with what is in it, so that pods are made anew."""
    for one in objects:
        if one["kind"] == "ConfigMap":
            name = one["metadata"]["name"]
            digest = hashlib.sha256(repr(sorted(one["data"].items())).encode()).hexdigest()[:10]
            one["metadata"]["name"] = f"{name}-{digest}"
            _walk(objects, _renamer(name, f"{name}-{digest}"))


def _renamer(old: str, new: str) -> Callable[[Object], None]:
    def rename(place: Object) -> None:
        named = place.get("configMap")
        if isinstance(named, dict) and named.get("name") == old:
            place["configMap"] = deepcopy(named) | {"name": new}

    return rename


def _walk(place: Any, visit: Callable[[Object], None]) -> None:
    if isinstance(place, dict):
        visit(place)
        for inner in list(place.values()):
            _walk(inner, visit)
    elif isinstance(place, list):
        for inner in place:
            _walk(inner, visit)
