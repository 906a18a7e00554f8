"""Real archives for tests, each private: Orthanc with its DICOMweb plugin, dcmtk's dcmqrscp; and a gate that breaks the line."""

import io
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom.dataset import Dataset

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
DCMQRSCP = shutil.which("dcmqrscp")
US = "PALMARES"

needs_orthanc = pytest.mark.skipif(
    not (Path(ORTHANC).exists() and PLUGIN.exists()), reason="no Orthanc with its DICOMweb plugin on this machine"
)
needs_dcmqrscp = pytest.mark.skipif(DCMQRSCP is None, reason="no dcmqrscp (dcmtk) on this machine")


@dataclass(frozen=True)
class Server:
    """An archive that runs: its DICOM port and title, and its DICOMweb address where it has one."""

    port: int
    title: str
    url: str = ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")


@contextmanager
def _running(command: list[str], *ports: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in ports:
            _wait(port, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def orthanc(folder: Path, *, limit: int = 0) -> Iterator[Server]:
    """An Orthanc that knows us by our title; `limit`: the most answers that it gives to a question."""
    folder.mkdir(parents=True, exist_ok=True)
    web, dicom = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": web,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowStore": True,
        "DicomModalities": {"us": [US, "127.0.0.1", 104]},
        "LimitFindResults": limit,
        "LimitFindInstances": limit,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings))
    with _running([ORTHANC, str(file)], web, dicom):
        yield Server(dicom, "ORTHANC", f"http://127.0.0.1:{web}/dicom-web")


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[Server]:
    """dcmtk's archive, with one storage area."""
    (folder / "area").mkdir(parents=True, exist_ok=True)
    port = free_port()
    file = folder / "dcmqrscp.cfg"
    file.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nus = ({US}, localhost, 104)\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMTK {folder / 'area'} RW (500, 1024mb) ANY\nAETable END\n"
    )
    with _running([str(DCMQRSCP), "-c", str(file)], port):
        yield Server(port, "DCMTK")


def store(server: Server, instances: Iterable[Dataset]) -> int:
    """Put instances into an archive, by its own door or by dcmtk's storescu; how many it took."""
    encoded = []
    for one in instances:
        file = io.BytesIO()
        one.save_as(file, enforce_file_format=True)
        encoded.append(file.getvalue())
    if server.url:
        base = server.url.removesuffix("/dicom-web")
        with httpx.Client() as client:
            return sum(client.post(f"{base}/instances", content=one).status_code == 200 for one in encoded)
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(encoded):
            (Path(folder) / f"{number}.dcm").write_bytes(one)
        command = ["storescu", "-v", "-nh", "+sd", "-aec", server.title, "127.0.0.1", str(server.port), folder]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        taken = (said.stdout + said.stderr).count("Received Store Response (Success)")
    return taken


class Gate:
    """A port before another one, that lets a number of bytes of answers through and then breaks the line; so many times.

    With `answer`, a line is not broken but answered with these bytes instead of the server's.
    """

    def __init__(self, port: int, *, after: int = 0, times: int = 0, answer: bytes = b"") -> None:
        self._target = port
        self._after = after
        self.left = times
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.lines = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                self.lines += 1
                threading.Thread(target=self._line, args=(ours,), daemon=True).start()

    def _line(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", self._target)) as theirs:
            threading.Thread(target=self._pump, args=(ours, theirs), daemon=True).start()
            passed = 0
            with suppress(OSError):
                while came := theirs.recv(4096):
                    if self.left > 0 and passed + len(came) > self._after:
                        self.left -= 1
                        ours.sendall(self._answer or came[: max(0, self._after - passed)])
                        ours.shutdown(socket.SHUT_RDWR)
                        return
                    passed += len(came)
                    ours.sendall(came)
                ours.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while came := source.recv(4096):
                target.sendall(came)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
