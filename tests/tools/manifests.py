"""Builds every kustomization under deploy/kubernetes as `kubectl apply -k` would, as far as they use it (resources, strategic merge patches,
namespace, images), and holds the result against Kubernetes' own schemas and the restricted pod security standard.

    manifests.py deploy/kubernetes
"""

import pathlib
import sys
import tomllib

import kubernetes_validate
import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches", "images"}
# Of cert-manager's own API, whose schemas are not Kubernetes'.
FOREIGN = {"cert-manager.io/v1"}
# The name by which a list's entries are merged.
KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath", "ports": "containerPort"}


def merge(base, patch, field=""):
    """One strategic merge."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            merged[key] = merge(base[key], value, key) if key in base else value
        return merged
    if isinstance(base, list) and isinstance(patch, list) and field in KEYS:
        key = KEYS[field]
        named = {entry[key]: entry for entry in base}
        for entry in patch:
            named[entry[key]] = merge(named[entry[key]], entry) if entry[key] in named else entry
        return list(named.values())
    return patch


def identity(item):
    return item["apiVersion"], item["kind"], item["metadata"]["name"]


def build(folder):
    """The objects of a kustomization, by what they are."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(wanted) - KNOWN:
        sys.exit(f"{folder}: {unknown} is more than this tool knows")
    items = {}
    for resource in wanted["resources"]:
        path = folder / resource
        if path.is_dir():
            found = build(path).values()
        elif folder in path.parents and ".." not in resource:
            found = [item for item in yaml.safe_load_all(path.read_text()) if item]
        else:
            sys.exit(f"{folder}: kustomize reads no file outside its folder, such as {resource}")
        for item in found:
            if identity(item) in items:
                sys.exit(f"{folder}: {identity(item)} is there twice")
            items[identity(item)] = item
    for patch in wanted.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text())
        if identity(change) not in items:
            sys.exit(f"{folder}: {patch['path']} changes nothing that is there")
        items[identity(change)] = merge(items[identity(change)], change)
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in wanted.get("images", [])}
    for item in items.values():
        if item["kind"] != "Namespace":
            item["metadata"]["namespace"] = wanted["namespace"]
        for container in containers(item):
            container["image"] = images.get(container["image"], container["image"])
    return items


def pod(item):
    return item.get("spec", {}).get("template", {}).get("spec")


def containers(item):
    spec = pod(item) or {}
    return spec.get("initContainers", []) + spec.get("containers", [])


def check(where, item, items):
    """What Kubernetes' schemas do not ask."""
    name = f"{where}: {item['kind']} {item['metadata']['name']}"
    spec = pod(item)
    if not spec:
        return
    names = {kind: {known[2] for known in items if known[1] == kind} for kind in ("ConfigMap", "PersistentVolumeClaim")}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
    assert not claims & set(volumes), f"{name}: {claims} are volumes as well"
    assert spec["automountServiceAccountToken"] is False, f"{name}: it gets a token for the cluster"
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
    for volume in volumes.values():
        claimed = volume.get("persistentVolumeClaim", {}).get("claimName")
        assert claimed is None or claimed in names["PersistentVolumeClaim"], f"{name}: no claim {claimed}"
        mapped = volume.get("configMap", {}).get("name")
        assert mapped is None or mapped in names["ConfigMap"], f"{name}: no ConfigMap {mapped}"
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] & 0o007 == 0, f"{name}: everybody can read {volume['name']}"
    for container in containers(item):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], name
        assert rights["capabilities"] == {"drop": ["ALL"]}, name
        assert "memory" in container["resources"]["limits"] and container["resources"]["requests"], name
        assert ":" in container["image"] and not container["image"].endswith(":latest"), f"{name}: {container['image']}"
        for mount in container["volumeMounts"]:
            assert mount["name"] in claims | set(volumes), f"{name}: no volume {mount['name']}"
            # Files of a subPath are never replaced, so certificates may not come in one.
            assert "subPath" not in mount or "configMap" in volumes[mount["name"]], f"{name}: {mount}"
    if item["kind"] == "StatefulSet":
        assert ("v1", "Service", item["spec"]["serviceName"]) in items, f"{name}: no service {item['spec']['serviceName']}"
        # One broker has a ledger on its volume; several have one database, and a directory each.
        assert item["spec"]["replicas"] == 1 or claims, f"{name}: several brokers on one volume"


def check_service(where, service, items):
    """A service leads to pods that there are, by ports that they have."""
    name = f"{where}: Service {service['metadata']['name']}"
    wanted = dict(service["spec"]["selector"])
    alone = wanted.pop("statefulset.kubernetes.io/pod-name", None)
    found = [item for item in items.values() if pod(item) and wanted.items() <= item["spec"]["template"]["metadata"]["labels"].items()]
    assert len(found) == 1, f"{name}: it selects {len(found)} sets of pods"
    (behind,) = found
    pods = {f"{behind['metadata']['name']}-{number}" for number in range(behind["spec"]["replicas"])}
    assert alone is None or alone in pods, f"{name}: there is no pod {alone}"
    ports = {port["name"] for container in containers(behind) for port in container.get("ports", [])}
    for port in service["spec"]["ports"]:
        assert port["targetPort"] in ports, f"{name}: no port {port['targetPort']}"


def check_names(where, text, items):
    """The broker's own certificate names every service by which it is reached."""
    names = tomllib.loads(text).get("server_names")
    for item in items.values():
        if names and item["kind"] == "Service" and item["spec"].get("clusterIP") != "None":
            reached = f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc"
            assert reached in names, f"{where}: the certificate lacks {reached}"


def main():
    root = pathlib.Path(sys.argv[1])
    folders = sorted(path.parent for path in root.glob("*/kustomization.yaml"))
    assert len(folders) >= 8, folders
    for folder in folders:
        items = build(folder)
        for item in items.values():
            if item["apiVersion"] not in FOREIGN:
                kubernetes_validate.validate(item, "1.37", strict=True)
            check(folder, item, items)
            if item["kind"] == "Service":
                check_service(folder, item, items)
        configured = {key: item["data"] for key, item in items.items() if key[1] == "ConfigMap" and "broker.toml" in item["data"]}
        assert len(configured) == 1, f"{folder}: one configuration"
        text = next(iter(configured.values()))["broker.toml"]
        check_names(folder, text, items)
        if len(sys.argv) > 2:
            out = pathlib.Path(sys.argv[2]) / f"{folder.name}.toml"
            out.write_text(text)
        print(f"{folder}: {len(items)} objects")


main()
