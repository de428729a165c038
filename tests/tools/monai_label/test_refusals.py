"""Bad requests to a live server: a status of 4xx, one sentence, and nothing written outside of the studies folder."""

import http.client
import json
import pickle
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is in the environment of `make test-label`")

pytestmark = [pytest.mark.label, pytest.mark.slow]

NEW = "phantom_005"
INFER = f"/infer/eoir?image={NEW}&output=json"
SCAN = "studies/phantom_000.nii.gz"
LABEL = "studies/labels/final/phantom_000.nii.gz"


def params(**values) -> dict:
    return {"data": {"params": json.dumps(values)}}


def sent(name: str, what: str | bytes, **values) -> dict:
    """A file that goes along: one of the server's folder, or these bytes."""
    return {"files": {name: what}, **params(**values)}


BAD = {
    "a path in moving": ("POST", INFER, params(moving="../studies/phantom_000"), 400),
    "an absolute moving": ("POST", INFER, params(moving="/etc/passwd"), 400),
    "an unknown moving": ("POST", INFER, params(moving="phantom_999"), 404),
    "moving equal to fixed": ("POST", INFER, params(moving=NEW), 400),
    "moving without a label": ("POST", "/infer/eoir?image=phantom_000", params(moving=NEW), 404),
    "moving as a number": ("POST", INFER, params(moving=3), 400),
    "moving as an object": ("POST", INFER, params(moving={"id": "phantom_000"}), 400),
    "moving with a dot first": ("POST", INFER, params(moving=".lock"), 400),
    "moving of 200 letters": ("POST", INFER, params(moving="a" * 200), 400),
    "a path as the image": ("POST", "/infer/eoir?image=../truth/phantom_005", params(moving="phantom_000"), 400),
    "an absolute image": ("POST", "/infer/eoir?image=/etc/passwd", params(moving="phantom_000"), 400),
    "an unknown image": ("POST", "/infer/eoir?image=phantom_999", params(moving="phantom_000"), 404),
    "an image in params": ("POST", "/infer/eoir?output=json", params(image="/etc/passwd", moving="phantom_000"), 400),
    "no image": ("POST", "/infer/eoir", params(moving="phantom_000"), 400),
    "a session": ("POST", "/infer/eoir?session_id=1", params(moving="phantom_000"), 400),
    "an unknown model": ("POST", f"/infer/unet?image={NEW}", params(moving="phantom_000"), 404),
    "a path as the model": ("POST", f"/infer/..%2Feoir?image={NEW}", params(moving="phantom_000"), 404),
    "params that are no JSON": ("POST", INFER, {"data": {"params": "{moving"}}, 400),
    "params that are a list": ("POST", INFER, {"data": {"params": "[1]"}}, 400),
    "params nested too deep": ("POST", INFER, {"data": {"params": "[" * 100_000}}, 400),
    "no atlas": ("POST", INFER, params(atlases=0), 400),
    "half an atlas": ("POST", INFER, params(atlases=1.5), 400),
    "NaN atlases": ("POST", INFER, {"data": {"params": '{"atlases": NaN}'}}, 400),
    "a tag that is a path": ("POST", INFER, params(moving="phantom_000", save_label=True, label_tag="../../x"), 400),
    "save_label as a word": ("POST", INFER, params(moving="phantom_000", save_label="perhaps"), 400),
    "an extension of its own": ("POST", INFER, params(moving="phantom_000", result_extension="/../x.nii.gz"), 400),
    "a device that is none": ("POST", INFER, params(moving="phantom_000", device="cpu; rm"), 400),
    "an output that is none": ("POST", f"/infer/eoir?image={NEW}&output=dicom_seg", params(moving="phantom_000"), 400),
    "an upload and an id": ("POST", INFER, sent("file", SCAN), 400),
    "an upload that is no image": ("POST", "/infer/eoir", sent("file", b"<html>"), 400),
    "an upload to be saved": ("POST", "/infer/eoir", sent("file", SCAN, save_label=True), 400),
    "an uploaded label of nobody": ("POST", INFER, sent("label", LABEL), 400),
    "weights": ("PUT", "/model/eoir", sent("file", b"weights"), 403),
    "weights to be deleted": ("DELETE", "/model/eoir", {}, 403),
    "a study with a path as its id": ("PUT", "/datastore/image?image=../../x", sent("file", SCAN), 400),
    "a study with an absolute id": ("PUT", "/datastore/image?image={outer}/x", sent("file", SCAN), 400),
    "a study that is there": ("PUT", "/datastore/image?image=phantom_000", sent("file", SCAN), 400),
    "a study that is no image": ("PUT", "/datastore/image?image=new", sent("file", b"no image"), 400),
    "a study whose params are no JSON": (
        "PUT",
        "/datastore/image?image=new",
        sent("file", SCAN) | {"data": {"params": "{"}},
        400,
    ),
    "a label of an unknown study": ("PUT", "/datastore/label?image=phantom_999", sent("label", LABEL), 404),
    "a label with a path as its tag": (
        "PUT",
        f"/datastore/label?image={NEW}&tag=../../x",
        sent("label", LABEL),
        400,
    ),
    "a label that is no label map": (
        "PUT",
        f"/datastore/label?image={NEW}",
        sent("label", b"no"),
        400,
    ),
    "a study to read by a path": ("GET", "/datastore/image?image=../truth/phantom_005", {}, 400),
    "a label to read by a path": ("GET", "/datastore/label?label=phantom_000&tag=../final", {}, 400),
    "a label to delete that is not there": ("DELETE", f"/datastore/label?id={NEW}&tag=final", {}, 404),
    "a study to delete by a path": ("DELETE", "/datastore/image?id=../truth/phantom_005", {}, 400),
    "a training of nothing": ("POST", "/train/svf", {}, 404),
    "epochs below one": ("POST", "/train/eoir", {"json": {"max_epochs": 0}}, 400),
    "epochs as a word": ("POST", "/train/eoir", {"json": {"max_epochs": "many"}}, 400),
    "everything for validation": ("POST", "/train/eoir", {"json": {"val_split": 1}}, 400),
    "a training without JSON": ("POST", "/train/eoir", {"data": "max_epochs"}, 400),
    "a strategy that is none": ("POST", "/activelearning/clever", {}, 400),
    "an unpacking session": ("PUT", "/session/?uncompress=true", sent("files", b"PK"), 404),
    "a proxied server": ("GET", "/proxy/dicom/wado/studies", {}, 404),
    "another host's name": ("GET", "/info/", {"headers": {"Host": "rebound.example"}}, 400),
}


def tree(root: Path) -> dict[str, bytes]:
    """Content of every file, the server's own log, lock and index excepted."""
    own = ("server.log", ".lock", "datastore_v2.json")
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name not in own}


def loaded(root: Path, arguments: dict) -> dict:
    """Arguments of a request, paths replaced by what their files hold."""
    files = {
        name: ("file.nii.gz", (root / value).read_bytes() if isinstance(value, str) else value)
        for name, value in arguments.get("files", {}).items()
    }
    return arguments | ({"files": files} if files else {})


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_costs_one_sentence_and_writes_nothing(server, case):
    """Neither in the studies folder nor around it: ids with ``..`` and absolute ones stay inside ``outer`` too."""
    method, path, arguments, status = BAD[case]
    outer = server.root.parent
    before = tree(outer)
    answer = server.ask(method, path.format(outer=outer), **loaded(server.root, arguments))
    assert answer.status_code == status, answer.text
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str) and "\n" not in sentence and "Traceback" not in sentence
    assert str(server.root) not in sentence
    assert tree(outer) == before


def test_an_upload_of_10_gb_is_refused_before_it_is_sent(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/infer/eoir")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(10 * 2**30))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert "MiB" in json.loads(answer.read())["detail"]
    connection.close()


def test_an_upload_that_does_not_say_its_length_is_stopped_at_the_limit(server):
    def body():
        head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
        yield head.encode()
        for _ in range(6):
            yield bytes(2**20)

    answer = server.ask("POST", "/infer/eoir", data=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    assert not server.unfinished


class Opens:
    """Pickled, it writes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_malicious_weights_are_not_taken_and_in_the_bundle_they_are_not_run(server):
    weights, mark = server.bundles[0] / "models" / "model.pt", server.root / "ran"
    malicious, good = pickle.dumps(Opens(mark)), weights.read_bytes()
    assert server.ask("PUT", "/model/eoir", files={"file": ("model.pt", malicious)}).status_code == 403
    assert weights.read_bytes() == good
    try:
        weights.write_bytes(malicious)
        answer = server.infer("eoir", NEW, moving="phantom_000")
    finally:
        weights.write_bytes(good)
    assert answer.status_code == 400
    assert "eoir/models/model.pt" in answer.json()["detail"] and str(server.root) not in answer.json()["detail"]
    assert not mark.exists()


def begun(server) -> socket.socket:
    """A client whose registration is at work: the server holds something of it in its temporary folder."""
    body = f"params={json.dumps({'moving': 'phantom_000'})}".encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(head.encode() + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + body)
    deadline = time.monotonic() + 60
    while not server.unfinished:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return client


def test_a_client_that_leaves_leaves_nothing_behind_and_the_server_goes_on(server):
    begun(server).close()
    assert server.ask("GET", "/info/").status_code == 200  # also while it works
    assert server.infer("eoir", NEW, moving="phantom_000").status_code == 200
    assert not server.unfinished


def test_a_server_that_was_killed_in_the_middle_starts_again_on_the_same_folder(server):
    before = tree(server.studies)
    client = begun(server)
    server.stop()
    assert server.unfinished
    client.close()
    server.start()
    assert tree(server.studies) == before
    assert server.infer("eoir", NEW, moving="phantom_000").status_code == 200
